//! `policy.networking.k8s.io/v1alpha2` `ClusterNetworkPolicy`: its subject, and when a rule
//! matches.

use super::Evaluator;
use super::flow::{Direction, Flow};
use super::pods::Match;
use crate::endpoint::Endpoint;
use model::{ClusterNetworkPolicy, ClusterPeer, ClusterPods, ClusterPort, ClusterRule};
use std::net::IpAddr;

fn rules(policy: &ClusterNetworkPolicy, direction: Direction) -> &[ClusterRule] {
    match direction {
        Direction::Egress => &policy.egress,
        Direction::Ingress => &policy.ingress,
    }
}

impl Evaluator {
    /// A policy without rules for a direction does not affect it.
    pub(super) fn cluster_applies(
        &self,
        policy: &ClusterNetworkPolicy,
        pod: &Endpoint,
        direction: Direction,
    ) -> bool {
        !rules(policy, direction).is_empty() && self.cluster_selects(&policy.subject, pod)
    }

    pub(super) fn cluster_selects(&self, selected: &ClusterPods, pod: &Endpoint) -> bool {
        let namespace = self.namespace_labels(&pod.namespace);
        selected.namespaces.matches(&namespace) && selected.pods.matches(&pod.labels)
    }

    pub(super) fn cluster_matches(
        &self,
        policy: &ClusterNetworkPolicy,
        subject: &Endpoint,
        direction: Direction,
        flow: &Flow,
    ) -> Vec<Match> {
        let case = Case {
            evaluator: self,
            subject,
            direction,
            flow,
        };
        let rules = rules(policy, direction).iter().enumerate();
        let matching = rules.filter(|(_, rule)| case.matches(rule));
        let found = matching.map(|(place, rule)| Match {
            rule: place,
            name: rule.name.clone(),
            action: rule.action.into(),
        });
        found.collect()
    }

    fn resolves_to(&self, pattern: &str, address: IpAddr) -> bool {
        let resolved = self.domains.iter();
        let mut matching = resolved.filter(|(name, _)| domain_matches(pattern, name));
        matching.any(|(_, addresses)| addresses.contains(&address))
    }
}

/// A leading `*.` stands for one or more labels.
fn domain_matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => name
            .strip_suffix(parent)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|labels| !labels.is_empty()),
        None => name == pattern,
    }
}

struct Case<'a> {
    evaluator: &'a Evaluator,
    subject: &'a Endpoint,
    direction: Direction,
    flow: &'a Flow,
}

impl Case<'_> {
    /// A rule matches where one of its peers and one of its ports do.
    fn matches(&self, rule: &ClusterRule) -> bool {
        let address = match self.direction {
            Direction::Egress => self.flow.destination.address(),
            Direction::Ingress => self.flow.source.address(),
        };
        let evaluator = self.evaluator;
        let pods: Vec<&Endpoint> = evaluator.known_holders(address).collect();
        let with = |pod: &Endpoint| self.port_matches(rule, Some(pod));
        let Some(peers) = &rule.peers else {
            return self.port_matches(rule, None) || pods.iter().any(|pod| with(pod));
        };
        peers.iter().any(|peer| match peer {
            ClusterPeer::Pods(selected) => pods
                .iter()
                .any(|pod| evaluator.cluster_selects(selected, pod) && with(pod)),
            ClusterPeer::Networks(networks) => {
                networks.iter().any(|net| net.contains(&address)) && self.port_matches(rule, None)
            }
            ClusterPeer::Nodes(selector) => {
                evaluator
                    .nodes
                    .values()
                    .any(|node| selector.matches(&node.labels) && node.addresses.contains(&address))
                    && self.port_matches(rule, None)
            }
            ClusterPeer::DomainNames(names) => {
                names
                    .iter()
                    .any(|name| evaluator.resolves_to(name, address))
                    && self.port_matches(rule, None)
            }
        })
    }

    /// True where the destination port is one of the rule's; `peer` is the peer, if it was found
    /// as a pod.
    fn port_matches(&self, rule: &ClusterRule, peer: Option<&Endpoint>) -> bool {
        let Some(ports) = &rule.protocols else {
            return true;
        };
        let number = self.flow.destination_port;
        let destination = match self.direction {
            Direction::Ingress => Some(self.subject),
            Direction::Egress => peer,
        };
        ports.iter().any(|port| match port {
            ClusterPort::Range {
                protocol,
                first,
                last,
            } => {
                let ports = *first..=*last;
                protocol.number() == self.flow.protocol
                    && number.is_some_and(|n| ports.contains(&n))
            }
            ClusterPort::Named(name) => {
                destination
                    .iter()
                    .flat_map(|pod| pod.ports.iter())
                    .any(|own| {
                        own.name == *name
                            && own.protocol.number() == self.flow.protocol
                            && Some(own.port) == number
                    })
            }
        })
    }
}
