//! What the table does at host endpoints.

use crate::kinds::{accepted, compiler, from_3, global, packet, rule, tell, to_port};
use crate::nft::{END, nft};
use crate::table::interface;
use model::{CalicoAction, CalicoPolicy, FailsafePort, HostEndpoint, Labels, Protocol, Selector};
use policy::program::Packet;
use policy::ruleset::commands;
use policy::{Compiler, Failsafe, NetworkSets, Options, Policy, Ruleset};
use std::collections::BTreeMap;

fn host() -> HostEndpoint {
    HostEndpoint {
        name: "h".to_owned(),
        labels: Labels::new(),
        node: "n1".to_owned(),
        interface_name: None,
        expected_ips: vec!["192.0.2.1".parse().unwrap()],
        ports: vec![],
        profiles: vec![],
    }
}

fn on_node() -> Compiler {
    compiler(Options {
        node: "n1".to_owned(),
        ..Options::default()
    })
}

/// A packet for the host, by its interface.
fn arriving(source: &str, port: u16) -> Packet {
    Packet {
        iif: interface(2),
        oif: None,
        ports: Some((40_000, port)),
        ..packet(None, None, source, "192.0.2.1")
    }
}

#[test]
fn a_host_endpoint_without_policy_leaves_failsafe_ports_and_forwarding_alone() {
    let mut compiler = on_node();
    compiler.set_host_endpoint("h", Some(host()));
    let addresses = ["192.0.2.1".parse().unwrap()].into();
    compiler.set_host_interfaces(BTreeMap::from([("eth0".to_owned(), addresses)]));
    compiler.resolve();
    let incoming = |port| arriving("198.51.100.1", port);
    assert!(accepted(&compiler, &incoming(22)));
    assert!(!accepted(&compiler, &incoming(80)));
    assert!(accepted(&compiler, &from_3(80)));
    let tunnel = Packet {
        protocol: 17,
        ..incoming(4789)
    };
    assert!(!accepted(&compiler, &tunnel));
    compiler.set_network(NetworkSets {
        vxlan_peers: ["198.51.100.1".parse().unwrap()].into(),
        ..NetworkSets::default()
    });
    compiler.resolve();
    assert!(accepted(&compiler, &tunnel));
    compiler.set_host_interfaces(BTreeMap::new());
    compiler.resolve();
    assert!(accepted(&compiler, &incoming(80)));
}

#[test]
fn a_failsafe_port_of_a_network_is_open_to_that_network_and_the_kernel_takes_it() {
    let ports = |nets: &[&str]| -> Vec<FailsafePort> {
        let port = |net: &&str| FailsafePort {
            protocol: Protocol::Tcp,
            port: 22,
            net: Some(net.parse().unwrap()),
        };
        nets.iter().map(port).collect()
    };
    let options = |inbound: &[&str], outbound: &[&str]| Options {
        node: "n1".to_owned(),
        failsafe: Failsafe {
            inbound: ports(inbound),
            outbound: ports(outbound),
        },
        ..Options::default()
    };
    let mut compiler = compiler(options(&["192.0.2.128/25"], &["::/0"]));
    compiler.set_host_endpoint("h", Some(host()));
    let addresses = ["192.0.2.1".parse().unwrap()].into();
    compiler.set_host_interfaces(BTreeMap::from([("eth0".to_owned(), addresses)]));
    let empty = Ruleset::default();
    let mut transactions = format!("{}{END}", commands(&compiler.resolve(), &empty));
    let from = |address: &str| arriving(address, 22);
    assert!(accepted(&compiler, &from("192.0.2.200")));
    assert!(!accepted(&compiler, &from("192.0.2.100")));
    let before = compiler.ruleset().clone();
    compiler.set_options(options(&["0.0.0.0/0", "2001:db8::/32"], &["192.0.2.0/24"]));
    transactions += &format!("{}{END}", commands(&compiler.resolve(), &before));
    assert!(accepted(&compiler, &from("192.0.2.100")));
    nft("", &transactions).unwrap();
}

#[test]
fn a_policy_before_destination_nat_admits_past_the_ordinary_ones() {
    let mut compiler = on_node();
    let early = CalicoPolicy {
        pre_dnat: true,
        apply_on_forward: true,
        ..global(
            "early",
            vec![to_port(CalicoAction::Allow, Selector::All, 8080)],
        )
    };
    let mut early = early;
    early.ingress.as_mut().unwrap()[0].source.selector = None;
    tell(&mut compiler, Policy::from(early));
    let host = HostEndpoint {
        interface_name: Some("*".to_owned()),
        ..host()
    };
    compiler.set_host_endpoint("h", Some(host));
    compiler.resolve();
    let incoming = |port| arriving("198.51.100.1", port);
    assert!(accepted(&compiler, &incoming(8080)));
    assert!(!accepted(&compiler, &incoming(8081)));
    let translated = |from: u16, to: u16| Packet {
        original_destination: Some(("192.0.2.9".parse().unwrap(), Some(from))),
        ..incoming(to)
    };
    assert!(accepted(&compiler, &translated(8080, 80)));
    assert!(!accepted(&compiler, &translated(80, 8080)));
}

#[test]
fn what_an_untracked_policy_allows_is_not_asked_before_destination_nat() {
    let mut compiler = on_node();
    let early = |name, action| CalicoPolicy {
        apply_on_forward: true,
        ..global(name, vec![action])
    };
    let mut allow = rule(CalicoAction::Allow);
    allow.protocol = Some(17);
    let untracked = CalicoPolicy {
        do_not_track: true,
        ..early("untracked", allow)
    };
    let denied = CalicoPolicy {
        pre_dnat: true,
        ..early("denied", rule(CalicoAction::Deny))
    };
    tell(&mut compiler, Policy::from(untracked));
    tell(&mut compiler, Policy::from(denied));
    let host = HostEndpoint {
        interface_name: Some("eth0".to_owned()),
        profiles: vec!["projectcalico-default-allow".to_owned().into()],
        ..host()
    };
    compiler.set_host_endpoint("h", Some(host));
    compiler.resolve();
    let incoming = |protocol| Packet {
        iif: interface(2),
        oif: None,
        protocol,
        ..packet(None, None, "198.51.100.1", "192.0.2.1")
    };
    assert!(accepted(&compiler, &incoming(17)));
    assert!(!accepted(&compiler, &incoming(6)));
}
