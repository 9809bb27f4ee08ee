//! `projectcalico.org/v3`: tiers, policies, rules, and what their selectors match.

mod hosts;
mod rules;

use super::{calico, cluster, cluster_policy, flow, network_policy, row};
use policy::{Action, Reason};
use serde_json::{Value, json};

const Y: &str = "y/b x/a tcp/80";
const Z: &str = "z/b x/a tcp/80";

/// A global policy for pods `a`, in a tier, with one rule for what comes in from namespace `y`.
fn rule_for_y(name: &str, tier: &str, order: Value, action: &str) -> Value {
    let rule = json!({ "action": action, "source": { "namespaceSelector": "ns == 'y'" } });
    global(name, tier, order, json!([rule]))
}

fn global(name: &str, tier: &str, order: Value, ingress: Value) -> Value {
    let mut spec = json!({ "tier": tier, "selector": "pod == 'a'", "types": ["Ingress"] });
    spec["ingress"] = ingress;
    if !order.is_null() {
        spec["order"] = order;
    }
    calico("GlobalNetworkPolicy", name, spec)
}

fn tier(name: &str, order: u32, default_action: &str) -> Value {
    calico(
        "Tier",
        name,
        json!({ "order": order, "defaultAction": default_action }),
    )
}

#[test]
fn tiers() {
    let in_tier = |name: &str, action: &str| rule_for_y(name, name, json!(1), action);
    row(
        "the tier with the lower order goes first",
        &[
            tier("one", 1, "Pass"),
            tier("two", 2, "Pass"),
            in_tier("one", "Allow"),
            in_tier("two", "Deny"),
        ],
        &[Y, Z],
        &[],
    );
    row(
        "the tier with the lower order goes first, whatever its name",
        &[
            tier("one", 3, "Pass"),
            tier("two", 2, "Pass"),
            in_tier("one", "Allow"),
            in_tier("two", "Deny"),
        ],
        &[Z],
        &[Y],
    );
    row(
        "the end of a tier denies where a policy of it applies",
        &[tier("one", 1, "Deny"), in_tier("one", "Allow")],
        &[Y, "y/b x/b tcp/80", "x/a y/b tcp/80"],
        &[Z],
    );
    row(
        "the end of a tier passes where the tier says so",
        &[tier("one", 1, "Pass"), in_tier("one", "Deny")],
        &[Z],
        &[Y],
    );
    row(
        "a tier without policies for the pod is not there",
        &[tier("one", 1, "Deny"), in_tier("one", "Allow")],
        &["z/b y/b tcp/80"],
        &[],
    );
    row(
        "Pass goes on in the next tier, over the rest of its own",
        &[
            tier("one", 1, "Deny"),
            tier("two", 2, "Deny"),
            rule_for_y("a", "one", json!(1), "Pass"),
            rule_for_y("b", "one", json!(2), "Deny"),
            in_tier("two", "Allow"),
        ],
        &[Y],
        &[Z],
    );
    row(
        "Pass in the last tier allows: pods are open where nothing decides",
        &[rule_for_y("p", "default", json!(1), "Pass")],
        &[Y],
        &[Z],
    );
    row(
        "policies of a tier that there is not come last, and deny the rest",
        &[rule_for_y("p", "nowhere", json!(1), "Allow")],
        &[Y],
        &[Z],
    );
}

#[test]
fn policies_of_a_tier_in_order() {
    let two = |first: Value, second: Value| {
        [
            rule_for_y("a", "default", first, "Deny"),
            rule_for_y("b", "default", second, "Allow"),
        ]
    };
    row("the lower order first", &two(json!(2), json!(1)), &[Y], &[]);
    row("ties go by name", &two(json!(1), json!(1)), &[], &[Y]);
    row("no order is last", &two(Value::Null, json!(1e9)), &[Y], &[]);
    row(
        "orders are numbers with fractions and signs",
        &two(json!(0.5), json!(-0.5)),
        &[Y],
        &[],
    );
    let log = json!([{ "action": "Log" }, { "action": "Allow" }]);
    row(
        "Log goes on",
        &[global("p", "default", json!(1), log)],
        &[Y, Z],
        &[],
    );
}

