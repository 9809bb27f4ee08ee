//! `projectcalico.org/v3` policies for pods.

use super::{Step, calico_object, labelled, policy, team, tier};
use integration::prober::PORTS;
use serde_json::{Value, json};

/// A namespaced policy for the pods of `x`, in tier `default`.
fn local(spec: Value) -> Vec<Value> {
    let mut whole = json!({"selector": "all()", "types": ["Ingress"]});
    if let (Some(whole), Some(spec)) = (whole.as_object_mut(), spec.as_object()) {
        whole.extend(spec.clone());
    }
    vec![calico_object("NetworkPolicy", Some("x"), "p", whole)]
}

/// Only what matches comes in to the pods of `x`.
fn only(mut rule: Value) -> Vec<Value> {
    rule["action"] = json!("Allow");
    local(json!({"ingress": [rule]}))
}

/// A policy for all namespaces, only what matches leaves the pods of `x`.
fn only_out(mut rule: Value) -> Value {
    rule["action"] = json!("Allow");
    calico_object(
        "GlobalNetworkPolicy",
        None,
        "out",
        json!({"namespaceSelector": "team == 'x'", "types": ["Egress"], "egress": [rule]}),
    )
}

pub(in super::super) fn calico() -> Vec<Step> {
    let [first, _] = PORTS;
    let np = || {
        policy(
            "x",
            "np",
            json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": team("z")}]}]}),
        )
    };
    vec![
        (
            "rules in order, then the end of the tier denies",
            vec![calico_object(
                "NetworkPolicy",
                Some("x"),
                "default.order",
                json!({"selector": "all()", "types": ["Ingress"], "ingress": [
                    {"action": "Deny", "source": {"selector": "pod == 'b'", "namespaceSelector": "all()"}},
                    {"action": "Allow", "source": {"namespaceSelector": "team == 'y'"}},
                ]}),
            )],
        ),
        (
            "nets, negations and ports",
            vec![calico_object(
                "GlobalNetworkPolicy",
                None,
                "nets",
                json!({
                "namespaceSelector": "team == 'x'", "types": ["Ingress"], "ingress": [
                    {"action": "Allow", "protocol": "TCP", "source": {"notSelector": "pod == 'a'"},
                        "destination": {"ports": [format!("{}:{}", first - 10, first)]}},
                    {"action": "Allow", "protocol": "ICMP", "icmp": {"type": 8}},
                    {"action": "Allow", "protocol": "UDP", "source": {"nets": ["10.244.0.0/16"]}},
                ]}),
            )],
        ),
        (
            "tiers, pass, and what a tier does at its end",
            vec![
                tier("early", 10, "Pass"),
                tier("late", 2_000_000, "Deny"),
                calico_object(
                    "GlobalNetworkPolicy",
                    None,
                    "early.a",
                    json!({"tier": "early", "selector": "ns == 'x'", "types": ["Ingress"], "ingress": [
                        {"action": "Pass", "source": {"selector": "ns == 'y'"}},
                        {"action": "Deny", "source": {"selector": "ns == 'z' && pod != 'c'"}},
                    ]}),
                ),
                calico_object(
                    "GlobalNetworkPolicy",
                    None,
                    "late.b",
                    json!({"tier": "late", "selector": "ns == 'x'", "types": ["Ingress"], "ingress": [
                        {"action": "Allow", "protocol": "TCP"},
                    ]}),
                ),
            ],
        ),
        (
            "a network set and an egress rule",
            vec![
                calico_object(
                    "GlobalNetworkSet",
                    None,
                    "pods",
                    json!({"nets": ["10.244.0.0/16"]}),
                )
,
                calico_object(
                    "NetworkPolicy",
                    Some("y"),
                    "default.out",
                    json!({"selector": "pod == 'a'", "types": ["Egress"], "egress": [
                        {"action": "Deny", "destination": {"selector": "role == 'pods'", "namespaceSelector": "global()"}},
                        {"action": "Allow"},
                    ]}),
                ),
            ],
        ),
        (
            "order beside NetworkPolicies of the same tier",
            vec![
                np(),
                calico_object(
                    "NetworkPolicy",
                    Some("x"),
                    "default.first",
                    json!({"order": 10, "selector": "all()", "types": ["Ingress"], "ingress": [
                        {"action": "Deny", "source": {"selector": "pod == 'a'", "namespaceSelector": "team == 'z'"}},
                    ]}),
                ),
            ],
        ),
        ("a protocol by its number", only(json!({"protocol": 132}))),
        ("notProtocol", only(json!({"notProtocol": "UDP"}))),
        ("ipVersion", only(json!({"ipVersion": 6}))),
        (
            "ICMP by type",
            only(json!({"protocol": "ICMP", "icmp": {"type": 8}})),
        ),
        (
            "ICMP by another type",
            only(json!({"protocol": "ICMP", "icmp": {"type": 13}})),
        ),
        (
            "ICMP by type and code",
            only(json!({"protocol": "ICMPv6", "icmp": {"type": 128, "code": 0}})),
        ),
        (
            "ICMP by another code",
            only(json!({"protocol": "ICMPv6", "icmp": {"type": 128, "code": 1}})),
        ),
        (
            "notICMP",
            only(json!({"protocol": "ICMP", "notICMP": {"type": 8, "code": 0}})),
        ),
        (
            "notICMP by another code",
            only(json!({"protocol": "ICMP", "notICMP": {"type": 8, "code": 3}})),
        ),
        (
            "ports with ranges and names",
            only(json!({"protocol": "TCP", "destination": {"ports": ["1:80", "web"]}})),
        ),
        (
            "a name has the rule's protocol",
            only(json!({"protocol": "SCTP", "destination": {"ports": ["web", "diameter"]}})),
        ),
        (
            "notPorts",
            only(json!({"protocol": "TCP", "destination": {"notPorts": [first]}})),
        ),
        (
            "notPorts by name",
            only(json!({"protocol": "TCP", "destination": {"notPorts": ["web"]}})),
        ),
        (
            "notPorts of whichever protocol",
            local(json!({"ingress": [
                {"action": "Deny", "protocol": "UDP", "destination": {"notPorts": [first]}},
                {"action": "Deny", "protocol": "SCTP", "destination": {"ports": [first]}},
                {"action": "Allow"}]})),
        ),
        (
            "ports of the source",
            only(json!({"protocol": "TCP", "source": {"ports": ["1:65535"]}})),
        ),
        (
            "notPorts of the source",
            only(json!({"protocol": "SCTP", "source": {"notPorts": ["1024:65535"]}})),
        ),
        (
            "named ports of egress are the peer's",
            vec![only_out(
                json!({"protocol": "TCP", "destination": {"ports": ["web"]}}),
            )],
        ),
        (
            "named ports of a selected peer",
            vec![only_out(
                json!({"protocol": "TCP", "destination": {"selector": "pod == 'c'", "ports": ["web"]}}),
            )],
        ),
        (
            "nets of both families",
            only(json!({"source": {"nets": ["@yb4/32", "fd00:10:244::/56"]}})),
        ),
        (
            "notNets",
            only(json!({"source": {"notNets": ["@yb4/32", "10.1.0.0/24", "@zc6/128"]}})),
        ),
        (
            "nets and notNets",
            only(json!({"source": {"nets": ["10.244.0.0/16"], "notNets": ["@yb4/32"]}})),
        ),
        (
            "a selector is about the policy's namespace",
            only(json!({"source": {"selector": "pod == 'b'"}})),
        ),
        (
            "a notSelector too",
            only(json!({"source": {"notSelector": "pod == 'b'"}})),
        ),
        (
            "a selector with a namespaceSelector",
            only(json!({"source": {"selector": "pod in {'a', 'b'}", "namespaceSelector": "has(team) && team != 'z'"}})),
        ),
        (
            "namespaceSelector all()",
            only(json!({"source": {"namespaceSelector": "all()"}})),
        ),
        (
            "a notSelector of a global policy takes away, and nothing else",
            vec![only_out(
                json!({"destination": {"notSelector": "pod starts with 'b' || ns ends with 'z'"}}),
            )],
        ),
        (
            "the source of an egress rule is the subject",
            vec![only_out(json!({"source": {"selector": "pod == 'a'"}}))],
        ),
        (
            "the destination of an ingress rule is the subject",
            only(json!({"destination": {"selector": "pod != 'a'"}})),
        ),
        (
            "serviceAccounts by name",
            only(json!({"source": {"namespaceSelector": "all()", "serviceAccounts": {"names": ["sa-b", "sa-c"]}}})),
        ),
        (
            "serviceAccounts of the policy's namespace",
            only(json!({"source": {"serviceAccounts": {"names": ["sa-b"]}}})),
        ),
        (
            "serviceAccounts by label",
            [
                json!({"apiVersion": "v1", "kind": "ServiceAccount",
                    "metadata": {"namespace": "y", "name": "sa-b", "labels": {"trusted": "yes"}}}),
                only_out(json!({"destination": {"serviceAccounts": {"selector": "trusted == 'yes'"}}})),
            ]
            .into(),
        ),
        (
            "serviceAccountSelector of a policy",
            vec![
                json!({"apiVersion": "v1", "kind": "ServiceAccount",
                    "metadata": {"namespace": "x", "name": "sa-c", "labels": {"trusted": "no"}}}),
                calico_object(
                    "GlobalNetworkPolicy",
                    None,
                    "accounts",
                    json!({"serviceAccountSelector": "trusted == 'no'", "types": ["Ingress", "Egress"]}),
                ),
            ],
        ),
        (
            "a Service as a destination: its addresses with their ports",
            vec![
                slice("y", first),
                only_out(json!({"destination": {"services": {"name": "s", "namespace": "y"}}})),
            ],
        ),
        (
            "a Service as a source: its addresses",
            [slice("y", first)]
                .into_iter()
                .chain([calico_object(
                    "GlobalNetworkPolicy",
                    None,
                    "in",
                    json!({"namespaceSelector": "team == 'x'", "types": ["Ingress"], "ingress": [
                        {"action": "Allow", "source": {"services": {"name": "s", "namespace": "y"}}}]}),
                )])
                .collect(),
        ),
        (
            "network sets: a global policy finds both kinds",
            vec![
                labelled(
                    calico_object("GlobalNetworkSet", None, "g", json!({"nets": ["10.1.0.0/28", "@ya4/32"]})),
                    json!({"set": "yes"}),
                ),
                labelled(
                    calico_object("NetworkSet", Some("y"), "l", json!({"nets": ["fd00:1::/64"]})),
                    json!({"set": "yes"}),
                ),
                only_out(json!({"destination": {"selector": "set == 'yes'"}})),
            ],
        ),
        (
            "network sets: a namespaced policy finds those of its namespace",
            [
                labelled(
                    calico_object("GlobalNetworkSet", None, "g", json!({"nets": ["10.244.0.0/16"]})),
                    json!({"set": "yes"}),
                ),
                labelled(
                    calico_object("NetworkSet", Some("x"), "l", json!({"nets": ["@yb4/32", "@zc6/128"]})),
                    json!({"set": "yes"}),
                ),
            ]
            .into_iter()
            .chain(only(json!({"source": {"selector": "set == 'yes'"}})))
            .collect(),
        ),
        (
            "Log goes on",
            local(json!({"ingress": [
                {"action": "Log", "protocol": "TCP"},
                {"action": "Allow", "protocol": "TCP"},
                {"action": "Log"},
            ]})),
        ),
        (
            "Pass leaves the tier for the next one",
            vec![
                tier("early", 10, "Deny"),
                calico_object(
                    "GlobalNetworkPolicy",
                    None,
                    "early.a",
                    json!({"tier": "early", "selector": "ns == 'x'", "types": ["Ingress"], "ingress": [
                        {"action": "Pass", "source": {"selector": "ns == 'z'"}},
                        {"action": "Allow", "protocol": "UDP"},
                    ]}),
                ),
                np(),
            ],
        ),
        (
            "a tier that denies at its end asks nobody else",
            vec![
                tier("early", 10, "Deny"),
                calico_object(
                    "GlobalNetworkPolicy",
                    None,
                    "early.a",
                    json!({"tier": "early", "selector": "ns == 'x' && pod == 'a'", "types": ["Ingress"], "ingress": [
                        {"action": "Allow", "protocol": "SCTP"}]}),
                ),
                policy("x", "open", json!({"podSelector": {}, "ingress": [{}]})),
            ],
        ),
        (
            "a tier without a policy for the pod decides nothing",
            vec![
                tier("early", 10, "Deny"),
                calico_object(
                    "GlobalNetworkPolicy",
                    None,
                    "early.a",
                    json!({"tier": "early", "selector": "ns == 'y'", "types": ["Egress"], "egress": [
                        {"action": "Allow", "protocol": "TCP"}]}),
                ),
            ],
        ),
        (
            "tiers beside the admin and the baseline tier",
            vec![
                tier("between", 500_000, "Pass"),
                json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
                    "metadata": {"name": "a"}, "spec": {"tier": "Admin", "priority": 1,
                    "subject": {"namespaces": {"matchLabels": {"team": "x"}}},
                    "ingress": [{"action": "Accept", "from": [{"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"pod": "a"}}}}]}]}}),
                calico_object(
                    "GlobalNetworkPolicy",
                    None,
                    "between.a",
                    json!({"tier": "between", "selector": "ns == 'x'", "types": ["Ingress"], "ingress": [
                        {"action": "Deny", "source": {"selector": "pod == 'b' || pod == 'a'"}}]}),
                ),
                json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
                    "metadata": {"name": "b"}, "spec": {"tier": "Baseline", "priority": 1,
                    "subject": {"namespaces": {"matchLabels": {"team": "x"}}},
                    "ingress": [{"action": "Deny", "from": [{"namespaces": {"matchLabels": {"team": "z"}}}]}]}}),
            ],
        ),
        (
            "order, and name where orders are equal",
            vec![
                calico_object(
                    "NetworkPolicy",
                    Some("x"),
                    "b",
                    json!({"order": 5, "types": ["Ingress"], "ingress": [{"action": "Allow"}]}),
                ),
                calico_object(
                    "NetworkPolicy",
                    Some("x"),
                    "a",
                    json!({"order": 5, "types": ["Ingress"], "ingress": [{"action": "Deny", "protocol": "UDP"}]}),
                ),
                calico_object(
                    "NetworkPolicy",
                    Some("x"),
                    "0",
                    json!({"types": ["Ingress"], "ingress": [{"action": "Deny"}]}),
                ),
                calico_object(
                    "NetworkPolicy",
                    Some("x"),
                    "z",
                    json!({"order": -1, "types": ["Ingress"], "ingress": [{"action": "Deny", "protocol": "SCTP"}]}),
                ),
            ],
        ),
        (
            "absent types are those of the rules",
            vec![calico_object(
                "NetworkPolicy",
                Some("x"),
                "p",
                json!({"selector": "pod != 'c'", "egress": [{"action": "Allow", "protocol": "TCP"}]}),
            )],
        ),
        (
            "a policy without types and rules isolates ingress",
            vec![calico_object("NetworkPolicy", Some("x"), "p", json!({"selector": "has(pod)"}))],
        ),
        (
            "staged policies are counted and never decide",
            vec![
                calico_object(
                    "StagedNetworkPolicy",
                    Some("x"),
                    "s",
                    json!({"stagedAction": "Set", "selector": "all()", "types": ["Ingress", "Egress"]}),
                ),
                calico_object(
                    "StagedGlobalNetworkPolicy",
                    None,
                    "g",
                    json!({"stagedAction": "Set", "types": ["Ingress"], "ingress": [{"action": "Deny"}]}),
                ),
                calico_object(
                    "StagedKubernetesNetworkPolicy",
                    Some("y"),
                    "k",
                    json!({"stagedAction": "Set", "podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
                ),
                np(),
            ],
        ),
        (
            "what is for hosts only is not for pods",
            vec![
                calico_object(
                    "GlobalNetworkPolicy",
                    None,
                    "untracked",
                    json!({"doNotTrack": true, "applyOnForward": true, "types": ["Ingress"], "ingress": [{"action": "Deny"}]}),
                ),
                calico_object(
                    "GlobalNetworkPolicy",
                    None,
                    "early",
                    json!({"preDNAT": true, "applyOnForward": true, "types": ["Ingress"], "ingress": [{"action": "Deny"}]}),
                ),
            ],
        ),
        (
            "a pod to its own node is subject, and the node to its pods is not",
            vec![calico_object(
                "GlobalNetworkPolicy",
                None,
                "all",
                json!({"namespaceSelector": "all()", "types": ["Ingress", "Egress"]}),
            )],
        ),
        ("nothing is left behind", vec![]),
    ]
}

/// Service `s` of a namespace, with one port: a pod and the host outside.
fn slice(namespace: &str, port: u16) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": namespace, "name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["@yb4"]}, {"addresses": ["@zc4"]}, {"addresses": ["10.1.0.1"]}],
        "ports": [{"name": "web", "port": port, "protocol": "TCP"}]})
}
