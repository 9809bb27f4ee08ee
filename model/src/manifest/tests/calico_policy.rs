use super::{clean, invalid, valid};
use crate::Selector;
use crate::object::{
    CalicoAction, CalicoPolicy, CalicoPort, CalicoRule, EntityRule, IcmpMatch, IpVersion, Kind,
    Object, Order, ServiceAccountMatch, ServiceMatch, StagedAction, Tier, TierDefault,
};
use serde_json::{Value, json};

fn document(kind: &str, spec: Value) -> Value {
    json!({ "apiVersion": "projectcalico.org/v3", "kind": kind,
        "metadata": { "namespace": "shop", "name": "api" }, "spec": spec })
}

fn global(spec: Value) -> Value {
    json!({ "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": { "name": "api" }, "spec": spec })
}

fn as_policy(object: Object) -> CalicoPolicy {
    match object {
        Object::CalicoPolicy(policy) => std::sync::Arc::unwrap_or_clone(policy),
        other => panic!("{other:?}"),
    }
}

fn policy(spec: Value) -> CalicoPolicy {
    as_policy(clean(&document("NetworkPolicy", spec)))
}

/// The only ingress rule of a policy in a namespace.
fn rule(rule: Value) -> CalicoRule {
    policy(json!({ "ingress": [rule] }))
        .ingress
        .expect("ingress")
        .remove(0)
}

fn any(action: CalicoAction) -> CalicoRule {
    CalicoRule {
        action,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: EntityRule::default(),
        destination: EntityRule::default(),
    }
}

fn eq(key: &str, value: &str) -> Selector {
    Selector::Eq(key.into(), value.into())
}

#[test]
fn types_default_to_the_directions_that_have_rules_and_to_ingress_without_any() {
    let allow = json!([{ "action": "Allow" }]);
    let (none, rules) = (Some(vec![]), Some(vec![any(CalicoAction::Allow)]));
    for (spec, ingress, egress) in [
        (json!({}), &none, &None),
        (json!({ "ingress": allow }), &rules, &None),
        (json!({ "egress": allow }), &None, &rules),
        (json!({ "ingress": allow, "egress": allow }), &rules, &rules),
        (json!({ "ingress": [], "egress": allow }), &None, &rules),
        (json!({ "types": ["Egress"] }), &None, &none),
        (
            json!({ "types": ["Ingress", "Egress"], "ingress": allow }),
            &rules,
            &none,
        ),
    ] {
        let found = policy(spec.clone());
        assert_eq!((&found.ingress, &found.egress), (ingress, egress), "{spec}");
    }
}

#[test]
fn rules_of_a_direction_that_types_do_not_name_are_ignored_with_a_warning() {
    let spec = json!({ "types": ["Ingress"], "egress": [{ "action": "Deny" }] });
    let (object, warnings) = valid(&document("NetworkPolicy", spec));
    assert_eq!(as_policy(object).egress, None);
    assert_eq!(
        warnings,
        ["spec.egress: ignored, since spec.types does not name it"]
    );
}

#[test]
fn a_policy_is_defaulted_as_in_calico() {
    let expected = CalicoPolicy {
        namespace: Some("shop".into()),
        name: "api".into(),
        staged: None,
        tier: "default".into(),
        order: Order::LAST,
        selector: Selector::All,
        namespace_selector: None,
        service_account_selector: None,
        ingress: Some(vec![]),
        egress: None,
        do_not_track: false,
        pre_dnat: false,
        apply_on_forward: false,
    };
    assert_eq!(policy(json!({})), expected);
    let empty = json!({ "selector": "", "tier": "", "serviceAccountSelector": "" });
    assert_eq!(policy(empty), expected);
}

