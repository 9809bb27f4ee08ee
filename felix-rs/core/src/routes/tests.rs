use super::*;
use crate::fixtures::{ethernet, pool};
use model::dataplane::{Address, Route};

const ETH0: u32 = 2;
const TUNNEL: u32 = 9;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn topology(mode: EncapMode) -> Topology {
    Topology {
        pools: [(net("10.244.0.0/16"), pool(mode))].into(),
        node_addresses: [ip("10.1.0.12"), ip("10.2.0.13")].into(),
        node_names: [
            (ip("10.1.0.12"), "n2".to_owned()),
            (ip("10.2.0.13"), "n3".to_owned()),
        ]
        .into(),
        block_owners: BTreeMap::new(),
        owners_known: true,
        own_subnets: vec![net("10.1.0.0/24")],
        tunnels: [(names::IPIP_DEVICE.to_owned(), TUNNEL)].into(),
        service_ranges: BTreeSet::new(),
        workloads: BTreeMap::new(),
    }
}

fn underlay() -> Underlay {
    let mut underlay = Underlay::default();
    underlay.add_address(Address {
        ifindex: ETH0,
        address: net("10.1.0.11/24"),
    });
    let default = Route {
        dest: net("0.0.0.0/0"),
        kind: RouteKind::Via(vec![NextHop {
            gateway: ip("10.1.0.1"),
            ifindex: Some(ETH0),
            onlink: false,
            weight: 1,
        }]),
    };
    underlay.add_foreign(default, 0);
    underlay
}

fn via(gateway: &str, ifindex: u32, onlink: bool) -> RouteKind {
    RouteKind::Via(vec![NextHop {
        gateway: ip(gateway),
        ifindex: Some(ifindex),
        onlink,
        weight: 1,
    }])
}

#[test]
fn only_other_nodes_outside_the_own_subnet_are_reached_through_the_tunnel() {
    let near = ("10.244.1.0/26", "10.1.0.12");
    let far = ("10.244.2.0/26", "10.2.0.13");
    let elsewhere = ("10.244.3.0/26", "10.1.0.1");
    let native_far = via("10.1.0.1", ETH0, false);
    let cases = [
        (EncapMode::CrossSubnet, near, via("10.1.0.12", ETH0, false)),
        (EncapMode::CrossSubnet, far, via("10.2.0.13", TUNNEL, true)),
        (
            EncapMode::CrossSubnet,
            elsewhere,
            via("10.1.0.1", ETH0, false),
        ),
        (EncapMode::Always, near, via("10.1.0.12", TUNNEL, true)),
        (EncapMode::Always, far, via("10.2.0.13", TUNNEL, true)),
        (EncapMode::Never, near, via("10.1.0.12", ETH0, false)),
        (EncapMode::Never, far, native_far),
    ];
    for (mode, (dest, next_hop), expected) in cases {
        let route = topology(mode).route(&net(dest), &[ip(next_hop)], &underlay());
        assert_eq!(route, Ok(expected), "{mode:?} {dest} via {next_hop}");
    }
}

#[test]
fn of_two_default_routes_the_one_with_the_lower_metric_leads_and_the_other_stands_in() {
    const WIFI: u32 = 3;
    let mut underlay = underlay();
    let hop = NextHop {
        gateway: ip("192.168.0.1"),
        ifindex: Some(WIFI),
        onlink: false,
        weight: 1,
    };
    let worse = Route {
        dest: net("0.0.0.0/0"),
        kind: RouteKind::Via(vec![hop]),
    };
    underlay.add_foreign(worse, 600);
    let leads = |underlay: &Underlay| {
        let topology = topology(EncapMode::Never);
        topology.route(&net("10.244.2.0/26"), &[ip("10.2.0.13")], underlay)
    };
    assert_eq!(leads(&underlay), Ok(via("10.1.0.1", ETH0, false)));
    underlay.remove_foreign(&net("0.0.0.0/0"), 0);
    assert_eq!(leads(&underlay), Ok(via("192.168.0.1", WIFI, false)));
}

#[test]
fn of_two_nodes_that_announce_one_block_only_its_owner_is_believed() {
    let mut topology = topology(EncapMode::Never);
    let (block, both) = (net("10.244.1.0/26"), [ip("10.1.0.12"), ip("10.2.0.13")]);
    topology.block_owners.insert(block, "n2".to_owned());
    let route = |dest: &str, hops: &[IpAddr]| topology.route(&net(dest), hops, &underlay());
    assert_eq!(
        route("10.244.1.0/26", &both),
        Ok(via("10.1.0.12", ETH0, false))
    );
    assert_eq!(
        route("10.244.1.0/26", &both[1..]).unwrap_err().to_string(),
        "10.244.1.0/26: node n3 (10.2.0.13) announces it, and it is the block of node n2"
    );
    topology.owners_known = false;
    let old_word = topology.route(&block, &both[1..], &underlay());
    assert_eq!(old_word, Ok(via("10.1.0.1", ETH0, false)));
    topology.owners_known = true;
    let route = |dest: &str, hops: &[IpAddr]| topology.route(&net(dest), hops, &underlay());
    // The loser's running pods, each with a route of its own, and a router that is no node.
    assert_eq!(
        route("10.244.1.7/32", &both[1..]),
        Ok(via("10.1.0.1", ETH0, false))
    );
    let router = [ip("10.1.0.1")];
    assert_eq!(
        route("10.244.1.0/26", &router),
        Ok(via("10.1.0.1", ETH0, false))
    );
}

