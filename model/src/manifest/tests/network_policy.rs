use super::{clean, invalid, valid};
use crate::Selector;
use crate::object::{
    NetworkPolicy, Object, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol,
};
use serde_json::{Value, json};

const ANY: PolicyRule = PolicyRule {
    peers: None,
    ports: None,
};

fn document(spec: Value) -> Value {
    json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "namespace": "shop", "name": "api" }, "spec": spec })
}

fn as_policy(object: Object) -> NetworkPolicy {
    match object {
        Object::NetworkPolicy(policy) => std::sync::Arc::unwrap_or_clone(policy),
        other => panic!("{other:?}"),
    }
}

fn policy(spec: Value) -> NetworkPolicy {
    as_policy(clean(&document(spec)))
}

/// The peers and the ports of the only ingress rule.
fn rule(rule: Value) -> PolicyRule {
    policy(json!({ "ingress": [rule] }))
        .ingress
        .expect("isolated")
        .remove(0)
}

fn eq(key: &str, value: &str) -> Selector {
    Selector::Eq(key.into(), value.into())
}

#[test]
fn policy_types_default_to_ingress_and_to_egress_where_there_are_egress_rules() {
    let none = Some(Vec::new());
    let any = Some(vec![ANY]);
    for (spec, ingress, egress) in [
        (json!({}), &none, &None),
        (json!({ "policyTypes": [] }), &none, &None),
        (
            json!({ "policyTypes": null, "ingress": null, "egress": [] }),
            &none,
            &None,
        ),
        (json!({ "ingress": [] }), &none, &None),
        (json!({ "egress": [{}] }), &none, &any),
        (json!({ "ingress": [{}], "egress": [{}] }), &any, &any),
        (json!({ "policyTypes": ["Egress"] }), &None, &none),
        (
            json!({ "policyTypes": ["Ingress", "Egress"], "ingress": [{}] }),
            &any,
            &none,
        ),
    ] {
        let policy = policy(spec.clone());
        assert_eq!(
            (&policy.ingress, &policy.egress),
            (ingress, egress),
            "{spec}"
        );
    }
}

#[test]
fn rules_of_a_direction_that_is_not_named_are_ignored_with_a_warning() {
    let (object, warnings) = valid(&document(
        json!({ "policyTypes": ["Ingress"], "egress": [{}] }),
    ));
    assert_eq!(as_policy(object).egress, None);
    assert_eq!(
        warnings,
        ["spec.egress: ignored, since spec.policyTypes does not name it"]
    );
}

#[test]
fn absent_and_empty_lists_of_peers_and_ports_mean_any() {
    for rule_value in [
        json!({}),
        json!({ "from": [], "ports": [] }),
        json!({ "from": null }),
    ] {
        assert_eq!(rule(rule_value), ANY);
    }
}

#[test]
fn an_absent_selector_is_told_apart_from_an_empty_one() {
    let pods = |namespaces, pods| PolicyPeer::Pods { namespaces, pods };
    for (peer, expected) in [
        (json!({ "podSelector": {} }), pods(None, Selector::All)),
        (
            json!({ "namespaceSelector": {} }),
            pods(Some(Selector::All), Selector::All),
        ),
        (
            json!({ "podSelector": { "matchLabels": { "a": "b" } }, "namespaceSelector": null }),
            pods(None, eq("a", "b")),
        ),
        (
            json!({ "podSelector": { "matchLabels": { "a": "b" } },
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "x" } } }),
            pods(Some(eq("kubernetes.io/metadata.name", "x")), eq("a", "b")),
        ),
    ] {
        assert_eq!(rule(json!({ "from": [peer] })).peers, Some(vec![expected]));
    }
}

#[test]
fn label_selectors_join_labels_and_expressions_by_and() {
    let selector = json!({
        "matchLabels": { "app": "api" },
        "matchExpressions": [
            { "key": "tier", "operator": "In", "values": ["a", "b"] },
            { "key": "tier", "operator": "NotIn", "values": ["c"] },
            { "key": "x", "operator": "Exists" },
            { "key": "y", "operator": "DoesNotExist", "values": [] },
        ],
    });
    let expected = Selector::And(vec![
        eq("app", "api"),
        Selector::In("tier".into(), ["a".to_owned(), "b".to_owned()].into()),
        Selector::NotIn("tier".into(), ["c".to_owned()].into()),
        Selector::Has("x".into()),
        Selector::Not(Box::new(Selector::Has("y".into()))),
    ]);
    assert_eq!(
        policy(json!({ "podSelector": selector })).pod_selector,
        expected
    );
}

