//! Routes, written and read back.
#![allow(clippy::unwrap_used)]

mod common;

use common::Namespace;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use kernel::{Kernel, RouteError};
use model::dataplane::{NextHop, Route, RouteKind};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Two links with a subnet each.
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

fn hop(gateway: &str, ifindex: u32) -> NextHop {
    NextHop {
        gateway: gateway.parse().unwrap(),
        ifindex: Some(ifindex),
        onlink: false,
        weight: 1,
    }
}

fn route(dest: &str, kind: RouteKind) -> Route {
    Route {
        dest: dest.parse().unwrap(),
        kind,
    }
}

fn ours(kernel: &mut Kernel) -> BTreeSet<Route> {
    let routes = kernel.routes().unwrap().into_iter();
    routes
        .filter(|route| route.ours)
        .map(|route| route.route)
        .collect()
}

#[test]
fn every_kind_of_route_is_read_back_as_it_was_written() {
    let (_host, mut kernel, [a, b]) = lab();
    let onlink = NextHop {
        onlink: true,
        ..hop("203.0.113.9", a)
    };
    let routes = [
        route("10.0.0.1/32", RouteKind::Device { ifindex: a }),
        route("10.0.1.0/26", RouteKind::Via(vec![hop("192.0.2.2", a)])),
        route(
            "10.0.2.0/26",
            RouteKind::Via(vec![hop("192.0.2.2", a), hop("192.0.2.130", b)]),
        ),
        route("10.0.3.0/26", RouteKind::Blackhole),
        route("10.0.4.0/26", RouteKind::Via(vec![onlink])),
        route("10.0.5.0/26", RouteKind::Via(vec![hop("2001:db8:a::2", a)])),
        route("0.0.0.0/0", RouteKind::Via(vec![hop("192.0.2.3", a)])),
        route("fd00::1/128", RouteKind::Device { ifindex: b }),
        route("fd00:1::/64", RouteKind::Via(vec![hop("2001:db8:a::2", a)])),
        route(
            "fd00:2::/64",
            RouteKind::Via(vec![hop("2001:db8:a::2", a), hop("2001:db8:b::2", b)]),
        ),
        route("fd00:3::/64", RouteKind::Blackhole),
        route("::/0", RouteKind::Via(vec![hop("2001:db8:a::3", a)])),
    ];
    assert_eq!(kernel.replace_routes(&routes), []);
    assert_eq!(ours(&mut kernel), BTreeSet::from(routes.clone()));
    assert_eq!(kernel.replace_routes(&routes), []);
    assert_eq!(ours(&mut kernel), BTreeSet::from(routes.clone()));
    let destinations: Vec<IpNet> = routes.iter().map(|route| route.dest).collect();
    assert_eq!(kernel.delete_routes(&destinations), []);
    assert_eq!(ours(&mut kernel), BTreeSet::new());
}

#[test]
fn a_route_becomes_any_other_kind_in_place() {
    let (_host, mut kernel, [a, b]) = lab();
    for (dest, near, far) in [
        ("10.0.2.0/26", "192.0.2.2", "192.0.2.130"),
        ("fd00:2::/64", "2001:db8:a::2", "2001:db8:b::2"),
    ] {
        let kinds = [
            RouteKind::Blackhole,
            RouteKind::Via(vec![hop(near, a), hop(far, b)]),
            RouteKind::Device { ifindex: a },
            RouteKind::Via(vec![hop(near, a)]),
        ];
        for from in &kinds {
            for to in &kinds {
                for kind in [from, to] {
                    let wanted = route(dest, kind.clone());
                    assert_eq!(
                        kernel.replace_routes(std::slice::from_ref(&wanted)),
                        [],
                        "{from:?} -> {to:?}"
                    );
                    assert_eq!(ours(&mut kernel), [wanted].into(), "{from:?} -> {to:?}");
                }
            }
        }
        assert_eq!(kernel.delete_routes(&[dest.parse().unwrap()]), []);
    }
}

