//! What holds for every cluster and every set of policies.

use crate::generate::{Change, changes, cluster, evaluator, flow, host_policy, kubernetes_policy};
use model::{
    CalicoAction, CalicoPolicy, CalicoRule, EntityRule, NetworkPolicy, Order, Selector,
    StagedAction, Tier, TierDefault,
};
use policy::{
    Action, Compiler, Direction, Evaluator, Flow, HostPath, Options, Policy, PolicyKey, Reason,
    Ruleset,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn policies(changes: &[Change]) -> BTreeMap<PolicyKey, Policy> {
    let mut policies = BTreeMap::new();
    for change in changes {
        if let Change::Policy(key, policy) = change {
            match policy {
                Some(policy) => drop(policies.insert(key.clone(), policy.clone())),
                None => drop(policies.remove(key)),
            }
        }
    }
    policies
}

fn without_policies(changes: &[Change]) -> Evaluator {
    evaluator(
        changes
            .iter()
            .filter(|change| !matches!(change, Change::Policy(..))),
    )
}

fn is_staged(policy: &Policy) -> bool {
    match policy {
        Policy::Calico(policy) => policy.staged.is_some(),
        Policy::StagedKubernetes(_) => true,
        Policy::Kubernetes(_) | Policy::Cluster(_) => false,
    }
}

/// Says nothing about either direction.
fn is_silent(policy: &Policy) -> bool {
    match policy {
        Policy::Kubernetes(policy) => policy.ingress.is_none() && policy.egress.is_none(),
        Policy::Calico(policy) => policy.ingress.is_none() && policy.egress.is_none(),
        Policy::Cluster(_) | Policy::StagedKubernetes(_) => false,
    }
}

/// What a change is about.
fn subject(change: &Change) -> String {
    match change {
        Change::Namespace(name, _) => format!("namespace {name}"),
        Change::Endpoint(id, _) => format!("endpoint {id}"),
        Change::Policy(key, _) => format!("policy {key}"),
        Change::Tier(name, _) => format!("tier {name}"),
        Change::NetworkSet(namespace, name, _) => format!("set {namespace:?} {name}"),
        Change::HostEndpoint(name, _) => format!("host {name}"),
        Change::ServiceAccount(namespace, name, _) => format!("account {namespace} {name}"),
        Change::Profile(name, _) => format!("profile {name}"),
        Change::EndpointSlice(namespace, name, _) => format!("slice {namespace} {name}"),
        Change::Node(name, _) => format!("node {name}"),
        Change::Domain(name, _) => format!("domain {name}"),
    }
}

/// Nothing may come in or go out, at pods nor at hosts.
fn deny_all() -> Policy {
    let rule = CalicoRule {
        action: CalicoAction::Deny,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: EntityRule::default(),
        destination: EntityRule::default(),
    };
    Policy::from(CalicoPolicy {
        namespace: None,
        name: "deny-all".to_owned(),
        staged: None,
        tier: "first".to_owned(),
        order: Order::LAST,
        selector: Selector::All,
        namespace_selector: None,
        service_account_selector: None,
        ingress: Some(vec![rule.clone()]),
        egress: Some(vec![rule]),
        do_not_track: false,
        pre_dnat: false,
        apply_on_forward: false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn verdicts_are_a_function_of_the_final_state(
        changes in changes(), flows in prop::collection::vec(flow(), 20),
    ) {
        let last: BTreeMap<String, &Change> =
            changes.iter().map(|change| (subject(change), change)).collect();
        let told = evaluator(&changes);
        let again = evaluator(last.into_values().rev());
        for flow in &flows {
            prop_assert_eq!(told.verdict(flow), again.verdict(flow));
        }
    }

    #[test]
    fn a_compiler_takes_every_history(changes in changes()) {
        let mut compiler = Compiler::new(Options::default());
        let mut table = Ruleset::default();
        for change in &changes {
            change.tell(&mut compiler);
            table.apply(&compiler.resolve()).unwrap();
        }
        prop_assert_eq!(&table, compiler.ruleset());
    }

    #[test]
    fn a_policy_for_pods_that_are_isolated_already_never_takes_away_what_was_allowed(
        cluster in cluster(), policy in kubernetes_policy(), flows in prop::collection::vec(flow(), 20),
    ) {
        let mut told = evaluator(&cluster);
        let isolating = |policy: &Policy| match policy {
            Policy::Kubernetes(policy) => Some(policy.clone()),
            _ => None,
        };
        let all = policies(&cluster);
        for (number, existing) in all.values().filter_map(isolating).enumerate() {
            let more = NetworkPolicy {
                name: format!("more-{number}"),
                namespace: existing.namespace.clone(),
                pod_selector: existing.pod_selector.clone(),
                ingress: existing.ingress.is_some().then(|| policy.ingress.clone().unwrap_or_default()),
                egress: existing.egress.is_some().then(|| policy.egress.clone().unwrap_or_default()),
            };
            let before: Vec<_> = flows.iter().map(|flow| told.verdict(flow)).collect();
            let more = Policy::from(more);
            told.set_policy(&more.key(), Some(more));
            for (flow, before) in flows.iter().zip(before) {
                let after = told.verdict(flow);
                prop_assert!(!before.egress.allows() || after.egress.allows());
                prop_assert!(!before.ingress.allows() || after.ingress.allows());
            }
        }
    }

    #[test]
    fn without_policies_everything_is_allowed_to_pods_with_known_labels(
        cluster in cluster(), flows in prop::collection::vec(flow(), 20),
    ) {
        let told = without_policies(&cluster);
        for flow in &flows {
            let decision = told.verdict(flow);
            for judgement in [&decision.egress, &decision.ingress] {
                let closed = matches!(
                    judgement.reason,
                    Reason::LabelsUnknown | Reason::HostEndpoint
                );
                prop_assert_eq!(judgement.allows(), !closed);
                let by_policy =
                    matches!(judgement.reason, Reason::Rule(_) | Reason::EndOfTier { .. });
                prop_assert!(!by_policy);
            }
        }
    }

    #[test]
    fn staged_policies_are_never_enforced_and_what_they_would_say_is_what_they_say_when_committed(
        cluster in cluster(), flows in prop::collection::vec(flow(), 20),
    ) {
        let told = evaluator(&cluster);
        let (mut enforced, mut committed) = (without_policies(&cluster), without_policies(&cluster));
        let all = policies(&cluster);
        for (key, policy) in all.iter().filter(|(_, policy)| !is_staged(policy)) {
            enforced.set_policy(key, Some(policy.clone()));
            committed.set_policy(key, Some(policy.clone()));
        }
        for policy in all.into_values().filter(is_staged) {
            let (action, policy) = match policy {
                Policy::StagedKubernetes(staged) => {
                    (staged.action, Policy::from(staged.policy.clone()))
                }
                Policy::Calico(policy) => {
                    let mut policy = std::sync::Arc::unwrap_or_clone(policy);
                    let action = policy.staged.take().unwrap();
                    (action, Policy::from(policy))
                }
                other => unreachable!("{other:?} is not staged"),
            };
            let set = action == StagedAction::Set;
            if set && is_silent(&policy) {
                continue;
            }
            committed.set_policy(&policy.key(), set.then_some(policy));
        }
        for flow in &flows {
            let (now, without, with) =
                (told.verdict(flow), enforced.verdict(flow), committed.verdict(flow));
            let ends = [
                (now.egress, without.egress, with.egress),
                (now.ingress, without.ingress, with.ingress),
            ];
            for (now, without, with) in ends {
                let denial = now.staged.is_some() && !now.allows();
                prop_assert_eq!(&now.reason, &without.reason);
                // Where several pods share the address, each of them has to allow.
                prop_assert!(denial || now.staged.unwrap_or(now.reason).allows() || !with.allows());
            }
        }
    }

    #[test]
    fn a_denial_before_everything_is_final(
        cluster in cluster(), flows in prop::collection::vec(flow(), 20),
    ) {
        let mut told = evaluator(&cluster);
        let (deny, order) = (deny_all(), Order::new(-1e9).unwrap());
        let default_action = TierDefault::Pass;
        told.set_tier("first", Some(Tier { name: "first".to_owned(), order, default_action }));
        told.set_policy(&deny.key(), Some(deny.clone()));
        for flow in &flows {
            let decision = told.verdict(flow);
            for judgement in [decision.egress, decision.ingress] {
                match judgement.reason {
                    Reason::Rule(rule) => prop_assert_eq!(rule.policy, deny.key()),
                    Reason::NoEndpoint
                    | Reason::Failsafe
                    | Reason::Encapsulation
                    | Reason::LabelsUnknown => {}
                    // Of a pod with unknown labels, that no policy selects.
                    Reason::Itself => {
                        prop_assert_eq!(flow.source.address(), flow.destination.address());
                    }
                    reason => prop_assert!(false, "{}", reason),
                }
            }
        }
    }

    #[test]
    fn a_host_is_never_locked_out(
        cluster in cluster(),
        policies in prop::collection::vec(host_policy(), 1..6),
        flows in prop::collection::vec(flow(), 10),
    ) {
        let mut told = evaluator(&cluster);
        for policy in policies.into_iter().map(Policy::from) {
            told.set_policy(&policy.key(), Some(policy));
        }
        for flow in flows {
            let (ssh, names) = (Some(22), Some(53));
            let inbound = Flow { protocol: 6, destination_port: ssh, ..flow.clone() };
            let outbound = Flow { protocol: 17, destination_port: names, ..flow };
            for host in ["host-0", "host-1"] {
                let local = HostPath::Local;
                let inbound = told.host_judgement(host, Direction::Ingress, local, &inbound);
                let outbound = told.host_judgement(host, Direction::Egress, local, &outbound);
                prop_assert!(inbound.allows() && outbound.allows());
            }
        }
    }

    #[test]
    fn the_names_of_kubernetes_policies_do_not_matter(
        cluster in cluster(), flows in prop::collection::vec(flow(), 20),
    ) {
        let (mut one, mut other) = (without_policies(&cluster), without_policies(&cluster));
        for policy in policies(&cluster).into_values() {
            let Policy::Kubernetes(policy) = policy else { continue };
            let renamed = match policy.name.as_str() {
                "p0" => "p2",
                "p2" => "p0",
                same => same,
            };
            let renamed = NetworkPolicy { name: renamed.to_owned(), ..(*policy).clone() };
            for (evaluator, policy) in [(&mut one, policy), (&mut other, renamed.into())] {
                let policy = Policy::Kubernetes(policy);
                evaluator.set_policy(&policy.key(), Some(policy));
            }
        }
        for flow in &flows {
            prop_assert_eq!(one.verdict(flow).allowed, other.verdict(flow).allowed);
        }
    }
}

#[test]
fn the_generator_reaches_every_reason_and_every_action() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..600 {
        let cluster = cluster().new_tree(&mut runner).unwrap().current();
        let told = evaluator(&cluster);
        for _ in 0..40 {
            let flow: Flow = flow().new_tree(&mut runner).unwrap().current();
            let decision = told.verdict(&flow);
            for judgement in [decision.egress, decision.ingress] {
                for rule in &judgement.passed {
                    seen.insert(format!("{:?} {:?}", rule.action, rule.policy.kind));
                }
                seen.insert(match judgement.reason {
                    Reason::Rule(rule) => format!("{:?} {:?}", rule.action, rule.policy.kind),
                    Reason::EndOfTier { .. } => "end of tier".to_owned(),
                    reason => format!("{reason:?}"),
                });
                if judgement.staged.is_some() {
                    seen.insert("staged".to_owned());
                }
            }
        }
    }
    let rules = [
        (Action::Allow, "Kubernetes"),
        (Action::Allow, "Cluster"),
        (Action::Deny, "Cluster"),
        (Action::Pass, "Cluster"),
        (Action::Allow, "Calico"),
        (Action::Deny, "Calico"),
        (Action::Pass, "Calico"),
        (Action::Log, "Calico"),
    ];
    let rules = rules.map(|(action, kind)| format!("{action:?} {kind}"));
    let reasons = [
        "NoEndpoint",
        "NoPolicy",
        "Itself",
        "LabelsUnknown",
        "HostEndpoint",
        "Failsafe",
        "end of tier",
        "staged",
    ];
    for wanted in rules.iter().map(String::as_str).chain(reasons) {
        assert!(seen.contains(wanted), "{wanted} never happens; {seen:?}");
    }
}
