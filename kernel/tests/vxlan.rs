//! The VXLAN device of the real kernel, against an end that an administrator made by hand.
#![allow(clippy::unwrap_used)]

mod common;

use common::Namespace;
use kernel::{KernelEvent, LinkError, NeighbourEntry, VtepTables, monitor};
use model::dataplane::{NextHop, Route, RouteKind, Vtep, VxlanDevice, vtep_gateway, vtep_mac};
use std::collections::BTreeSet;
use std::net::IpAddr;

const NAME: &str = "vxlan.ocicat";

struct Ends {
    host: Namespace,
    other: Namespace,
}

/// Two hosts on one wire; the other end of the VXLAN is made by hand.
fn ends(local: &str, remote: &str, length: u8) -> Ends {
    let (host, other) = (Namespace::new(), Namespace::new());
    host.sh(&format!(
        "ip link add up0 type veth peer name up0 netns {}
         ip addr add {local}/{length} dev up0 nodad; ip link set up0 up
         ip addr add 10.244.0.1/32 dev lo; ip addr add fd00:244::1/128 dev lo",
        other.name
    ));
    let mac = vtep_mac(local.parse().unwrap()).map(|byte| format!("{byte:02x}"));
    let own = vtep_mac(remote.parse().unwrap()).map(|byte| format!("{byte:02x}"));
    let (mac, own) = (mac.join(":"), own.join(":"));
    other.sh(&format!(
        "ip addr add {remote}/{length} dev up0 nodad; ip link set up0 up
         ip addr add 10.244.9.1/32 dev lo; ip addr add fd00:244:9::1/128 dev lo
         ip link add vx0 address {own} type vxlan id 4096 dstport 4789 local {remote} nolearning
         ip link set vx0 mtu 1400 up
         bridge fdb append {mac} dev vx0 dst {local}
         ip neigh add 169.254.7.7 lladdr {mac} dev vx0
         ip neigh add fe80::7 lladdr {mac} dev vx0
         ip route add 10.244.0.0/24 via 169.254.7.7 dev vx0 onlink
         ip route add fd00:244::/64 via fe80::7 dev vx0"
    ));
    Ends { host, other }
}

fn device(local: &str) -> VxlanDevice {
    let local: IpAddr = local.parse().unwrap();
    VxlanDevice {
        name: NAME.into(),
        vni: 4096,
        port: 4789,
        local,
        mtu: 1430,
        mac: vtep_mac(local),
        address: None,
    }
}

fn vtep(underlay: &str, gateways: &[&str]) -> Vtep {
    let underlay: IpAddr = underlay.parse().unwrap();
    Vtep {
        underlay,
        mac: vtep_mac(underlay),
        gateways: gateways.iter().map(|g| g.parse().unwrap()).collect(),
    }
}

fn route(dest: &str, gateway: &str, ifindex: u32) -> Route {
    let hop = NextHop {
        gateway: gateway.parse().unwrap(),
        ifindex: Some(ifindex),
        onlink: true,
        weight: 1,
    };
    Route {
        dest: dest.parse().unwrap(),
        kind: RouteKind::Via(vec![hop]),
    }
}

fn ping(host: &Namespace, from: &str, to: &str) {
    host.sh(&format!("ping -c 1 -W 5 -i 0.2 -I {from} {to}"));
}

#[test]
fn both_families_cross_a_tunnel_to_an_end_made_by_hand() {
    for (local, remote, length) in [
        ("192.0.2.1", "192.0.2.2", 24),
        ("2001:db8::1", "2001:db8::2", 64),
    ] {
        let link_local = vtep_gateway(vtep_mac(remote.parse().unwrap())).to_string();
        let v4 = if length == 24 { remote } else { &link_local };
        let gateways = [v4, &link_local];
        let Ends { host, other } = ends(local, remote, length);
        let mut kernel = host.kernel();
        let index = host.run(|| kernel.ensure_vxlan(&device(local))).unwrap();
        let vteps = BTreeSet::from([vtep(remote, &gateways)]);
        kernel.set_vteps(NAME, index, &vteps).unwrap();
        let routes = [
            route("10.244.9.0/24", gateways[0], index),
            route("fd00:244:9::/64", gateways[1], index),
        ];
        assert_eq!(kernel.replace_routes(&routes), []);
        ping(&host, "10.244.0.1", "10.244.9.1");
        ping(&host, "fd00:244::1", "fd00:244:9::1");
        ping(&other, "10.244.9.1", "10.244.0.1");
    }
}

