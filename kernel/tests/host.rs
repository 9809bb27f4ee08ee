//! Parameters of the node, tunnels and namespaces.
#![allow(clippy::unwrap_used)]

mod common;

use common::Namespace;
use kernel::netns::{self, NetnsError};
use kernel::{Kernel, KernelEvent, LinkError, Options, SysctlError};
use model::dataplane::{IpipDevice, NextHop, Route, RouteKind, Tunnel};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::SocketAddrV6;
use tokio::sync::mpsc::Receiver;

fn ipip() -> IpipDevice {
    IpipDevice {
        name: "ipip.ocicat".into(),
        local: "192.0.2.1".parse().unwrap(),
        mtu: 1480,
        address: Some("10.65.0.1".parse().unwrap()),
    }
}

/// Sends a router advertisement (RFC 4861 section 4.2) that makes the sender a default router.
fn advertise(router: &Namespace, interface: &str) {
    let index = router.sh(&format!("cat /sys/class/net/{interface}/ifindex"));
    let index: u32 = index.trim().parse().unwrap();
    router.run(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.set_multicast_hops_v6(255).unwrap();
        socket.set_multicast_if_v6(index).unwrap();
        let all_nodes = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index);
        let (kind, hop_limit, lifetime) = (134, 64, 7);
        let message = [
            kind, 0, 0, 0, hop_limit, 0, lifetime, 8, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        // There is no route before the link has a carrier: the caller repeats.
        let _ = socket.send_to(&message, &all_nodes.into());
    });
}

#[test]
fn forwarding_starts_and_an_advertised_default_route_stays() {
    let (host, router) = (Namespace::new(), Namespace::new());
    host.sh(&format!(
        "echo 0 >/proc/sys/net/ipv4/ip_forward; ip link add a0 type veth peer name r0 netns {}
         ip link set a0 up",
        router.name
    ));
    router.sh("ip addr add fe80::9/64 dev r0 nodad; ip link set r0 up");
    let read = |path: &str| {
        host.sh(&format!("cat /proc/sys/net/{path}"))
            .trim()
            .to_owned()
    };
    assert_eq!(read("ipv6/conf/all/forwarding"), "0");
    let default = || host.sh("ip -6 route show default").contains("via fe80::9");
    while !default() {
        advertise(&router, "r0");
    }
    let mut kernel = host.kernel();
    host.run(|| kernel.enable_forwarding()).unwrap();
    assert_eq!(read("ipv4/ip_forward"), "1");
    assert_eq!(read("ipv6/conf/all/forwarding"), "1");
    assert_eq!(read("ipv6/conf/a0/accept_ra"), "2");
    assert!(default());
}

#[test]
fn whoever_takes_router_advertisements_before_forwarding_starts_takes_them_afterwards() {
    let host = Namespace::new();
    host.sh("ip link add eth0 type veth peer name none0
             ip link add forwards0 type veth peer name oci0
             ip link add eth0.7 type veth peer name other0
             echo 1 >/proc/sys/net/ipv6/conf/forwards0/forwarding
             echo 0 >/proc/sys/net/ipv6/conf/none0/accept_ra");
    let mut kernel = host.kernel();
    for round in 1..=2 {
        host.run(|| kernel.enable_forwarding()).unwrap();
        for (name, accepts) in [
            ("eth0", 2),
            ("eth0.7", 2),
            ("none0", 0),
            ("forwards0", 1),
            ("oci0", 1),
            ("default", 1),
        ] {
            let parameters = format!("/proc/sys/net/ipv6/conf/{name}");
            let read = host.sh(&format!(
                "cat {parameters}/accept_ra {parameters}/forwarding"
            ));
            assert_eq!(read, format!("{accepts}\n1\n"), "{name}, round {round}");
        }
    }
}

#[test]
fn a_parameter_that_is_missing_or_no_parameter_is_named() {
    let host = Namespace::new();
    let mut kernel = host.kernel();
    let error = host
        .run(|| kernel.set_sysctl("ipv4/conf/nowhere/rp_filter", "2"))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot set net.ipv4.conf.nowhere.rp_filter to 2"),
        "{error}"
    );
    for path in ["../kernel/panic", "/etc/passwd", ""] {
        assert_eq!(
            kernel.set_sysctl(path, "1"),
            Err(SysctlError::Name { path: path.into() })
        );
    }
}

#[test]
fn a_read_only_tree_with_the_right_values_will_do() {
    let host = Namespace::new();
    let directory = std::env::temp_dir().join(&host.name);
    std::fs::create_dir_all(directory.join("ipv4/ip_forward.d")).unwrap();
    std::fs::write(directory.join("ipv4/ip_forward"), "1\n").unwrap();
    let options = Options {
        sysctl_root: directory.clone(),
    };
    let mut kernel = host.run(|| Kernel::open_with(options)).unwrap();
    assert_eq!(kernel.set_sysctl("ipv4/ip_forward", "1"), Ok(()));
    assert!(kernel.set_sysctl("ipv4/ip_forward.d", "1").is_err());
    std::fs::remove_dir_all(directory).unwrap();
}

