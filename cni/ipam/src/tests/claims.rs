use super::*;
use std::collections::BTreeSet;

fn claim_all(ipam: &mut Ipam) -> Vec<IpNet> {
    let wanted = ipam.wanted_claims();
    for cidr in &wanted {
        ipam.claimed(IpamBlock {
            cidr: *cidr,
            node: "n1".to_owned(),
        });
    }
    wanted
}

#[test]
fn a_block_of_every_automatic_pool_is_wanted_at_the_start_and_then_no_more() {
    let mut ipam = ipam(&[
        pool("a", "10.0.0.0/16", 26),
        pool("b", "fd00::/112", 122),
        IpPool {
            assignment_mode: AssignmentMode::Manual,
            ..pool("c", "10.9.0.0/16", 26)
        },
    ]);
    let wanted = claim_all(&mut ipam);
    assert_eq!(wanted.len(), 2);
    assert!(net("10.0.0.0/16").contains(&wanted[0]) && wanted[0].prefix_len() == 26);
    assert!(net("fd00::/112").contains(&wanted[1]) && wanted[1].prefix_len() == 122);
    assert!(ipam.wanted_claims().is_empty());
}

#[test]
fn the_next_block_is_wanted_before_the_last_quarter_is_gone() {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/16", 26)]);
    claim_all(&mut ipam);
    for pod in 0..48 {
        ipam.assign(&v4(&format!("c{pod}")), 0).unwrap();
        assert!(ipam.wanted_claims().is_empty(), "after pod {pod}");
    }
    ipam.assign(&v4("c48"), 0).unwrap();
    assert_eq!(claim_all(&mut ipam).len(), 1);
    assert!(ipam.wanted_claims().is_empty());
}

#[test]
fn a_refused_block_leads_to_another_candidate() {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/24", 26)]);
    let mut seen = BTreeSet::new();
    while let [cidr] = ipam.wanted_claims()[..] {
        assert!(seen.insert(cidr), "{cidr} again");
        ipam.refused(IpamBlock {
            cidr,
            node: "n2".to_owned(),
        });
    }
    assert_eq!(seen.len(), 4);
    assert_eq!(
        ipam.assign(&v4("c1"), 0).unwrap_err().to_string(),
        "no IPv4 address is left: pool a (10.0.0.0/24): 4 of 4 blocks claimed, 0 by this node, \
         where 0 of 0 addresses are in use and 0 cool down"
    );
}

#[test]
fn nodes_start_at_different_blocks_and_each_always_at_the_same() {
    let first = |node: &str| {
        let mut ipam = Ipam::new(node);
        ipam.set_pool("a", Some(pool("a", "10.0.0.0/8", 26)));
        ipam.wanted_claims()[0]
    };
    let blocks: BTreeSet<IpNet> = (0..200).map(|n| first(&format!("node-{n}"))).collect();
    assert!(blocks.len() >= 199, "{} different", blocks.len());
    assert_eq!(first("node-7"), first("node-7"));
}

#[test]
fn every_block_of_a_pool_is_found_in_the_end() {
    for (cidr, size, count) in [
        ("10.0.0.0/20", 28, 256),
        ("10.0.0.0/20", 20, 1),
        ("fd00::/120", 128, 256),
    ] {
        let mut ipam = ipam(&[pool("a", cidr, size)]);
        let mut found = BTreeSet::new();
        while let [block] = ipam.wanted_claims()[..] {
            assert!(net(cidr).contains(&block));
            assert!(found.insert(block));
            ipam.set_block(IpamBlock {
                cidr: block,
                node: "n2".to_owned(),
            });
        }
        assert_eq!(found.len(), count, "{cidr} in /{size}");
    }
}

#[test]
fn candidates_avoid_blocks_of_another_size() {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/24", 26)]);
    ipam.set_block(block("10.0.0.0/25", "n2"));
    ipam.set_block(block("10.0.0.129/32", "n3"));
    assert_eq!(ipam.wanted_claims(), [net("10.0.0.192/26")]);
}

#[test]
fn a_block_that_an_earlier_process_claimed_is_ours() {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/24", 26)]);
    let cidr = ipam.wanted_claims()[0];
    ipam.refused(IpamBlock {
        cidr,
        node: "n1".to_owned(),
    });
    assert_eq!(ipam.own_blocks().collect::<Vec<_>>(), [cidr]);
    assert!(ipam.assign(&v4("c1"), 0).is_ok());
}

