//! The cases: what a policy says, and a name for the row of the specification that it is about.

use integration::prober::PORTS;
use serde_json::{Value, json};

type Step = (&'static str, Vec<Value>);

fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

fn one(spec: Value) -> Vec<Value> {
    vec![policy("x", "p", spec)]
}

/// Pods by the label `pod`.
fn pod(name: &str) -> Value {
    json!({"matchLabels": {"pod": name}})
}

fn team(name: &str) -> Value {
    json!({"matchLabels": {"team": name}})
}

fn port(number: u16) -> Value {
    json!({"port": number})
}

pub(super) fn kubernetes() -> Vec<Step> {
    let [first, second] = PORTS;
    let all = json!({});
    vec![
        ("no policy isolates nobody", vec![]),
        (
            "deny all ingress of a namespace",
            one(json!({"podSelector": all, "policyTypes": ["Ingress"]})),
        ),
        (
            "deny all egress of a namespace",
            one(json!({"podSelector": all, "policyTypes": ["Egress"]})),
        ),
        (
            "an empty list of rules denies as none does",
            one(
                json!({"podSelector": all, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []}),
            ),
        ),
        (
            "an empty rule allows everything",
            one(json!({"podSelector": all, "ingress": [{}]})),
        ),
        (
            "absent policyTypes is ingress, and egress where there are egress rules",
            one(json!({"podSelector": pod("a"), "egress": [{"ports": [port(first)]}]})),
        ),
        (
            "peers of the policy's own namespace",
            one(
                json!({"podSelector": pod("a"), "ingress": [{"from": [{"podSelector": pod("b")}]}]}),
            ),
        ),
        (
            "every pod of the policy's own namespace",
            one(json!({"podSelector": pod("a"), "ingress": [{"from": [{"podSelector": all}]}]})),
        ),
        (
            "pods of other namespaces",
            one(
                json!({"podSelector": pod("a"), "ingress": [{"from": [{"namespaceSelector": team("y")}]}]}),
            ),
        ),
        (
            "pods of every namespace, and nobody else",
            one(json!({"podSelector": all, "ingress": [{"from": [{"namespaceSelector": all}]}]})),
        ),
        (
            "both selectors of one peer",
            one(json!({"podSelector": pod("a"), "ingress": [{"from": [
                {"namespaceSelector": team("y"), "podSelector": pod("b")}]}]})),
        ),
        (
            "two peers are alternatives",
            one(json!({"podSelector": pod("a"), "ingress": [{"from": [
                {"namespaceSelector": team("y")}, {"podSelector": pod("b")}]}]})),
        ),
        (
            "a namespace by its name",
            one(json!({"podSelector": pod("a"), "ingress": [{"from": [
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "z"}}}]}]})),
        ),
        (
            "expressions of selectors",
            one(
                json!({"podSelector": {"matchExpressions": [{"key": "pod", "operator": "NotIn", "values": ["c"]}]},
                "ingress": [{"from": [{"namespaceSelector": {"matchExpressions": [
                    {"key": "team", "operator": "In", "values": ["x", "y"]}]}}]}]}),
            ),
        ),
        (
            "an egress rule by pod",
            one(
                json!({"podSelector": pod("a"), "policyTypes": ["Egress"], "egress": [
                {"to": [{"namespaceSelector": team("z"), "podSelector": pod("c")}]}]}),
            ),
        ),
        (
            "egress of one side and ingress of the other must both allow",
            vec![
                policy(
                    "x",
                    "out",
                    json!({"podSelector": all, "policyTypes": ["Egress"], "egress": [
                {"to": [{"namespaceSelector": team("y")}]}]}),
                ),
                policy(
                    "y",
                    "in",
                    json!({"podSelector": pod("a"), "ingress": [
                {"from": [{"namespaceSelector": team("x"), "podSelector": pod("b")}]}]}),
                ),
            ],
        ),
        (
            "two policies allow the union",
            vec![
                policy(
                    "x",
                    "p",
                    json!({"podSelector": pod("a"), "ingress": [{"from": [{"podSelector": pod("b")}]}]}),
                ),
                policy(
                    "x",
                    "q",
                    json!({"podSelector": all, "ingress": [{"from": [{"namespaceSelector": team("z")}]}]}),
                ),
            ],
        ),
        (
            "a port of any peer",
            one(json!({"podSelector": all, "ingress": [{"ports": [port(second)]}]})),
        ),
        (
            "a port of one peer",
            one(
                json!({"podSelector": all, "ingress": [{"from": [{"namespaceSelector": team("y")}], "ports": [port(first)]}]}),
            ),
        ),
        (
            "a protocol without a port is all of its ports",
            one(json!({"podSelector": all, "ingress": [{"ports": [{"protocol": "UDP"}]}]})),
        ),
        (
            "UDP only leaves TCP denied",
            one(
                json!({"podSelector": all, "ingress": [{"ports": [{"protocol": "UDP", "port": first}]}]}),
            ),
        ),
        (
            "SCTP is not read as TCP",
            one(
                json!({"podSelector": all, "ingress": [{"ports": [{"protocol": "SCTP", "port": first}]}]}),
            ),
        ),
        (
            "endPort is inclusive",
            one(
                json!({"podSelector": all, "ingress": [{"ports": [{"port": first - 80, "endPort": first}]}]}),
            ),
        ),
        (
            "a range of all ports",
            one(
                json!({"podSelector": all, "ingress": [{"ports": [{"port": 1, "endPort": 65535}]}]}),
            ),
        ),
        (
            "a named port of ingress is the pod's own",
            one(json!({"podSelector": all, "ingress": [{"ports": [{"port": "web"}]}]})),
        ),
        (
            "a named port of egress is the peer's",
            one(
                json!({"podSelector": all, "policyTypes": ["Egress"], "egress": [
                {"to": [{"namespaceSelector": all}], "ports": [{"port": "web"}]}]}),
            ),
        ),
        (
            "a named port has a protocol",
            one(
                json!({"podSelector": all, "ingress": [{"ports": [{"port": "web", "protocol": "UDP"}]}]}),
            ),
        ),
        (
            "a named port that nobody has allows nothing",
            one(json!({"podSelector": all, "ingress": [{"ports": [{"port": "nobody"}]}]})),
        ),
        (
            "an ipBlock holds pods too",
            one(
                json!({"podSelector": all, "ingress": [{"from": [{"ipBlock": {"cidr": "10.244.0.0/16"}}]}]}),
            ),
        ),
        (
            "host bits of a cidr do not matter",
            one(
                json!({"podSelector": all, "ingress": [{"from": [{"ipBlock": {"cidr": "10.244.3.7/4"}}]}]}),
            ),
        ),
        (
            "everything but an exception",
            one(json!({"podSelector": all, "ingress": [{"from": [
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]}},
                {"ipBlock": {"cidr": "::/0"}}]}]})),
        ),
        (
            "an exception subtracts from its own peer only",
            one(json!({"podSelector": all, "ingress": [{"from": [
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]}},
                {"podSelector": pod("b")}]}]})),
        ),
        (
            "families are told apart",
            one(
                json!({"podSelector": all, "ingress": [{"from": [{"ipBlock": {"cidr": "::/0"}}]}]}),
            ),
        ),
        (
            "egress to an ipBlock with a port",
            one(
                json!({"podSelector": all, "policyTypes": ["Egress"], "egress": [
                {"to": [{"ipBlock": {"cidr": "10.244.0.0/16"}}], "ports": [port(second)]}]}),
            ),
        ),
        (
            "a policy of another namespace selects nobody here",
            vec![policy(
                "y",
                "p",
                json!({"podSelector": pod("a"), "policyTypes": ["Ingress", "Egress"]}),
            )],
        ),
        (
            "policies in all namespaces",
            ["x", "y", "z"]
                .map(|namespace| {
                    policy(
                        namespace,
                        "same",
                        json!({"podSelector": {}, "ingress": [
                {"from": [{"podSelector": {}}]}]}),
                    )
                })
                .into(),
        ),
        ("nothing is left behind", vec![]),
    ]
}

