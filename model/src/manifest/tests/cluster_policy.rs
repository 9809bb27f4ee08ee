use super::{clean, invalid, valid};
use crate::Selector;
use crate::object::{
    ClusterAction, ClusterNetworkPolicy, ClusterPeer, ClusterPods, ClusterPort, ClusterRule,
    ClusterTier, Object, Protocol,
};
use serde_json::{Value, json};

fn document(spec: Value) -> Value {
    json!({ "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": { "name": "deny" }, "spec": spec })
}

fn with(direction: &str, rule: Value) -> Value {
    let mut spec = json!({ "tier": "Admin", "priority": 10, "subject": { "namespaces": {} } });
    spec[direction] = json!([rule]);
    document(spec)
}

fn as_policy(object: Object) -> ClusterNetworkPolicy {
    match object {
        Object::ClusterNetworkPolicy(policy) => std::sync::Arc::unwrap_or_clone(policy),
        other => panic!("{other:?}"),
    }
}

/// The only egress rule.
fn egress(rule: Value) -> ClusterRule {
    as_policy(clean(&with("egress", rule))).egress.remove(0)
}

fn eq(key: &str, value: &str) -> Selector {
    Selector::Eq(key.into(), value.into())
}

#[test]
fn tier_priority_subject_and_rules_are_read() {
    let spec = json!({ "tier": "Baseline", "priority": 1000,
        "subject": { "pods": { "namespaceSelector": { "matchLabels": { "a": "b" } },
            "podSelector": { "matchLabels": { "c": "d" } } } },
        "ingress": [{ "name": "all", "action": "Pass", "from": [{ "namespaces": {} },
            { "pods": { "podSelector": {} } }] }] });
    let pods = |namespaces, pods| ClusterPods { namespaces, pods };
    let everybody = ClusterPeer::Pods(pods(Selector::All, Selector::All));
    let expected = ClusterNetworkPolicy {
        name: "deny".into(),
        tier: ClusterTier::Baseline,
        priority: 1000,
        subject: pods(eq("a", "b"), eq("c", "d")),
        ingress: vec![ClusterRule {
            name: Some("all".into()),
            action: ClusterAction::Pass,
            peers: Some(vec![everybody.clone(), everybody]),
            protocols: None,
        }],
        egress: vec![],
    };
    assert_eq!(as_policy(clean(&document(spec))), expected);
}

#[test]
fn every_peer_and_every_protocol_of_an_egress_rule_is_read() {
    let found = egress(json!({ "action": "Accept",
        "to": [{ "networks": ["10.0.0.0/8", "fd00::/8"] }, { "nodes": { "matchLabels": { "a": "b" } } },
            { "domainNames": ["*.Example.org.", "example.org"] }],
        "protocols": [{ "tcp": { "destinationPort": { "number": 80 } } },
            { "udp": { "destinationPort": { "range": { "start": 1, "end": 65535 } } } }] }));
    assert_eq!(
        found.peers,
        Some(vec![
            ClusterPeer::Networks(vec![
                "10.0.0.0/8".parse().unwrap(),
                "fd00::/8".parse().unwrap()
            ]),
            ClusterPeer::Nodes(eq("a", "b")),
            ClusterPeer::DomainNames(vec!["*.example.org".into(), "example.org".into()]),
        ])
    );
    let range = |protocol, first, last| ClusterPort::Range {
        protocol,
        first,
        last,
    };
    assert_eq!(
        found.protocols,
        Some(vec![
            range(Protocol::Tcp, 80, 80),
            range(Protocol::Udp, 1, 65535)
        ])
    );
    let named = egress(json!({ "action": "Deny", "to": [{ "namespaces": {} }],
        "protocols": [{ "destinationNamedPort": "web" }] }));
    assert_eq!(
        named.protocols,
        Some(vec![ClusterPort::Named("web".into())])
    );
}

#[test]
fn what_is_not_understood_in_a_rule_matches_nothing_if_it_accepts_and_else_denies_everything() {
    let namespaces = json!({ "namespaces": {} });
    for (direction, peers, unknown) in [
        (
            "egress",
            json!([namespaces, { "services": {} }]),
            "to[1].services",
        ),
        ("egress", json!([{}]), "to[0]"),
        (
            "ingress",
            json!([{ "networks": ["10.0.0.0/8"] }]),
            "from[0].networks",
        ),
        (
            "ingress",
            json!([{ "pods": { "podSelector": { "matchCEL": 1 } } }]),
            "from[0].pods.podSelector.matchCEL",
        ),
    ] {
        let list = if direction == "egress" { "to" } else { "from" };
        for (action, expected, peers_left, consequence) in [
            (
                "Accept",
                ClusterAction::Accept,
                Some(vec![]),
                "matches nothing",
            ),
            ("Deny", ClusterAction::Deny, None, "denies everything"),
            ("Pass", ClusterAction::Deny, None, "denies everything"),
        ] {
            let mut rule = json!({ "action": action });
            rule[list] = peers.clone();
            let (object, warnings) = valid(&with(direction, rule));
            let mut policy = as_policy(object);
            let mut rules = if direction == "egress" {
                policy.egress
            } else {
                std::mem::take(&mut policy.ingress)
            };
            let rule = rules.remove(0);
            assert_eq!(
                (rule.action, rule.peers, rule.protocols),
                (expected, peers_left, None)
            );
            let warning = format!(
                "spec.{direction}[0].{unknown}: not understood, so this rule {consequence}"
            );
            assert_eq!(warnings, [warning]);
        }
    }
    for (protocol, unknown) in [
        (json!({}), "protocols[0]"),
        (json!({ "icmp": {} }), "protocols[0].icmp"),
        (json!({ "tcp": {} }), "protocols[0].tcp"),
        (json!({ "tcp": { "flags": 1 } }), "protocols[0].tcp.flags"),
        (
            json!({ "tcp": { "destinationPort": {} } }),
            "protocols[0].tcp.destinationPort",
        ),
    ] {
        let rule =
            json!({ "action": "Accept", "to": [{ "namespaces": {} }], "protocols": [protocol] });
        let (object, warnings) = valid(&with("egress", rule));
        assert_eq!(as_policy(object).egress[0].peers, Some(vec![]));
        let warning =
            format!("spec.egress[0].{unknown}: not understood, so this rule matches nothing");
        assert_eq!(warnings, [warning]);
    }
}