#[test]
fn the_datastore_decides_between_two_claims_and_both_nodes_are_named() {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/26", 26)]);
    ipam.claimed(block("10.0.0.0/26", "n1"));
    ipam.assign(&v4("c1"), 0).unwrap();
    ipam.set_block(block("10.0.0.0/26", "n2"));

    let conflicts: Vec<String> = ipam.conflicts().iter().map(ToString::to_string).collect();
    assert_eq!(
        conflicts,
        [
            "block 10.0.0.0/26 is claimed by nodes n1 and n2 (as 10.0.0.0/26); addresses in use by n1: 1"
        ]
    );
    assert_eq!(ipam.own_blocks().count(), 0);
    assert!(matches!(
        ipam.assign(&v4("c2"), 0),
        Err(AssignError::Exhausted { .. })
    ));
    let requested = [ip("10.0.0.9")];
    let request = AssignRequest {
        requested: &requested,
        ..v4("c3")
    };
    assert!(
        matches!(ipam.assign(&request, 0), Err(AssignError::ForeignBlock { node, .. }) if node == "n2")
    );

    assert_eq!(
        ips(&ipam.assign(&v4("c1"), 0).unwrap()),
        ["10.0.0.0"],
        "a running pod keeps its address"
    );
    ipam.release(&owner("c1"), 0);
    assert!(ipam.conflicts().is_empty());
}

#[test]
fn a_block_that_overlaps_somebody_elses_gives_out_nothing_but_stays_advertised() {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/26", 26)]);
    ipam.claimed(block("10.0.0.0/26", "n1"));
    ipam.set_block(block("10.0.0.32/28", "n2"));
    assert!(matches!(
        ipam.assign(&v4("c1"), 0),
        Err(AssignError::Exhausted { .. })
    ));
    let requested = [ip("10.0.0.1")];
    let request = AssignRequest {
        requested: &requested,
        ..v4("c1")
    };
    assert!(matches!(
        ipam.assign(&request, 0),
        Err(AssignError::ForeignBlock { .. })
    ));
    assert_eq!(ipam.own_blocks().count(), 1);
    assert_eq!(ipam.conflicts()[0].other_block, net("10.0.0.32/28"));
    ipam.remove_block(net("10.0.0.32/28"));
    assert!(ipam.conflicts().is_empty());
    assert!(ipam.assign(&v4("c1"), 0).is_ok());
}

#[test]
fn an_empty_block_that_vanishes_is_forgotten() {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/26", 26)]);
    ipam.claimed(block("10.0.0.0/26", "n1"));
    ipam.remove_block(net("10.0.0.0/26"));
    assert_eq!(ipam.own_blocks().count(), 0);
    assert!(matches!(
        ipam.assign(&v4("c1"), 0),
        Err(AssignError::NeedsBlock { .. })
    ));
}

#[test]
fn a_block_in_use_that_vanishes_is_wanted_again_and_gives_out_nothing_until_then() {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/26", 26)]);
    ipam.claimed(block("10.0.0.0/26", "n1"));
    ipam.assign(&v4("c1"), 0).unwrap();
    ipam.remove_block(net("10.0.0.0/26"));
    assert_eq!(ipam.own_blocks().count(), 1);
    assert_eq!(ipam.wanted_claims(), [net("10.0.0.0/26")]);
    assert!(
        matches!(ipam.assign(&v4("c2"), 0), Err(AssignError::NeedsBlock { block }) if block == net("10.0.0.0/26"))
    );
    ipam.claimed(block("10.0.0.0/26", "n1"));
    assert_eq!(ips(&ipam.assign(&v4("c2"), 0).unwrap()), ["10.0.0.1"]);
}

#[test]
fn a_full_pool_of_many_blocks_is_still_answered() {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/16", 30)]);
    for index in 0..16_384u32 {
        let first = std::net::Ipv4Addr::from(0x0a00_0000 + index * 4);
        ipam.set_block(block(&format!("{first}/30"), "n2"));
    }
    assert!(matches!(
        ipam.assign(&v4("c1"), 0),
        Err(AssignError::Exhausted { .. })
    ));
    ipam.remove_block(net("10.0.77.4/30"));
    assert_eq!(ipam.wanted_claims(), [net("10.0.77.4/30")]);
}

#[test]
fn the_journal_does_not_overrule_the_datastore_whichever_is_read_first() {
    let journal = |ipam: &mut Ipam| {
        let mut state = crate::journal::State::default();
        state
            .blocks
            .insert(net("10.0.0.0/26"), block("10.0.0.0/26", "n1"));
        state
            .blocks
            .insert(net("10.0.0.64/26"), block("10.0.0.64/26", "n1"));
        state.apply(&endpoint_record("c1", "10.0.0.0"));
        ipam.restore(&state);
    };
    let datastore = |ipam: &mut Ipam| ipam.set_block(block("10.0.0.0/26", "n2"));
    let steps: [&dyn Fn(&mut Ipam); 2] = [&journal, &datastore];
    for order in [[0, 1], [1, 0]] {
        let mut ipam = ipam(&[pool("a", "10.0.0.0/24", 26)]);
        order.iter().for_each(|step| steps[*step](&mut ipam));
        assert_eq!(ipam.own_blocks().collect::<Vec<_>>(), [net("10.0.0.64/26")]);
        assert_eq!(ipam.conflicts()[0].other, "n2");
        assert_eq!(ips(&ipam.assign(&v4("c1"), 0).unwrap()), ["10.0.0.0"]);
        assert_eq!(ips(&ipam.assign(&v4("c2"), 0).unwrap()), ["10.0.0.64"]);
    }
}
