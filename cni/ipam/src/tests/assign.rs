use super::*;

/// An allocator that owns 10.0.0.0/30 of pool `a`.
fn four_addresses() -> Ipam {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/30", 30)]);
    ipam.claimed(block("10.0.0.0/30", "n1"));
    ipam
}

fn one(ipam: &mut Ipam, container: &str, now: u64) -> String {
    ipam.assign(&v4(container), now).unwrap()[0].ip.to_string()
}

#[test]
fn the_same_owner_gets_the_same_address_again() {
    let mut ipam = four_addresses();
    let first = ipam.assign(&v4("c1"), 0).unwrap();
    assert_eq!(ipam.assign(&v4("c1"), 1).unwrap(), first);
    assert_eq!(
        first,
        [Assignment {
            ip: ip("10.0.0.0"),
            pool: "a".into(),
            block: net("10.0.0.0/30")
        }]
    );
    assert_eq!(one(&mut ipam, "c2", 2), "10.0.0.1");
}

#[test]
fn two_interfaces_of_one_container_are_two_owners() {
    let mut ipam = four_addresses();
    one(&mut ipam, "c1", 0);
    let mut second = v4("c1");
    second.owner.ifname = "net1".to_owned();
    assert_eq!(ips(&ipam.assign(&second, 0).unwrap()), ["10.0.0.1"]);
}

#[test]
fn unused_addresses_come_before_released_ones_and_those_in_order_of_release() {
    let mut ipam = four_addresses();
    for container in ["c1", "c2", "c3"] {
        one(&mut ipam, container, 0);
    }
    assert_eq!(ipam.release(&owner("c2"), 1_000), [ip("10.0.0.1")]);
    assert_eq!(ipam.release(&owner("c1"), 2_000), [ip("10.0.0.0")]);
    assert_eq!(one(&mut ipam, "d1", 60_000), "10.0.0.3");
    assert_eq!(one(&mut ipam, "d2", 60_000), "10.0.0.1");
    assert_eq!(one(&mut ipam, "d3", 60_000), "10.0.0.0");
}

#[test]
fn a_released_address_is_not_given_out_before_its_cooldown_is_over() {
    let mut ipam = four_addresses();
    for container in ["c1", "c2", "c3", "c4"] {
        one(&mut ipam, container, 0);
    }
    ipam.release(&owner("c3"), 1_000);
    let error = ipam.assign(&v4("d"), 30_999).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no IPv4 address is left: pool a (10.0.0.0/30): 1 of 1 blocks claimed, 1 by this node, \
         where 3 of 4 addresses are in use and 1 cool down"
    );
    assert_eq!(one(&mut ipam, "d", 31_000), "10.0.0.2");
}

#[test]
fn release_without_assignment_and_release_twice_do_nothing() {
    let mut ipam = four_addresses();
    assert!(ipam.release(&owner("c1"), 0).is_empty());
    one(&mut ipam, "c1", 0);
    assert_eq!(ipam.release(&owner("c1"), 0).len(), 1);
    assert!(ipam.release(&owner("c1"), 0).is_empty());
}

#[test]
fn dual_stack_is_all_or_nothing() {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/30", 30), pool("b", "fd00::/127", 127)]);
    let both = assign(&mut ipam, &dual("c1"), 0).unwrap();
    assert_eq!(ips(&both), ["10.0.0.0", "fd00::"]);
    assign(&mut ipam, &dual("c2"), 0).unwrap();
    let error = assign(&mut ipam, &dual("c3"), 0).unwrap_err();
    assert!(
        matches!(&error, AssignError::Exhausted { pools, .. } if pools[0].pool == "b"),
        "{error}"
    );
    assert_eq!(ipam.held(&owner("c3")), None);
    assert_eq!(ips(&ipam.assign(&v4("c4"), 0).unwrap()), ["10.0.0.2"]);
}

#[test]
fn asking_for_nothing_is_an_error() {
    let request = AssignRequest {
        v4: false,
        ..v4("c1")
    };
    assert_eq!(
        four_addresses().assign(&request, 0),
        Err(AssignError::NothingAsked)
    );
}

