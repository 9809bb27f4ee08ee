//! The verdict of a flow, from the NetworkPolicy specification: the words of `networking.k8s.io/v1`
//! and nothing of the compiler. Slow and plain: it is what the compiler is measured against, and
//! what explains a verdict.
//!
//! Where the specification leaves a choice, this is ours:
//! - traffic between a pod and its own node is allowed, and so is a pod's traffic to itself;
//! - a named port of an egress rule is a port of the destination pod; it never matches an
//!   `ipBlock`, even one that holds the pod's address;
//! - a pod whose labels are not known is denied in both directions and matches no selector;
//! - where several pods hold one address, a peer matches if one of them does, and as the subject
//!   of policies each of them has to allow.

use crate::endpoint::{Endpoint, EndpointId};
use model::{Labels, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Knows the cluster and judges flows.
#[derive(Debug, Clone, Default)]
pub struct Evaluator {
    namespaces: BTreeMap<String, Labels>,
    policies: BTreeMap<(String, String), NetworkPolicy>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
}

/// A new connection, as it is after destination NAT and before source NAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Who opens it.
    pub source: Party,
    /// Who accepts it.
    pub destination: Party,
    /// L4 protocol number.
    pub protocol: u8,
    /// Destination port, of protocols that have ports.
    pub destination_port: Option<u16>,
}

/// One end of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Party {
    /// A pod by its name, with one of its addresses.
    Pod(EndpointId, IpAddr),
    /// An address: of whichever pods hold it, or of something outside of the pods.
    Address(IpAddr),
    /// The node that the pod at the other end runs on, with one of its addresses.
    OwnNode(IpAddr),
}

/// The verdict: both ends have to allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The flow is allowed.
    pub allowed: bool,
    /// What decided at the source.
    pub egress: Reason,
    /// What decided at the destination.
    pub ingress: Reason,
}

/// What decided one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// This end is no pod: nothing to decide.
    NotAPod,
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// Between a pod and its own node.
    OwnNode,
    /// A pod reaches itself.
    Itself,
    /// A rule allows.
    Rule {
        /// The policy, `namespace/name`.
        policy: String,
        /// Place of the rule in the policy's direction, from 0.
        rule: usize,
    },
    /// These policies isolate the pod, and no rule of theirs matches.
    NoRuleMatches {
        /// The policies, `namespace/name`.
        policies: Vec<String>,
    },
    /// The labels of the pod are not known.
    LabelsUnknown,
}

impl Reason {
    /// True where this direction is allowed.
    pub fn allows(&self) -> bool {
        !matches!(self, Self::NoRuleMatches { .. } | Self::LabelsUnknown)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPod => f.write_str("not a pod"),
            Self::NotIsolated => f.write_str("not isolated"),
            Self::OwnNode => f.write_str("own node"),
            Self::Itself => f.write_str("itself"),
            Self::Rule { policy, rule } => write!(f, "rule {rule} of {policy}"),
            Self::NoRuleMatches { policies } => {
                write!(f, "no rule matches of {}", policies.join(", "))
            }
            Self::LabelsUnknown => f.write_str("labels of the pod are not known"),
        }
    }
}

impl Party {
    /// Its address.
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Pod(_, address) | Self::Address(address) | Self::OwnNode(address) => *address,
        }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Egress,
    Ingress,
}

