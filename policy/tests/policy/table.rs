//! What the table does to single packets.

use model::{
    Labels, NamedPort, NetworkPolicy, PolicyPort, PolicyRule, PortMatch, Protocol, Selector,
};
use policy::program::{Connection, Interface, Outcome, Packet, run};
use policy::{Compiler, Endpoint, EndpointId, NetworkSets, Options, Policy};
use std::net::IpAddr;

pub(crate) const A: u32 = 100;
pub(crate) const B: u32 = 101;

pub(crate) fn pod(number: u32, interface: Option<u32>) -> (EndpointId, Endpoint) {
    let [high, low] = [(number >> 8) as u8, number as u8];
    let endpoint = Endpoint {
        namespace: "shop".to_owned().into(),
        pod: format!("pod-{number}").into(),
        labels: Labels::from([("app".to_owned(), "api".to_owned())]),
        ports: vec![NamedPort {
            name: "web".to_owned(),
            protocol: Protocol::Tcp,
            port: 8080,
        }]
        .into(),
        ips: vec![
            [10, 0, high, low].into(),
            [0xfd00, 0, 0, 0, 0, 0, 0, number as u16].into(),
        ],
        local: interface,
        labels_known: true,
        service_account: None,
        profiles: vec![].into(),
    };
    (EndpointId(format!("shop/pod-{number}").into()), endpoint)
}

pub(crate) fn policy(name: &str, ingress: Vec<PolicyRule>) -> NetworkPolicy {
    NetworkPolicy {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        pod_selector: Selector::All,
        ingress: Some(ingress),
        egress: Some(vec![]),
    }
}

pub(crate) fn set_policy(compiler: &mut Compiler, policy: NetworkPolicy) {
    let policy = Policy::from(policy);
    compiler.set_policy(&policy.key(), Some(policy));
}

/// Two local pods, 10.0.0.1 on interface A and 10.0.0.2 on interface B.
fn compiler() -> Compiler {
    let mut compiler = Compiler::new(Options::default());
    for (id, endpoint) in [pod(1, Some(A)), pod(2, Some(B))] {
        compiler.set_endpoint(&id, Some(endpoint));
    }
    compiler
}

fn isolated() -> Compiler {
    let mut compiler = compiler();
    set_policy(&mut compiler, policy("deny", vec![]));
    compiler
}

pub(crate) fn interface(index: u32) -> Option<Interface> {
    let name = if index >= A {
        format!("oci{index}")
    } else {
        "eth0".to_owned()
    };
    Some(Interface { index, name })
}

const OUTSIDE: u32 = 2;

fn packet(from: (u32, &str), to: (u32, &str)) -> Packet {
    Packet {
        iif: interface(from.0),
        oif: interface(to.0),
        source: from.1.parse().unwrap(),
        destination: to.1.parse().unwrap(),
        original_destination: None,
        protocol: 6,
        ports: Some((40_000, 8080)),
        icmp: None,
        connection: Connection::New,
        mark: 0,
    }
}

fn passes(compiler: &mut Compiler, packet: &Packet) -> bool {
    compiler.resolve();
    matches!(
        run(compiler.ruleset(), packet).unwrap(),
        Outcome::Accepted { .. }
    )
}

#[test]
fn pods_without_policies_reach_each_other_and_the_world() {
    let mut compiler = compiler();
    for (from, to) in [
        ((A, "10.0.0.1"), (B, "10.0.0.2")),
        ((A, "fd00::1"), (B, "fd00::2")),
        ((A, "10.0.0.1"), (OUTSIDE, "192.0.2.1")),
        ((OUTSIDE, "192.0.2.1"), (A, "10.0.0.1")),
    ] {
        assert!(passes(&mut compiler, &packet(from, to)), "{from:?} {to:?}");
    }
}

#[test]
fn an_interface_without_an_endpoint_forwards_nothing_in_either_direction() {
    let mut compiler = compiler();
    for (from, to) in [
        ((105, "10.0.0.5"), (OUTSIDE, "192.0.2.1")),
        ((105, "fd00::5"), (OUTSIDE, "2001:db8::1")),
        ((OUTSIDE, "192.0.2.1"), (105, "10.0.0.5")),
        ((OUTSIDE, "2001:db8::1"), (105, "fd00::5")),
    ] {
        assert!(!passes(&mut compiler, &packet(from, to)), "{from:?} {to:?}");
    }
}

#[test]
fn a_pod_speaks_with_its_own_addresses_only() {
    let mut compiler = compiler();
    for source in ["10.0.0.2", "192.0.2.9"] {
        assert!(
            !passes(&mut compiler, &packet((A, source), (OUTSIDE, "192.0.2.1"))),
            "{source}"
        );
    }
    let mut to_node = packet((A, "10.0.0.2"), (OUTSIDE, "192.0.2.1"));
    to_node.oif = None;
    assert!(!passes(&mut compiler, &to_node));
}