#[test]
fn a_device_that_is_as_wanted_is_not_touched_and_one_that_differs_is_made_anew() {
    let Ends { host, .. } = ends("192.0.2.1", "192.0.2.2", 24);
    let mut kernel = host.kernel();
    let wanted = device("192.0.2.1");
    let index = host.run(|| kernel.ensure_vxlan(&wanted)).unwrap();
    assert_eq!(host.run(|| kernel.ensure_vxlan(&wanted)).unwrap(), index);
    let smaller = VxlanDevice {
        mtu: 1300,
        ..wanted.clone()
    };
    assert_eq!(host.run(|| kernel.ensure_vxlan(&smaller)).unwrap(), index);
    assert!(
        host.sh(&format!("ip link show {NAME}"))
            .contains("mtu 1300")
    );
    let other = VxlanDevice { vni: 7, ..wanted };
    assert_ne!(host.run(|| kernel.ensure_vxlan(&other)).unwrap(), index);
    assert!(
        host.sh(&format!("ip -d link show {NAME}"))
            .contains("id 7 ")
    );
    kernel.remove_vxlan(NAME).unwrap();
    kernel.remove_vxlan(NAME).unwrap();
    assert!(host.try_sh(&format!("ip link show {NAME}")).is_err());
}

#[test]
fn only_the_wanted_ends_stay() {
    let Ends { host, .. } = ends("192.0.2.1", "192.0.2.2", 24);
    let mut kernel = host.kernel();
    let index = host
        .run(|| kernel.ensure_vxlan(&device("192.0.2.1")))
        .unwrap();
    let two = vtep("192.0.2.2", &["192.0.2.2", "fe80::2"]);
    let three = vtep("192.0.2.3", &["192.0.2.3"]);
    let both = BTreeSet::from([two.clone(), three.clone()]);
    kernel.set_vteps(NAME, index, &both).unwrap();
    let fdb = |host: &Namespace| host.sh(&format!("bridge fdb show dev {NAME}"));
    let neighbours = |host: &Namespace| host.sh(&format!("ip neigh show dev {NAME} nud permanent"));
    assert!(fdb(&host).contains("dst 192.0.2.3"));
    kernel
        .set_vteps(NAME, index, &BTreeSet::from([two]))
        .unwrap();
    let left = fdb(&host);
    assert!(
        left.contains("dst 192.0.2.2") && !left.contains("192.0.2.3"),
        "{left}"
    );
    let left = neighbours(&host);
    assert!(
        left.contains("192.0.2.2") && !left.contains("192.0.2.3"),
        "{left}"
    );
    kernel.set_vteps(NAME, index, &BTreeSet::new()).unwrap();
    assert!(!fdb(&host).contains("dst"));
}

/// Entries that no node needs, of every kind that `bridge` and `ip` make.
const STRANGERS: [&str; 9] = [
    "bridge fdb append 02:00:00:00:00:99 dev vxlan.ocicat dst 192.0.2.99",
    "bridge fdb append 02:00:00:00:00:99 dev vxlan.ocicat dst 192.0.2.99 static",
    "bridge fdb append 02:00:00:00:00:99 dev vxlan.ocicat dst 192.0.2.99 dynamic",
    "bridge fdb append 00:00:00:00:00:00 dev vxlan.ocicat dst 192.0.2.98; \
     bridge fdb append 00:00:00:00:00:00 dev vxlan.ocicat dst 192.0.2.99",
    "bridge fdb append 02:00:00:00:00:99 dev vxlan.ocicat dst 192.0.2.99 port 9999 vni 7",
    "ip neigh add 192.0.2.99 lladdr 02:00:00:00:00:99 dev vxlan.ocicat nud permanent",
    "ip neigh add 192.0.2.99 lladdr 02:00:00:00:00:99 dev vxlan.ocicat nud noarp",
    "ip neigh add 2001:db8::99 lladdr 02:00:00:00:00:99 dev vxlan.ocicat nud permanent",
    "ip neigh add 192.0.2.99 lladdr ff:ff:ff:ff:ff:ff dev vxlan.ocicat nud permanent",
];

/// Entries in the place of those that lead to 192.0.2.2.
const WRONG: [&str; 8] = [
    "bridge fdb replace MAC dev vxlan.ocicat dst 192.0.2.99",
    "bridge fdb replace MAC dev vxlan.ocicat dst 192.0.2.2 port 9999",
    "bridge fdb replace MAC dev vxlan.ocicat dst 192.0.2.2 vni 7",
    "bridge fdb replace MAC dev vxlan.ocicat dst 192.0.2.2 dynamic",
    "bridge fdb del MAC dev vxlan.ocicat",
    "ip neigh replace 192.0.2.2 lladdr 02:00:00:00:00:99 dev vxlan.ocicat nud permanent",
    "ip neigh replace 192.0.2.2 lladdr 02:00:00:00:00:99 dev vxlan.ocicat nud reachable",
    "ip neigh del 192.0.2.2 dev vxlan.ocicat",
];