#[test]
fn a_prefix_outside_every_pool_is_never_encapsulated() {
    let route =
        topology(EncapMode::Always).route(&net("192.0.2.0/24"), &[ip("10.2.0.13")], &underlay());
    assert_eq!(route, Ok(via("10.1.0.1", ETH0, false)));
}

#[test]
fn equal_paths_stand_beside_each_other_and_an_unreachable_one_is_left_out() {
    let mut underlay = underlay();
    underlay.remove_foreign(&net("0.0.0.0/0"), 0);
    let hops = [ip("10.1.0.1"), ip("10.1.0.2"), ip("172.16.0.1")];
    let route = topology(EncapMode::Never).route(&net("0.0.0.0/0"), &hops, &underlay);
    let Ok(RouteKind::Via(hops)) = route else {
        panic!("{route:?}")
    };
    assert_eq!(
        hops.iter().map(|h| h.gateway).collect::<Vec<_>>(),
        [ip("10.1.0.1"), ip("10.1.0.2")]
    );
}

#[test]
fn traffic_is_shared_in_proportion_to_the_weights_of_paths() {
    let mut underlay = underlay();
    let hop = |gateway: &str, weight| NextHop {
        gateway: ip(gateway),
        ifindex: Some(ETH0),
        onlink: false,
        weight,
    };
    let two_ways = Route {
        dest: net("172.16.0.0/24"),
        kind: RouteKind::Via(vec![hop("10.1.0.1", 1), hop("10.1.0.2", 3)]),
    };
    underlay.add_foreign(two_ways, 0);
    let path = |address: &str, weight| FibNextHop {
        weight,
        ..ip(address).into()
    };
    let weights = |paths: &[FibNextHop]| {
        let dest = net("198.51.100.0/24");
        let route = topology(EncapMode::Never).route(&dest, paths, &underlay);
        let Ok(RouteKind::Via(hops)) = route else {
            panic!("{route:?}")
        };
        let weights = hops
            .into_iter()
            .map(|hop| (hop.gateway.to_string(), hop.weight));
        weights.collect::<Vec<_>>()
    };
    let of = |first: u8, second: u8| {
        vec![
            ("10.1.0.1".to_owned(), first),
            ("10.1.0.2".to_owned(), second),
        ]
    };
    assert_eq!(
        weights(&[path("10.1.0.1", 1), path("10.1.0.2", 3)]),
        of(1, 3)
    );
    assert_eq!(
        weights(&[path("10.1.0.1", 200), path("10.1.0.2", 200)]),
        of(1, 1)
    );
    // Recursive: what leads to a next hop shares its weight.
    assert_eq!(
        weights(&[path("172.16.0.1", 4), path("10.1.0.1", 2)]),
        of(1, 1)
    );
    // Two paths through one gateway are one with the weight of both.
    assert_eq!(
        weights(&[path("10.1.0.1", 255), path("172.16.0.9", 1)]),
        of(255, 1)
    );
    let alone = vec![("10.1.0.1".to_owned(), 1)];
    assert_eq!(weights(&[path("10.1.0.1", 7)]), alone);
}

#[test]
fn a_link_without_a_carrier_leads_nowhere() {
    let mut underlay = underlay();
    let mut link = model::dataplane::Link {
        ifindex: ETH0,
        name: "eth0".into(),
        alias: None,
        kind: None,
        up: true,
        carrier: false,
        mtu: 1500,
        mac: None,
    };
    let route = |underlay: &Underlay| {
        topology(EncapMode::Never).route(&net("198.51.100.0/24"), &[ip("10.1.0.1")], underlay)
    };
    underlay.set_link(link.clone());
    assert!(matches!(
        route(&underlay),
        Err(Withheld::NextHopUnreachable { .. })
    ));
    link.carrier = true;
    underlay.set_link(link);
    assert_eq!(route(&underlay), Ok(via("10.1.0.1", ETH0, false)));
}

#[test]
fn a_route_that_can_not_be_programmed_says_why() {
    let mut topology = topology(EncapMode::Always);
    topology.tunnels.clear();
    let far = net("10.244.2.0/26");
    assert_eq!(
        topology
            .route(&far, &[ip("10.2.0.13")], &underlay())
            .unwrap_err()
            .to_string(),
        "10.244.2.0/26: IPPool/default wants IPIP towards 10.2.0.13 and there is no tunnel device"
    );
    assert_eq!(
        topology
            .route(&far, &[ip("172.16.0.1")], &Underlay::default())
            .unwrap_err()
            .to_string(),
        "10.244.2.0/26: no route to next hop 172.16.0.1"
    );
}

#[test]
fn a_link_local_next_hop_is_on_the_link_that_it_was_heard_on() {
    let router = |scope| bgp_core::FibNextHop {
        scope,
        ..ip("fe80::1").into()
    };
    let mut underlay = underlay();
    underlay.set_link(ethernet(ETH0, "eth0"));
    let route = |scope| {
        let hops = [router(scope)];
        topology(EncapMode::Never).route(&net("198.51.100.0/24"), &hops, &underlay)
    };
    let expected = NextHop {
        gateway: ip("fe80::1"),
        ifindex: Some(ETH0),
        onlink: false,
        weight: 1,
    };
    assert_eq!(route(ETH0), Ok(RouteKind::Via(vec![expected])));
    assert!(matches!(
        route(77),
        Err(Withheld::NextHopUnreachable { .. })
    ));
}
