use super::statement::{lower, raise};
use policy::ruleset::{CtState, Family, Field, Statement as S, Verdict};

fn every_statement() -> Vec<S> {
    let fields = [Field::Iif, Field::Ipv4Saddr, Field::L4Proto, Field::Dport];
    vec![
        S::Family(Family::Ipv4),
        S::Family(Family::Ipv6),
        S::IifnamePrefix {
            prefix: "oci".into(),
            negate: false,
        },
        S::OifnamePrefix {
            prefix: "oci".into(),
            negate: true,
        },
        S::Oifname("ipip.ocicat".into()),
        S::L4Proto(6),
        S::L4Proto(58),
        S::DportRange(80, 80),
        S::DportRange(80, 90),
        S::CtState(CtState::EstablishedOrRelated),
        S::CtState(CtState::Invalid),
        S::CtMarkBits(0x10),
        S::Icmpv6Type {
            first: 133,
            last: 136,
        },
        S::Icmpv6Type {
            first: 135,
            last: 135,
        },
        S::Ipv6LinkLocalSource,
        S::Lookup {
            fields: fields.into(),
            set: "s".into(),
            negate: false,
        },
        S::Lookup {
            fields: vec![Field::Ipv6Daddr, Field::Sport],
            set: "t".into(),
            negate: true,
        },
        S::VerdictMap {
            fields: vec![Field::Oif],
            map: "m".into(),
        },
        S::Counter,
        S::Limit {
            per_second: 10,
            burst: 5,
        },
        S::Log {
            group: 4,
            prefix: "x".into(),
        },
        S::Masquerade,
        S::Verdict(Verdict::Accept),
        S::Verdict(Verdict::Goto("c".into())),
    ]
}

#[test]
fn every_pair_of_statements_is_recognised_from_its_expressions() {
    let all = every_statement();
    for first in &all {
        for second in &all {
            let expressions = [lower(first), lower(second)].concat();
            assert_eq!(
                raise(&expressions),
                Some(vec![first.clone(), second.clone()])
            );
        }
    }
}

#[test]
fn expressions_that_we_never_write_are_not_recognised() {
    let mut expressions = lower(&S::Ipv6LinkLocalSource);
    expressions.swap(1, 2);
    assert_eq!(raise(&expressions), None);
    assert_eq!(raise(&lower(&S::L4Proto(6))[..1]), None);
}