#[test]
fn a_pod_that_is_a_router_speaks_for_the_networks_behind_it_and_is_handed_what_is_for_them() {
    let mut compiler = compiler();
    let (inside, elsewhere) = ("10.123.1.9", "10.124.0.9");
    let both = |compiler: &mut Compiler, pod, address: &str| {
        let out = passes(compiler, &packet((pod, address), (OUTSIDE, "192.0.2.1")));
        let into = passes(compiler, &packet((OUTSIDE, "192.0.2.1"), (pod, address)));
        (out, into)
    };
    assert_eq!(both(&mut compiler, A, inside), (false, false));
    // Of two that overlap, the kernel would refuse the second.
    let networks = ["10.123.0.0/16", "10.123.1.0/24", "fd00:123::/32"];
    let networks = networks.map(|network| (A, network.parse().unwrap()));
    compiler.set_behind_pods(networks.into());
    for address in [inside, "10.123.255.255", "fd00:123::9"] {
        let seen = if address.contains(':') {
            let out = packet((A, address), (OUTSIDE, "2001:db8::1"));
            let into = packet((OUTSIDE, "2001:db8::1"), (A, address));
            (passes(&mut compiler, &out), passes(&mut compiler, &into))
        } else {
            both(&mut compiler, A, address)
        };
        assert_eq!(seen, (true, true), "{address}");
    }
    assert_eq!(both(&mut compiler, A, elsewhere), (false, false));
    assert_eq!(both(&mut compiler, B, inside), (false, false));
    assert_eq!(both(&mut compiler, A, "10.0.0.1"), (true, true));
    compiler.set_behind_pods([].into());
    assert_eq!(both(&mut compiler, A, inside), (false, false));
}

#[test]
fn neighbour_discovery_may_come_from_link_local_addresses_but_router_advertisements_may_not() {
    let mut compiler = compiler();
    for (icmpv6_type, allowed) in [
        (133, true),
        (134, false),
        (135, true),
        (136, true),
        (137, false),
    ] {
        let mut packet = packet((A, "fe80::1234"), (OUTSIDE, "ff02::1"));
        packet.oif = None;
        (packet.protocol, packet.ports, packet.icmp) = (58, None, Some((icmpv6_type, 0)));
        assert_eq!(passes(&mut compiler, &packet), allowed, "{icmpv6_type}");
    }
}

#[test]
fn policies_judge_forwarded_messages_that_look_like_neighbour_discovery() {
    for icmpv6_type in 133..=137 {
        let pass = |compiler: &mut Compiler, from, to| {
            let mut packet = packet(from, to);
            (packet.protocol, packet.ports, packet.icmp) = (58, None, Some((icmpv6_type, 0)));
            passes(compiler, &packet)
        };
        let outside = (OUTSIDE, "2001:db8::1");
        for (from, to) in [
            ((A, "fd00::1"), (B, "fd00::2")),
            ((A, "fd00::1"), outside),
            (outside, (B, "fd00::2")),
        ] {
            assert!(!pass(&mut isolated(), from, to), "{icmpv6_type} {from:?}");
            assert!(pass(&mut compiler(), from, to), "{icmpv6_type} {from:?}");
        }
    }
}

#[test]
fn replies_pass_whatever_policies_say_and_invalid_packets_never_do() {
    let mut isolated = isolated();
    let mut packet = packet((A, "10.0.0.1"), (B, "10.0.0.2"));
    assert!(!passes(&mut isolated, &packet));
    packet.connection = Connection::Established;
    assert!(passes(&mut isolated, &packet));
    packet.connection = Connection::Invalid;
    assert!(!passes(&mut compiler(), &packet));
}

#[test]
fn what_the_host_forwards_for_others_is_left_alone() {
    let mut packet = packet((OUTSIDE, "192.0.2.1"), (OUTSIDE, "198.51.100.1"));
    for connection in [
        Connection::New,
        Connection::Established,
        Connection::Invalid,
    ] {
        packet.connection = connection;
        assert!(passes(&mut isolated(), &packet), "{connection:?}");
    }
}

#[test]
fn pods_send_no_tunnel_packets() {
    let mut compiler = compiler();
    let mut tunnelled = packet((A, "10.0.0.1"), (OUTSIDE, "192.0.2.1"));
    (tunnelled.protocol, tunnelled.ports) = (17, Some((40_000, 4789)));
    assert!(!passes(&mut compiler, &tunnelled));
    (tunnelled.protocol, tunnelled.ports) = (4, None);
    assert!(!passes(&mut compiler, &tunnelled));
}

#[test]
fn only_known_nodes_may_send_ip_in_ip_to_our_tunnel_and_others_tunnels_are_left_alone() {
    let mut compiler = compiler();
    let tunnelled = |source, destination| {
        let mut packet = packet((OUTSIDE, source), (OUTSIDE, destination));
        (packet.oif, packet.protocol, packet.ports) = (None, 4, None);
        packet
    };
    let (ours, others) = ("192.0.2.1", "192.0.2.2");
    for local in [Some(ours), Some(others), None] {
        compiler.set_network(NetworkSets {
            ipip_peers: ["192.0.2.7".parse().unwrap()].into(),
            ipip_local: local.map(|local| local.parse().unwrap()),
            ..NetworkSets::default()
        });
        for destination in [ours, others] {
            let known = tunnelled("192.0.2.7", destination);
            assert!(passes(&mut compiler, &known), "{local:?} {destination}");
            let unknown = tunnelled("192.0.2.8", destination);
            let passes = passes(&mut compiler, &unknown);
            assert_eq!(
                passes,
                local != Some(destination),
                "{local:?} {destination}"
            );
        }
    }
}

