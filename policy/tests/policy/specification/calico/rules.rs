//! When a rule matches: each of its fields, and the entities that selectors find.

use crate::specification::{calico, labelled, row};
use serde_json::{Value, json};

const Y: &str = "y/b x/a tcp/80";
const Z: &str = "z/b x/a tcp/80";

/// In namespace `x`, only what matches the rule comes in.
fn local(rule: Value) -> Value {
    allow("NetworkPolicy", "ingress", rule)
}

fn global(rule: Value) -> Value {
    allow("GlobalNetworkPolicy", "ingress", rule)
}

/// Only what matches the rule goes out of pods `a`.
fn egress(rule: Value) -> Value {
    allow("GlobalNetworkPolicy", "egress", rule)
}

fn allow(kind: &str, direction: &str, mut rule: Value) -> Value {
    rule["action"] = json!("Allow");
    let types = if direction == "egress" {
        "Egress"
    } else {
        "Ingress"
    };
    let mut spec = json!({ "selector": "pod == 'a'", "types": [types] });
    spec[direction] = json!([rule]);
    calico(kind, "p", spec)
}

#[test]
fn protocols_families_and_messages() {
    let cases: [(Value, &[&str], &[&str]); 8] = [
        (
            json!({ "protocol": "TCP" }),
            &[Y],
            &["y/b x/a udp/80", "y/b x/a icmp/8"],
        ),
        (json!({ "protocol": 47 }), &["y/b x/a 47"], &[Y]),
        (
            json!({ "notProtocol": "UDP" }),
            &[Y, "y/b x/a icmp/8"],
            &["y/b x/a udp/80"],
        ),
        (json!({ "ipVersion": 6 }), &["y/b x/a tcp/80 v6"], &[Y]),
        (json!({ "ipVersion": 4 }), &[Y], &["y/b x/a tcp/80 v6"]),
        (
            json!({ "protocol": "ICMP", "icmp": { "type": 8 } }),
            &["y/b x/a icmp/8"],
            &["y/b x/a icmp/3", Y],
        ),
        (
            json!({ "protocol": "ICMP", "notICMP": { "type": 8, "code": 0 } }),
            &["y/b x/a icmp/3"],
            &["y/b x/a icmp/8", Y],
        ),
        (
            json!({ "protocol": "ICMPv6", "icmp": { "type": 128 } }),
            &["y/b x/a icmp/128 v6"],
            &["y/b x/a icmp/129 v6", "y/b x/a icmp/128"],
        ),
    ];
    for (rule, allowed, denied) in cases {
        row(&rule.to_string(), &[local(rule)], allowed, denied);
    }
}

#[test]
fn networks() {
    let from = |source: Value| [local(json!({ "source": source }))];
    row(
        "nets",
        &from(json!({ "nets": ["10.0.1.0/24", "192.0.2.9"] })),
        &[Y, "192.0.2.9 x/a 47"],
        &[Z],
    );
    row(
        "notNets",
        &from(json!({ "notNets": ["10.0.1.0/24"] })),
        &[Z, "192.0.2.9 x/a 47"],
        &[Y],
    );
    row(
        "nets and notNets",
        &from(json!({ "nets": ["10.0.0.0/8"], "notNets": ["10.0.1.0/24"] })),
        &[Z],
        &[Y, "192.0.2.9 x/a tcp/80"],
    );
    row(
        "nets of a family",
        &from(json!({ "nets": ["0.0.0.0/0"] })),
        &[Y],
        &["y/b x/a tcp/80 v6"],
    );
    row(
        "nets and a selector are AND",
        &from(json!({ "nets": ["10.0.0.0/24"], "selector": "pod == 'b'" })),
        &["x/b x/a tcp/80"],
        &["x/c x/a tcp/80", Y],
    );
}