fn cluster(name: &str, tier: &str, priority: u16, rules: &Value) -> Value {
    let mut spec = json!({"tier": tier, "priority": priority,
        "subject": {"namespaces": {"matchLabels": {"team": "x"}}}});
    if let (Some(spec), Some(rules)) = (spec.as_object_mut(), rules.as_object()) {
        spec.extend(rules.clone());
    }
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name}, "spec": spec})
}

fn calico(kind: &str, namespace: Option<&str>, name: &str, spec: Value) -> Value {
    let mut metadata = json!({ "name": name });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})
}

fn from(team: &str, action: &str) -> Value {
    json!({"name": format!("{action}-{team}"), "action": action, "from": [{"namespaces": {"matchLabels": {"team": team}}}]})
}

pub(super) fn others() -> Vec<Step> {
    let first = PORTS[0];
    let tcp = |port: u16| json!([{"tcp": {"destinationPort": {"number": port}}}]);
    let anybody = json!({"action": "Deny", "from": [{"namespaces": {}}]});
    let np = || {
        policy(
            "x",
            "np",
            json!({"podSelector": {}, "ingress": [
        {"from": [{"namespaceSelector": team("z")}]}]}),
        )
    };
    let tier = |name: &str, order: u32, action: &str| {
        calico(
            "Tier",
            None,
            name,
            json!({"order": order, "defaultAction": action}),
        )
    };
    vec![
        (
            "a cluster-wide policy isolates nobody by itself",
            vec![cluster(
                "a",
                "Admin",
                1,
                &json!({"ingress": [from("y", "Accept")]}),
            )],
        ),
        (
            "the first rule that matches decides",
            vec![cluster(
                "a",
                "Admin",
                1,
                &json!({"ingress": [from("y", "Accept"), anybody]}),
            )],
        ),
        (
            "the lower priority number comes first",
            vec![
                cluster("late", "Admin", 9, &json!({"ingress": [from("y", "Deny")]})),
                cluster(
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
                cluster("a", "Admin", 1, &json!({"ingress": [from("z", "Deny")]})),
                np(),
            ],
        ),
        (
            "what the admin tier accepts no NetworkPolicy denies",
            vec![
                cluster("a", "Admin", 1, &json!({"ingress": [from("y", "Accept")]})),
                np(),
            ],
        ),
        (
            "pass leaves the tier",
            vec![
                cluster(
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
            vec![cluster(
                "b",
                "Baseline",
                1,
                &json!({"ingress": [from("y", "Deny")]}),
            )],
        ),
        (
            "a NetworkPolicy comes before the baseline tier",
            vec![
                cluster("b", "Baseline", 1, &json!({"ingress": [from("z", "Deny")]})),
                np(),
            ],
        ),
        (
            "egress to networks and pods with ports",
            vec![cluster(
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
            vec![cluster(
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
            "Calico: rules in order, then the end of the tier denies",
            vec![calico(
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
            "Calico: nets, negations and ports",
            vec![calico(
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
            "Calico: tiers, pass, and what a tier does at its end",
            vec![
                tier("early", 10, "Pass"),
                tier("late", 2_000_000, "Deny"),
                calico(
                    "GlobalNetworkPolicy",
                    None,
                    "early.a",
                    json!({"tier": "early", "selector": "ns == 'x'", "types": ["Ingress"], "ingress": [
                        {"action": "Pass", "source": {"selector": "ns == 'y'"}},
                        {"action": "Deny", "source": {"selector": "ns == 'z' && pod != 'c'"}},
                    ]}),
                ),
                calico(
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
            "Calico: a network set and an egress rule",
            vec![
                calico(
                    "GlobalNetworkSet",
                    None,
                    "pods",
                    json!({"nets": ["10.244.0.0/16"]}),
                )
                .as_object()
                .cloned()
                .map(|mut set| {
                    set["metadata"]["labels"] = json!({"role": "pods"});
                    Value::Object(set)
                })
                .unwrap_or_default(),
                calico(
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
            "Calico: order beside NetworkPolicies of the same tier",
            vec![
                np(),
                calico(
                    "NetworkPolicy",
                    Some("x"),
                    "default.first",
                    json!({"order": 10, "selector": "all()", "types": ["Ingress"], "ingress": [
                        {"action": "Deny", "source": {"selector": "pod == 'a'", "namespaceSelector": "team == 'z'"}},
                    ]}),
                ),
            ],
        ),
        ("nothing is left behind", vec![]),
    ]
}
