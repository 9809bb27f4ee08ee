//! The way of a flow through the policies of one pod.

use super::Evaluator;
use super::calico::CalicoSubject;
use super::decision::{Action, Judgement, Reason, RuleRef};
use super::flow::{Direction, Flow, Party};
use super::order::{Active, TierOfPolicies, View};
use crate::endpoint::Endpoint;
use crate::input::PolicyKey;
use model::TierDefault;

/// IPv4 in IPv4 (RFC 2003).
/// IPv4 in IP, and IPv6 in IP.
const IP_IN_IP: [u8; 2] = [4, 41];
const UDP: u8 = 17;
/// RFC 7348, section 5.
const VXLAN_PORT: u16 = 4789;

/// What a tier makes of a flow.
pub(super) enum Outcome {
    Decided(Reason),
    /// On to the next tier.
    Passed,
}

/// A rule that matches: its place, its name, what it does.
pub(super) struct Match {
    pub(super) rule: usize,
    pub(super) name: Option<String>,
    pub(super) action: Action,
}

impl Evaluator {
    pub(super) fn judge_pod(&self, direction: Direction, pod: &Endpoint, flow: &Flow) -> Judgement {
        let peer = match direction {
            Direction::Egress => &flow.destination,
            Direction::Ingress => &flow.source,
        };
        let own_node = matches!(peer, Party::OwnNode(_));
        let itself = pod.ips.contains(&peer.address());
        if own_node && (direction == Direction::Ingress || !pod.labels_known) {
            return Judgement::of(Reason::OwnNode);
        }
        if direction == Direction::Egress && !own_node && is_encapsulation(flow) {
            return Judgement::of(Reason::Encapsulation);
        }
        if !pod.labels_known {
            let reason = if itself {
                Reason::Itself
            } else {
                Reason::LabelsUnknown
            };
            return Judgement::of(reason);
        }
        let exempt = match (own_node, itself) {
            (true, _) => Some(Reason::OwnNode),
            (_, true) => Some(Reason::Itself),
            _ => None,
        };
        let walk = Walk {
            evaluator: self,
            direction,
            pod,
            flow,
            exempt,
        };
        let (reason, passed) = walk.through(View::Enforced);
        let staged = self
            .changed_by_staging()
            .into_iter()
            .any(|policy| walk.applies(policy))
            .then(|| walk.through(View::Committed).0);
        Judgement {
            reason,
            passed,
            staged,
        }
    }
}

impl Evaluator {
    /// The policies in force that have a say about a pod in this direction, in the order in which
    /// they are asked.
    pub fn policies_of(&self, pod: &Endpoint, direction: Direction) -> Vec<PolicyKey> {
        let tiers = self.tiers(View::Enforced).into_iter();
        let policies = tiers.flat_map(|tier| tier.policies);
        let applying = policies.filter(|(_, policy)| self.applies_to_pod(*policy, pod, direction));
        applying.map(|(key, _)| key.into_owned()).collect()
    }

    /// Whether a policy has a say about a pod in this direction.
    pub(super) fn applies_to_pod(
        &self,
        policy: Active<'_>,
        pod: &Endpoint,
        direction: Direction,
    ) -> bool {
        match policy {
            Active::Kubernetes(policy) => super::kubernetes::isolates(policy, pod, direction),
            Active::Cluster(policy) => self.cluster_applies(policy, pod, direction),
            Active::Calico(policy) => {
                self.calico_applies(policy, CalicoSubject::Pod(pod), direction)
            }
        }
    }
}

/// Tunnels that nodes use between each other: a pod's own would hide the inner packet from policy.
fn is_encapsulation(flow: &Flow) -> bool {
    let vxlan = flow.protocol == UDP && flow.destination_port == Some(VXLAN_PORT);
    vxlan || IP_IN_IP.contains(&flow.protocol)
}

struct Walk<'a> {
    evaluator: &'a Evaluator,
    direction: Direction,
    pod: &'a Endpoint,
    flow: &'a Flow,
    /// Why Kubernetes' NetworkPolicies allow the flow whatever they say.
    exempt: Option<Reason>,
}

impl Walk<'_> {
    fn through(&self, view: View) -> (Reason, Vec<RuleRef>) {
        let mut passed = vec![];
        for tier in self.evaluator.tiers(view) {
            match self.through_tier(&tier, &mut passed) {
                Outcome::Decided(reason) => return (reason, passed),
                Outcome::Passed => {}
            }
        }
        (Reason::NoPolicy, passed)
    }

    fn through_tier(&self, tier: &TierOfPolicies<'_>, passed: &mut Vec<RuleRef>) -> Outcome {
        let mut applying: Vec<PolicyKey> = vec![];
        let mut isolated = false;
        for (key, policy) in &tier.policies {
            if !self.applies(*policy) {
                continue;
            }
            applying.push(PolicyKey::clone(key));
            if matches!(policy, Active::Kubernetes(_)) {
                isolated = true;
                if let Some(reason) = &self.exempt {
                    return Outcome::Decided(reason.clone());
                }
            }
            for matched in self.matches(*policy) {
                let rule = matched.at(tier.name, key);
                match rule.action {
                    Action::Allow | Action::Deny => return Outcome::Decided(Reason::Rule(rule)),
                    Action::Log => passed.push(rule),
                    Action::Pass => {
                        passed.push(rule);
                        return Outcome::Passed;
                    }
                }
            }
        }
        let denies = tier.default_action == TierDefault::Deny || isolated;
        if applying.is_empty() || !denies {
            return Outcome::Passed;
        }
        let tier = tier.name.to_owned();
        Outcome::Decided(Reason::EndOfTier {
            tier,
            policies: applying,
        })
    }

    fn applies(&self, policy: Active<'_>) -> bool {
        self.evaluator
            .applies_to_pod(policy, self.pod, self.direction)
    }

    /// The rules of a policy that match, in order.
    fn matches(&self, policy: Active<'_>) -> Vec<Match> {
        let (evaluator, direction, flow) = (self.evaluator, self.direction, self.flow);
        match policy {
            Active::Kubernetes(policy) => {
                evaluator.kubernetes_matches(policy, self.pod, direction, flow)
            }
            Active::Cluster(policy) => evaluator.cluster_matches(policy, self.pod, direction, flow),
            Active::Calico(policy) => evaluator.calico_matches(policy, direction, flow),
        }
    }
}

impl Match {
    pub(super) fn at(self, tier: &str, policy: &PolicyKey) -> RuleRef {
        RuleRef {
            tier: tier.to_owned(),
            policy: policy.clone(),
            rule: self.rule,
            name: self.name,
            action: self.action,
        }
    }
}