#[test]
fn leading_zeros_of_an_ip_block_of_old_are_decimal() {
    for (text, expected) in [
        ("010.000.0.0/08", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("10.010.0.0/16", "10.10.0.0/16"),
    ] {
        let found = rule(json!({ "from": [{ "ipBlock": { "cidr": text } }] }));
        let block = PolicyPeer::IpBlock {
            cidr: expected.parse().unwrap(),
            except: vec![],
        };
        assert_eq!(found.peers, Some(vec![block]));
    }
    for text in [
        "10.0.0/8",
        "10..0.0/8",
        "0x0a.0.0.0/8",
        "10.0.0.256/8",
        "/8",
    ] {
        let rule = json!({ "from": [{ "ipBlock": { "cidr": text } }] });
        let (message, _) = invalid(&document(json!({ "ingress": [rule] })));
        assert!(
            message.ends_with(&format!("{text:?} is not a CIDR")),
            "{message}"
        );
    }
}

#[test]
fn host_bits_of_an_ip_block_are_masked() {
    let block =
        json!({ "ipBlock": { "cidr": "10.1.2.3/8", "except": ["10.1.2.3/16", "10.9.0.0/32"] } });
    let expected = PolicyPeer::IpBlock {
        cidr: "10.0.0.0/8".parse().unwrap(),
        except: vec![
            "10.1.0.0/16".parse().unwrap(),
            "10.9.0.0/32".parse().unwrap(),
        ],
    };
    assert_eq!(rule(json!({ "from": [block] })).peers, Some(vec![expected]));
}

#[test]
fn a_port_defaults_to_tcp_and_may_be_absent_numeric_a_range_or_named() {
    for (port, protocol, expected) in [
        (json!({}), Protocol::Tcp, PortMatch::Any),
        (
            json!({ "protocol": "SCTP" }),
            Protocol::Sctp,
            PortMatch::Any,
        ),
        (
            json!({ "port": 80 }),
            Protocol::Tcp,
            PortMatch::Range(80, 80),
        ),
        (
            json!({ "port": 80, "endPort": 80 }),
            Protocol::Tcp,
            PortMatch::Range(80, 80),
        ),
        (
            json!({ "protocol": "UDP", "port": 1, "endPort": 65535 }),
            Protocol::Udp,
            PortMatch::Range(1, 65535),
        ),
        (
            json!({ "port": "http-2" }),
            Protocol::Tcp,
            PortMatch::Named("http-2".into()),
        ),
    ] {
        let expected = PolicyPort {
            protocol,
            port: expected,
        };
        assert_eq!(rule(json!({ "ports": [port] })).ports, Some(vec![expected]));
    }
}

#[test]
fn a_mistake_is_named_and_the_fallback_isolates_without_a_rule() {
    let ingress =
        |rule: Value| json!({ "podSelector": { "matchLabels": { "a": "b" } }, "ingress": [rule] });
    let port = |port: Value| ingress(json!({ "ports": [port] }));
    let peer = |peer: Value| ingress(json!({ "from": [peer] }));
    for (spec, expected) in [
        (
            port(json!({ "port": 80, "endPort": 79 })),
            "ports[0].endPort: 79 is less than port 80",
        ),
        (
            port(json!({ "port": 0 })),
            "ports[0].port: 0 is not an integer from 1 to 65535",
        ),
        (
            port(json!({ "port": 65536 })),
            "ports[0].port: 65536 is not an integer from 1 to 65535",
        ),
        (
            port(json!({ "port": 80.5 })),
            "ports[0].port: 80.5 is not an integer from 1 to 65535",
        ),
        (
            port(json!({ "endPort": 80 })),
            "ports[0].endPort: needs a port that it is the end of",
        ),
        (
            port(json!({ "port": "http", "endPort": 80 })),
            "ports[0].endPort: may not stand beside the port name \"http\"",
        ),
        (
            port(json!({ "port": "80" })),
            "ports[0].port: \"80\" is not a port name (at most 15 of a-z, 0-9 and -, with a letter; a number has no quotes)",
        ),
        (
            port(json!({ "port": "abcdefghijklmnop" })),
            "ports[0].port: \"abcdefghijklmnop\" is not a port name (at most 15 of a-z, 0-9 and -, with a letter; a number has no quotes)",
        ),
        (
            port(json!({ "protocol": "tcp" })),
            "ports[0].protocol: \"tcp\" is not one of TCP, UDP, SCTP",
        ),
        (port(json!(null)), "ports[0]: null is not a mapping"),
        (
            peer(json!({})),
            "from[0]: must have podSelector, namespaceSelector or ipBlock",
        ),
        (
            peer(json!({ "podSelector": null })),
            "from[0]: must have podSelector, namespaceSelector or ipBlock",
        ),
        (
            peer(json!({ "podSelector": {}, "ipBlock": { "cidr": "10.0.0.0/8" } })),
            "from[0].ipBlock: may not stand beside podSelector or namespaceSelector",
        ),
        (
            peer(json!({ "ipBlock": {} })),
            "from[0].ipBlock.cidr: is required",
        ),
        (
            peer(json!({ "ipBlock": { "cidr": "10.0.0.0/33" } })),
            "from[0].ipBlock.cidr: \"10.0.0.0/33\" is not a CIDR",
        ),
        (
            peer(json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"] } })),
            "from[0].ipBlock.except[0]: 11.0.0.0/16 is not a smaller part of 10.0.0.0/8",
        ),
        (
            peer(json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["fd00::/16"] } })),
            "from[0].ipBlock.except[0]: fd00::/16 is not a smaller part of 10.0.0.0/8",
        ),
        (
            peer(json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"] } })),
            "from[0].ipBlock.except[0]: 10.0.0.0/8 is not a smaller part of 10.0.0.0/8",
        ),
        (
            peer(json!({ "podSelector": { "matchLabels": { "a": 1 } } })),
            "from[0].podSelector.matchLabels.a: 1 is not a string; write it in quotes",
        ),
        (
            peer(
                json!({ "podSelector": { "matchExpressions": [{ "key": "a", "operator": "In" }] } }),
            ),
            "from[0].podSelector.matchExpressions[0].values: In needs at least one value",
        ),
        (
            peer(
                json!({ "podSelector": { "matchExpressions": [{ "key": "a", "operator": "in" }] } }),
            ),
            "from[0].podSelector.matchExpressions[0].operator: \"in\" is not one of In, NotIn, Exists, DoesNotExist",
        ),
    ] {
        let (message, fallback) = invalid(&document(spec));
        assert_eq!(
            message,
            format!("NetworkPolicy/shop/api: spec.ingress[0].{expected}")
        );
        let expected = NetworkPolicy {
            namespace: "shop".into(),
            name: "api".into(),
            pod_selector: eq("a", "b"),
            ingress: Some(Vec::new()),
            egress: None,
        };
        assert_eq!(fallback.map(as_policy), Some(expected));
    }
}

