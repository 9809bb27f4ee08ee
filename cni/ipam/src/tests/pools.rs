use super::*;
use crate::Unusable;
use model::Labels;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn rejected(error: AssignError) -> Vec<(String, Unusable)> {
    match error {
        AssignError::NoPool { rejected, .. } => rejected,
        other => panic!("{other}"),
    }
}

#[test]
fn without_a_usable_pool_the_error_says_why_each_is_not() {
    let zone = || Selector::Eq("zone".into(), "east".into());
    let mut ipam = ipam(&[
        IpPool {
            disabled: true,
            ..pool("a", "10.1.0.0/24", 26)
        },
        IpPool {
            assignment_mode: AssignmentMode::Manual,
            ..pool("b", "10.2.0.0/24", 26)
        },
        IpPool {
            node_selector: zone(),
            ..pool("c", "10.3.0.0/24", 26)
        },
        IpPool {
            namespace_selector: Some(zone()),
            ..pool("d", "10.4.0.0/24", 26)
        },
        IpPool {
            allowed_uses: [AllowedUse::Tunnel].into(),
            ..pool("e", "10.5.0.0/24", 26)
        },
        pool("f", "fd00::/112", 122),
    ]);
    let reasons = rejected(ipam.assign(&v4("c1"), 0).unwrap_err());
    let expected = [
        ("a", Unusable::Disabled),
        ("b", Unusable::Manual),
        ("c", Unusable::Node),
        ("d", Unusable::Namespace),
        (
            "e",
            Unusable::NotFor {
                purpose: AllowedUse::Workload,
            },
        ),
    ];
    assert_eq!(reasons, expected.map(|(name, why)| (name.to_owned(), why)));

    let labels = labels(&[("zone", "east")]);
    let request = AssignRequest {
        namespace_labels: Some(&labels),
        ..v4("c1")
    };
    assert_eq!(assign(&mut ipam, &request, 0).unwrap()[0].pool, "d");
    ipam.set_node_labels(labels);
    assert_eq!(assign(&mut ipam, &v4("c2"), 0).unwrap()[0].pool, "c");
}

#[test]
fn a_pool_is_asked_for_by_name_or_cidr_whatever_it_selects() {
    let mut ipam = ipam(&[
        pool("a", "10.1.0.0/24", 26),
        IpPool {
            assignment_mode: AssignmentMode::Manual,
            node_selector: Selector::None,
            ..pool("b", "10.2.0.0/24", 26)
        },
        pool("c", "fd00::/112", 122),
    ]);
    for (container, name) in [("c1", "b"), ("c2", "10.2.0.0/24")] {
        let names = Pools {
            any: vec![name.to_owned()],
            ..Pools::default()
        };
        let request = AssignRequest {
            pools: &names,
            ..dual(container)
        };
        let found = assign(&mut ipam, &request, 0).unwrap();
        assert_eq!((found[0].pool.as_str(), found[1].pool.as_str()), ("b", "c"));
    }
}

#[test]
fn a_pool_that_is_asked_for_exists_and_is_enabled() {
    let mut ipam = ipam(&[IpPool {
        disabled: true,
        ..pool("a", "10.1.0.0/24", 26)
    }]);
    let mut ask = |name: &str| {
        let names = Pools {
            any: vec![name.to_owned()],
            ..Pools::default()
        };
        let request = AssignRequest {
            pools: &names,
            ..v4("c1")
        };
        ipam.assign(&request, 0).unwrap_err().to_string()
    };
    assert_eq!(ask("a"), "pool a: it is disabled");
    assert_eq!(ask("x"), "there is no pool with the name or CIDR \"x\"");
    assert_eq!(
        ask("10.1.0.0/25"),
        "there is no pool with the name or CIDR \"10.1.0.0/25\""
    );
}

#[test]
fn a_disabled_pool_keeps_what_it_gave_and_gives_no_more() {
    let a = pool("a", "10.1.0.0/24", 26);
    let mut ipam = ipam(std::slice::from_ref(&a));
    let held = assign(&mut ipam, &v4("c1"), 0).unwrap();
    ipam.set_pool(
        "a",
        Some(IpPool {
            disabled: true,
            ..a
        }),
    );
    assert_eq!(ipam.assign(&v4("c1"), 0).unwrap(), held);
    assert_eq!(
        rejected(ipam.assign(&v4("c2"), 0).unwrap_err()),
        [("a".to_owned(), Unusable::Disabled)]
    );
    assert!(ipam.wanted_claims().is_empty());
    let requested = [ip("10.1.0.200")];
    let request = AssignRequest {
        requested: &requested,
        ..v4("c3")
    };
    assert_eq!(
        ipam.assign(&request, 0).unwrap_err().to_string(),
        "pool a: it is disabled"
    );
}

#[test]
fn of_two_pools_that_overlap_one_is_used_and_the_other_reported() {
    let mut ipam = ipam(&[pool("b", "10.1.0.0/16", 26), pool("a", "10.1.2.0/24", 28)]);
    let overlaps: Vec<String> = ipam.overlaps().iter().map(ToString::to_string).collect();
    assert_eq!(overlaps, ["pool b overlaps pool a and is not used"]);
    assert_eq!(assign(&mut ipam, &v4("c1"), 0).unwrap()[0].pool, "a");
    assert_eq!(ipam.families(), (true, false));
}

#[test]
fn adding_a_pool_that_overlaps_never_stops_the_one_in_use() {
    let mut ipam = ipam(&[pool("b", "10.1.0.0/16", 26)]);
    ipam.set_block(block("10.1.9.0/26", "n7"));
    ipam.set_pool("a", Some(pool("a", "10.1.2.0/24", 28)));
    assert_eq!(ipam.overlaps()[0].refused, "a");
    assert_eq!(assign(&mut ipam, &v4("c1"), 0).unwrap()[0].pool, "b");
}

#[test]
fn overlap_does_not_depend_on_the_order_in_which_pools_appear() {
    let (a, b) = (pool("a", "10.1.0.0/16", 26), pool("b", "10.1.2.0/24", 28));
    assert_eq!(
        ipam(&[a.clone(), b.clone()]).overlaps(),
        ipam(&[b, a]).overlaps()
    );
}

#[test]
fn a_block_whose_pool_is_gone_keeps_its_addresses_and_is_named() {
    let mut ipam = ipam(&[pool("a", "10.1.0.0/24", 26)]);
    ipam.claimed(block("10.1.0.64/26", "n1"));
    let held = ipam.assign(&v4("c1"), 0).unwrap();
    assert_eq!(ipam.without_pool().count(), 0);
    ipam.set_pool("a", None);
    let named: Vec<_> = ipam.without_pool().collect();
    assert_eq!(named.len(), 1);
    assert!(
        named[0].1 == 1 && named[0].0.prefix_len() == 26,
        "{named:?}"
    );
    let again = ipam.assign(&v4("c1"), 0).unwrap();
    assert_eq!(ips(&again), ips(&held));
    assert!(rejected(ipam.assign(&v4("c2"), 0).unwrap_err()).is_empty());
    ipam.set_pool("a", Some(pool("a", "10.1.0.0/24", 26)));
    assert_eq!(ipam.without_pool().count(), 0);
}