#[test]
fn ports() {
    let to = |destination: Value| {
        [local(
            json!({ "protocol": "TCP", "destination": destination }),
        )]
    };
    row(
        "numbers and ranges",
        &to(json!({ "ports": [80, "443:445"] })),
        &[Y, "y/b x/a tcp/443", "y/b x/a tcp/445"],
        &["y/b x/a tcp/81", "y/b x/a tcp/446", "y/b x/a udp/80"],
    );
    row(
        "notPorts",
        &to(json!({ "notPorts": [80] })),
        &["y/b x/a tcp/81"],
        &[Y],
    );
    row(
        "named",
        &to(json!({ "ports": ["web"] })),
        &[Y],
        &["y/b x/a tcp/81", "y/b x/a udp/53"],
    );
    row(
        "not named",
        &to(json!({ "notPorts": ["web"] })),
        &["y/b x/a tcp/81"],
        &[Y],
    );
    let udp = json!({ "protocol": "UDP", "destination": { "ports": ["web", "dns"] } });
    row(
        "a name has the rule's protocol",
        &[local(udp)],
        &["y/b x/a udp/53"],
        &["y/b x/a udp/80", Y],
    );
    let at_peer = json!({ "protocol": "TCP", "destination": { "ports": ["web"] } });
    row(
        "a name of egress is the peer's",
        &[egress(at_peer)],
        &["x/a y/b tcp/80", "x/a y/c tcp/81"],
        &["x/a y/c tcp/80", "x/a 192.0.2.9 tcp/80"],
    );
    let from = json!({ "protocol": "TCP", "source": { "ports": [40000] } });
    row("source ports", &[local(from)], &[Y], &["y/b x/a udp/80"]);
    let from = json!({ "protocol": "TCP", "source": { "notPorts": ["1024:65535"] } });
    row("source notPorts", &[local(from)], &[], &[Y]);
}

#[test]
fn selectors_of_a_namespaced_policy_are_about_its_own_namespace() {
    let from = |source: Value| [local(json!({ "source": source }))];
    row(
        "selector",
        &from(json!({ "selector": "pod == 'b'" })),
        &["x/b x/a tcp/80"],
        &[Y],
    );
    row(
        "selector all()",
        &from(json!({ "selector": "all()" })),
        &["x/b x/a tcp/80"],
        &[Y, "192.0.2.9 x/a tcp/80"],
    );
    row(
        "notSelector alone",
        &from(json!({ "notSelector": "pod == 'b'" })),
        &["x/c x/a tcp/80"],
        &["x/b x/a tcp/80", "y/c x/a tcp/80", "192.0.2.9 x/a tcp/80"],
    );
    row(
        "namespaceSelector",
        &from(json!({ "namespaceSelector": "ns == 'y'" })),
        &[Y, "y/c x/a tcp/80"],
        &["x/b x/a tcp/80", Z],
    );
    row(
        "namespaceSelector and selector",
        &from(json!({ "namespaceSelector": "ns == 'y'", "selector": "pod == 'b'" })),
        &[Y],
        &["y/c x/a tcp/80", "x/b x/a tcp/80"],
    );
    row(
        "namespaceSelector all()",
        &from(json!({ "namespaceSelector": "all()" })),
        &[Y, Z, "x/b x/a tcp/80"],
        &["192.0.2.9 x/a tcp/80"],
    );
    row(
        "no selector at all",
        &from(json!({ "nets": ["0.0.0.0/0"] })),
        &[Y, "192.0.2.9 x/a tcp/80"],
        &[],
    );
}

#[test]
fn selectors_of_a_global_policy_are_about_everything() {
    let from = |source: Value| [global(json!({ "source": source }))];
    row(
        "selector",
        &from(json!({ "selector": "pod == 'b'" })),
        &[Y, Z],
        &["y/c x/a tcp/80"],
    );
    row(
        "notSelector alone",
        &from(json!({ "notSelector": "pod == 'b'" })),
        &["y/c x/a tcp/80", "192.0.2.9 x/a tcp/80"],
        &[Y],
    );
    let expressions = [
        ("pod != 'b'", false),
        ("has(pod) && !has(other)", true),
        ("pod in {'a', 'b'} || all()", true),
        ("pod not in {'a', 'b'}", false),
        (
            "pod starts with 'b' && pod ends with 'b' && pod contains 'b'",
            true,
        ),
        ("!(pod == 'b')", false),
        ("other != 'anything'", true),
    ];
    for (text, expected) in expressions {
        let (allowed, denied): (&[_], &[_]) = if expected { (&[Y], &[]) } else { (&[], &[Y]) };
        row(text, &from(json!({ "selector": text })), allowed, denied);
    }
}