/// The first event that is not the kernel's late word of the uplink's carrier.
fn first_event(events: &mut Receiver<KernelEvent>) -> KernelEvent {
    loop {
        match events.blocking_recv().unwrap() {
            KernelEvent::Link(link) if link.name == "up0" => {}
            event => return event,
        }
    }
}

#[test]
fn the_tunnel_is_what_was_asked_for_or_the_kernel_is_said_to_lack_it() {
    let host = Namespace::new();
    host.sh("ip link add up0 type veth peer name up1; ip addr add 192.0.2.1/24 dev up0; ip link set up0 up");
    let mut kernel = host.kernel();
    let made = host.run(|| kernel.ensure_ipip(&ipip()));
    if !kernel.features().ipip {
        let name = "ipip.ocicat".to_owned();
        assert_eq!(made, Err(LinkError::Unsupported { name, kind: "ipip" }));
        assert_eq!(
            made.unwrap_err().to_string(),
            "interface ipip.ocicat: this kernel has no ipip"
        );
        return;
    }
    let ifindex = made.unwrap();
    let changed = IpipDevice {
        mtu: 1400,
        local: "192.0.2.2".parse().unwrap(),
        address: Some("10.65.0.9".parse().unwrap()),
        name: ipip().name,
    };
    assert_eq!(host.run(|| kernel.ensure_ipip(&changed)), Ok(ifindex));
    // The address of before stays until no route needs it.
    let shown = host.sh("ip addr show ipip.ocicat");
    assert!(shown.contains("10.65.0.1/32"), "{shown}");
    let tunnel = Tunnel::Ipip(changed.clone());
    assert_eq!(host.run(|| kernel.drop_stale_addresses(&tunnel)), Ok(()));
    let mut events = host.run(|| kernel::monitor(0, 0)).unwrap();
    assert_eq!(host.run(|| kernel.ensure_ipip(&changed)), Ok(ifindex));
    host.sh("ip route add blackhole 10.0.0.1");
    let first = first_event(&mut events);
    assert!(matches!(first, KernelEvent::Route(_)), "{first:?}");
    let shown = host.sh("ip -d addr show ipip.ocicat");
    assert!(
        shown.contains("mtu 1400") && shown.contains("10.65.0.9/32"),
        "{shown}"
    );
    assert!(
        shown.contains("ipip")
            && shown.contains("local 192.0.2.2")
            && shown.contains("ttl inherit"),
        "{shown}"
    );
    assert!(!shown.contains("10.65.0.1/32"), "{shown}");
    assert_eq!(host.run(|| kernel.remove_ipip("ipip.ocicat")), Ok(()));
    assert_eq!(host.run(|| kernel.remove_ipip("ipip.ocicat")), Ok(()));
}

#[test]
fn a_tunnel_without_an_address_of_its_own_takes_packets_from_wherever_their_route_leads() {
    let host = Namespace::new();
    host.sh("ip link add up0 type veth peer name up1; ip addr add 192.0.2.1/24 dev up0; ip link set up0 up");
    let mut kernel = host.kernel();
    if !kernel.features().ipip {
        return;
    }
    let wanted = IpipDevice {
        address: None,
        ..ipip()
    };
    let addresses = || host.sh("ip -o -4 addr show ipip.ocicat");
    let filter = || host.sh("cat /proc/sys/net/ipv4/conf/ipip.ocicat/rp_filter");
    for (all, expected) in [("0", "0"), ("1", "2"), ("2", "2"), ("0", "0")] {
        host.sh(&format!(
            "echo {all} >/proc/sys/net/ipv4/conf/all/rp_filter"
        ));
        host.run(|| kernel.ensure_ipip(&wanted)).unwrap();
        assert_eq!(filter().trim(), expected, "beside {all}");
    }
    let shown = addresses();
    assert!(shown.contains("169.254.1.1/32 scope host"), "{shown}");
    let mut events = host.run(|| kernel::monitor(0, 0)).unwrap();
    host.run(|| kernel.ensure_ipip(&wanted)).unwrap();
    host.sh("ip route add blackhole 10.0.0.1");
    let first = first_event(&mut events);
    assert!(matches!(first, KernelEvent::Route(_)), "{first:?}");
    let change = |kernel: &mut Kernel, device: IpipDevice| {
        host.run(|| kernel.ensure_ipip(&device)).unwrap();
        host.run(|| kernel.drop_stale_addresses(&Tunnel::Ipip(device)))
            .unwrap();
    };
    change(&mut kernel, ipip());
    let shown = addresses();
    assert!(shown.contains("10.65.0.1/32 scope global"), "{shown}");
    assert!(!shown.contains("169.254.1.1"), "{shown}");
    change(&mut kernel, wanted);
    let shown = addresses();
    assert!(shown.contains("169.254.1.1/32 scope host"), "{shown}");
    assert!(!shown.contains("10.65.0.1"), "{shown}");
}