#[test]
fn requested_addresses_are_checked_one_by_one() {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/24", 28)]);
    ipam.claimed(block("10.0.0.0/28", "n1"));
    ipam.set_block(block("10.0.0.16/28", "n2"));
    ipam.adopt(&owner("c1"), ip("10.0.0.5"));
    let mut ask = |requested: &[&str]| {
        let requested: Vec<IpAddr> = requested.iter().map(|text| ip(text)).collect();
        let request = AssignRequest {
            requested: &requested,
            ..v4("c2")
        };
        ipam.assign(&request, 0)
            .map(|found| ips(&found))
            .map_err(|error| error.to_string())
    };
    let err = |text: &str| Err(text.to_owned());
    assert_eq!(
        ask(&["10.0.1.1"]),
        err("requested address 10.0.1.1 is in no pool")
    );
    assert_eq!(
        ask(&["10.0.0.5"]),
        err("requested address 10.0.0.5 is in use by container c1/eth0")
    );
    assert_eq!(
        ask(&["10.0.0.20"]),
        err("requested address 10.0.0.20 is in block 10.0.0.16/28, which node n2 owns")
    );
    assert_eq!(
        ask(&["10.0.0.40"]),
        err("block 10.0.0.32/28 has to be claimed first")
    );
    assert_eq!(
        ask(&["10.0.0.1", "10.0.0.1"]),
        err("address 10.0.0.1 is requested twice")
    );
    assert_eq!(
        ask(&["10.0.0.1", "10.0.0.5"]).unwrap_err(),
        "requested address 10.0.0.5 is in use by container c1/eth0"
    );
    assert_eq!(
        ask(&["10.0.0.15", "10.0.0.1"]),
        Ok(vec!["10.0.0.15".into(), "10.0.0.1".into()])
    );
    assert_eq!(
        ask(&["10.0.0.1", "10.0.0.15"]),
        Ok(vec!["10.0.0.15".into(), "10.0.0.1".into()])
    );
    assert_eq!(
        ask(&["10.0.0.2"]),
        err("container c2/eth0 holds 10.0.0.15; 10.0.0.1 and now requests 10.0.0.2")
    );
}

#[test]
fn a_requested_address_does_not_wait_for_its_cooldown() {
    let mut ipam = four_addresses();
    one(&mut ipam, "c1", 0);
    ipam.release(&owner("c1"), 0);
    let requested = [ip("10.0.0.0")];
    let request = AssignRequest {
        requested: &requested,
        ..v4("c1")
    };
    assert_eq!(ips(&ipam.assign(&request, 1).unwrap()), ["10.0.0.0"]);
    assert_eq!(one(&mut ipam, "c2", 100_000), "10.0.0.1");
}

#[test]
fn adopted_addresses_are_held_whether_their_block_comes_before_or_after() {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/30", 30)]);
    ipam.adopt(&owner("c1"), ip("10.0.0.0"));
    ipam.claimed(block("10.0.0.0/30", "n1"));
    ipam.adopt(&owner("c2"), ip("10.0.0.1"));
    ipam.adopt_cooldown(ip("10.0.0.2"), 5_000);
    assert_eq!(one(&mut ipam, "c3", 6_000), "10.0.0.3");
    assert!(ipam.assign(&v4("c4"), 34_999).is_err());
    assert_eq!(one(&mut ipam, "c4", 35_000), "10.0.0.2");
    assert_eq!(ipam.owner(ip("10.0.0.1")), Some(&owner("c2")));
    assert_eq!(one(&mut ipam, "c1", 6_000), "10.0.0.0");
}

#[test]
fn an_address_adopted_by_two_owners_belongs_to_the_last() {
    let mut ipam = four_addresses();
    ipam.adopt(&owner("c1"), ip("10.0.0.0"));
    ipam.adopt(&owner("c2"), ip("10.0.0.0"));
    assert_eq!(ipam.held(&owner("c1")), None);
    assert!(ipam.release(&owner("c1"), 0).is_empty());
    assert_eq!(ipam.owner(ip("10.0.0.0")), Some(&owner("c2")));
}

#[test]
fn a_cooldown_from_the_future_is_cut_to_one_cooldown() {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/32", 32)]);
    ipam.claimed(block("10.0.0.0/32", "n1"));
    ipam.adopt_cooldown(ip("10.0.0.0"), 1_000_000_000);
    assert!(ipam.assign(&v4("c1"), 500).is_err());
    assert_eq!(one(&mut ipam, "c1", 30_500), "10.0.0.0");
}

#[test]
fn one_address_of_an_owner_is_taken_back_and_the_other_stays() {
    let mut ipam = ipam(&[pool("a", "10.0.0.0/30", 30), pool("b", "fd00::/126", 126)]);
    assign(&mut ipam, &dual("c1"), 0).unwrap();
    assert_eq!(ipam.release_one(ip("fd00::"), 1_000), Some(owner("c1")));
    assert_eq!(ipam.held(&owner("c1")), Some(&[ip("10.0.0.0")][..]));
    assert_eq!(ipam.release_one(ip("fd00::"), 1_000), None);
    assert_eq!(ipam.release_one(ip("10.0.0.0"), 1_000), Some(owner("c1")));
    assert_eq!(ipam.held(&owner("c1")), None);
    assert_eq!(one(&mut ipam, "c2", 2_000), "10.0.0.1");
}
