#![allow(clippy::unwrap_used)]
use super::*;
use crate::fixtures::ethernet;
use crate::workloads::{EndpointKey, LocalEndpoint};
use model::dataplane::{Address, Route, RouteKind};
use model::manifest::{Parsed, parse};
use model::{Labels, NetworkPolicy, Object, Selector, Update, WorkloadEndpoint};
use serde_json::json;

const NODE: &str = "10.1.0.11";
const POD: &str = "10.244.0.1";
const OTHER: &str = "10.244.0.2";
const OUTSIDE: &str = "192.0.2.7";
const NOBODY: &str = "10.244.0.9";
/// Outside of the node's blocks.
const GUEST: &str = "10.9.0.1";

fn calc() -> Calc {
    let mut calc = Calc::new(
        "n1",
        crate::checks::TunnelKinds {
            ipip: true,
            ip6: true,
            vxlan: true,
        },
        policy::Options::default(),
    );
    calc.set_own_blocks([net("10.244.0.0/26")].into());
    for (pod, ip, ifindex) in [("web", POD, 7), ("db", OTHER, 8)] {
        let name = format!("oci{pod}");
        calc.on_link(ethernet(ifindex, &name));
        calc.set_local(LocalEndpoint {
            endpoint: workload(pod, ip, &name),
            ifindex,
            mtu: 1500,
            sequence: 1,
        });
    }
    calc.on_link(ethernet(2, "eth0"));
    calc.on_address(Address {
        ifindex: 2,
        address: "10.1.0.11/24".parse().unwrap(),
    });
    calc.resolve();
    calc
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn workload(pod: &str, ip: &str, interface: &str) -> WorkloadEndpoint {
    WorkloadEndpoint {
        namespace: "shop".into(),
        name: format!("n1-k8s-{pod}-eth0").into(),
        node: "n1".into(),
        pod: pod.into(),
        pod_uid: None,
        container_id: pod.into(),
        endpoint: "eth0".into(),
        interface_name: interface.into(),
        mac: [2, 0, 0, 0, 0, 1],
        ip_networks: vec![net(&format!("{ip}/32"))],
        labels: Labels::from([("app".to_owned(), pod.to_owned())]),
        ports: vec![].into(),
        host_ports: vec![],
    }
}

fn isolate(calc: &mut Calc, pod: &str) {
    let policy = NetworkPolicy {
        namespace: "shop".into(),
        name: format!("isolate-{pod}"),
        pod_selector: Selector::Eq("app".into(), pod.into()),
        ingress: Some(vec![]),
        egress: None,
    };
    calc.on_update(Update::Apply {
        object: Object::NetworkPolicy(std::sync::Arc::new(policy)),
        warnings: vec![],
    });
    calc.resolve();
}

fn flow(source: &str, destination: &str) -> LiveFlow {
    LiveFlow {
        protocol: 6,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        ports: Some((40000, 80)),
        icmp: None,
        original_destination: None,
    }
}

fn denied(calc: &Calc, source: &str, destination: &str) -> bool {
    calc.judge().denies(&flow(source, destination))
}

fn guest(calc: &mut Calc) -> EndpointKey {
    let guest = LocalEndpoint {
        endpoint: workload("guest", GUEST, "ociguest"),
        ifindex: 9,
        mtu: 1500,
        sequence: 2,
    };
    let key = EndpointKey::of(&guest.endpoint);
    calc.set_local(guest);
    key
}

#[test]
fn a_connection_that_no_policy_touches_stays() {
    let calc = calc();
    for (source, destination) in [(POD, OTHER), (OUTSIDE, POD), (POD, OUTSIDE), (NODE, POD)] {
        assert!(
            !denied(&calc, source, destination),
            "{source} {destination}"
        );
    }
}

#[test]
fn a_policy_ends_what_it_denies_and_nothing_else() {
    let mut calc = calc();
    isolate(&mut calc, "web");
    assert!(denied(&calc, OTHER, POD));
    assert!(denied(&calc, OUTSIDE, POD));
    assert!(!denied(&calc, POD, OTHER));
    assert!(!denied(&calc, POD, POD), "a pod and itself");
    assert!(!denied(&calc, NODE, POD), "the own node");
    assert!(
        !denied(&calc, "169.254.1.1", POD),
        "the own node, as pods see it"
    );
    assert!(!denied(&calc, OUTSIDE, "192.0.2.8"), "no pod of ours");
}

#[test]
fn the_connections_of_an_address_that_no_pod_has_any_more_end() {
    let calc = calc();
    assert!(denied(&calc, NOBODY, OUTSIDE));
    assert!(denied(&calc, POD, NOBODY));
    assert!(denied(&calc, NODE, NOBODY));
}

#[test]
fn own_blocks_and_pods_outside_of_them_are_looked_at() {
    let mut calc = calc();
    let key = guest(&mut calc);
    let expected = [net("10.9.0.1/32"), net("10.244.0.0/26")];
    assert_eq!(calc.judged_addresses(), expected.into());
    calc.remove_local(&key);
    assert_eq!(calc.judged_addresses(), expected.into(), "what it had open");
}

#[test]
fn the_connections_of_a_pod_outside_of_own_blocks_end_with_it() {
    let mut calc = calc();
    let key = guest(&mut calc);
    calc.resolve();
    assert!(!denied(&calc, OTHER, GUEST));
    calc.remove_local(&key);
    calc.resolve();
    assert!(denied(&calc, OTHER, GUEST));
    assert!(denied(&calc, GUEST, OUTSIDE));

    let elsewhere = WorkloadEndpoint {
        node: "n2".into(),
        ..workload("elsewhere", GUEST, "ocielse")
    };
    calc.on_update(Update::Apply {
        object: Object::WorkloadEndpoint(Box::new(elsewhere)),
        warnings: vec![],
    });
    calc.resolve();
    assert!(!denied(&calc, OTHER, GUEST), "it is another node's pod's");

    let key = guest(&mut calc);
    calc.remove_local(&key);
    calc.forget_departed(|address| address.to_string() == GUEST);
    calc.resolve();
    assert!(!denied(&calc, OTHER, GUEST), "nothing of it is left");
}

#[test]
fn a_host_endpoint_of_one_interface_is_asked_about_what_comes_in_there_as_it_came() {
    let mut calc = calc();
    calc.on_link(ethernet(3, "eth1"));
    calc.on_address(Address {
        ifindex: 3,
        address: "172.16.0.11/24".parse().unwrap(),
    });
    let connected = |dest: &str, ifindex| Route {
        dest: net(dest),
        kind: RouteKind::Device { ifindex },
    };
    calc.on_foreign_route(connected("172.16.0.0/24", 3), 0);
    calc.on_foreign_route(connected("10.1.0.0/24", 2), 0);
    let documents = [
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint",
            "metadata": { "name": "n1-eth1", "labels": { "side": "outer" } },
            "spec": { "node": "n1", "interfaceName": "eth1", "profiles": ["projectcalico-default-allow"] },
        }),
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": { "name": "closed" },
            "spec": {
                "selector": "side == 'outer'", "types": ["Ingress"],
                "preDNAT": true, "applyOnForward": true,
                "ingress": [{ "action": "Deny", "protocol": "TCP", "destination": { "ports": [8080] } }],
            },
        }),
    ];
    for document in documents {
        let Parsed::Valid { object, warnings } = parse(&document).unwrap() else {
            panic!("{document}");
        };
        calc.on_update(Update::Apply { object, warnings });
    }
    calc.resolve();
    let denied = |source: &str, port| {
        calc.judge().denies(&LiveFlow {
            original_destination: Some(("172.16.0.11".parse().unwrap(), Some(port))),
            ..flow(source, POD)
        })
    };
    assert!(denied("172.16.0.5", 8080));
    assert!(!denied("172.16.0.5", 80), "another port");
    assert!(!denied("10.1.0.5", 8080), "another interface");
}