#[test]
fn a_fallback_takes_what_it_cannot_read_at_its_widest() {
    for (spec, all_pods, ingress, egress) in [
        (json!(null), true, true, true),
        (json!([]), true, true, true),
        (
            json!({ "podSelector": 5, "policyTypes": ["Egress"] }),
            true,
            false,
            true,
        ),
        (
            json!({ "podSelector": { "matchLabel": {} } }),
            true,
            true,
            false,
        ),
        (
            json!({ "podSelector": { "matchLabels": { "a": "b" } }, "policyTypes": ["Both"] }),
            false,
            true,
            true,
        ),
        (
            json!({ "podSelector": { "matchLabels": { "a": "b" } }, "egress": 5 }),
            false,
            true,
            true,
        ),
        (
            json!({ "podSelector": { "matchLabels": { "a": "b" } }, "ingress": 5 }),
            false,
            true,
            false,
        ),
    ] {
        let fallback = as_policy(invalid(&document(spec.clone())).1.expect("a fallback"));
        assert_eq!(fallback.pod_selector == Selector::All, all_pods, "{spec}");
        assert_eq!(fallback.ingress, ingress.then(Vec::new), "{spec}");
        assert_eq!(fallback.egress, egress.then(Vec::new), "{spec}");
    }
}

#[test]
fn an_unknown_field_inside_a_rule_matches_nothing_and_is_named() {
    let nothing = || Some(Vec::new());
    let any_peer = PolicyPeer::Pods {
        namespaces: None,
        pods: Selector::All,
    };
    for (rule, peers, ports, field, part) in [
        (
            json!({ "form": [] }),
            Some(vec![]),
            Some(vec![]),
            "form",
            "rule",
        ),
        (
            json!({ "to": [{ "podSelector": {} }] }),
            Some(vec![]),
            Some(vec![]),
            "to",
            "rule",
        ),
        (
            json!({ "from": [{ "serviceAccounts": {} }] }),
            Some(vec![]),
            None,
            "from[0].serviceAccounts",
            "peer",
        ),
        (
            json!({ "from": [{ "podSelector": {}, "x": 1 }, { "podSelector": {} }] }),
            Some(vec![any_peer]),
            None,
            "from[0].x",
            "peer",
        ),
        (
            json!({ "from": [{ "podSelector": { "matchLabel": {} } }] }),
            Some(vec![]),
            None,
            "from[0].podSelector.matchLabel",
            "peer",
        ),
        (
            json!({ "from": [{ "ipBlock": { "cidr": "10.0.0.0/8", "not": 1 } }] }),
            Some(vec![]),
            None,
            "from[0].ipBlock.not",
            "peer",
        ),
        (
            json!({ "ports": [{ "port": 80, "icmp": 1 }] }),
            None,
            nothing(),
            "ports[0].icmp",
            "port",
        ),
    ] {
        let (object, warnings) = valid(&document(json!({ "ingress": [rule] })));
        assert_eq!(
            as_policy(object).ingress,
            Some(vec![PolicyRule { peers, ports }]),
            "{field}"
        );
        let expected =
            format!("spec.ingress[0].{field}: unknown field, so this {part} matches nothing");
        assert_eq!(warnings, [expected]);
    }
}

#[test]
fn an_unknown_field_of_the_spec_is_a_warning() {
    let (_, warnings) = valid(&document(json!({ "order": 5 })));
    assert_eq!(warnings, ["spec.order: unknown field, ignored"]);
}
