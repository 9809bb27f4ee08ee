//! What the monitor reports, and what it keeps to itself.
#![allow(clippy::unwrap_used)]

mod common;

use common::Namespace;
use kernel::{KernelEvent, monitor, port_owner};
use model::dataplane::{Route, RouteKind};
use policy::ruleset::{Op, Ruleset};
use std::io::Write;
use tokio::sync::mpsc::Receiver;

/// Waits for the first event that answers the question.
fn wait<T>(
    events: &mut Receiver<KernelEvent>,
    mut question: impl FnMut(KernelEvent) -> Option<T>,
) -> T {
    loop {
        let event = events.blocking_recv().expect("the monitor goes on");
        if let Some(answer) = question(event) {
            return answer;
        }
    }
}

#[test]
fn links_addresses_and_routes_are_reported_as_they_come_and_go() {
    let namespace = Namespace::new();
    let mut events = namespace.run(|| monitor(0, 0)).unwrap();
    namespace.sh("ip link add a0 type veth peer name a1; ip link set a0 alias ocicat:x; ip link set a0 up; ip link set a1 up");
    let link = wait(&mut events, |event| match event {
        KernelEvent::Link(link) if link.name == "a0" && link.up && link.carrier => Some(link),
        _ => None,
    });
    assert_eq!(link.alias.as_deref(), Some("ocicat:x"));
    assert_eq!(link.kind.as_deref(), Some("veth"));

    namespace.sh("ip addr add 192.0.2.1/24 dev a0");
    let address = wait(&mut events, |event| match event {
        KernelEvent::Address(address) if address.address.addr().is_ipv4() => Some(address),
        _ => None,
    });
    assert_eq!(address.address, "192.0.2.1/24".parse().unwrap());
    namespace.sh(
        "ip route add blackhole 10.0.0.0/26 proto 122; ip route add blackhole fd00::/64 proto 122",
    );
    namespace.sh("ip route del blackhole 10.0.0.0/26");
    for dest in ["10.0.0.0/26", "fd00::/64"] {
        let added = wait(&mut events, |event| match event {
            KernelEvent::Route(route) if route.ours => Some(route),
            _ => None,
        });
        let wanted = Route {
            dest: dest.parse().unwrap(),
            kind: RouteKind::Blackhole,
        };
        assert_eq!(added.route, wanted);
    }
    let gone = wait(&mut events, |event| match event {
        KernelEvent::RouteGone { route, .. } if route.ours => Some(route),
        _ => None,
    });
    assert_eq!(gone.route.dest, "10.0.0.0/26".parse().unwrap());

    namespace.sh("ip addr del 192.0.2.1/24 dev a0; ip link del a0");
    wait(&mut events, |event| {
        (event == KernelEvent::AddressGone(address)).then_some(())
    });
    let gone = KernelEvent::LinkGone {
        ifindex: link.ifindex,
        name: "a0".into(),
    };
    wait(&mut events, |event| (event == gone).then_some(()));
}

#[test]
fn changes_of_our_table_by_others_are_reported_and_ours_are_not() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let mut events = namespace.run(|| monitor(kernel.nft_port_id(), 0)).unwrap();
    // A route that nobody else makes tells that everything before it has been seen.
    let mut changes_until = |marker: &str| {
        namespace.sh(&format!("ip route add blackhole {marker}"));
        let mut changes = 0;
        wait(&mut events, |event| match event {
            KernelEvent::OurTableChanged => {
                changes += 1;
                None
            }
            KernelEvent::Route(route) if route.route.dest == marker.parse().unwrap() => Some(()),
            _ => None,
        });
        changes
    };
    kernel
        .nft_commit(&[Op::AddChain("ours".into(), None)])
        .unwrap();
    kernel.nft_replace(&Ruleset::default()).unwrap();
    kernel
        .nft_commit(&[Op::AddChain("ours".into(), None)])
        .unwrap();
    assert_eq!(changes_until("10.0.0.1/32"), 0);
    namespace
        .nft("add table inet other; add chain inet other c; add table ip ocicat")
        .unwrap();
    assert_eq!(changes_until("10.0.0.2/32"), 0);

    drop(kernel);
    assert_eq!(changes_until("10.0.0.3/32"), 0);
    namespace.nft("add rule inet ocicat ours accept").unwrap();
    wait(&mut events, |event| {
        (event == KernelEvent::OurTableChanged).then_some(())
    });
    namespace.nft("delete table inet ocicat").unwrap();
    wait(&mut events, |event| {
        (event == KernelEvent::OurTableChanged).then_some(())
    });
}