impl Evaluator {
    /// A namespace has these labels, or is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
    }

    /// A policy says this, or is gone.
    pub fn set_policy(&mut self, namespace: &str, name: &str, policy: Option<NetworkPolicy>) {
        let key = (namespace.to_owned(), name.to_owned());
        match policy {
            Some(policy) => drop(self.policies.insert(key, policy)),
            None => drop(self.policies.remove(&key)),
        }
    }

    /// A pod looks like this, or is gone.
    pub fn set_endpoint(&mut self, id: &EndpointId, endpoint: Option<Endpoint>) {
        match endpoint {
            Some(endpoint) => drop(self.endpoints.insert(id.clone(), endpoint)),
            None => drop(self.endpoints.remove(id)),
        }
    }

    /// Judges a new connection.
    pub fn verdict(&self, flow: &Flow) -> Decision {
        let egress = self.judge(Direction::Egress, &flow.source, &flow.destination, flow);
        let ingress = self.judge(Direction::Ingress, &flow.destination, &flow.source, flow);
        Decision {
            allowed: egress.allows() && ingress.allows(),
            egress,
            ingress,
        }
    }

    /// What decides at `subject`: of several pods at one address, the first that denies.
    fn judge(&self, direction: Direction, subject: &Party, peer: &Party, flow: &Flow) -> Reason {
        let subjects = self.pods(subject);
        let reasons = subjects
            .iter()
            .map(|(_, pod)| self.judge_pod(direction, pod, peer, flow));
        let reasons: Vec<_> = reasons.collect();
        let denial = reasons.iter().find(|reason| !reason.allows());
        denial
            .or(reasons.first())
            .cloned()
            .unwrap_or(Reason::NotAPod)
    }

    fn judge_pod(&self, direction: Direction, pod: &Endpoint, peer: &Party, flow: &Flow) -> Reason {
        if matches!(peer, Party::OwnNode(_)) {
            return Reason::OwnNode;
        }
        if pod.ips.contains(&peer.address()) {
            return Reason::Itself;
        }
        if !pod.labels_known {
            return Reason::LabelsUnknown;
        }
        let mut isolating = vec![];
        for ((namespace, name), policy) in &self.policies {
            let rules = match direction {
                Direction::Egress => &policy.egress,
                Direction::Ingress => &policy.ingress,
            };
            let selects = *namespace == pod.namespace && policy.pod_selector.matches(&pod.labels);
            let Some(rules) = rules.as_ref().filter(|_| selects) else {
                continue;
            };
            let allows =
                |rule: &PolicyRule| self.rule_matches(rule, namespace, pod, peer, direction, flow);
            if let Some(rule) = rules.iter().position(allows) {
                return Reason::Rule {
                    policy: format!("{namespace}/{name}"),
                    rule,
                };
            }
            isolating.push(format!("{namespace}/{name}"));
        }
        match isolating.is_empty() {
            true => Reason::NotIsolated,
            false => Reason::NoRuleMatches {
                policies: isolating,
            },
        }
    }

    /// A rule is peers x ports. A named port of egress belongs to the peer, so that pairs count.
    fn rule_matches(
        &self,
        rule: &PolicyRule,
        namespace: &str,
        subject: &Endpoint,
        peer: &Party,
        direction: Direction,
        flow: &Flow,
    ) -> bool {
        let peer_pods = self.holders(peer.address());
        let numeric = |port: &PolicyPort| match &port.port {
            PortMatch::Named(name) => match direction {
                Direction::Ingress => has_port(subject, port, name, flow),
                Direction::Egress => false,
            },
            PortMatch::Any => flow.protocol == port.protocol.number(),
            PortMatch::Range(first, last) => {
                flow.protocol == port.protocol.number()
                    && flow
                        .destination_port
                        .is_some_and(|number| *first <= number && number <= *last)
            }
        };
        let port_matches = rule
            .ports
            .as_ref()
            .is_none_or(|ports| ports.iter().any(numeric));
        let named_matches = |pod: &Endpoint| {
            let ports = rule.ports.iter().flatten();
            ports.into_iter().any(|port| match (&port.port, direction) {
                (PortMatch::Named(name), Direction::Egress) => has_port(pod, port, name, flow),
                _ => false,
            })
        };
        let pod_peers = |wanted: &dyn Fn(&Endpoint) -> bool| {
            let known = peer_pods
                .iter()
                .filter(|(_, pod)| pod.labels_known && wanted(pod));
            known
                .into_iter()
                .any(|(_, pod)| port_matches || named_matches(pod))
        };
        let Some(peers) = &rule.peers else {
            return port_matches || pod_peers(&|_| true);
        };
        peers.iter().any(|wanted| match wanted {
            PolicyPeer::IpBlock { cidr, except } => {
                let address = peer.address();
                let in_block = cidr.contains(&address);
                port_matches && in_block && !except.iter().any(|cut| cut.contains(&address))
            }
            PolicyPeer::Pods { namespaces, pods } => pod_peers(&|pod| {
                let in_namespace = match namespaces {
                    None => pod.namespace == namespace,
                    Some(selector) => selector.matches(&self.namespace_labels(&pod.namespace)),
                };
                in_namespace && pods.matches(&pod.labels)
            }),
        })
    }

    /// The pods that a party is, as the subject of policies.
    fn pods(&self, party: &Party) -> Vec<(&EndpointId, &Endpoint)> {
        match party {
            Party::OwnNode(_) => vec![],
            Party::Pod(id, _) => self.endpoints.get_key_value(id).into_iter().collect(),
            Party::Address(address) => self.holders(*address),
        }
    }

    /// The pods that an address belongs to. Packets show addresses: as a peer, a pod is all of
    /// those.
    fn holders(&self, address: IpAddr) -> Vec<(&EndpointId, &Endpoint)> {
        self.endpoints
            .iter()
            .filter(|(_, pod)| pod.ips.contains(&address))
            .collect()
    }

    /// Every namespace has its name as a label.
    fn namespace_labels(&self, name: &str) -> Labels {
        let mut labels = self.namespaces.get(name).cloned().unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        labels
    }
}

fn has_port(pod: &Endpoint, port: &PolicyPort, name: &str, flow: &Flow) -> bool {
    flow.protocol == port.protocol.number()
        && pod.ports.iter().any(|own| {
            own.name == name
                && own.protocol == port.protocol
                && flow.destination_port == Some(own.port)
        })
}
