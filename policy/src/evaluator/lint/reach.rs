//! What can be said of pods and all their policies: DNS that is out of reach, policies that are
//! never reached, priorities that tie.

use super::super::Evaluator;
use super::super::flow::{Direction, Flow, Party};
use super::super::order::{Active, View};
use super::rules::{decides_all_of_calico, decides_all_of_cluster};
use super::{Check, Finding};
use crate::endpoint::Endpoint;
use crate::evaluator::Reason;
use crate::input::{PolicyKey, PolicyKind};
use model::{CalicoAction, ClusterAction, ClusterNetworkPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const UDP: u8 = 17;
const DNS: u16 = 53;
/// Documentation prefixes (RFC 5737, RFC 3849): somebody outside, whom no rule is about.
const ELSEWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
];

impl Evaluator {
    pub(super) fn lint_reach(&self, findings: &mut Vec<Finding>) {
        let mut found = |policy: &PolicyKey, check, field: &str, message: String| {
            findings.push(Finding {
                policy: policy.clone(),
                check,
                field: field.to_owned(),
                message,
            });
        };
        for (policy, pods) in self.without_dns() {
            let (first, others) = (&pods[0], pods.len() - 1);
            let others = match others {
                0 => String::new(),
                others => format!(" and {others} more"),
            };
            let message = format!("pod {first}{others} may not ask any DNS server (udp/53)");
            found(&policy, Check::DenyWithoutDns, "spec.egress", message);
        }
        for (policy, by) in self.shadowed() {
            let message = format!("never reached: {by} decides everything before");
            found(&policy, Check::Shadowed, "", message);
        }
        for (policy, others) in self.ties() {
            let names: Vec<String> = others.iter().map(ToString::to_string).collect();
            let message = format!(
                "{} have this priority too, and pods in common",
                names.join(", ")
            );
            found(&policy, Check::PriorityTie, "spec.priority", message);
        }
    }

    /// Policies that keep pods from every DNS server, with those pods.
    fn without_dns(&self) -> BTreeMap<PolicyKey, Vec<String>> {
        let is_dns = |pod: &&Endpoint| {
            pod.labels
                .get("k8s-app")
                .is_some_and(|app| app == "kube-dns" || app == "coredns")
        };
        let mut servers: BTreeSet<IpAddr> = self
            .endpoints
            .values()
            .filter(is_dns)
            .flat_map(|pod| pod.ips.iter().copied())
            .collect();
        if servers.is_empty() {
            let pods = self
                .endpoints
                .values()
                .flat_map(|pod| pod.ips.iter().copied());
            servers = pods.chain(ELSEWHERE).collect();
        }
        let mut keeping: BTreeMap<PolicyKey, Vec<String>> = BTreeMap::new();
        for (id, pod) in self.endpoints.iter().filter(|(_, pod)| pod.labels_known) {
            if self.policies_of(pod, Direction::Egress).is_empty() {
                continue;
            }
            let mut denials = vec![];
            for server in servers.iter().filter(|server| !pod.ips.contains(server)) {
                let source = pod.ips.iter().find(|own| own.is_ipv4() == server.is_ipv4());
                let Some(source) = source else { continue };
                let from = Party::Pod(id.clone(), *source);
                let flow = Flow::new(from, Party::Address(*server), UDP, Some(DNS));
                let judgement = self.judge_pod(Direction::Egress, pod, &flow);
                if judgement.allows() {
                    denials.clear();
                    break;
                }
                denials.push(judgement.reason);
            }
            let policies = denials.into_iter().flat_map(|reason| match reason {
                Reason::Rule(rule) => vec![rule.policy],
                Reason::EndOfTier { policies, .. } => policies,
                _ => vec![],
            });
            for policy in policies.collect::<BTreeSet<_>>() {
                let name = format!("{}/{}", pod.namespace, pod.pod);
                keeping.entry(policy).or_default().push(name);
            }
        }
        keeping
    }