#[test]
fn kubernetes_policies_stand_in_the_default_tier_at_order_1000() {
    let isolated = || network_policy(json!({ "podSelector": {}, "policyTypes": ["Ingress"] }));
    let open = || network_policy(json!({ "podSelector": {}, "ingress": [{}] }));
    let at = |order: f64, action: &str| rule_for_y("q", "default", json!(order), action);
    row(
        "Calico allows before",
        &[at(999.0, "Allow"), isolated()],
        &[Y],
        &[Z],
    );
    row(
        "Calico denies before",
        &[at(999.0, "Deny"), open()],
        &[Z],
        &[Y],
    );
    row(
        "Kubernetes allows before",
        &[at(1001.0, "Deny"), open()],
        &[Y, Z],
        &[],
    );
    row(
        "Calico allows after",
        &[at(1001.0, "Allow"), isolated()],
        &[Y],
        &[Z],
    );
    row(
        "Pass over Kubernetes",
        &[at(999.0, "Pass"), isolated()],
        &[Y],
        &[Z],
    );
    row(
        "a tier before decides for Kubernetes too",
        &[
            tier("one", 1, "Pass"),
            rule_for_y("p", "one", json!(1), "Deny"),
            open(),
        ],
        &[Z],
        &[Y],
    );
    let subject = json!({ "namespaces": {} });
    let deny = json!([{ "action": "Deny", "from": [{ "namespaces": {} }] }]);
    let baseline = cluster_policy(
        "p",
        json!({ "tier": "Baseline", "priority": 1, "subject": subject, "ingress": deny }),
    );
    row(
        "Baseline comes after the default tier",
        &[
            rule_for_y("q", "default", json!(1), "Pass"),
            baseline.clone(),
        ],
        &[],
        &[Y, "y/b x/b tcp/80"],
    );
    row(
        "what the default tier allows is not asked again",
        &[at(1.0, "Allow"), baseline],
        &[Y],
        &[],
    );
}

#[test]
fn which_pods_a_policy_is_for() {
    let deny = |kind: &str, spec: Value| {
        let mut spec = spec;
        spec["types"] = json!(["Ingress"]);
        calico(kind, "p", spec)
    };
    let local = |spec| [deny("NetworkPolicy", spec)];
    let everywhere = |spec| [deny("GlobalNetworkPolicy", spec)];
    let to = [
        "z/c x/a tcp/80",
        "z/c x/b tcp/80",
        "z/c y/a tcp/80",
        "z/c y/b tcp/80",
    ];
    row(
        "a policy of a namespace",
        &local(json!({})),
        &to[2..],
        &to[..2],
    );
    let some = local(json!({ "selector": "pod == 'a'" }));
    row("some pods of a namespace", &some, &to[1..], &to[..1]);
    row("a global policy", &everywhere(json!({})), &[], &to);
    row(
        "a global policy for namespaces",
        &everywhere(json!({ "namespaceSelector": "ns in {'x', 'z'}" })),
        &to[2..],
        &to[..2],
    );
    row(
        "namespaces have their name as a label, as Calico calls it",
        &everywhere(json!({ "namespaceSelector": "projectcalico.org/name == 'y'" })),
        &to[..2],
        &to[2..],
    );
    row(
        "pods have the labels that Calico gives them",
        &everywhere(json!({
            "selector": "projectcalico.org/namespace == 'y' && projectcalico.org/orchestrator == 'k8s' \
                         && projectcalico.org/serviceaccount == 'sa-b'",
        })),
        &to[..3],
        &to[3..],
    );
    row(
        "service accounts by label and by name",
        &everywhere(json!({ "serviceAccountSelector": "projectcalico.org/name != 'sa-b'" })),
        &["z/c x/b tcp/80", "z/c y/b tcp/80"],
        &["z/c x/a tcp/80", "z/c y/a tcp/80"],
    );
}