#[test]
fn every_field_of_a_global_policy_is_read() {
    let spec = json!({ "tier": "security", "order": 100.5, "selector": "role == 'db'",
        "namespaceSelector": "has(prod)", "serviceAccountSelector": "team == 'x'",
        "types": ["Ingress", "Egress"], "doNotTrack": true, "applyOnForward": true,
        "performanceHints": ["AssumeNeededOnEveryNode"],
        "ingress": [{ "action": "Log" }, { "action": "Pass", "metadata": { "annotations": {} } }] });
    let expected = CalicoPolicy {
        namespace: None,
        tier: "security".into(),
        order: Order::new(100.5).unwrap(),
        selector: eq("role", "db"),
        namespace_selector: Some(Selector::Has("prod".into())),
        service_account_selector: Some(eq("team", "x")),
        ingress: Some(vec![any(CalicoAction::Log), any(CalicoAction::Pass)]),
        egress: Some(vec![]),
        do_not_track: true,
        apply_on_forward: true,
        ..policy(json!({}))
    };
    assert_eq!(as_policy(clean(&global(spec))), expected);
    assert_eq!(expected.kind(), Kind::GlobalNetworkPolicy);
}

#[test]
fn every_match_of_a_rule_is_read() {
    let found = rule(json!({ "action": "Deny", "ipVersion": 4, "protocol": "TCP",
        "notProtocol": "UDPLite",
        "source": { "nets": ["10.0.0.0/8", "192.0.2.7"], "notNets": ["10.1.0.0/16"],
            "selector": "app == 'web'", "notSelector": "has(bad)",
            "namespaceSelector": "global()",
            "serviceAccounts": { "names": ["a", "b"], "selector": "has(x)" },
            "ports": [1, "2:3"], "notPorts": ["4"] },
        "destination": { "selector": "", "ports": ["http", "8080"], "notPorts": ["9:9"] } }));
    let expected = CalicoRule {
        ip_version: Some(IpVersion::V4),
        protocol: Some(6),
        not_protocol: Some(136),
        source: EntityRule {
            nets: Some(vec![
                "10.0.0.0/8".parse().unwrap(),
                "192.0.2.7/32".parse().unwrap(),
            ]),
            not_nets: vec!["10.1.0.0/16".parse().unwrap()],
            selector: Some(eq("app", "web")),
            not_selector: Some(Selector::Has("bad".into())),
            namespace_selector: Some(Selector::Global),
            service_accounts: Some(ServiceAccountMatch {
                names: ["a".to_owned(), "b".to_owned()].into(),
                selector: Some(Selector::Has("x".into())),
            }),
            services: None,
            ports: Some(vec![CalicoPort::Range(1, 1), CalicoPort::Range(2, 3)]),
            not_ports: vec![CalicoPort::Range(4, 4)],
        },
        destination: EntityRule {
            ports: Some(vec![
                CalicoPort::Named("http".into()),
                CalicoPort::Range(8080, 8080),
            ]),
            not_ports: vec![CalicoPort::Range(9, 9)],
            ..EntityRule::default()
        },
        ..any(CalicoAction::Deny)
    };
    assert_eq!(found, expected);
}

#[test]
fn a_protocol_is_a_name_or_a_number_and_icmp_has_types_and_codes() {
    for (protocol, number) in [
        (json!("SCTP"), 132),
        (json!("ICMPv6"), 58),
        (json!(255), 255),
        (json!("17"), 17),
    ] {
        let found = rule(json!({ "action": "Allow", "protocol": protocol }));
        assert_eq!(found.protocol, Some(number));
    }
    let found = rule(json!({ "action": "Allow", "protocol": "ICMP",
        "icmp": { "type": 8, "code": 0 }, "notICMP": { "type": 3 } }));
    let echo = IcmpMatch {
        icmp_type: Some(8),
        code: Some(0),
    };
    let unreachable = IcmpMatch {
        icmp_type: Some(3),
        code: None,
    };
    assert_eq!(
        (found.icmp, found.not_icmp),
        (Some(echo), Some(unreachable))
    );
}

