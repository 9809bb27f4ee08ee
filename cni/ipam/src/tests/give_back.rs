use super::*;

/// An allocator that owns four blocks of four addresses.
fn four_blocks() -> Ipam {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/28", 30)]);
    for start in [0, 4, 8, 12] {
        ipam.claimed(block(&format!("10.0.0.{start}/30"), "n1"));
    }
    ipam
}

fn own(ipam: &Ipam) -> Vec<String> {
    ipam.own_blocks().map(|block| block.to_string()).collect()
}

#[test]
fn of_empty_blocks_one_is_kept() {
    let mut ipam = four_blocks();
    let idle = ["10.0.0.12/30", "10.0.0.8/30", "10.0.0.4/30"].map(net);
    assert_eq!(ipam.idle_blocks(), idle);
    for cidr in idle {
        assert!(ipam.give_back(cidr));
    }
    assert!(!ipam.give_back(net("10.0.0.0/30")));
    assert_eq!(own(&ipam), ["10.0.0.0/30"]);
    assert!(ipam.wanted_claims().is_empty());
}

#[test]
fn a_block_with_an_address_in_use_or_cooling_down_is_not_idle_and_enough_stays_free() {
    let mut ipam = four_blocks();
    for container in ["c1", "c2", "c3"] {
        ipam.assign(&v4(container), 0).unwrap();
    }
    // One address is left in the first block: less than half a block.
    assert_eq!(ipam.idle_blocks(), ["10.0.0.12/30", "10.0.0.8/30"].map(net));
    ipam.release(&owner("c1"), 0);
    let requested = [ip("10.0.0.12")];
    let last = AssignRequest {
        requested: &requested,
        ..v4("c4")
    };
    ipam.assign(&last, 0).unwrap();
    ipam.release(&owner("c4"), 0);
    ipam.tick(29_999);
    assert!(!ipam.idle_blocks().contains(&net("10.0.0.12/30")));
    ipam.tick(30_000);
    assert!(ipam.idle_blocks().contains(&net("10.0.0.12/30")));
}

#[test]
fn a_pool_that_gives_no_addresses_here_keeps_no_empty_block() {
    let mut ipam = four_blocks();
    ipam.assign(&v4("c1"), 0).unwrap();
    ipam.set_pool("a", None);
    let idle = ["10.0.0.12/30", "10.0.0.8/30", "10.0.0.4/30"].map(net);
    assert_eq!(ipam.idle_blocks(), idle);
}

#[test]
fn a_block_that_was_given_back_is_ours_again_by_a_claim_and_not_by_old_news() {
    let mut ipam = four_blocks();
    let cidr = net("10.0.0.12/30");
    assert!(ipam.give_back(cidr));
    assert!(!own(&ipam).contains(&cidr.to_string()));
    // News of the deletion, and of a claim before it.
    ipam.remove_block(cidr);
    ipam.set_block(block("10.0.0.12/30", "n1"));
    assert!(!own(&ipam).contains(&cidr.to_string()));
    let requested = [ip("10.0.0.13")];
    let request = AssignRequest {
        requested: &requested,
        ..v4("c1")
    };
    let refused = ipam.assign(&request, 0);
    assert_eq!(refused, Err(AssignError::NeedsBlock { block: cidr }));
    ipam.claimed(block("10.0.0.12/30", "n1"));
    assert!(ipam.assign(&request, 0).is_ok());
}

#[test]
fn a_tunnel_keeps_its_address_while_a_pool_wants_one() {
    let mut ipam = four_blocks();
    let ask = |ipam: &mut Ipam, wanted: bool| {
        let found = ipam.tunnel_address("t", crate::Family::V4, |_| wanted, 0);
        found.unwrap().map(|ip| ip.to_string())
    };
    assert_eq!(ask(&mut ipam, false), None);
    let first = ask(&mut ipam, true);
    assert_eq!(first, Some("10.0.0.0".to_owned()));
    assert_eq!(ask(&mut ipam, true), first);
    assert_eq!(ips(&ipam.assign(&v4("c1"), 0).unwrap()), ["10.0.0.1"]);
    // Its block is lost to another node.
    ipam.set_block(block("10.0.0.0/30", "n2"));
    assert_eq!(ask(&mut ipam, true), Some("10.0.0.4".to_owned()));
    assert_eq!(ask(&mut ipam, false), None);
    assert_eq!(ipam.owner(ip("10.0.0.4")), None);
}

#[test]
fn only_pools_for_tunnels_give_tunnels_an_address() {
    let workload = IpPool {
        allowed_uses: [AllowedUse::Workload].into(),
        ..pool("a", "10.0.0.0/28", 30)
    };
    let tunnel = IpPool {
        allowed_uses: [AllowedUse::Tunnel].into(),
        ..pool("b", "10.0.1.0/28", 30)
    };
    let mut ipam = ipam(&[workload, tunnel]);
    ipam.claimed(block("10.0.0.0/30", "n1"));
    let error = ipam
        .tunnel_address("t", crate::Family::V4, |_| true, 0)
        .unwrap_err();
    let AssignError::NeedsBlock { block: cidr } = error.source else {
        panic!("{error}")
    };
    ipam.claimed(block(&cidr.to_string(), "n1"));
    let found = ipam
        .tunnel_address("t", crate::Family::V4, |_| true, 0)
        .unwrap();
    assert!(cidr.contains(&found.unwrap()));
    assert_eq!(ips(&ipam.assign(&v4("c1"), 0).unwrap()), ["10.0.0.0"]);
}
