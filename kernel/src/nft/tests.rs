use super::elements::Collector;
use super::expression::Expression;
use super::statement::{lower, raise};
use crate::netlink::Attributes;
use policy::ruleset::{
    CtState, Family, Field, KeyType, SetHeader, SetKind, Statement as S, Verdict,
};
use proptest::prelude::*;

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
        S::CtState(CtState::Established),
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
        S::Lookup {
            fields: vec![Field::Sport],
            set: "r".into(),
            negate: true,
        },
        S::VerdictMap {
            fields: vec![Field::Oif],
            map: "m".into(),
        },
        S::CtState(CtState::Untracked),
        S::Iifname("eth0".into()),
        S::Icmp {
            family: Family::Ipv4,
            icmp_type: 8,
            code: None,
            negate: false,
        },
        S::Icmp {
            family: Family::Ipv4,
            icmp_type: 3,
            code: Some(4),
            negate: true,
        },
        S::Icmp {
            family: Family::Ipv6,
            icmp_type: 128,
            code: None,
            negate: true,
        },
        S::Icmp {
            family: Family::Ipv6,
            icmp_type: 1,
            code: Some(4),
            negate: false,
        },
        S::SetCtMarkBits(0x10),
        S::NoTrack,
        S::RejectTcpReset,
        S::Reject,
        S::NamedCounter("n".into()),
        S::Counter,
        S::Limit {
            per_second: 10,
            burst: 5,
        },
        S::Log {
            group: 4,
            prefix: "x".into(),
        },
        S::Queue(7),
        S::LocalDestination,
        S::Dnat {
            address: [10, 244, 0, 5].into(),
            port: 80,
        },
        S::Dnat {
            address: "fd00::5".parse().unwrap(),
            port: 8080,
        },
        S::Masquerade,
        S::MasqueradePorts {
            first: 32_768,
            last: 60_999,
        },
        S::Snat {
            address: [192, 0, 2, 1].into(),
            ports: None,
        },
        S::Snat {
            address: "2001:db8::1".parse().unwrap(),
            ports: Some((1024, 2047)),
        },
        S::SetMarkBits(0x20),
        S::ClampMss,
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

proptest! {
    #[test]
    fn expressions_and_elements_of_any_bytes_are_decoded_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = Expression::decode(Attributes(&bytes));
        let mut collector = Collector::default();
        collector.push(Attributes(&bytes));
        let header = SetHeader {
            key: vec![KeyType::Ipv4],
            kind: SetKind::Interval,
            verdict_map: false,
            size: None,
        };
        let _ = collector.finish(&header);
    }

    #[test]
    fn what_is_cut_off_is_no_statement_or_another(
        which in 0..every_statement().len(),
        keep in 0..5_usize,
    ) {
        let statement = &every_statement()[which];
        let whole = lower(statement);
        let part = &whole[..keep.min(whole.len())];
        let raised = raise(part);
        prop_assert_eq!(raised == Some(vec![statement.clone()]), part.len() == whole.len());
    }
}
