//! `policy.networking.k8s.io/v1alpha2` `ClusterNetworkPolicy`.

use super::{Step, policy, team};
use integration::prober::PORTS;
use serde_json::{Value, json};

/// For the pods of namespace `x`.
fn cluster_policy(name: &str, tier: &str, priority: u16, rules: &Value) -> Value {
    let mut spec = json!({"tier": tier, "priority": priority,
        "subject": {"namespaces": {"matchLabels": {"team": "x"}}}});
    if let (Some(spec), Some(rules)) = (spec.as_object_mut(), rules.as_object()) {
        spec.extend(rules.clone());
    }
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name}, "spec": spec})
}

fn from(team: &str, action: &str) -> Value {
    json!({"name": format!("{action}-{team}"), "action": action, "from": [{"namespaces": {"matchLabels": {"team": team}}}]})
}

pub(in super::super) fn cluster() -> Vec<Step> {
    let [first, second] = PORTS;
    let tcp = |port: u16| json!([{"tcp": {"destinationPort": {"number": port}}}]);
    let anybody = json!({"action": "Deny", "from": [{"namespaces": {}}]});
    let everywhere = json!({"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]});
    let np = || {
        policy(
            "x",
            "np",
            json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": team("z")}]}]}),
        )
    };
    let accept_only = |to: Value, protocols: Value| {
        let mut accept = json!({"action": "Accept", "to": [to]});
        if !protocols.is_null() {
            accept["protocols"] = protocols;
        }
        vec![cluster_policy(
            "e",
            "Admin",
            1,
            &json!({"egress": [accept, everywhere]}),
        )]
    };
    vec![
        (
            "a cluster-wide policy isolates nobody by itself",
            vec![cluster_policy(
                "a",
                "Admin",
                1,
                &json!({"ingress": [from("y", "Accept")]}),
            )],
        ),
        (
            "the first rule that matches decides",
            vec![cluster_policy(
                "a",
                "Admin",
                1,
                &json!({"ingress": [from("y", "Accept"), anybody]}),
            )],
        ),
        (
            "the lower priority number comes first",
            vec![
                cluster_policy("late", "Admin", 9, &json!({"ingress": [from("y", "Deny")]})),
                cluster_policy(
                    "early",
                    "Admin",
                    1,
                    &json!({"ingress": [from("y", "Accept")]}),
                ),
            ],
        ),
        (
            "what the admin tier denies no NetworkPolicy allows",
            vec![
                cluster_policy("a", "Admin", 1, &json!({"ingress": [from("z", "Deny")]})),
                np(),
            ],
        ),
        (
            "what the admin tier accepts no NetworkPolicy denies",
            vec![
                cluster_policy("a", "Admin", 1, &json!({"ingress": [from("y", "Accept")]})),
                np(),
            ],
        ),
        (
            "pass leaves the tier",
            vec![
                cluster_policy(
                    "a",
                    "Admin",
                    1,
                    &json!({"ingress": [from("z", "Pass"), anybody]}),
                ),
                np(),
            ],
        ),
        (
            "the baseline tier counts where no NetworkPolicy isolates",
            vec![cluster_policy(
                "b",
                "Baseline",
                1,
                &json!({"ingress": [from("y", "Deny")]}),
            )],
        ),
        (
            "a NetworkPolicy comes before the baseline tier",
            vec![
                cluster_policy("b", "Baseline", 1, &json!({"ingress": [from("z", "Deny")]})),
                np(),
            ],
        ),
        (
            "egress to networks and pods with ports",
            vec![cluster_policy(
                "e",
                "Admin",
                1,
                &json!({"egress": [
                    {"action": "Accept", "to": [{"pods": {"namespaceSelector": team("y"), "podSelector": {}}}], "protocols": tcp(first)},
                    {"action": "Deny", "to": [{"networks": ["10.244.0.0/16"]}]},
                ]}),
            )],
        ),
        (
            "a port range, and named ports",
            vec![cluster_policy(
                "r",
                "Admin",
                1,
                &json!({"ingress": [
                    {"action": "Accept", "from": [{"namespaces": {}}], "protocols": [{"tcp": {"destinationPort": {"range": {"start": 1, "end": first}}}}]},
                    {"action": "Deny", "from": [{"namespaces": {}}]},
                ]}),
            )],
        ),
        (
            "a policy without rules for a direction does not affect it",
            vec![cluster_policy(
                "a",
                "Admin",
                1,
                &json!({"ingress": [anybody]}),
            )],
        ),
        (
            "pass over the other policies of the tier, to the baseline",
            vec![
                cluster_policy("a", "Admin", 1, &json!({"ingress": [from("z", "Pass")]})),
                cluster_policy("b", "Admin", 2, &json!({"ingress": [anybody]})),
                cluster_policy("c", "Baseline", 1, &json!({"ingress": [from("z", "Deny")]})),
            ],
        ),
        (
            "the baseline may pass",
            vec![cluster_policy(
                "b",
                "Baseline",
                1,
                &json!({"ingress": [from("y", "Pass"), anybody]}),
            )],
        ),
        (
            "the baseline decides in the direction that no NetworkPolicy isolates",
            vec![
                policy(
                    "x",
                    "out",
                    json!({"podSelector": {}, "policyTypes": ["Egress"]}),
                ),
                cluster_policy("b", "Baseline", 1, &json!({"ingress": [from("y", "Deny")]})),
            ],
        ),
        (
            "the baseline orders by priority",
            vec![
                cluster_policy("a", "Baseline", 9, &json!({"ingress": [anybody]})),
                cluster_policy(
                    "b",
                    "Baseline",
                    1,
                    &json!({"ingress": [from("z", "Accept")]}),
                ),
            ],
        ),
        (
            "all three tiers together",
            vec![
                cluster_policy(
                    "a",
                    "Admin",
                    1,
                    &json!({"ingress": [from("y", "Pass"), from("x", "Deny")]}),
                ),
                policy(
                    "x",
                    "np",
                    json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": [{"namespaceSelector": team("y")}]}]}),
                ),
                cluster_policy("c", "Baseline", 1, &json!({"ingress": [anybody]})),
            ],
        ),
        (
            "one port of SCTP denied, ingress",
            vec![cluster_policy(
                "s",
                "Admin",
                1,
                &json!({"ingress": [{"action": "Deny", "from": [{"namespaces": {}}],
                    "protocols": [{"sctp": {"destinationPort": {"number": first}}}]}]}),
            )],
        ),
        (
            "one port of SCTP accepted, egress",
            accept_only(
                json!({"namespaces": {}}),
                json!([{"sctp": {"destinationPort": {"number": first}}}]),
            ),
        ),
        (
            "one port of UDP, and a range of TCP",
            accept_only(
                json!({"namespaces": {}}),
                json!([{"udp": {"destinationPort": {"number": first}}},
                    {"tcp": {"destinationPort": {"range": {"start": second, "end": second + 9}}}}]),
            ),
        ),
        (
            "a named port of ingress is the subject's, with its protocol",
            vec![cluster_policy(
                "n",
                "Admin",
                1,
                &json!({"ingress": [{"action": "Deny", "from": [{"namespaces": {}}],
                    "protocols": [{"destinationNamedPort": "web"}, {"destinationNamedPort": "diameter"}]}]}),
            )],
        ),
        (
            "a named port of egress is the peer's",
            accept_only(
                json!({"namespaces": {}}),
                json!([{"destinationNamedPort": "web"}]),
            ),
        ),
        (
            "networks hold pods, of their own family",
            accept_only(json!({"networks": ["10.244.0.0/16"]}), Value::Null),
        ),
        (
            "a network of one address with a port",
            accept_only(json!({"networks": ["@yb4/32", "@zc6/128"]}), tcp(first)),
        ),
        (
            "nodes are their addresses, the own node's too",
            accept_only(json!({"nodes": {}}), Value::Null),
        ),
        (
            "nodes denied: the way to the own node is subject too",
            vec![cluster_policy(
                "n",
                "Admin",
                1,
                &json!({"egress": [{"action": "Deny", "to": [{"nodes": {}}], "protocols": tcp(first)}]}),
            )],
        ),
        (
            "the own node reaches its pods, whatever the admin tier says",
            vec![
                json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
                "metadata": {"name": "all"}, "spec": {"tier": "Admin", "priority": 0,
                "subject": {"namespaces": {}}, "ingress": [anybody], "egress": [everywhere]}}),
            ],
        ),
        (
            "a subject of pods",
            vec![
                json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
                "metadata": {"name": "pods"}, "spec": {"tier": "Admin", "priority": 0,
                "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"pod": "b"}}}},
                "ingress": [from("x", "Deny")]}}),
            ],
        ),
        (
            "an Accept with an unknown peer matches nothing",
            vec![cluster_policy(
                "u",
                "Admin",
                1,
                &json!({"ingress": [{"action": "Accept", "from": [{"planets": {}}]}, from("y", "Deny")]}),
            )],
        ),
        (
            "a Deny with an unknown peer denies all",
            vec![cluster_policy(
                "u",
                "Admin",
                1,
                &json!({"ingress": [{"action": "Deny", "from": [{"planets": {}}]}]}),
            )],
        ),
        (
            "a Pass with an unknown peer denies all",
            vec![cluster_policy(
                "u",
                "Admin",
                1,
                &json!({"egress": [{"action": "Pass", "to": [{"planets": {}}]}]}),
            )],
        ),
        (
            "a Service to the pod itself is subject to it",
            vec![cluster_policy(
                "i",
                "Admin",
                1,
                &json!({"ingress": [from("x", "Deny")]}),
            )],
        ),
        ("nothing is left behind", vec![]),
    ]
}
