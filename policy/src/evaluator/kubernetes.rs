//! `networking.k8s.io/v1` `NetworkPolicy`: which pods it isolates, and when a rule matches.

use super::Evaluator;
use super::decision::Action;
use super::flow::{Direction, Flow};
use super::pods::Match;
use crate::endpoint::Endpoint;
use model::{NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol};

/// Whether the policy isolates the pod in this direction.
pub(super) fn isolates(policy: &NetworkPolicy, pod: &Endpoint, direction: Direction) -> bool {
    rules(policy, direction).is_some()
        && policy.namespace == pod.namespace
        && policy.pod_selector.matches(&pod.labels)
}

fn rules(policy: &NetworkPolicy, direction: Direction) -> Option<&Vec<PolicyRule>> {
    match direction {
        Direction::Egress => policy.egress.as_ref(),
        Direction::Ingress => policy.ingress.as_ref(),
    }
}

impl Evaluator {
    pub(super) fn kubernetes_matches(
        &self,
        policy: &NetworkPolicy,
        subject: &Endpoint,
        direction: Direction,
        flow: &Flow,
    ) -> Vec<Match> {
        let case = Case {
            evaluator: self,
            policy,
            subject,
            direction,
            flow,
        };
        let rules = rules(policy, direction).into_iter().flatten().enumerate();
        let matching = rules.filter(|(_, rule)| case.matches(rule));
        let found = matching.map(|(rule, _)| Match {
            rule,
            name: None,
            action: Action::Allow,
        });
        found.collect()
    }
}

struct Case<'a> {
    evaluator: &'a Evaluator,
    policy: &'a NetworkPolicy,
    subject: &'a Endpoint,
    direction: Direction,
    flow: &'a Flow,
}

impl Case<'_> {
    /// A rule matches where one of its peers and one of its ports do.
    fn matches(&self, rule: &PolicyRule) -> bool {
        let address = match self.direction {
            Direction::Egress => self.flow.destination.address(),
            Direction::Ingress => self.flow.source.address(),
        };
        let pods: Vec<&Endpoint> = self.evaluator.known_holders(address).collect();
        let with = |pod: &Endpoint| self.port_matches(rule, Some(pod));
        let Some(peers) = &rule.peers else {
            return self.port_matches(rule, None) || pods.iter().any(|pod| with(pod));
        };
        peers.iter().any(|peer| match peer {
            PolicyPeer::IpBlock { cidr, except } => {
                let excepted = except.iter().any(|cut| cut.contains(&address));
                cidr.contains(&address) && !excepted && self.port_matches(rule, None)
            }
            PolicyPeer::Pods {
                namespaces,
                pods: selector,
            } => pods.iter().any(|pod| {
                let in_namespace = match namespaces {
                    None => pod.namespace == self.policy.namespace,
                    Some(selector) => {
                        selector.matches(&self.evaluator.namespace_labels(&pod.namespace))
                    }
                };
                in_namespace && selector.matches(&pod.labels) && with(pod)
            }),
        })
    }

    /// True where the destination port is one of the rule's; `peer` is the peer, if it was found
    /// as a pod.
    fn port_matches(&self, rule: &PolicyRule, peer: Option<&Endpoint>) -> bool {
        let Some(ports) = &rule.ports else {
            return true;
        };
        let number = self.flow.destination_port;
        let destination = match self.direction {
            Direction::Ingress => Some(self.subject),
            Direction::Egress => peer,
        };
        ports.iter().any(|PolicyPort { protocol, port }| {
            protocol.number() == self.flow.protocol
                && match port {
                    PortMatch::Any => true,
                    PortMatch::Range(first, last) => {
                        number.is_some_and(|n| *first <= n && n <= *last)
                    }
                    PortMatch::Named(name) => {
                        destination.is_some_and(|pod| names(pod, name, *protocol, number))
                    }
                }
        })
    }
}

/// Whether the pod has a port of this name, protocol and number.
fn names(pod: &Endpoint, name: &str, protocol: Protocol, number: Option<u16>) -> bool {
    pod.ports
        .iter()
        .any(|own| own.name == name && own.protocol == protocol && Some(own.port) == number)
}