#[test]
fn a_service_is_of_the_namespace_of_the_policy_unless_it_says_other() {
    let spec = json!({ "egress": [
        { "action": "Allow", "destination": { "services": { "name": "dns" } } },
        { "action": "Allow", "destination": { "services": { "name": "dns", "namespace": "kube" } } },
    ] });
    let service = |namespace: &str| {
        Some(ServiceMatch {
            namespace: namespace.into(),
            name: "dns".into(),
        })
    };
    let rules = policy(spec).egress.unwrap();
    assert_eq!(rules[0].destination.services, service("shop"));
    assert_eq!(rules[1].destination.services, service("kube"));
}

#[test]
fn host_bits_of_nets_are_dropped_with_a_warning() {
    let spec = json!({ "ingress": [{ "action": "Allow", "source": { "nets": ["10.1.2.3/8"] } }] });
    let (object, warnings) = valid(&document("NetworkPolicy", spec));
    let rules = as_policy(object).ingress.unwrap();
    assert_eq!(
        rules[0].source.nets,
        Some(vec!["10.0.0.0/8".parse().unwrap()])
    );
    let expected =
        "spec.ingress[0].source.nets[0]: 10.1.2.3/8 has host bits set, read as 10.0.0.0/8";
    assert_eq!(warnings, [expected]);
}

