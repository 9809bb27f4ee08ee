//! `policy.networking.k8s.io/v1alpha2` `ClusterNetworkPolicy`.

use super::{cluster, cluster_policy, flow, network_policy, row};
use policy::Reason;
use serde_json::{Value, json};

fn namespaces(name: &str) -> Value {
    json!({ "namespaces": { "matchLabels": { "ns": name } } })
}

fn pods(namespace: &str, pod: &str) -> Value {
    json!({ "pods": {
        "namespaceSelector": { "matchLabels": { "ns": namespace } },
        "podSelector": { "matchLabels": { "pod": pod } },
    } })
}

/// For the pods of namespace `x`.
fn ingress(name: &str, tier: &str, priority: u32, rules: Value) -> Value {
    let subject = namespaces("x");
    cluster_policy(
        name,
        json!({ "tier": tier, "priority": priority, "subject": subject, "ingress": rules }),
    )
}

fn egress(tier: &str, rules: Value) -> Value {
    let subject = namespaces("x");
    let spec = json!({ "tier": tier, "priority": 1, "subject": subject, "egress": rules });
    cluster_policy("egress", spec)
}

fn from(action: &str, peer: Value) -> Value {
    json!({ "action": action, "from": [peer] })
}

fn to(action: &str, peer: Value) -> Value {
    json!({ "action": action, "to": [peer] })
}

const Y: &str = "y/b x/a tcp/80";
const Z: &str = "z/b x/a tcp/80";

#[test]
fn rules_and_policies_in_order() {
    let accept = from("Accept", pods("y", "b"));
    let deny = from("Deny", namespaces("y"));
    row(
        "the first rule that matches decides",
        &[ingress("p", "Admin", 1, json!([accept, deny]))],
        &[Y, Z],
        &["y/c x/a tcp/80"],
    );
    row(
        "the first rule that matches decides, the other way",
        &[ingress("p", "Admin", 1, json!([deny, accept]))],
        &[Z],
        &[Y],
    );
    let low = |priority| ingress("a", "Admin", priority, json!([accept]));
    let high = ingress("b", "Admin", 10, json!([deny]));
    row(
        "the lower number goes first",
        &[low(9), high.clone()],
        &[Y],
        &[],
    );
    row(
        "the lower number goes first, the other way",
        &[low(11), high],
        &[],
        &[Y],
    );
    row(
        "no rule matches: no isolation",
        &[ingress("p", "Admin", 1, json!([accept]))],
        &[Y, Z, "192.0.2.99 x/a tcp/80"],
        &[],
    );
    row(
        "a policy without rules for a direction does not affect it",
        &[ingress(
            "p",
            "Admin",
            1,
            json!([from("Deny", namespaces("y"))]),
        )],
        &["x/a y/b tcp/80"],
        &[Y],
    );
}

#[test]
fn admin_before_network_policies_before_baseline() {
    let isolated = || network_policy(json!({ "podSelector": {}, "policyTypes": ["Ingress"] }));
    let open = || network_policy(json!({ "podSelector": {}, "ingress": [{}] }));
    let rule = |tier: &str, action: &str| {
        ingress(
            &tier.to_ascii_lowercase(),
            tier,
            1,
            json!([from(action, namespaces("y"))]),
        )
    };
    row(
        "Admin accepts before a NetworkPolicy",
        &[rule("Admin", "Accept"), isolated()],
        &[Y],
        &[Z],
    );
    row(
        "Admin denies before a NetworkPolicy",
        &[rule("Admin", "Deny"), open()],
        &[Z],
        &[Y],
    );
    row(
        "Admin passes to a NetworkPolicy",
        &[rule("Admin", "Pass"), isolated()],
        &[],
        &[Y, Z],
    );
    row(
        "Admin passes over its other policies",
        &[
            rule("Admin", "Pass"),
            ingress("z", "Admin", 2, json!([from("Deny", namespaces("y"))])),
        ],
        &[Y],
        &[],
    );
    row(
        "Admin passes to Baseline",
        &[rule("Admin", "Pass"), rule("Baseline", "Deny")],
        &[Z],
        &[Y],
    );
    row(
        "a NetworkPolicy decides finally for what it isolates",
        &[isolated(), rule("Baseline", "Accept")],
        &[],
        &[Y, Z],
    );
    row(
        "a NetworkPolicy overrides Baseline",
        &[open(), rule("Baseline", "Deny")],
        &[Y, Z],
        &[],
    );
    let egress_only = network_policy(json!({ "podSelector": {}, "policyTypes": ["Egress"] }));
    row(
        "Baseline decides in the direction that no NetworkPolicy isolates",
        &[egress_only, rule("Baseline", "Deny")],
        &[Z],
        &[Y],
    );
    row(
        "Baseline may pass",
        &[rule("Baseline", "Pass")],
        &[Y, Z],
        &[],
    );
}

