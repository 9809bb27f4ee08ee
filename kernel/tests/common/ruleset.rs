//! A ruleset with every kind of set and every statement.

use policy::ruleset::{
    BaseHook, Chain, ChainType, CtState, Element, Family, Field, Hook, KeyType, Part, Rule,
    Ruleset, Set, SetHeader, SetKind, Statement as S, Verdict,
};
use std::collections::BTreeMap;
use std::net::IpAddr;

pub fn ip(text: &str) -> Part {
    Part::Address(text.parse::<IpAddr>().unwrap())
}

pub fn set(key: &[KeyType], kind: SetKind, elements: Vec<(Element, Option<Verdict>)>) -> Set {
    let verdict_map = elements.iter().any(|(_, verdict)| verdict.is_some());
    let header = SetHeader {
        key: key.into(),
        kind,
        verdict_map,
        size: None,
    };
    Set {
        header,
        elements: elements.into_iter().collect(),
    }
}

pub fn plain(elements: Vec<Element>) -> Vec<(Element, Option<Verdict>)> {
    elements
        .into_iter()
        .map(|element| (element, None))
        .collect()
}

/// Every kind of set that the compiler can ask for.
pub fn sets() -> BTreeMap<String, Set> {
    use KeyType::*;
    let exact = |parts: &[Part]| Element::exact(parts);
    let range = |first: &str, last: &str| Element::range(ip(first), ip(last));
    let mut several = Element::exact(&[ip("10.0.0.1"), Part::Proto(6), Part::Port(80)]);
    several.end = Some(exact(&[ip("10.0.0.9"), Part::Proto(6), Part::Port(90)]).key);
    let mut one_of_several = Element::exact(&[ip("10.1.0.1"), Part::Proto(17), Part::Port(53)]);
    one_of_several.end = Some(one_of_several.key.clone());
    let jump = |chain: &str| Some(Verdict::Jump(chain.into()));
    let mut sized = set(
        &[Ipv4],
        SetKind::Hash,
        plain(vec![exact(&[ip("10.0.0.1")])]),
    );
    sized.header.size = Some(1024);
    let entries = [
        (
            "hash4",
            set(
                &[Ipv4],
                SetKind::Hash,
                plain(
                    (1..200)
                        .map(|n| exact(&[ip(&format!("10.0.0.{n}"))]))
                        .collect(),
                ),
            ),
        ),
        (
            "hash6",
            set(&[Ipv6], SetKind::Hash, plain(vec![exact(&[ip("fd00::1")])])),
        ),
        ("sized", sized),
        ("empty", set(&[Ipv4], SetKind::Hash, vec![])),
        (
            "iif-saddr",
            set(
                &[Ifindex, Ipv4],
                SetKind::Hash,
                plain(vec![exact(&[Part::Ifindex(7), ip("10.0.0.1")])]),
            ),
        ),
        (
            "iif-saddr6",
            set(
                &[Ifindex, Ipv6],
                SetKind::Hash,
                plain(vec![exact(&[Part::Ifindex(7), ip("fd00::1")])]),
            ),
        ),
        (
            "service",
            set(
                &[Ipv4, Proto, Port],
                SetKind::Hash,
                plain(vec![exact(&[
                    ip("10.0.0.1"),
                    Part::Proto(6),
                    Part::Port(80),
                ])]),
            ),
        ),
        (
            "ports",
            set(
                &[Proto, Port],
                SetKind::Hash,
                plain(vec![exact(&[Part::Proto(17), Part::Port(53)])]),
            ),
        ),
        (
            "cidr4",
            set(
                &[Ipv4],
                SetKind::Interval,
                plain(vec![
                    range("10.0.0.0", "10.0.255.255"),
                    range("10.1.0.0", "10.1.0.255"),
                    range("192.0.2.1", "192.0.2.1"),
                    range("240.0.0.0", "255.255.255.255"),
                ]),
            ),
        ),
        (
            "cidr6",
            set(
                &[Ipv6],
                SetKind::Interval,
                plain(vec![
                    range("::", "::ffff"),
                    range("fd00::", "fd00::ffff:ffff"),
                ]),
            ),
        ),
        (
            "ranges",
            set(
                &[Ipv4, Proto, Port],
                SetKind::Interval,
                plain(vec![several, one_of_several]),
            ),
        ),
        (
            "by-iif",
            set(
                &[Ifindex],
                SetKind::Hash,
                vec![
                    (exact(&[Part::Ifindex(7)]), jump("pod-7")),
                    (
                        exact(&[Part::Ifindex(8)]),
                        Some(Verdict::Goto("pod-8".into())),
                    ),
                    (exact(&[Part::Ifindex(9)]), Some(Verdict::Drop)),
                ],
            ),
        ),
        (
            "by-range",
            set(
                &[Ipv4],
                SetKind::Interval,
                vec![
                    (range("10.0.0.0", "10.0.255.255"), jump("pod-7")),
                    (range("172.16.0.0", "172.31.255.255"), Some(Verdict::Accept)),
                ],
            ),
        ),
    ];
    entries
        .into_iter()
        .map(|(name, set)| (name.to_owned(), set))
        .collect()
}

