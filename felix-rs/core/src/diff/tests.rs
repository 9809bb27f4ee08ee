#![allow(clippy::unwrap_used)]
use super::*;
use model::{Object, Update, manifest};
use serde_json::{Value, json};
use std::net::IpAddr;

fn applied(document: Value) -> Update {
    match manifest::parse(&document).unwrap() {
        manifest::Parsed::Valid { object, warnings } => Update::Apply { object, warnings },
        manifest::Parsed::Invalid { invalid, fallback } => Update::Reject { invalid, fallback },
        other => panic!("{other:?}"),
    }
}

fn object(document: Value) -> Object {
    match applied(document) {
        Update::Apply { object, .. } => object,
        other => panic!("{other:?}"),
    }
}

fn policy(ports: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "api", "namespace": "shop" },
        "spec": {
            "podSelector": { "matchLabels": { "app": "api" } },
            "ingress": [{
                "from": [{ "podSelector": { "matchLabels": { "app": "front" } } }],
                "ports": ports,
            }],
        },
    })
}

/// Pods `front` at 10.0.0.1 and `api` at 10.0.0.2, and one policy between them.
fn view() -> View {
    let endpoint = |pod: &str, address: &str| {
        let endpoint = object(json!({
            "apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
            "metadata": {
                "name": format!("n1-k8s-{pod}-eth0"), "namespace": "shop",
                "labels": { "app": pod },
            },
            "spec": {
                "node": "n1", "orchestrator": "k8s", "pod": pod, "endpoint": "eth0",
                "containerID": pod, "interfaceName": format!("oci{pod}"),
                "ipNetworks": [format!("{address}/32")], "mac": "02:00:00:00:00:01",
            },
        }));
        match endpoint {
            Object::WorkloadEndpoint(endpoint) => (*endpoint, None),
            other => panic!("{other:?}"),
        }
    };
    View {
        objects: vec![object(policy(json!([{ "port": 80 }])))],
        endpoints: vec![endpoint("front", "10.0.0.1"), endpoint("api", "10.0.0.2")],
        ..View::default()
    }
}

#[test]
fn a_change_names_the_connections_and_what_decides_before_and_after() {
    let after = view().with(vec![applied(policy(
        json!([{ "port": 80 }, { "port": 443 }]),
    ))]);
    let expected = Change {
        opens: true,
        source: vec!["shop/front".into()],
        destination: vec!["shop/api".into()],
        services: vec!["tcp/443".into()],
        family: None,
        before: "ingress: no rule of NetworkPolicy/shop/api matches: denied at the end of tier \
                 default"
            .into(),
        after: "ingress: allowed by rule 0 of NetworkPolicy/shop/api (tier default)".into(),
    };
    assert_eq!(diff(&view(), &after), [expected]);
    assert_eq!(diff(&view(), &view()), []);
}

#[test]
fn a_change_that_is_rejected_changes_nothing() {
    let after = view().with(vec![applied(policy(json!([{ "port": 65536 }])))]);
    assert_eq!(diff(&view(), &after), []);
}

#[test]
fn connections_that_a_change_denies_are_cut_and_others_are_not() {
    let after = view().with(vec![applied(policy(json!([{ "port": 443 }])))]);
    let flow = |source: &str, port: u16| LiveFlow {
        protocol: 6,
        source: source.parse::<IpAddr>().unwrap(),
        destination: "10.0.0.2".parse().unwrap(),
        ports: Some((40_000, port)),
        icmp: None,
        original_destination: None,
    };
    // What is denied already lives on if it is older than the policy; the change does not cut it.
    let flows = [
        flow("10.0.0.1", 80),
        flow("10.0.0.1", 443),
        flow("192.0.2.1", 80),
    ];
    assert_eq!(cut(&view(), &after, &flows), [&flows[0]]);
}