#[test]
fn egress_peers() {
    let accept_only = |peer: Value| {
        let rules = json!([
            to("Accept", peer),
            to("Deny", json!({ "networks": ["0.0.0.0/0"] }))
        ]);
        [egress("Admin", rules)]
    };
    row(
        "namespaces are pods",
        &accept_only(namespaces("y")),
        &["x/a y/b tcp/80", "x/a y/b icmp/8"],
        &["x/a z/b tcp/80", "x/a 198.51.100.7 tcp/80"],
    );
    row(
        "pods are of namespaces and labels",
        &accept_only(pods("y", "b")),
        &["x/a y/b tcp/80"],
        &["x/a y/c tcp/80", "x/a z/b tcp/80"],
    );
    row(
        "networks match pods and messages too",
        &accept_only(json!({ "networks": ["10.0.1.0/24", "198.51.100.0/24"] })),
        &["x/a y/b tcp/80", "x/a 198.51.100.7 icmp/8"],
        &["x/a z/b tcp/80"],
    );
    row(
        "nodes are their addresses, the own node's too",
        &accept_only(json!({ "nodes": { "matchLabels": { "node": "n2" } } })),
        &["x/a 192.0.2.12 tcp/80"],
        &["x/a own-node tcp/80", "x/a y/b tcp/80"],
    );
    row(
        "nodes {} is every node",
        &accept_only(json!({ "nodes": {} })),
        &["x/a 192.0.2.12 tcp/80", "x/a own-node tcp/80"],
        &["x/a 198.51.100.7 tcp/80"],
    );
}

#[test]
fn domain_names_are_what_they_resolve_to() {
    let names = json!({ "domainNames": ["Example.com.", "*.example.org"] });
    let rules = json!([
        to("Accept", names),
        to("Deny", json!({ "networks": ["0.0.0.0/0"] }))
    ]);
    let mut evaluator = cluster(&[egress("Admin", rules)]);
    let answers = [
        ("example.com", "198.51.100.1"),
        ("www.example.com", "198.51.100.2"),
        ("example.org", "198.51.100.3"),
        ("a.example.org", "198.51.100.4"),
        ("b.a.example.org", "198.51.100.5"),
        ("notexample.org", "198.51.100.6"),
    ];
    for (name, address) in answers {
        evaluator.set_domain(name, [address.parse().unwrap()].into());
    }
    let allowed = answers.map(|(_, address)| {
        evaluator
            .verdict(&flow(&format!("x/a {address} tcp/443")))
            .allowed
    });
    assert_eq!(allowed, [true, false, false, true, true, false]);
    evaluator.set_domain("example.com", [].into());
    assert!(!evaluator.verdict(&flow("x/a 198.51.100.1 tcp/443")).allowed);
}

#[test]
fn protocols() {
    let deny = |protocols: Value| {
        let rule = json!({ "action": "Deny", "from": [namespaces("y")], "protocols": protocols });
        [ingress("p", "Admin", 1, json!([rule]))]
    };
    row(
        "a number is one port of one protocol",
        &deny(json!([{ "tcp": { "destinationPort": { "number": 80 } } }])),
        &["y/b x/a tcp/81", "y/b x/a udp/80", "y/b x/a icmp/8"],
        &[Y],
    );
    row(
        "a range has both its ends",
        &deny(json!([{ "udp": { "destinationPort": { "range": { "start": 53, "end": 55 } } } }])),
        &["y/b x/a udp/52", "y/b x/a udp/56", "y/b x/a tcp/53"],
        &["y/b x/a udp/53", "y/b x/a udp/55"],
    );
    row(
        "a protocol that states nothing is not understood, and denies all",
        &deny(json!([{ "sctp": {} }])),
        &[],
        &[Y, "y/b x/a sctp/1"],
    );
    row(
        "a named port is the destination's, with its protocol",
        &deny(json!([{ "destinationNamedPort": "web" }])),
        &["y/b x/c tcp/80", "y/b x/a udp/80"],
        &["y/b x/a tcp/80", "y/b x/c tcp/81"],
    );
    let rule = json!({
        "action": "Deny", "to": [namespaces("y")],
        "protocols": [{ "destinationNamedPort": "web" }],
    });
    row(
        "a named port of egress is the peer's",
        &[egress("Admin", json!([rule]))],
        &["x/a y/c tcp/80"],
        &["x/a y/b tcp/80", "x/a y/c tcp/81"],
    );
}

#[test]
fn what_is_not_understood_fails_closed() {
    let unknown = json!({ "planets": {} });
    row(
        "an Accept with an unknown peer matches nothing",
        &[ingress(
            "p",
            "Admin",
            1,
            json!([
                from("Accept", unknown.clone()),
                from("Deny", namespaces("y")),
            ]),
        )],
        &[Z],
        &[Y],
    );
    for action in ["Deny", "Pass"] {
        row(
            "a Deny or a Pass with an unknown peer denies all",
            &[ingress(
                "p",
                "Admin",
                1,
                json!([from(action, unknown.clone())]),
            )],
            &["x/a y/b tcp/80"],
            &[Y, Z, "192.0.2.99 x/a icmp/8"],
        );
    }
    let bad = ingress("p", "Admin", 1, json!([from("Perhaps", namespaces("y"))]));
    row(
        "an unknown action denies the direction",
        &[bad],
        &["x/a y/b tcp/80"],
        &[Y, Z],
    );
}

#[test]
fn a_verdict_names_the_rule() {
    let rule = json!({ "name": "no-y", "action": "Deny", "from": [namespaces("y")] });
    let evaluator = cluster(&[ingress("p", "Admin", 1, json!([rule]))]);
    let decision = evaluator.verdict(&flow(Y));
    let Reason::Rule(found) = decision.ingress.reason else {
        panic!("{decision:?}");
    };
    assert_eq!(found.name.as_deref(), Some("no-y"));
    assert_eq!(
        found.to_string(),
        "denied by rule 0 \"no-y\" of ClusterNetworkPolicy/p (tier kube-admin)"
    );
}
