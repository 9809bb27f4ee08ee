//! Groups of next hops that routes share.
#![allow(clippy::unwrap_used)]

mod common;

use common::Namespace;
use kernel::{Kernel, KernelEvent};
use model::dataplane::{NextHop, Route, RouteKind};
use std::net::IpAddr;

/// Two links with two gateways each.
fn lab() -> (Namespace, Kernel, [u32; 2]) {
    let host = Namespace::new();
    host.sh("ip link add a0 type veth peer name a1; ip link add b0 type veth peer name b1
             for l in a0 a1 b0 b1; do echo 0 >/proc/sys/net/ipv6/conf/$l/accept_dad; ip link set $l up; done
             ip addr add 192.0.2.1/25 dev a0; ip addr add 192.0.2.129/25 dev b0
             ip addr add 2001:db8:a::1/64 dev a0 nodad; ip addr add 2001:db8:b::1/64 dev b0 nodad");
    let mut kernel = host.kernel();
    let links = kernel.links().unwrap();
    let index = |name: &str| links.iter().find(|link| link.name == name).unwrap().ifindex;
    let indices = [index("a0"), index("b0")];
    (host, kernel, indices)
}

fn hop(gateway: &str, ifindex: u32, weight: u8) -> NextHop {
    NextHop {
        gateway: gateway.parse().unwrap(),
        ifindex: Some(ifindex),
        onlink: false,
        weight,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A route of each family through both links.
fn both(number: u32, [a, b]: [u32; 2], weights: [u8; 2]) -> [Route; 2] {
    let [wa, wb] = weights;
    [
        Route {
            dest: format!("10.0.{number}.0/24").parse().unwrap(),
            kind: RouteKind::Via(vec![hop("192.0.2.2", a, wa), hop("192.0.2.130", b, wb)]),
        },
        Route {
            dest: format!("fd00:{number}::/64").parse().unwrap(),
            kind: RouteKind::Via(vec![
                hop("2001:db8:a::2", a, wa),
                hop("2001:db8:b::2", b, wb),
            ]),
        },
    ]
}

fn ours(kernel: &mut Kernel) -> Vec<(Route, Option<u32>)> {
    let routes = kernel.routes().unwrap().into_iter();
    let ours = routes.filter(|route| route.ours);
    ours.map(|route| (route.route, route.group)).collect()
}

fn objects(host: &Namespace) -> usize {
    host.sh("ip nexthop show proto 122").lines().count()
}

#[test]
fn routes_with_the_same_next_hops_and_weights_share_one_group() {
    let (host, mut kernel, links) = lab();
    let routes: Vec<Route> = (0..50).flat_map(|n| both(n, links, [1, 3])).collect();
    assert_eq!(kernel.replace_routes(&routes[..60]), []);
    assert_eq!(kernel.replace_routes(&routes), []);
    let mut read = ours(&mut kernel);
    read.sort();
    let groups: std::collections::BTreeSet<_> =
        read.iter().map(|(_, group)| group.unwrap()).collect();
    assert_eq!(groups.len(), 2, "one for each family");
    let mut wanted = routes.clone();
    wanted.sort();
    assert_eq!(
        read.into_iter().map(|(route, _)| route).collect::<Vec<_>>(),
        wanted
    );
    assert_eq!(objects(&host), 6);
    let shown = host.sh("ip route show 10.0.7.0/24");
    assert!(
        shown.contains("dev a0 weight 1") && shown.contains("dev b0 weight 3"),
        "{shown}"
    );
}

#[test]
fn a_dead_gateway_leaves_every_route_by_one_message() {
    let (_host, mut kernel, links @ [_, b]) = lab();
    let routes: Vec<Route> = (0..50).flat_map(|n| both(n, links, [1, 1])).collect();
    assert_eq!(kernel.replace_routes(&routes), []);
    assert_eq!(kernel.drop_next_hop(ip("192.0.2.2"), None), Ok(true));
    assert_eq!(
        kernel.drop_next_hop(ip("2001:db8:a::2"), Some(links[1])),
        Ok(false)
    );
    assert_eq!(
        kernel.drop_next_hop(ip("2001:db8:a::2"), Some(links[0])),
        Ok(true)
    );
    assert_eq!(kernel.drop_next_hop(ip("192.0.2.2"), None), Ok(false));
    let left = ours(&mut kernel);
    assert_eq!(left.len(), 100);
    for (route, _) in left {
        let gateway = if route.dest.addr().is_ipv4() {
            "192.0.2.130"
        } else {
            "2001:db8:b::2"
        };
        assert_eq!(route.kind, RouteKind::Via(vec![hop(gateway, b, 1)]));
    }
}

#[test]
fn a_link_that_loses_its_carrier_leaves_every_route_and_comes_back_by_writing_them_again() {
    let (host, mut kernel, links @ [a, _]) = lab();
    let routes: Vec<Route> = (0..5).flat_map(|n| both(n, links, [2, 1])).collect();
    assert_eq!(kernel.replace_routes(&routes), []);
    let mut events = host.run(|| kernel::monitor(0, 0)).unwrap();
    host.sh("ip link set b1 down");
    // Each change of a link is told after the kernel has followed it.
    let left = loop {
        events.blocking_recv().unwrap();
        let left = ours(&mut kernel);
        let alone = |(route, _): &(Route, _)| matches!(&route.kind, RouteKind::Via(hops) if hops.len() == 1);
        if left.iter().all(alone) {
            break left;
        }
    };
    assert_eq!(left.len(), 10);
    for (route, _) in left {
        let RouteKind::Via(hops) = &route.kind else {
            panic!("{route:?}")
        };
        assert_eq!(hops[0].ifindex, Some(a), "{route:?}");
    }
    host.sh("ip link set b1 up");
    assert_eq!(kernel.replace_routes(&routes), []);
    let mut read: Vec<Route> = ours(&mut kernel)
        .into_iter()
        .map(|(route, _)| route)
        .collect();
    read.sort();
    let mut wanted = routes.clone();
    wanted.sort();
    assert_eq!(read, wanted);
}

#[test]
fn what_no_route_names_is_removed_and_what_others_made_is_left() {
    let (host, mut kernel, links) = lab();
    host.sh("ip nexthop add id 7 via 192.0.2.9 dev a0; ip nexthop add id 8 group 7");
    let routes = [both(1, links, [1, 1]), both(2, links, [1, 5])].concat();
    assert_eq!(kernel.replace_routes(&routes), []);
    assert_eq!(objects(&host), 8);
    kernel.routes().unwrap();
    assert_eq!(kernel.remove_unused_next_hops(), Ok(0));
    let (kept, gone) = routes.split_at(2);
    kernel.delete_routes(&gone.iter().map(|route| route.dest).collect::<Vec<_>>());
    assert_eq!(ours(&mut kernel).len(), 2);
    assert_eq!(kernel.remove_unused_next_hops(), Ok(2));
    kernel.delete_routes(&kept.iter().map(|route| route.dest).collect::<Vec<_>>());
    assert_eq!(ours(&mut kernel), []);
    assert_eq!(kernel.remove_unused_next_hops(), Ok(6));
    assert_eq!(host.sh("ip nexthop").lines().count(), 2);
}

#[test]
fn a_group_that_is_written_before_it_is_used_is_not_swept_away() {
    let (_host, mut kernel, links) = lab();
    kernel.routes().unwrap();
    assert_eq!(kernel.replace_routes(&both(1, links, [1, 1])), []);
    assert_eq!(kernel.remove_unused_next_hops(), Ok(0));
    assert_eq!(ours(&mut kernel).len(), 2);
}

#[test]
fn an_ipv4_route_may_lead_through_gateways_of_both_families() {
    let (_host, mut kernel, [a, b]) = lab();
    let hops = vec![hop("192.0.2.2", a, 1), hop("2001:db8:b::2", b, 1)];
    let route = Route {
        dest: "10.0.5.0/24".parse().unwrap(),
        kind: RouteKind::Via(hops),
    };
    assert_eq!(kernel.replace_routes(std::slice::from_ref(&route)), []);
    let [(read, group)] = &ours(&mut kernel)[..] else {
        panic!()
    };
    assert_eq!(*read, route);
    assert!(group.is_some());
}

#[test]
fn without_groups_a_route_has_its_next_hops_itself() {
    let (host, _, links) = lab();
    host.sh("echo 0 >/proc/sys/net/ipv4/nexthop_compat_mode");
    let mut kernel = host.kernel();
    assert!(!kernel.features().next_hop_groups);
    let mut routes = both(1, links, [1, 3]).to_vec();
    assert_eq!(kernel.replace_routes(&routes), []);
    routes.sort();
    let mut read = ours(&mut kernel);
    read.sort();
    assert_eq!(
        read,
        routes
            .into_iter()
            .map(|route| (route, None))
            .collect::<Vec<_>>()
    );
    assert_eq!(objects(&host), 0);
}

#[test]
fn the_removal_of_an_object_of_ours_is_told_and_by_whom() {
    let (host, mut kernel, links) = lab();
    let mut events = host.run(|| kernel::monitor(0, 0)).unwrap();
    assert_eq!(kernel.replace_routes(&both(1, links, [1, 1])), []);
    kernel.drop_next_hop(ip("192.0.2.2"), None).unwrap();
    host.sh("ip nexthop flush proto 122");
    let mut next = || loop {
        if let KernelEvent::NextHopGone { port } = events.blocking_recv().unwrap() {
            return port;
        }
    };
    assert_eq!(next(), kernel.route_port_id());
    assert_ne!(next(), kernel.route_port_id());
}