#[test]
fn ten_thousand_routes_of_each_family_come_and_go() {
    let (_host, mut kernel, [a, _]) = lab();
    let v4 = (0..10_000).map(|n| IpNet::from(Ipv4Net::from(Ipv4Addr::from(0x0a00_0000 + n))));
    let v6 =
        (0..10_000).map(|n| IpNet::from(Ipv6Net::from(Ipv6Addr::from((0xfd_u128 << 120) + n))));
    let routes: Vec<Route> = v4
        .chain(v6)
        .map(|dest| Route {
            dest,
            kind: RouteKind::Device { ifindex: a },
        })
        .collect();
    assert_eq!(kernel.replace_routes(&routes), []);
    assert_eq!(ours(&mut kernel), routes.iter().cloned().collect());
    let destinations: Vec<IpNet> = routes.iter().map(|route| route.dest).collect();
    assert_eq!(kernel.delete_routes(&destinations), []);
    assert_eq!(ours(&mut kernel), BTreeSet::new());
}

#[test]
fn a_refused_route_is_named_and_does_not_stop_the_others() {
    let (_host, mut kernel, [a, _]) = lab();
    let good = |n: u32| Route {
        dest: Ipv4Net::from(Ipv4Addr::from(0x0a00_0000 + n)).into(),
        kind: RouteKind::Device { ifindex: a },
    };
    let unreachable = route("10.1.0.0/26", RouteKind::Via(vec![hop("203.0.113.1", a)]));
    let no_interface = route("10.2.0.0/26", RouteKind::Device { ifindex: 9999 });
    let no_hop = route("10.3.0.0/26", RouteKind::Via(vec![]));
    let mut routes: Vec<Route> = (0..1500).map(good).collect();
    routes.insert(1400, unreachable.clone());
    routes.insert(600, no_interface.clone());
    routes.insert(3, no_hop.clone());
    let (d1, d2, d3) = (unreachable.dest, no_interface.dest, no_hop.dest);
    assert_eq!(
        kernel.replace_routes(&routes),
        [
            (no_hop, RouteError::NoNextHop { dest: d3 }),
            (no_interface, RouteError::NoInterface { dest: d2 }),
            (unreachable, RouteError::GatewayUnreachable { dest: d1 }),
        ]
    );
    assert_eq!(ours(&mut kernel).len(), 1500);
}

#[test]
fn deleting_spares_routes_of_others_and_what_is_missing_is_no_failure() {
    let (host, mut kernel, _) = lab();
    host.sh("ip route add 10.9.0.0/24 dev a0; ip route add fd09::/64 dev a0");
    let destinations: Vec<IpNet> = ["10.9.0.0/24", "fd09::/64", "10.8.0.0/24"]
        .map(|dest| dest.parse().unwrap())
        .into();
    assert_eq!(kernel.delete_routes(&destinations), []);
    let left = kernel.routes().unwrap();
    let left: Vec<_> = left
        .iter()
        .filter(|r| destinations.contains(&r.route.dest))
        .collect();
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|route| !route.ours));
}

#[test]
fn an_ecmp_route_is_one_that_iproute2_shows() {
    let (host, mut kernel, [a, b]) = lab();
    let hops = vec![hop("192.0.2.2", a), hop("192.0.2.130", b)];
    kernel.replace_routes(&[route("10.0.2.0/26", RouteKind::Via(hops))]);
    let shown = host.sh("ip route show 10.0.2.0/26");
    assert!(
        shown.starts_with("10.0.2.0/26 nhid ") && shown.contains("proto 122"),
        "{shown}"
    );
    assert!(shown.contains("nexthop via 192.0.2.2 dev a0"), "{shown}");
    assert!(shown.contains("nexthop via 192.0.2.130 dev b0"), "{shown}");
}

#[test]
fn addresses_and_links_are_what_iproute2_made() {
    let (_host, mut kernel, [a, _]) = lab();
    let addresses = kernel.addresses().unwrap();
    let of_a: Vec<_> = addresses
        .iter()
        .filter(|x| x.ifindex == a)
        .map(|x| x.address)
        .collect();
    assert!(of_a.contains(&"192.0.2.1/25".parse().unwrap()), "{of_a:?}");
    assert!(
        of_a.contains(&"2001:db8:a::1/64".parse().unwrap()),
        "{of_a:?}"
    );
    assert!(
        addresses
            .iter()
            .any(|x| x.address.addr() == IpAddr::from(Ipv4Addr::LOCALHOST))
    );
    let link = kernel
        .links()
        .unwrap()
        .into_iter()
        .find(|link| link.ifindex == a)
        .unwrap();
    assert_eq!(
        (link.name.as_str(), link.kind.as_deref(), link.up),
        ("a0", Some("veth"), true)
    );
}