#[test]
fn what_others_write_into_the_tables_is_told_and_taken_back() {
    let Ends { host, .. } = ends("192.0.2.1", "192.0.2.2", 24);
    let mut kernel = host.kernel();
    let index = host
        .run(|| kernel.ensure_vxlan(&device("192.0.2.1")))
        .unwrap();
    let end = vtep("192.0.2.2", &["192.0.2.2", "fe80::2"]);
    let mac = end.mac.map(|byte| format!("{byte:02x}")).join(":");
    let ends = BTreeSet::from([end]);
    let tables = VtepTables::of(&ends);
    assert_eq!(kernel.set_vteps(NAME, index, &ends).unwrap(), 3);
    let listed = || {
        let tables = host.sh(&format!(
            "bridge fdb show dev {NAME}; ip -4 neigh show dev {NAME} nud all; \
             ip -6 neigh show dev {NAME} nud all"
        ));
        // The kernel's own entries for groups come and go.
        let lines = tables.lines().filter(|line| !line.starts_with("ff02:"));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let right = listed();
    let mut events = host.run(|| monitor(0, 0)).unwrap();
    let wrong = WRONG.map(|command| command.replace("MAC", &mac));
    for command in STRANGERS
        .into_iter()
        .chain(wrong.iter().map(String::as_str))
    {
        host.sh(command);
        let told = loop {
            match events.blocking_recv().expect("the monitor goes on") {
                KernelEvent::Neighbour(entry) if !tables.allows(&entry, false) => break entry,
                KernelEvent::NeighbourGone(entry) if !tables.allows(&entry, true) => break entry,
                _ => {}
            }
        };
        assert_eq!(told.ifindex, index, "{command}");
        assert_ne!(listed(), right, "{command}");
        assert!(
            kernel.set_vteps(NAME, index, &ends).unwrap() > 0,
            "{command}"
        );
        assert_eq!(listed(), right, "{command}");
        assert_eq!(
            kernel.set_vteps(NAME, index, &ends).unwrap(),
            0,
            "{command}"
        );
        // What this did is told as well, and nothing to mend: a marker follows it.
        host.sh("ip route add blackhole 10.9.9.9/32; ip route del blackhole 10.9.9.9/32");
        let replaced = |entry: &NeighbourEntry| entry.forwarding && entry.elsewhere;
        loop {
            match events.blocking_recv().expect("the monitor goes on") {
                KernelEvent::RouteGone { route, .. }
                    if route.route.dest == "10.9.9.9/32".parse().unwrap() =>
                {
                    break;
                }
                KernelEvent::Neighbour(entry) => {
                    let allowed =
                        tables.allows(&entry, false) || command.contains(';') || replaced(&entry);
                    assert!(allowed, "{command}: {entry:?}");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn what_the_kernel_writes_by_itself_is_left_alone() {
    let Ends { host, other } = ends("2001:db8::1", "2001:db8::2", 64);
    let mut kernel = host.kernel();
    let index = host
        .run(|| kernel.ensure_vxlan(&device("2001:db8::1")))
        .unwrap();
    let ends = BTreeSet::from([vtep("2001:db8::2", &["fe80::2"])]);
    kernel.set_vteps(NAME, index, &ends).unwrap();
    // A group, and somebody who asks for this node.
    host.sh(&format!("ping -c 1 -W 1 ff02::1%{NAME} || true"));
    other.sh(&format!(
        "ip neigh add 10.244.0.1 lladdr {} dev vx0; ping -c 1 -W 1 -I vx0 10.244.0.1 || true",
        vtep_mac("2001:db8::1".parse().unwrap())
            .map(|byte| format!("{byte:02x}"))
            .join(":")
    ));
    let listed = host.sh(&format!("ip -6 neigh show dev {NAME} nud noarp"));
    assert!(listed.contains("ff02::1"), "{listed}");
    assert_eq!(kernel.set_vteps(NAME, index, &ends).unwrap(), 0);
}

#[test]
fn a_device_of_another_kind_with_its_name_is_left_alone() {
    let host = Namespace::new();
    host.sh(&format!("ip link add {NAME} type veth peer name x0"));
    let mut kernel = host.kernel();
    let error = host
        .run(|| kernel.ensure_vxlan(&device("192.0.2.1")))
        .unwrap_err();
    assert!(matches!(error, LinkError::WrongKind { .. }), "{error}");
    kernel.remove_vxlan(NAME).unwrap();
    host.sh(&format!("ip link show {NAME}"));
}