#[test]
fn a_mistake_in_a_rule_is_named_with_its_field_and_its_value() {
    let many: Vec<Value> = vec![json!({ "action": "Deny" }); 1025];
    for (rule, expected) in [
        (json!({}), "action: is required"),
        (
            json!({ "action": "Accept" }),
            r#"action: "Accept" is not one of Allow, Deny, Log, Pass"#,
        ),
        (
            json!({ "action": "Allow", "http": { "methods": ["GET"] } }),
            "http: not supported: to match HTTP takes a proxy",
        ),
        (
            json!({ "action": "Allow", "ipVersion": 5 }),
            "ipVersion: 5 is not 4 or 6",
        ),
        (
            json!({ "action": "Allow", "protocol": "tcp" }),
            r#"protocol: "tcp" is not a protocol (TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6, 1 to 255)"#,
        ),
        (
            json!({ "action": "Allow", "protocol": 0 }),
            "protocol: 0 is not a protocol (TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6, 1 to 255)",
        ),
        (
            json!({ "action": "Allow", "source": { "nets": ["10.0.0.1/33"] } }),
            r#"source.nets[0]: "10.0.0.1/33" is not a CIDR such as "10.0.0.0/8""#,
        ),
        (
            json!({ "action": "Allow", "ipVersion": 6, "source": { "nets": ["10.0.0.0/8"] } }),
            "source.nets: 10.0.0.0/8 is not of the rule's ipVersion",
        ),
        (
            json!({ "action": "Allow", "ipVersion": 4, "destination": { "notNets": ["fd00::/8"] } }),
            "destination.notNets: fd00::/8 is not of the rule's ipVersion",
        ),
        (
            json!({ "action": "Allow", "protocol": "TCP", "destination": { "ports": [0] } }),
            "destination.ports[0]: 0 is not an integer from 1 to 65535",
        ),
        (
            json!({ "action": "Allow", "protocol": "TCP", "destination": { "ports": [65536] } }),
            "destination.ports[0]: 65536 is not an integer from 1 to 65535",
        ),
        (
            json!({ "action": "Allow", "protocol": "TCP", "destination": { "ports": ["90:80"] } }),
            "destination.ports[0]: 80 is less than 90",
        ),
        (
            json!({ "action": "Allow", "protocol": "TCP", "destination": { "ports": ["80-90!"] } }),
            r#"destination.ports[0]: "80-90!" is not a port (1 to 65535), a range such as "80:90" or a name"#,
        ),
        (
            json!({ "action": "Allow", "protocol": "TCP", "destination": { "ports": [""] } }),
            r#"destination.ports[0]: "" is not a port (1 to 65535), a range such as "80:90" or a name"#,
        ),
        (
            json!({ "action": "Allow", "destination": { "ports": ["http"] } }),
            "destination.ports: needs protocol TCP, UDP or SCTP",
        ),
        (
            json!({ "action": "Allow", "protocol": "ICMP", "source": { "notPorts": [1] } }),
            "source.notPorts: needs protocol TCP, UDP or SCTP",
        ),
        (
            json!({ "action": "Allow", "icmp": { "type": 8 } }),
            "icmp: needs protocol ICMP or ICMPv6",
        ),
        (
            json!({ "action": "Allow", "protocol": "TCP", "notICMP": { "type": 8 } }),
            "notICMP: needs protocol ICMP or ICMPv6",
        ),
        (
            json!({ "action": "Allow", "protocol": "ICMP", "icmp": { "type": 255 } }),
            "icmp.type: 255 is not an integer from 0 to 254",
        ),
        (
            json!({ "action": "Allow", "protocol": "ICMP", "icmp": { "code": 1 } }),
            "icmp.code: needs a type that it is a code of",
        ),
        (
            json!({ "action": "Allow", "protocol": "ICMP", "notICMP": { "type": 1, "id": 2 } }),
            "notICMP.id: unknown field, so it is not known what is excluded",
        ),
        (
            json!({ "action": "Allow", "protocol": "ICMPv6", "ipVersion": 4 }),
            "ipVersion: ICMPv6 is of IPv6",
        ),
        (
            json!({ "action": "Allow", "notProtocol": "ICMP", "ipVersion": 6 }),
            "ipVersion: ICMP is of IPv4",
        ),
        (
            json!({ "action": "Allow", "source": { "selector": "a = 'b'" } }),
            r#"source.selector: "a = 'b'" is not a selector: column 3: unexpected character '='"#,
        ),
        (
            json!({ "action": "Allow", "source": { "selector": "global()" } }),
            "source.selector: global() may stand only in a namespaceSelector of a rule",
        ),
        (
            json!({ "action": "Allow", "source": { "namespaceSelector": "global() || has(a)" } }),
            "source.namespaceSelector: global() may not be combined with other selectors",
        ),
        (
            json!({ "action": "Allow", "destination": { "services": { "name": "a" } } }),
            "destination.services: may not stand in an ingress rule",
        ),
        (
            json!({ "action": "Allow", "source": { "services": {} } }),
            "source.services.name: is required",
        ),
        (
            json!({ "action": "Allow", "source": { "services": { "name": "a" }, "nets": ["10.0.0.0/8"] } }),
            "source.services: may not stand beside nets",
        ),
        (
            json!({ "action": "Allow", "source": { "services": { "name": "a" }, "selector": "all()" } }),
            "source.services: may not stand beside selector",
        ),
    ] {
        let (message, fallback) = invalid(&document("NetworkPolicy", json!({ "ingress": [rule] })));
        let object = "NetworkPolicy.projectcalico.org/shop/api";
        assert_eq!(message, format!("{object}: spec.ingress[0].{expected}"));
        assert!(fallback.is_some());
    }
    let (message, _) = invalid(&document("NetworkPolicy", json!({ "ingress": many })));
    assert!(
        message.ends_with("spec.ingress: has 1025 entries, more than 1024"),
        "{message}"
    );
    let with_ports = json!({ "egress": [{ "action": "Allow", "protocol": "TCP",
        "destination": { "services": { "name": "a" }, "ports": [1] } }] });
    let (message, _) = invalid(&document("NetworkPolicy", with_ports));
    let expected = "spec.egress[0].destination.services: may not stand beside ports or notPorts";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn a_mistake_in_a_policy_is_named_with_its_field() {
    for (spec, expected) in [
        (
            json!({ "order": "NaN" }),
            r#"spec.order: "NaN" is not a number"#,
        ),
        (
            json!({ "tier": "a.b" }),
            r#"spec.tier: "a.b" is not an RFC 1123 label (at most 63 of a-z, 0-9 and -)"#,
        ),
        (
            json!({ "types": ["ingress"] }),
            r#"spec.types[0]: "ingress" is not one of Ingress, Egress"#,
        ),
        (
            json!({ "types": ["Egress", "Egress"] }),
            "spec.types[1]: is named twice",
        ),
        (
            json!({ "doNotTrack": true, "preDNAT": true, "applyOnForward": true }),
            "spec.preDNAT: may not stand beside doNotTrack",
        ),
        (
            json!({ "preDNAT": true, "applyOnForward": true, "types": ["Egress"] }),
            "spec.preDNAT: is for ingress only",
        ),
        (
            json!({ "preDNAT": true }),
            "spec.applyOnForward: must be true with preDNAT or doNotTrack",
        ),
        (
            json!({ "namespaceSelector": "global()" }),
            "spec.namespaceSelector: global() may stand only in a namespaceSelector of a rule",
        ),
        (
            json!({ "egress": [{ "action": "Allow", "destination": { "services": { "name": "a" } } }] }),
            "spec.egress[0].destination.services.namespace: is required in a global policy",
        ),
    ] {
        let (message, _) = invalid(&global(spec));
        assert_eq!(message, format!("GlobalNetworkPolicy/api: {expected}"));
    }
}

#[test]
fn an_unknown_field_of_a_rule_fails_closed() {
    let spec = json!({ "ingress": [
        { "action": "Allow", "source": { "domains": ["a.b"] } },
        { "action": "Deny", "protocol": "TCP", "later": 1 },
        { "action": "Pass", "destination": { "services2": {} } },
        { "action": "Allow" },
    ] });
    let (object, warnings) = valid(&document("NetworkPolicy", spec));
    let denies_tcp = CalicoRule {
        protocol: Some(6),
        ..any(CalicoAction::Deny)
    };
    assert_eq!(
        as_policy(object).ingress.unwrap(),
        [
            denies_tcp,
            any(CalicoAction::Deny),
            any(CalicoAction::Allow)
        ]
    );
    assert_eq!(
        warnings,
        [
            "spec.ingress[0].source.domains: unknown field, so this rule matches nothing",
            "spec.ingress[1].later: unknown field, so this rule denies whatever the rest of it matches",
            "spec.ingress[2].destination.services2: unknown field, so this rule denies whatever the rest of it matches",
        ]
    );
}

#[test]
fn a_fallback_denies_the_endpoints_that_the_policy_selects_in_its_directions() {
    let spec = json!({ "tier": "security", "order": 5, "selector": "role == 'db'",
        "types": ["Egress"], "egress": [{ "action": "Nope" }] });
    let (_, fallback) = invalid(&document("NetworkPolicy", spec));
    let deny = Some(vec![any(CalicoAction::Deny)]);
    let expected = CalicoPolicy {
        tier: "security".into(),
        order: Order::new(5.0).unwrap(),
        selector: eq("role", "db"),
        ingress: None,
        egress: deny.clone(),
        ..policy(json!({}))
    };
    assert_eq!(
        fallback,
        Some(Object::CalicoPolicy(std::sync::Arc::new(expected)))
    );
    for spec in [
        json!(null),
        json!({ "selector": "a ==", "types": 7, "order": "x" }),
    ] {
        let first = spec.is_object();
        let (_, fallback) = invalid(&document("NetworkPolicy", spec));
        let found = as_policy(fallback.unwrap());
        assert_eq!((&found.ingress, &found.egress), (&deny, &deny));
        assert_eq!(found.selector, Selector::All);
        assert_eq!(found.order == Order::FIRST, first);
    }
}

#[test]
fn a_global_policy_that_says_nothing_readable_about_its_endpoints_denies_nobody() {
    for spec in [json!(null), json!({ "selector": "a ==" })] {
        assert_eq!(invalid(&global(spec)).1, None);
    }
    let narrowed = json!({ "selector": "a ==", "namespaceSelector": "has(prod)" });
    let found = as_policy(invalid(&global(narrowed)).1.unwrap());
    assert_eq!(found.namespace_selector, Some(Selector::Has("prod".into())));
    let selected = json!({ "selector": "has(a)", "ingress": [{}] });
    let found = as_policy(invalid(&global(selected)).1.unwrap());
    assert_eq!(found.selector, Selector::Has("a".into()));
    assert_eq!(found.ingress, Some(vec![any(CalicoAction::Deny)]));
}

#[test]
fn a_staged_policy_is_set_or_deletes_and_has_no_fallback() {
    let staged = |spec| as_policy(clean(&document("StagedNetworkPolicy", spec)));
    let set = staged(json!({ "selector": "has(a)" }));
    assert_eq!(set.staged, Some(StagedAction::Set));
    assert_eq!(set.kind(), Kind::StagedNetworkPolicy);
    let delete = staged(json!({ "stagedAction": "Delete", "tier": "security" }));
    assert_eq!(delete.staged, Some(StagedAction::Delete));
    assert_eq!((delete.tier.as_str(), delete.ingress), ("security", None));
    let mixed = json!({ "stagedAction": "Delete", "selector": "has(a)" });
    let (message, fallback) = invalid(&document("StagedNetworkPolicy", mixed));
    assert_eq!(
        message,
        "StagedNetworkPolicy/shop/api: spec.selector: may not stand beside stagedAction Delete"
    );
    assert_eq!(fallback, None);
    let ignored = json!({ "stagedAction": "Ignore", "egress": [{ "action": "Deny" }] });
    let (object, warnings) = valid(&document("StagedNetworkPolicy", ignored));
    assert_eq!(as_policy(object).egress, None);
    assert_eq!(warnings, ["spec.stagedAction: the policy is not evaluated"]);
}

#[test]
fn a_staged_kubernetes_policy_is_read_as_the_policy_that_it_would_be() {
    let spec =
        json!({ "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Egress"] });
    let Object::StagedKubernetesPolicy(found) =
        clean(&document("StagedKubernetesNetworkPolicy", spec))
    else {
        panic!("another kind");
    };
    assert_eq!(found.action, StagedAction::Set);
    assert_eq!(found.policy.pod_selector, eq("app", "web"));
    assert_eq!(
        (found.policy.ingress.clone(), found.policy.egress.clone()),
        (None, Some(vec![]))
    );
    let spec = json!({ "stagedAction": "Delete", "egress": [] });
    let (message, _) = invalid(&document("StagedKubernetesNetworkPolicy", spec));
    assert!(
        message.ends_with("spec.egress: may not stand beside stagedAction Delete"),
        "{message}"
    );
}