#[test]
fn what_comes_by_the_tunnel_arrives_while_the_way_back_does_not_lead_there() {
    let (host, other) = (Namespace::new(), Namespace::new());
    host.sh(&format!(
        "ip link add up0 type veth peer name up0 netns {}
         ip addr add 192.0.2.1/24 dev up0; ip link set up0 up; ip addr add 10.65.0.1 dev lo",
        other.name
    ));
    let mut kernel = host.kernel();
    if !kernel.features().ipip {
        return;
    }
    other.sh(
        "for f in all default up0; do echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter; done
         ip addr add 192.0.2.2/24 dev up0; ip link set up0 up; ip addr add 10.65.0.2 dev lo
         ip link add out type ipip local 192.0.2.2 remote 192.0.2.1; ip link set out up
         ip route add 10.65.0.1 dev out src 10.65.0.2",
    );
    host.sh("ip route add 10.65.0.2 via 192.0.2.2 dev up0");
    let wanted = IpipDevice {
        address: None,
        ..ipip()
    };
    for all in [0, 1, 2] {
        host.sh(&format!(
            "echo {all} >/proc/sys/net/ipv4/conf/all/rp_filter"
        ));
        host.run(|| kernel.ensure_ipip(&wanted)).unwrap();
        other.sh("ping -c 1 -w 10 10.65.0.1");
    }
}

#[test]
fn the_node_speaks_through_the_tunnel_with_the_tunnels_local_address() {
    let host = Namespace::new();
    host.sh(
        "ip link add first0 type veth peer name first1; ip addr add 198.51.100.1/24 dev first0
         ip link add up0 type veth peer name up1; ip addr add 192.0.2.1/24 dev up0
         ip link set first0 up; ip link set up0 up; ip link set up1 up",
    );
    let mut kernel = host.kernel();
    if !kernel.features().ipip {
        return;
    }
    let wanted = IpipDevice {
        address: None,
        ..ipip()
    };
    let tunnel = host.run(|| kernel.ensure_ipip(&wanted)).unwrap();
    let links = kernel.links().unwrap();
    let up0 = links
        .iter()
        .find(|link| link.name == "up0")
        .unwrap()
        .ifindex;
    let hop = |ifindex, onlink| NextHop {
        gateway: "192.0.2.2".parse().unwrap(),
        ifindex: Some(ifindex),
        onlink,
        weight: 1,
    };
    let route = |dest: &str, hops: Vec<NextHop>| Route {
        dest: dest.parse().unwrap(),
        kind: RouteKind::Via(hops),
    };
    let routes = [
        route("10.65.1.0/26", vec![hop(tunnel, true)]),
        route("10.65.2.0/26", vec![hop(tunnel, true), hop(up0, false)]),
        route("10.65.3.0/26", vec![hop(up0, false)]),
    ];
    assert_eq!(kernel.replace_routes(&routes), []);
    let ours = kernel.routes().unwrap().into_iter().filter(|r| r.ours);
    let ours: Vec<Route> = ours.map(|route| route.route).collect();
    assert_eq!(ours, routes);
    for (dest, has_source) in [
        ("10.65.1.0/26", true),
        ("10.65.2.0/26", true),
        ("10.65.3.0/26", false),
    ] {
        let shown = host.sh(&format!("ip route show {dest}"));
        assert_eq!(shown.contains("src 192.0.2.1"), has_source, "{shown}");
    }
    let chosen = host.sh("ip route get 10.65.1.1");
    assert!(chosen.contains("src 192.0.2.1"), "{chosen}");
}

#[test]
fn a_device_of_another_kind_with_the_tunnels_name_is_left_alone() {
    let host = Namespace::new();
    host.sh("ip link add ipip.ocicat type veth peer name other");
    let mut kernel = host.kernel();
    let error = host.run(|| kernel.ensure_ipip(&ipip())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "interface ipip.ocicat: it is a veth, not a ipip"
    );
    assert_eq!(kernel.remove_ipip("ipip.ocicat"), Ok(()));
    assert_eq!(host.links(&mut kernel), ["ipip.ocicat", "other"]);
}

#[test]
fn a_namespace_is_one_that_iproute2_knows_until_it_is_deleted() {
    let namespace = Namespace::new();
    let name = namespace.name.clone();
    assert!(namespace.sh("ip link show").contains("lo"));
    assert!(matches!(
        netns::create(&name),
        Err(NetnsError::Refused { step: "create", .. })
    ));
    assert!(netns::open(&netns::path(&name)).is_ok());
    netns::delete(&name).unwrap();
    assert!(netns::open(&netns::path(&name)).is_err());
    netns::delete(&name).unwrap();
}

#[test]
fn a_file_that_is_no_namespace_is_refused() {
    let path = std::path::Path::new("/proc/self/status");
    assert_eq!(
        netns::open(path).map(drop),
        Err(NetnsError::NotANamespace { path: path.into() })
    );
    for name in ["", "a/b", ".."] {
        assert_eq!(
            netns::create(name).map(drop),
            Err(NetnsError::Name { name: name.into() })
        );
    }
}