#[test]
fn a_mistake_is_named_with_its_field_and_the_fallback_denies() {
    let many = |item: Value| Value::from(vec![item; 26]);
    let to = json!([{ "namespaces": {} }]);
    for (rule, expected) in [
        (json!({ "to": to }), "action: is required"),
        (
            json!({ "action": "Allow", "to": to }),
            r#"action: "Allow" is not one of Accept, Deny, Pass"#,
        ),
        (json!({ "action": "Deny" }), "to: is required"),
        (
            json!({ "action": "Deny", "to": [] }),
            "to: needs at least one entry",
        ),
        (
            json!({ "action": "Deny", "to": many(json!({ "namespaces": {} })) }),
            "to: has 26 entries, more than 25",
        ),
        (
            json!({ "action": "Deny", "to": to, "protocols": [] }),
            "protocols: needs at least one entry",
        ),
        (
            json!({ "action": "Deny", "to": [{ "namespaces": {}, "pods": {} }] }),
            "to[0].pods: may not stand beside namespaces",
        ),
        (
            json!({ "action": "Deny", "to": [{ "nodes": {}, "namespaces": {} }] }),
            "to[0]: must have one field only",
        ),
        (
            json!({ "action": "Deny", "to": [{ "networks": ["10.0.0.0/33"] }] }),
            r#"to[0].networks[0]: "10.0.0.0/33" is not a CIDR such as "10.0.0.0/8""#,
        ),
        (
            json!({ "action": "Deny", "to": [{ "networks": [] }] }),
            "to[0].networks: needs at least one entry",
        ),
        (
            json!({ "action": "Deny", "to": [{ "domainNames": ["a.b"] }] }),
            "to[0].domainNames: may stand only in a rule that accepts",
        ),
        (
            json!({ "action": "Accept", "to": [{ "domainNames": ["a*.b"] }] }),
            r#"to[0].domainNames[0]: "a*.b" is not a domain name such as "www.example.org" or "*.example.org""#,
        ),
        (
            json!({ "action": "Deny", "to": [{ "pods": {} }] }),
            "to[0].pods.podSelector: is required",
        ),
        (
            json!({ "action": "Deny", "to": [{ "networks": ["10.0.0.0/8"] }], "protocols": [{ "destinationNamedPort": "web" }] }),
            "protocols: a destinationNamedPort may not stand beside networks, nodes or domainNames",
        ),
        (
            json!({ "action": "Deny", "to": to, "protocols": [{ "tcp": { "destinationPort": { "number": 0 } } }] }),
            "protocols[0].tcp.destinationPort.number: 0 is not an integer from 1 to 65535",
        ),
        (
            json!({ "action": "Deny", "to": to, "protocols": [{ "tcp": { "destinationPort": { "range": { "start": 80, "end": 80 } } } }] }),
            "protocols[0].tcp.destinationPort.range.end: 80 is not greater than start 80",
        ),
        (
            json!({ "action": "Deny", "to": to, "name": "x".repeat(101) }),
            "name: is longer than 100 characters",
        ),
    ] {
        let (message, fallback) = invalid(&with("egress", rule));
        assert_eq!(
            message,
            format!("ClusterNetworkPolicy/deny: spec.egress[0].{expected}")
        );
        let deny = ClusterRule {
            name: None,
            action: ClusterAction::Deny,
            peers: None,
            protocols: None,
        };
        let fallback = as_policy(fallback.unwrap());
        assert_eq!((fallback.ingress, fallback.egress), (vec![], vec![deny]));
        assert_eq!((fallback.tier, fallback.priority), (ClusterTier::Admin, 10));
    }
}

#[test]
fn a_policy_of_which_it_is_not_known_whom_it_selects_denies_nobody() {
    for (spec, expected) in [
        (
            json!({ "tier": "Admin", "priority": 1 }),
            "spec.subject: is required",
        ),
        (
            json!({ "tier": "Admin", "priority": 1, "subject": {} }),
            "spec.subject: must have namespaces or pods",
        ),
        (
            json!({ "tier": "Admin", "priority": 1, "subject": { "nodes": {} } }),
            "spec.subject.nodes: unknown field, so it is not known which pods are selected",
        ),
    ] {
        let (message, fallback) = invalid(&document(spec));
        assert_eq!(message, format!("ClusterNetworkPolicy/deny: {expected}"));
        assert_eq!(fallback, None);
    }
    let spec =
        json!({ "tier": "admin", "priority": 1001, "subject": { "namespaces": {} }, "ingress": 7 });
    let (message, fallback) = invalid(&document(spec));
    assert_eq!(
        message,
        r#"ClusterNetworkPolicy/deny: spec.tier: "admin" is not one of Admin, Baseline"#
    );
    let fallback = as_policy(fallback.unwrap());
    assert_eq!((fallback.tier, fallback.priority), (ClusterTier::Admin, 0));
    assert_eq!((fallback.ingress.len(), fallback.egress.len()), (1, 0));
}
