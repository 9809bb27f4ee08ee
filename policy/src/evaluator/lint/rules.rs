//! What can be said of the rules of one policy alone, and of its tier.

use super::super::Evaluator;
use super::super::order::Active;
use super::{Check, Found};
use ipnet::IpNet;
use model::{CalicoAction, CalicoRule, ClusterRule, EntityRule, NetworkPolicy, PolicyPeer};

impl Evaluator {
    pub(super) fn lint_rules(&self, policy: Active<'_>, found: &mut Found<'_>) {
        match policy {
            Active::Kubernetes(policy) => exceptions(policy, found),
            Active::Cluster(policy) => {
                for (name, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
                    let rules = rules.iter().map(decides_all_of_cluster);
                    after_everything(name, &rules.collect::<Vec<_>>(), found);
                }
            }
            Active::Calico(policy) => {
                for (name, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
                    let rules = rules.iter().flatten().map(decides_all_of_calico);
                    after_everything(name, &rules.collect::<Vec<_>>(), found);
                }
                if !self.has_tier(&policy.tier) {
                    let message = format!(
                        "there is no tier {:?}: it comes last, and denies",
                        policy.tier
                    );
                    found(Check::UnknownTier, "spec.tier".to_owned(), message);
                }
            }
        }
    }
}

/// Whether the rule matches everything and ends its policy.
pub(super) fn decides_all_of_calico(rule: &CalicoRule) -> bool {
    let nothing = EntityRule::default();
    rule.action != CalicoAction::Log
        && (rule.ip_version, rule.protocol, rule.not_protocol) == (None, None, None)
        && (rule.icmp, rule.not_icmp) == (None, None)
        && rule.source == nothing
        && rule.destination == nothing
}

/// Whether the rule matches everything.
pub(super) fn decides_all_of_cluster(rule: &ClusterRule) -> bool {
    rule.peers.is_none() && rule.protocols.is_none()
}

/// Says which rule is the first that none reaches; `rules` says which of them match everything.
fn after_everything(name: &str, rules: &[bool], found: &mut Found<'_>) {
    let first = rules.iter().position(|matches_all| *matches_all);
    if let Some(at) = first.filter(|at| at + 1 < rules.len()) {
        let message = format!("never reached: rule {at} matches everything");
        found(Check::Shadowed, format!("spec.{name}[{}]", at + 1), message);
    }
}

fn exceptions(policy: &NetworkPolicy, found: &mut Found<'_>) {
    let directions = [
        ("ingress", "from", &policy.ingress),
        ("egress", "to", &policy.egress),
    ];
    for (name, peers_name, rules) in directions {
        for (at, rule) in rules.iter().flatten().enumerate() {
            let peers: Vec<&PolicyPeer> = rule.peers.iter().flatten().collect();
            for (place, peer) in peers.iter().enumerate() {
                let PolicyPeer::IpBlock { cidr, except } = peer else {
                    continue;
                };
                for (number, cut) in except.iter().enumerate() {
                    let others = peers
                        .iter()
                        .enumerate()
                        .filter(|(other, _)| *other != place);
                    let others = others.map(|(_, other)| *other);
                    if let Some(message) = useless(cidr, &except[..number], cut, others) {
                        let field = format!(
                            "spec.{name}[{at}].{peers_name}[{place}].ipBlock.except[{number}]"
                        );
                        found(Check::ExceptCoversNothing, field, message);
                    }
                }
            }
        }
    }
}

/// Why the exception takes nothing away, if it does not.
fn useless<'a>(
    cidr: &IpNet,
    before: &[IpNet],
    cut: &IpNet,
    mut others: impl Iterator<Item = &'a PolicyPeer>,
) -> Option<String> {
    if !cidr.contains(cut) && !cut.contains(cidr) {
        return Some(format!("{cut} is not in {cidr}"));
    }
    if let Some(wider) = before.iter().find(|other| other.contains(cut)) {
        return Some(format!("{cut} is in {wider} already"));
    }
    let gives_back = |peer: &&PolicyPeer| match peer {
        PolicyPeer::IpBlock { cidr, except } => {
            let cuts = |other: &IpNet| other.contains(cut) || cut.contains(other);
            cidr.contains(cut) && !except.iter().any(cuts)
        }
        PolicyPeer::Pods { .. } => false,
    };
    match others.find(gives_back) {
        Some(PolicyPeer::IpBlock { cidr, .. }) => {
            Some(format!("{cut} is allowed by {cidr} of the same rule"))
        }
        _ => None,
    }
}
