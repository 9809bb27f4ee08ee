use super::*;
use crate::wire::AsPath;
use proptest::prelude::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn prefix_match(text: &str, operator: MatchOperator, min: Option<u8>, max: Option<u8>) -> Matches {
    Matches {
        prefix: Some(PrefixMatch {
            prefix: net(text),
            operator,
            length: PrefixLength { min, max },
        }),
        ..Matches::default()
    }
}

fn route<'a>(prefix: &str, attributes: &'a Attributes) -> Route<'a> {
    Route {
        prefix: net(prefix),
        attributes,
        source: RouteSource::RemotePeers,
        peer_type: PeerType::External,
        interface: None,
        priority: None,
    }
}

fn community(text: &str) -> Community {
    text.parse().unwrap()
}

#[test]
fn prefixes_compare_as_the_operator_says() {
    use MatchOperator::{Equal, In, NotEqual, NotIn};
    let cases = [
        ("10.0.0.0/8", Equal, None, None, "10.0.0.0/8", true),
        ("10.0.0.0/8", Equal, None, None, "10.0.0.0/9", false),
        ("10.9.9.9/8", Equal, None, None, "10.0.0.0/8", true),
        ("10.0.0.0/8", NotEqual, None, None, "10.0.0.0/9", true),
        ("10.0.0.0/8", NotEqual, None, None, "10.0.0.0/8", false),
        ("10.0.0.0/8", In, None, None, "10.1.0.0/16", true),
        ("10.0.0.0/8", In, None, None, "10.0.0.0/8", true),
        ("10.0.0.0/8", In, None, None, "0.0.0.0/0", false),
        ("10.0.0.0/8", In, Some(16), Some(24), "10.0.0.0/8", false),
        ("10.0.0.0/8", In, Some(16), Some(24), "10.1.0.0/16", true),
        ("10.0.0.0/8", In, Some(16), Some(24), "10.1.1.0/24", true),
        ("10.0.0.0/8", In, Some(16), Some(24), "10.1.1.1/32", false),
        ("10.0.0.0/8", NotIn, None, None, "11.0.0.0/8", true),
        ("10.0.0.0/8", NotIn, None, None, "10.1.0.0/16", false),
        ("10.0.0.0/8", NotIn, Some(16), None, "10.0.0.0/9", true),
        ("10.0.0.0/8", NotIn, None, None, "fd00::/8", false),
        ("fd00::/8", In, None, Some(64), "fd00:1::/64", true),
        ("fd00::/8", In, None, Some(64), "fd00:1::1/128", false),
        ("fd00::/8", NotEqual, None, None, "10.0.0.0/8", false),
    ];
    let attributes = Attributes::default();
    for (wanted, operator, min, max, prefix, holds) in cases {
        let matches = prefix_match(wanted, operator, min, max);
        let route = route(prefix, &attributes);
        assert_eq!(
            matches.hold(&route),
            holds,
            "{operator:?} {wanted} {min:?} {max:?}: {prefix}"
        );
    }
}

#[test]
fn a_prefix_list_permits_what_its_first_fitting_entry_does() {
    let bounds = |min, max| PrefixLength { min, max };
    let list = PrefixList {
        entries: vec![
            (Action::Reject, net("10.1.0.0/16"), bounds(None, Some(32))),
            (
                Action::Accept,
                net("10.0.0.0/8"),
                bounds(Some(16), Some(24)),
            ),
            (Action::Accept, net("192.0.2.0/24"), PrefixLength::default()),
        ],
    };
    for (prefix, permitted) in [
        ("10.1.2.0/24", false),
        ("10.2.0.0/16", true),
        ("10.2.2.0/25", false),
        ("192.0.2.0/24", true),
        ("192.0.2.0/25", false),
        ("198.51.100.0/24", false),
    ] {
        assert_eq!(list.permits(&net(prefix)), permitted, "{prefix}");
        let matches = Matches {
            prefix_list: Some(Arc::new(list.clone())),
            ..Matches::default()
        };
        assert_eq!(
            matches.hold(&route(prefix, &Attributes::default())),
            permitted
        );
    }
}

