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
        let peer = peer.address();
        let holders = self.holders(peer).into_iter().map(|(_, pod)| pod);
        let peer_pods = holders.filter(|pod| pod.labels_known).collect();
        let case = Case {
            evaluator: self,
            direction,
            subject: pod,
            peer,
            peer_pods,
            flow,
        };
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
            if let Some(rule) = rules.iter().position(|rule| case.matches(rule, namespace)) {
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

/// What a rule is asked about: `subject` has policies, and somebody is at the other end.
struct Case<'a> {
    evaluator: &'a Evaluator,
    direction: Direction,
    subject: &'a Endpoint,
    peer: IpAddr,
    /// The pods that hold the peer's address, if their labels are known.
    peer_pods: Vec<&'a Endpoint>,
    flow: &'a Flow,
}

impl Case<'_> {
    /// A rule matches where one of its peers and one of its ports do.
    fn matches(&self, rule: &PolicyRule, namespace: &str) -> bool {
        let with = |pod: &&Endpoint| self.port_matches(rule, Some(pod));
        let Some(peers) = &rule.peers else {
            return self.port_matches(rule, None) || self.peer_pods.iter().any(with);
        };
        peers.iter().any(|peer| match peer {
            PolicyPeer::IpBlock { cidr, except } => {
                let excepted = except.iter().any(|cut| cut.contains(&self.peer));
                cidr.contains(&self.peer) && !excepted && self.port_matches(rule, None)
            }
            PolicyPeer::Pods { namespaces, pods } => {
                let in_namespace = |pod: &Endpoint| match namespaces {
                    None => pod.namespace == namespace,
                    Some(selector) => {
                        selector.matches(&self.evaluator.namespace_labels(&pod.namespace))
                    }
                };
                let selected = |pod: &&&Endpoint| in_namespace(pod) && pods.matches(&pod.labels);
                self.peer_pods.iter().filter(selected).any(with)
            }
        })
    }

    /// True where the destination port is one of the rule's; `peer_pod` is the peer, if it was
    /// found as a pod.
    fn port_matches(&self, rule: &PolicyRule, peer_pod: Option<&Endpoint>) -> bool {
        let Some(ports) = &rule.ports else {
            return true;
        };
        let number = self.flow.destination_port;
        let matches = |wanted: &PolicyPort| match &wanted.port {
            PortMatch::Any => true,
            PortMatch::Range(first, last) => number.is_some_and(|n| *first <= n && n <= *last),
            PortMatch::Named(name) => {
                let destination = match self.direction {
                    Direction::Ingress => Some(self.subject),
                    Direction::Egress => peer_pod,
                };
                let own_ports = destination.iter().flat_map(|pod| &pod.ports);
                own_ports.into_iter().any(|own| {
                    own.name == *name && own.protocol == wanted.protocol && Some(own.port) == number
                })
            }
        };
        let of_protocol = ports
            .iter()
            .filter(|p| p.protocol.number() == self.flow.protocol);
        of_protocol.into_iter().any(matches)
    }
}