#[test]
fn an_isolated_pod_and_its_own_node_reach_each_other() {
    let mut compiler = isolated();
    let mut packet = packet((A, "10.0.0.1"), (A, "10.0.0.1"));
    (packet.source, packet.iif) = ("192.0.2.1".parse().unwrap(), None);
    assert!(passes(&mut compiler, &packet));
    (packet.iif, packet.oif) = (interface(A), None);
    std::mem::swap(&mut packet.source, &mut packet.destination);
    assert!(passes(&mut compiler, &packet));
}

#[test]
fn an_isolated_pod_reaches_itself_through_a_service_but_nobody_else_does_in_its_name() {
    let mut compiler = isolated();
    for address in ["10.0.0.1", "fd00::1"] {
        assert!(passes(&mut compiler, &packet((A, address), (A, address))));
        assert!(!passes(
            &mut compiler,
            &packet((OUTSIDE, address), (A, address))
        ));
    }
}

#[test]
fn pods_are_masqueraded_towards_destinations_outside_of_the_pools() {
    let mut compiler = compiler();
    let [masquerade, pools] = ["10.0.0.0/24", "10.0.0.0/8"].map(|p| [p.parse().unwrap()].into());
    compiler.set_network(NetworkSets {
        masquerade,
        pools,
        ..NetworkSets::default()
    });
    compiler.resolve();
    for (destination, masqueraded) in [("192.0.2.1", true), ("10.9.9.9", false)] {
        let packet = packet((A, "10.0.0.1"), (OUTSIDE, destination));
        let outcome = run(compiler.ruleset(), &packet).unwrap();
        assert_eq!(outcome, Outcome::Accepted { masqueraded }, "{destination}");
    }
    compiler.set_network(NetworkSets::default());
    let packet = packet((A, "10.0.0.1"), (OUTSIDE, "192.0.2.1"));
    compiler.resolve();
    let outcome = run(compiler.ruleset(), &packet).unwrap();
    assert_eq!(outcome, Outcome::Accepted { masqueraded: false });
}

#[test]
fn a_pod_whose_labels_are_not_known_is_denied_in_both_directions() {
    let mut compiler = compiler();
    let (id, endpoint) = pod(1, Some(A));
    compiler.set_endpoint(
        &id,
        Some(Endpoint {
            labels_known: false,
            ..endpoint
        }),
    );
    assert!(!passes(
        &mut compiler,
        &packet((A, "10.0.0.1"), (OUTSIDE, "192.0.2.1"))
    ));
    assert!(!passes(
        &mut compiler,
        &packet((OUTSIDE, "192.0.2.1"), (A, "10.0.0.1"))
    ));
    assert!(passes(
        &mut compiler,
        &packet((B, "10.0.0.2"), (OUTSIDE, "192.0.2.1"))
    ));
}

#[test]
fn an_interface_with_two_owners_is_denied() {
    let mut compiler = compiler();
    let (id, endpoint) = pod(3, Some(A));
    compiler.set_endpoint(&id, Some(endpoint));
    assert!(!passes(
        &mut compiler,
        &packet((A, "10.0.0.1"), (OUTSIDE, "192.0.2.1"))
    ));
    compiler.set_endpoint(&id, None);
    assert!(passes(
        &mut compiler,
        &packet((A, "10.0.0.1"), (OUTSIDE, "192.0.2.1"))
    ));
}

#[test]
fn a_named_port_is_the_one_of_the_destination() {
    let mut compiler = compiler();
    let (id, mut other) = pod(2, Some(B));
    std::sync::Arc::make_mut(&mut other.ports)[0].port = 9090;
    compiler.set_endpoint(&id, Some(other));
    let port = PolicyPort {
        protocol: Protocol::Tcp,
        port: PortMatch::Named("web".to_owned()),
    };
    let rule = PolicyRule {
        peers: None,
        ports: Some(vec![port]),
    };
    set_policy(&mut compiler, policy("web", vec![rule]));
    let cases = [(A, "10.0.0.1", 8080, true), (A, "10.0.0.1", 9090, false)];
    for (interface, address, port, allowed) in cases
        .into_iter()
        .chain([(B, "10.0.0.2", 9090, true), (B, "10.0.0.2", 8080, false)])
    {
        let mut packet = packet((OUTSIDE, "192.0.2.1"), (interface, address));
        packet.ports = Some((40_000, port));
        assert_eq!(passes(&mut compiler, &packet), allowed, "{address} {port}");
    }
}

#[test]
fn an_address_that_is_not_a_pods_is_not_forwarded_to_its_interface() {
    let mut compiler = compiler();
    let packet = packet((OUTSIDE, "192.0.2.1"), (A, "10.0.0.77"));
    assert_eq!(packet.destination, "10.0.0.77".parse::<IpAddr>().unwrap());
    assert!(!passes(&mut compiler, &packet));
}