#[test]
fn routes_of_the_own_socket_are_not_reported_and_fill_no_queue() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let own = kernel.route_port_id();
    let mut events = namespace.run(|| monitor(0, own)).unwrap();
    let ifindex = kernel.links().unwrap()[0].ifindex;
    let dest = |n: u32| ipnet::Ipv4Net::from(std::net::Ipv4Addr::from(0x0a00_0000 + n)).into();
    namespace.sh("ip link set lo up");
    let kind = RouteKind::Device { ifindex };
    let routes: Vec<Route> = (0..60_000)
        .map(|n| Route {
            dest: dest(n),
            kind: kind.clone(),
        })
        .collect();
    assert!(kernel.replace_routes(&routes).is_empty());
    assert!(kernel.delete_routes(&[dest(7)]).is_empty());
    namespace.sh("ip route del 10.0.0.9/32 proto 122");
    let first = wait(&mut events, |event| match event {
        KernelEvent::Route(_) | KernelEvent::RouteGone { .. } | KernelEvent::Overrun => Some(event),
        _ => None,
    });
    let gone =
        matches!(&first, KernelEvent::RouteGone { route, .. } if route.route.dest == dest(9));
    assert!(gone, "{first:?}");
}

#[test]
fn lost_events_are_reported_as_an_overrun() {
    let namespace = Namespace::new();
    let mut kernel = namespace.kernel();
    let mut events = namespace.run(|| monitor(0, 0)).unwrap();
    let ifindex = kernel.links().unwrap()[0].ifindex;
    let routes: Vec<Route> = (0..60_000_u32)
        .map(|n| ipnet::Ipv4Net::from(std::net::Ipv4Addr::from(0x0a00_0000 + n)).into())
        .map(|dest| Route {
            dest,
            kind: RouteKind::Device { ifindex },
        })
        .collect();
    // Nobody receives meanwhile: the queue and then the socket's buffer fill up.
    assert_eq!(kernel.replace_routes(&routes), []);
    wait(&mut events, |event| {
        (event == KernelEvent::Overrun).then_some(())
    });
}

#[test]
fn the_thread_ends_when_nobody_listens() {
    let namespace = Namespace::new();
    let events = namespace.run(|| monitor(0, 0)).unwrap();
    // A listener in a namespace keeps it alive.
    let threads = || {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter(|task| {
                let name = task.as_ref().unwrap().path().join("comm");
                std::fs::read_to_string(name).is_ok_and(|name| name.trim() == "kernel-monitor")
            })
            .count()
    };
    drop(events);
    namespace.sh("ip link add a0 type veth peer name a1");
    while threads() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn who_removed_a_route_is_told_by_name_while_the_process_lives() {
    let namespace = Namespace::new();
    let mut events = namespace.run(|| monitor(0, 0)).unwrap();
    namespace.sh("ip route add blackhole 10.0.0.0/26 proto 122");
    let mut remover = namespace.run(|| {
        std::process::Command::new("ip")
            .args(["-batch", "-"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    });
    let mut lines = remover.stdin.take().unwrap();
    lines
        .write_all(b"route del blackhole 10.0.0.0/26\n")
        .unwrap();
    let port = wait(&mut events, |event| match event {
        KernelEvent::RouteGone { port, .. } => Some(port),
        _ => None,
    });
    assert_eq!(port, remover.id());
    let name = || namespace.run(|| port_owner(port));
    assert_eq!(name().as_deref(), Some("ip"));
    // A process of the same number in another namespace is somebody else.
    assert_eq!(port_owner(port), None);
    drop(lines);
    remover.wait().unwrap();
    assert_eq!(name(), None);
}