#[test]
fn network_sets() {
    let global_set = labelled(
        calico(
            "GlobalNetworkSet",
            "g",
            json!({ "nets": ["198.51.100.0/24", "10.0.2.2"] }),
        ),
        json!({ "set": "yes" }),
    );
    let local_set = labelled(
        calico("NetworkSet", "l", json!({ "nets": ["203.0.113.0/24"] })),
        json!({ "set": "yes" }),
    );
    let sets = |policy: Value| [global_set.clone(), local_set.clone(), policy];
    let (far, near) = ("198.51.100.7 x/a tcp/80", "203.0.113.7 x/a tcp/80");
    let from =
        |kind: &str, source: Value| sets(allow(kind, "ingress", json!({ "source": source })));
    let by_label = json!({ "selector": "set == 'yes'" });
    row(
        "a global policy finds both, and pods by their addresses in them",
        &from("GlobalNetworkPolicy", by_label.clone()),
        &[far, near, Z],
        &["192.0.2.9 x/a tcp/80", Y],
    );
    row(
        "a namespaced policy finds those of its namespace",
        &from("NetworkPolicy", by_label),
        &[near],
        &[far],
    );
    row(
        "global() is what has no namespace",
        &from(
            "NetworkPolicy",
            json!({ "selector": "set == 'yes'", "namespaceSelector": "global()" }),
        ),
        &[far],
        &[near],
    );
    row(
        "a selector of namespaces is about sets too",
        &from(
            "GlobalNetworkPolicy",
            json!({ "selector": "has(set)", "namespaceSelector": "ns == 'x'" }),
        ),
        &[near],
        &[far],
    );
    row(
        "notSelector takes sets away",
        &from("GlobalNetworkPolicy", json!({ "notSelector": "has(set)" })),
        &[Y, "192.0.2.9 x/a tcp/80"],
        &[far, near, Z],
    );
    let kubernetes = crate::specification::network_policy(json!({
        "podSelector": {},
        "ingress": [{ "from": [{ "namespaceSelector": {} }] }],
    }));
    row(
        "a NetworkPolicy of Kubernetes finds none",
        &sets(kubernetes),
        &[Y],
        &[far, near],
    );
}

#[test]
fn service_accounts() {
    let from = |accounts: Value| global(json!({ "source": { "serviceAccounts": accounts } }));
    row(
        "by name",
        &[from(json!({ "names": ["sa-b", "sa-c"] }))],
        &[Y, Z],
        &["y/a x/a tcp/80"],
    );
    let account = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": name, "namespace": "y", "labels": { "trusted": "yes" } },
        })
    };
    row(
        "by label",
        &[
            account("sa-b"),
            from(json!({ "selector": "trusted == 'yes'" })),
        ],
        &[Y],
        &[Z, "y/c x/a tcp/80"],
    );
    row(
        "by name and label",
        &[
            account("sa-b"),
            account("sa-c"),
            from(json!({ "names": ["sa-b"], "selector": "trusted == 'yes'" })),
        ],
        &[Y],
        &["y/c x/a tcp/80", Z],
    );
    let own = local(json!({ "source": { "serviceAccounts": { "names": ["sa-b"] } } }));
    row(
        "in a namespaced policy, of its namespace",
        &[own],
        &["x/b x/a tcp/80"],
        &[Y],
    );
}

#[test]
fn services() {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "s-1", "namespace": "y", "labels": { "kubernetes.io/service-name": "s" },
        },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.0.1.2"] }, { "addresses": ["198.51.100.7"] }],
        "ports": [{ "name": "web", "port": 80, "protocol": "TCP" }],
    });
    let service = json!({ "services": { "name": "s", "namespace": "y" } });
    row(
        "as a destination: addresses with their ports",
        &[slice.clone(), egress(json!({ "destination": service }))],
        &["x/a y/b tcp/80", "x/a 198.51.100.7 tcp/80"],
        &["x/a y/b tcp/81", "x/a y/b udp/80", "x/a y/c tcp/80"],
    );
    let mut portless = slice.clone();
    for (ports, name) in [
        (json!([]), "without ports"),
        (json!([{ "name": "all" }]), "without a number"),
    ] {
        portless["ports"] = ports;
        row(
            name,
            &[portless.clone(), egress(json!({ "destination": service }))],
            &[],
            &["x/a y/b tcp/80", "x/a y/b icmp/8"],
        );
    }
    row(
        "as a source: addresses",
        &[slice, global(json!({ "source": service }))],
        &[Y, "y/b x/a udp/53"],
        &["y/c x/a tcp/80"],
    );
}