#[test]
fn a_tier_has_a_place_and_a_default_action_which_are_given_for_three() {
    let document = |name: &str, spec: Value| {
        json!({ "apiVersion": "projectcalico.org/v3", "kind": "Tier",
            "metadata": { "name": name }, "spec": spec })
    };
    let tier = |name: &str, order, default_action| {
        Object::Tier(Tier {
            name: name.into(),
            order,
            default_action,
        })
    };
    for (name, spec, expected) in [
        ("a", json!({}), tier("a", Order::LAST, TierDefault::Deny)),
        (
            "a",
            json!({ "order": -1, "defaultAction": "Pass" }),
            tier("a", Order::new(-1.0).unwrap(), TierDefault::Pass),
        ),
        (
            "default",
            json!({}),
            tier("default", Order::new(1e6).unwrap(), TierDefault::Deny),
        ),
        (
            "kube-baseline",
            json!({ "order": 10_000_000, "defaultAction": "Pass" }),
            tier("kube-baseline", Order::new(1e7).unwrap(), TierDefault::Pass),
        ),
    ] {
        assert_eq!(clean(&document(name, spec)), expected);
    }
    for (name, spec, expected) in [
        (
            "default",
            json!({ "order": 5 }),
            "spec.order: must be 1000000 in tier default",
        ),
        (
            "kube-admin",
            json!({ "defaultAction": "Deny" }),
            "spec.defaultAction: must be Pass in tier kube-admin",
        ),
        ("a.b", json!({}), "metadata.name: must be an RFC 1123 label"),
        (
            "a",
            json!({ "defaultAction": "Allow" }),
            r#"spec.defaultAction: "Allow" is not one of Deny, Pass"#,
        ),
    ] {
        let (message, _) = invalid(&document(name, spec));
        assert_eq!(message, format!("Tier/{name}: {expected}"));
    }
}
