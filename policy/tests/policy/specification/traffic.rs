//! Traffic classes around nodes and address translation.

use super::{calico, cluster, cluster_policy, flow, named_network_policy, row};
use policy::{Endpoint, Reason};
use serde_json::{Value, json};

fn isolate_all() -> Value {
    let types = json!(["Ingress", "Egress"]);
    named_network_policy("deny", json!({ "podSelector": {}, "policyTypes": types }))
}

fn admin_deny_all() -> Value {
    let everybody = json!([{ "action": "Deny", "from": [{ "namespaces": {} }] }]);
    let everywhere = json!([{ "action": "Deny", "to": [{ "networks": ["0.0.0.0/0", "::/0"] }] }]);
    cluster_policy(
        "deny",
        json!({
            "tier": "Admin", "priority": 0, "subject": { "namespaces": {} },
            "ingress": everybody, "egress": everywhere,
        }),
    )
}

fn calico_deny_all() -> Value {
    calico(
        "GlobalNetworkPolicy",
        "deny",
        json!({ "types": ["Ingress", "Egress"], "order": 1 }),
    )
}

#[test]
fn the_own_node_always_reaches_its_pods_and_they_reach_it_unless_an_administrator_says_no() {
    let probes = [
        "own-node x/a tcp/80",
        "own-node x/a icmp/8",
        "own-node x/a tcp/80 v6",
    ];
    for policy in [isolate_all(), admin_deny_all(), calico_deny_all()] {
        row("probes", &[policy], &probes, &[]);
    }
    row(
        "NetworkPolicy",
        &[isolate_all()],
        &["x/a own-node tcp/10250"],
        &[],
    );
    row(
        "ClusterNetworkPolicy",
        &[admin_deny_all()],
        &[],
        &["x/a own-node tcp/10250"],
    );
    row(
        "Calico",
        &[calico_deny_all()],
        &[],
        &["x/a own-node tcp/10250"],
    );
}

#[test]
fn a_remote_node_is_allowed_by_its_address_only() {
    row(
        "isolated",
        &[isolate_all()],
        &[],
        &["192.0.2.12 x/a tcp/80"],
    );
    let block = json!([{ "from": [{ "ipBlock": { "cidr": "192.0.2.0/24" } }] }]);
    let policy = named_network_policy("p", json!({ "podSelector": {}, "ingress": block }));
    row("a block", &[policy], &["192.0.2.12 x/a tcp/80"], &[]);
    let pods = json!([{ "from": [{ "namespaceSelector": {} }] }]);
    let policy = named_network_policy("p", json!({ "podSelector": {}, "ingress": pods }));
    row(
        "pods in the host's network are the node",
        &[policy],
        &[],
        &["192.0.2.12 x/a tcp/80"],
    );
}

#[test]
fn a_pod_reaches_itself_through_a_service_unless_an_administrator_says_no() {
    row(
        "NetworkPolicy",
        &[isolate_all()],
        &["x/a x/a tcp/80", "x/a x/a tcp/80 v6"],
        &[],
    );
    row(
        "ClusterNetworkPolicy",
        &[admin_deny_all()],
        &[],
        &["x/a x/a tcp/80"],
    );
    row("Calico", &[calico_deny_all()], &[], &["x/a x/a tcp/80"]);
}

#[test]
fn messages_are_like_everything_else() {
    let ports = json!([{ "ports": [{ "port": 80 }] }]);
    let policy = named_network_policy("p", json!({ "podSelector": {}, "ingress": ports }));
    row(
        "rules with ports",
        &[policy],
        &["y/b x/a tcp/80"],
        &["y/b x/a icmp/8", "y/b x/a icmp/128 v6"],
    );
    let peers = json!([{ "from": [{ "namespaceSelector": {} }] }]);
    let policy = named_network_policy("p", json!({ "podSelector": {}, "ingress": peers }));
    row(
        "rules without ports",
        &[policy],
        &["y/b x/a icmp/8", "y/b x/a icmp/128 v6"],
        &[],
    );
}

#[test]
fn pods_send_no_tunnel_packets_whatever_policies_say() {
    row(
        "IP in IP and VXLAN",
        &[],
        &[
            "192.0.2.12 x/a 4",
            "x/a own-node udp/4789",
            "x/a y/b udp/4790",
        ],
        &["x/a y/b 4", "x/a 192.0.2.12 udp/4789", "x/a x/a udp/4789"],
    );
}

#[test]
fn a_pod_whose_labels_are_not_known_is_closed_and_nobodys_peer() {
    let mut evaluator = cluster(&[]);
    let (id, pod) = super::pod(0, 0);
    evaluator.set_endpoint(
        &id,
        Some(Endpoint {
            labels_known: false,
            ..pod
        }),
    );
    for (line, expected) in [
        ("y/b x/a tcp/80", false),
        ("x/a y/b tcp/80", false),
        ("own-node x/a tcp/80", true),
        ("x/a own-node tcp/80", true),
    ] {
        assert_eq!(evaluator.verdict(&flow(line)).allowed, expected, "{line}");
    }
    let decision = evaluator.verdict(&flow("x/a y/b tcp/80"));
    assert_eq!(decision.egress.reason, Reason::LabelsUnknown);
    let pods = json!([{ "from": [{ "namespaceSelector": {} }] }]);
    let policy = named_network_policy("p", json!({ "podSelector": {}, "ingress": pods }));
    let mut evaluator = cluster(&[policy]);
    let (id, pod) = super::pod(1, 1);
    evaluator.set_endpoint(
        &id,
        Some(Endpoint {
            labels_known: false,
            ..pod
        }),
    );
    assert!(!evaluator.verdict(&flow("y/b x/a tcp/80")).ingress.allows());
}