pub fn rule(statements: Vec<S>, comment: Option<&str>) -> Rule {
    Rule {
        statements,
        comment: comment.map(str::to_owned),
    }
}

/// Every statement, in rules as the compiler writes them.
pub fn forward_rules() -> Vec<Rule> {
    use Field::*;
    let v4 = || S::Family(Family::Ipv4);
    let v6 = || S::Family(Family::Ipv6);
    let look_up = |fields: &[Field], set: &str, negate| S::Lookup {
        fields: fields.into(),
        set: set.into(),
        negate,
    };
    let accept = || S::Verdict(Verdict::Accept);
    let drop = || S::Verdict(Verdict::Drop);
    vec![
        rule(
            vec![S::CtState(CtState::EstablishedOrRelated), accept()],
            Some("known connections"),
        ),
        rule(vec![S::CtState(CtState::Established), S::Counter], None),
        rule(vec![S::CtState(CtState::Invalid), S::Counter, drop()], None),
        rule(
            vec![v4(), look_up(&[Iif, Ipv4Saddr], "iif-saddr", true), drop()],
            Some("spoofed"),
        ),
        rule(
            vec![
                v6(),
                look_up(&[Iif, Ipv6Saddr], "iif-saddr6", false),
                accept(),
            ],
            None,
        ),
        rule(
            vec![
                v4(),
                look_up(&[Ipv4Saddr, L4Proto, Dport], "service", false),
                accept(),
            ],
            None,
        ),
        rule(
            vec![
                v4(),
                look_up(&[Ipv4Daddr, L4Proto, Dport], "ranges", false),
                accept(),
            ],
            None,
        ),
        rule(
            vec![
                look_up(&[L4Proto, Dport], "ports", false),
                S::Verdict(Verdict::Return),
            ],
            None,
        ),
        rule(
            vec![v4(), look_up(&[Ipv4Daddr], "cidr4", false), accept()],
            None,
        ),
        rule(
            vec![
                v6(),
                look_up(&[Ipv6Saddr], "cidr6", true),
                look_up(&[Ipv6Daddr], "hash6", false),
                drop(),
            ],
            None,
        ),
        rule(
            vec![S::VerdictMap {
                fields: vec![Iif],
                map: "by-iif".into(),
            }],
            None,
        ),
        rule(
            vec![
                v4(),
                S::VerdictMap {
                    fields: vec![Ipv4Saddr],
                    map: "by-range".into(),
                },
            ],
            None,
        ),
        rule(vec![S::L4Proto(6), S::DportRange(80, 90), accept()], None),
        rule(vec![S::L4Proto(17), S::DportRange(53, 53), accept()], None),
        rule(vec![S::CtMarkBits(0x10), accept()], None),
        rule(
            vec![S::CtMarkBits(0x20), S::L4Proto(6), S::RejectTcpReset],
            None,
        ),
        rule(vec![S::SetCtMarkBits(0x2000_0000), accept()], None),
        rule(vec![S::ClampMss], None),
        rule(
            vec![S::Iifname("eth0".into()), S::CtState(CtState::Untracked)],
            None,
        ),
        rule(
            vec![S::NamedCounter("counted".into()), drop()],
            Some("counted"),
        ),
        icmp(S::Family(Family::Ipv4), Family::Ipv4, None, false),
        icmp(S::Family(Family::Ipv4), Family::Ipv4, Some(4), true),
        icmp(S::Family(Family::Ipv6), Family::Ipv6, None, true),
        icmp(S::Family(Family::Ipv6), Family::Ipv6, Some(0), false),
        rule(
            vec![
                v6(),
                S::Icmpv6Type {
                    first: 133,
                    last: 136,
                },
                accept(),
            ],
            None,
        ),
        rule(
            vec![
                v6(),
                S::Icmpv6Type {
                    first: 135,
                    last: 135,
                },
                accept(),
            ],
            None,
        ),
        rule(
            vec![v6(), S::Ipv6LinkLocalSource, S::L4Proto(58), accept()],
            None,
        ),
        rule(
            vec![
                S::IifnamePrefix {
                    prefix: "oci".into(),
                    negate: true,
                },
                S::Verdict(Verdict::Jump("pod-7".into())),
            ],
            None,
        ),
        rule(
            vec![
                S::OifnamePrefix {
                    prefix: "oci".into(),
                    negate: false,
                },
                S::Verdict(Verdict::Goto("pod-8".into())),
            ],
            None,
        ),
        rule(
            vec![
                S::Limit {
                    per_second: 10,
                    burst: 7,
                },
                S::Log {
                    group: 4,
                    prefix: "denied: ".into(),
                },
                S::Counter,
                drop(),
            ],
            Some("the rest"),
        ),
    ]
}