#[test]
fn every_condition_of_a_rule_has_to_hold() {
    let attributes = Attributes {
        as_path: AsPath::from_sequence(vec![65001, 65002, 65003]),
        communities: vec![0xfde8_0064],
        large_communities: vec![[65000, 1, 2]],
        ..Attributes::default()
    };
    let seen = Route {
        interface: Some("eth0.calico"),
        priority: Some(1024),
        ..route("10.0.0.0/24", &attributes)
    };
    let all = Matches {
        family: Some(Family::IPV4),
        source: Some(RouteSource::RemotePeers),
        interface: Some("*.calico".into()),
        peer_type: Some(PeerType::External),
        communities: vec![community("65000:100"), community("65000:1:2")],
        as_path_prefix: vec![65001, 65002],
        priority: Some(1024),
        ..Matches::default()
    };
    assert!(all.hold(&seen));
    let wrong = [
        Matches {
            family: Some(Family::IPV6),
            ..all.clone()
        },
        Matches {
            source: Some(RouteSource::Local),
            ..all.clone()
        },
        Matches {
            interface: Some("*.calic".into()),
            ..all.clone()
        },
        Matches {
            peer_type: Some(PeerType::Internal),
            ..all.clone()
        },
        Matches {
            communities: vec![community("65000:100"), community("65000:101")],
            ..all.clone()
        },
        Matches {
            as_path_prefix: vec![65001, 65003],
            ..all.clone()
        },
        Matches {
            as_path_prefix: vec![65001, 65002, 65003, 65004],
            ..all.clone()
        },
        Matches {
            priority: Some(512),
            ..all.clone()
        },
    ];
    for matches in wrong {
        assert!(!matches.hold(&seen), "{matches:?}");
    }
    let bare = route("10.0.0.0/24", &attributes);
    assert!(!all.hold(&bare), "neither interface nor priority is known");
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rule = |prefix: &str, action| Rule {
        matches: prefix_match(prefix, MatchOperator::In, None, None),
        action,
        operations: Vec::new(),
    };
    let filter = Filter {
        rules: vec![
            rule("10.1.0.0/16", Action::Reject),
            rule("10.0.0.0/8", Action::Accept),
        ],
    };
    let attributes = Attributes::default();
    let decided = |prefix: &str| {
        let decided = filter.decide(&route(prefix, &attributes));
        decided.map(|(place, rule)| (place, rule.action))
    };
    assert_eq!(decided("10.1.1.0/24"), Some((0, Action::Reject)));
    assert_eq!(decided("10.2.1.0/24"), Some((1, Action::Accept)));
    assert_eq!(decided("192.0.2.0/24"), None);
}

#[test]
fn operations_change_a_route_in_order() {
    let rule = Rule {
        matches: Matches::default(),
        action: Action::Accept,
        operations: vec![
            Operation::AddCommunity(community("65000:1")),
            Operation::AddCommunity(community("65000:1")),
            Operation::AddCommunity(community("65000:1:2")),
            Operation::AddCommunity(community("ext:0002fde800000001")),
            Operation::RemoveCommunity(community("no-export")),
            Operation::PrependAsPath(vec![65010, 65011]),
            Operation::SetLocalPref(200),
            Operation::SetMed(5),
            Operation::SetPriority(512),
        ],
    };
    let mut attributes = Attributes {
        as_path: AsPath::from_sequence(vec![65001]),
        communities: vec![0xffff_ff01],
        ..Attributes::default()
    };
    let mut priority = None;
    rule.apply(&mut attributes, &mut priority);
    let expected = Attributes {
        as_path: AsPath::from_sequence(vec![65010, 65011, 65001]),
        communities: vec![0xfde8_0001],
        large_communities: vec![[65000, 1, 2]],
        extended_communities: vec![[0, 2, 0xfd, 0xe8, 0, 0, 0, 1]],
        local_pref: Some(200),
        med: Some(5),
        ..Attributes::default()
    };
    assert_eq!((attributes, priority), (expected, Some(512)));
}

#[test]
fn communities_read_as_they_are_written() {
    for text in [
        "65000:100",
        "0:0",
        "4294967295:0:1",
        "ext:0002fde800000001",
        "no-export",
        "graceful-shutdown",
    ] {
        assert_eq!(community(text).to_string(), text);
    }
    assert_eq!(community("65535:0"), Community::GRACEFUL_SHUTDOWN);
    for text in [
        "",
        "1",
        "65536:1",
        "1:65536",
        "+1:2",
        "1:2:3:4",
        "1: 2",
        "ext:1",
        "4294967296:0:0",
    ] {
        let error = text.parse::<Community>().unwrap_err();
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}

proptest! {
    #[test]
    fn a_pattern_means_what_its_regular_expression_does(
        pattern in "[ab?*]{0,8}", name in "[ab]{0,8}",
    ) {
        fn reference(pattern: &[u8], name: &[u8]) -> bool {
            match (pattern.split_first(), name.split_first()) {
                (None, rest) => rest.is_none(),
                (Some((b'*', more)), None) => reference(more, name),
                (Some((b'*', more)), Some((_, tail))) => {
                    reference(more, name) || reference(pattern, tail)
                }
                (Some((b'?', more)), Some((_, tail))) => reference(more, tail),
                (Some((wanted, more)), Some((first, tail))) => {
                    wanted == first && reference(more, tail)
                }
                (Some(_), None) => false,
            }
        }
        prop_assert_eq!(
            is_like(pattern.as_bytes(), name.as_bytes()),
            reference(pattern.as_bytes(), name.as_bytes())
        );
    }

    #[test]
    fn a_negated_operator_is_the_rest_of_the_family(
        wanted: u32, length in 0..=32_u8, other: u32, other_length in 0..=32_u8,
        min in prop::option::of(0..=32_u8), max in prop::option::of(0..=32_u8),
    ) {
        let net = |address: u32, length| {
            IpNet::V4(ipnet::Ipv4Net::new(address.into(), length).unwrap().trunc())
        };
        let holds = |operator| PrefixMatch {
            prefix: net(wanted, length),
            operator,
            length: PrefixLength { min, max },
        }.holds(&net(other, other_length));
        prop_assert_ne!(holds(MatchOperator::Equal), holds(MatchOperator::NotEqual));
        prop_assert_ne!(holds(MatchOperator::In), holds(MatchOperator::NotIn));
    }
}