    /// Policies that no flow of any pod reaches, with one that decides before.
    fn shadowed(&self) -> BTreeMap<PolicyKey, PolicyKey> {
        let tiers = self.tiers(View::Enforced);
        let mut shadowed: BTreeMap<PolicyKey, PolicyKey> = BTreeMap::new();
        let mut reached: BTreeSet<PolicyKey> = BTreeSet::new();
        let pods = self.endpoints.values().filter(|pod| pod.labels_known);
        let cases = pods.flat_map(|pod| [Direction::Egress, Direction::Ingress].map(|d| (pod, d)));
        for (pod, direction) in cases {
            let mut decided: Option<&PolicyKey> = None;
            for tier in &tiers {
                let mut passed: Option<&PolicyKey> = None;
                for (key, policy) in &tier.policies {
                    if !self.applies_to_pod(*policy, pod, direction) {
                        continue;
                    }
                    match decided.or(passed) {
                        Some(by)
                            if !(is_kubernetes(policy) && by.kind == PolicyKind::Kubernetes) =>
                        {
                            shadowed
                                .entry(PolicyKey::clone(key))
                                .or_insert_with(|| by.clone());
                        }
                        Some(_) => drop(reached.insert(PolicyKey::clone(key))),
                        None => {
                            reached.insert(PolicyKey::clone(key));
                            match end(*policy, direction) {
                                Some(End::Decides) => decided = Some(key),
                                Some(End::Passes) => passed = Some(key),
                                None => {}
                            }
                        }
                    }
                }
            }
        }
        shadowed.retain(|key, _| !reached.contains(key));
        shadowed
    }

    /// Cluster policies of one tier and priority that are about the same pods in the same
    /// direction.
    fn ties(&self) -> BTreeMap<PolicyKey, Vec<PolicyKey>> {
        let tiers = self.tiers(View::Enforced);
        let cluster: Vec<(&PolicyKey, &ClusterNetworkPolicy)> = tiers
            .iter()
            .flat_map(|tier| &tier.policies)
            .filter_map(|(key, policy)| match policy {
                Active::Cluster(policy) => Some((key.as_ref(), *policy)),
                Active::Kubernetes(_) | Active::Calico(_) => None,
            })
            .collect();
        let meet = |a: &ClusterNetworkPolicy, b: &ClusterNetworkPolicy| {
            [Direction::Egress, Direction::Ingress]
                .into_iter()
                .any(|direction| {
                    let mut pods = self.endpoints.values().filter(|pod| pod.labels_known);
                    pods.any(|pod| {
                        self.cluster_applies(a, pod, direction)
                            && self.cluster_applies(b, pod, direction)
                    })
                })
        };
        let mut ties: BTreeMap<PolicyKey, Vec<PolicyKey>> = BTreeMap::new();
        for (at, (key, policy)) in cluster.iter().enumerate() {
            for (other_key, other) in &cluster[at + 1..] {
                let same = (policy.tier, policy.priority) == (other.tier, other.priority);
                if same && meet(policy, other) {
                    ties.entry((*key).clone())
                        .or_default()
                        .push((*other_key).clone());
                }
            }
        }
        ties
    }
}

/// How a policy ends for every flow.
enum End {
    Decides,
    Passes,
}

fn is_kubernetes(policy: &Active<'_>) -> bool {
    matches!(policy, Active::Kubernetes(_))
}

/// Whether some rule of the policy matches everything, and what it does.
fn end(policy: Active<'_>, direction: Direction) -> Option<End> {
    let of = |passes: bool| if passes { End::Passes } else { End::Decides };
    match (policy, direction) {
        (Active::Kubernetes(policy), _) => {
            let rules = match direction {
                Direction::Egress => &policy.egress,
                Direction::Ingress => &policy.ingress,
            };
            let mut rules = rules.iter().flatten();
            rules
                .any(|rule| rule.peers.is_none() && rule.ports.is_none())
                .then_some(End::Decides)
        }
        (Active::Cluster(policy), _) => {
            let rules = match direction {
                Direction::Egress => &policy.egress,
                Direction::Ingress => &policy.ingress,
            };
            let rule = rules.iter().find(|rule| decides_all_of_cluster(rule))?;
            Some(of(rule.action == ClusterAction::Pass))
        }
        (Active::Calico(policy), _) => {
            let rules = match direction {
                Direction::Egress => &policy.egress,
                Direction::Ingress => &policy.ingress,
            };
            let rule = rules
                .iter()
                .flatten()
                .find(|rule| decides_all_of_calico(rule))?;
            Some(of(rule.action == CalicoAction::Pass))
        }
    }
}