/// The destination's translation, of both families.
fn host_port_rules() -> Vec<Rule> {
    let to = |family, address: &str| {
        let dnat = S::Dnat {
            address: address.parse().unwrap(),
            port: 80,
        };
        rule(vec![S::Family(family), S::L4Proto(6), dnat], None)
    };
    vec![
        to(Family::Ipv4, "10.244.0.5"),
        to(Family::Ipv6, "fd00:10:244::5"),
    ]
}

fn icmp(of_family: S, family: Family, code: Option<u8>, negate: bool) -> Rule {
    let message = S::Icmp {
        family,
        icmp_type: 3,
        code,
        negate,
    };
    rule(vec![of_family, message, S::Verdict(Verdict::Return)], None)
}

pub fn representative() -> Ruleset {
    let base = |hook, chain_type, priority, rules| Chain {
        hook: Some(BaseHook {
            hook,
            chain_type,
            priority,
        }),
        rules,
    };
    let leaf = |verdict| Chain {
        hook: None,
        rules: vec![rule(vec![S::Verdict(verdict)], None)],
    };
    let masquerade = rule(
        vec![
            S::Family(Family::Ipv4),
            S::Oifname("ipip.ocicat".into()),
            S::Masquerade,
        ],
        None,
    );
    let snat = |ports, protocol: Option<u8>| {
        let mut statements = vec![S::Family(Family::Ipv4)];
        statements.extend(protocol.map(S::L4Proto));
        statements.push(S::Snat {
            address: [192, 0, 2, 7].into(),
            ports,
        });
        rule(statements, None)
    };
    let masquerade_ports = S::MasqueradePorts {
        first: 32_768,
        last: 60_999,
    };
    let nat_rules = vec![
        snat(Some((1024, 2047)), Some(17)),
        snat(None, None),
        rule(vec![S::L4Proto(6), masquerade_ports], None),
        masquerade,
    ];
    let chains = [
        (
            "forward",
            base(Hook::Forward, ChainType::Filter, -10, forward_rules()),
        ),
        ("input", base(Hook::Input, ChainType::Filter, 0, vec![])),
        (
            "raw",
            base(
                Hook::Prerouting,
                ChainType::Filter,
                -300,
                vec![rule(vec![S::NoTrack, S::Verdict(Verdict::Accept)], None)],
            ),
        ),
        (
            "postrouting",
            base(Hook::Postrouting, ChainType::Nat, 90, nat_rules),
        ),
        (
            "to-port",
            base(
                Hook::Prerouting,
                ChainType::Nat,
                -100,
                vec![rule(
                    vec![
                        S::LocalDestination,
                        S::Verdict(Verdict::Jump("port".into())),
                    ],
                    None,
                )],
            ),
        ),
        (
            "port",
            Chain {
                hook: None,
                rules: host_port_rules(),
            },
        ),
        ("pod-7", leaf(Verdict::Accept)),
        ("pod-8", leaf(Verdict::Drop)),
    ];
    let chains = chains
        .into_iter()
        .map(|(name, chain)| (name.to_owned(), chain))
        .collect();
    Ruleset {
        sets: sets(),
        chains,
        counters: ["counted".to_owned()].into(),
    }
}