#[test]
fn types_and_their_default() {
    let both = ["x/a y/b tcp/80", Y];
    let spec = |spec: Value| [calico("NetworkPolicy", "p", spec)];
    let rule = json!([{ "action": "Allow", "protocol": "UDP" }]);
    row(
        "no rules: ingress",
        &spec(json!({})),
        &both[..1],
        &both[1..],
    );
    row(
        "egress rules only: egress",
        &spec(json!({ "egress": rule })),
        &both[1..],
        &both[..1],
    );
    row(
        "both rules: both",
        &spec(json!({ "ingress": rule, "egress": rule })),
        &[],
        &both,
    );
    row(
        "as it says",
        &spec(json!({ "types": ["Egress"], "ingress": rule })),
        &both[1..],
        &both[..1],
    );
}

#[test]
fn staged_policies_decide_nothing_and_say_what_they_would() {
    let deny = json!({ "types": ["Ingress"], "selector": "pod == 'a'" });
    let staged = calico("StagedNetworkPolicy", "p", deny);
    row("staged", std::slice::from_ref(&staged), &[Y], &[]);
    let decision = cluster(&[staged]).verdict(&flow(Y));
    let would = decision.ingress.staged.unwrap();
    assert!(!would.allows());
    assert!(
        would
            .to_string()
            .contains("NetworkPolicy.projectcalico.org/x/p"),
        "{would}"
    );
    assert_eq!(decision.egress.staged, None);

    let enforced = rule_for_y("p", "default", json!(1), "Deny");
    let spec = json!({ "stagedAction": "Delete" });
    let removal = calico("StagedGlobalNetworkPolicy", "p", spec);
    let decision = cluster(&[enforced, removal]).verdict(&flow(Y));
    assert!(!decision.allowed);
    assert_eq!(decision.ingress.staged, Some(Reason::NoPolicy));

    let enforced = rule_for_y("p", "default", json!(1), "Deny");
    let spec = json!({ "stagedAction": "Ignore", "types": ["Ingress"] });
    let ignored = calico("StagedGlobalNetworkPolicy", "p", spec);
    let decision = cluster(&[enforced, ignored]).verdict(&flow(Y));
    assert_eq!((decision.allowed, decision.ingress.staged), (false, None));

    let staged = calico(
        "StagedKubernetesNetworkPolicy",
        "p",
        json!({ "podSelector": {}, "policyTypes": ["Egress"] }),
    );
    let decision = cluster(&[staged]).verdict(&flow("x/a y/b tcp/80"));
    assert!(decision.allowed && !decision.egress.staged.unwrap().allows());
}

#[test]
fn a_verdict_tells_the_rules_that_passed_before_the_one_that_decided() {
    let policies = [
        tier("one", 1, "Deny"),
        rule_for_y("first", "one", json!(1), "Log"),
        rule_for_y("second", "one", json!(2), "Pass"),
        rule_for_y("third", "default", json!(1), "Deny"),
    ];
    let judgement = cluster(&policies).verdict(&flow(Y)).ingress;
    let passed: Vec<_> = judgement.passed.iter().map(|rule| rule.action).collect();
    assert_eq!(passed, [Action::Log, Action::Pass]);
    assert_eq!(
        judgement.passed[1].to_string(),
        "passed to the next tier by rule 0 of GlobalNetworkPolicy/second (tier one)"
    );
    assert_eq!(
        judgement.reason.to_string(),
        "denied by rule 0 of GlobalNetworkPolicy/third (tier default)"
    );
}

#[test]
fn what_can_not_be_read_isolates_and_allows_nothing() {
    let bad = [
        json!({ "action": "Maybe" }),
        json!({ "action": "Allow", "source": { "selector": "pod = 'a'" } }),
        json!({ "action": "Allow", "source": { "nets": ["10.0.0.1/33"] } }),
        json!({ "action": "Allow", "destination": { "ports": [80] } }),
        json!({ "action": "Allow", "protocol": "TCP", "destination": { "ports": [65536] } }),
    ];
    for rule in bad {
        let name = rule.to_string();
        row(
            &name,
            &[global("p", "default", json!(1), json!([rule]))],
            &[],
            &[Y, Z],
        );
    }
}
