//! What decides one direction of one pod, between policies and chains.

use crate::endpoint::Endpoint;
use crate::intervals::{self, Ranges};
use crate::ruleset::Family;
use ipnet::IpNet;
use model::{
    Labels, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol, Selector,
};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Seen from the pod that a policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Egress, Self::Ingress];

    /// The rules of `policy` in this direction, if it isolates.
    fn rules(self, policy: &NetworkPolicy) -> Option<&[PolicyRule]> {
        match self {
            Self::Ingress => policy.ingress.as_deref(),
            Self::Egress => policy.egress.as_deref(),
        }
    }
}

/// What decides one direction of an isolated pod: the first block with a clause that matches
/// allows, and a packet that no block allows is denied. All pods with an equal value share a
/// chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PolicySet {
    pub(crate) direction: Direction,
    /// Names of the policies, `namespace/name`, in order: for whom the chain speaks.
    pub(crate) policies: Vec<String>,
    pub(crate) blocks: Vec<Block>,
}

/// Clauses whose order does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Block {
    pub(crate) clauses: BTreeSet<Clause>,
}

/// Matches where the peer and the destination port do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Clause {
    pub(crate) peer: Peer,
    pub(crate) ports: Ports,
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Peer {
    Anyone,
    Pods(PodPeer),
    Addresses(Family, Ranges),
}

/// Pods by their labels and those of their namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PodPeer {
    pub(crate) namespaces: Namespaces,
    pub(crate) pods: Selector,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Namespaces {
    Named(String),
    Selected(Selector),
}

impl PodPeer {
    /// True where `endpoint`, in a namespace with these labels, is such a pod. A pod whose labels
    /// nobody knows is none.
    pub(crate) fn matches<'a>(
        &self,
        endpoint: &Endpoint,
        namespace_labels: impl FnOnce() -> Cow<'a, Labels>,
    ) -> bool {
        let in_namespace = || match &self.namespaces {
            Namespaces::Named(name) => *name == endpoint.namespace,
            Namespaces::Selected(Selector::All) => true,
            Namespaces::Selected(selector) => selector.matches(&namespace_labels()),
        };
        endpoint.labels_known && self.pods.matches(&endpoint.labels) && in_namespace()
    }
}

/// Which destination ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ports {
    /// Any port of any protocol, and protocols without ports.
    Any,
    /// First to last of one protocol; all of them includes packets whose port can't be read.
    Range {
        protocol: Protocol,
        first: u16,
        last: u16,
    },
    /// The peer's port of this name. In egress only, and only with [`Peer::Pods`].
    Named { protocol: Protocol, name: String },
}

impl PolicySet {
    /// What decides `direction` of `endpoint`, given the policies of its namespace; `None` where
    /// nothing isolates it.
    pub(crate) fn of<'a>(
        endpoint: &Endpoint,
        direction: Direction,
        policies: impl IntoIterator<Item = &'a NetworkPolicy>,
    ) -> Option<Self> {
        if !endpoint.labels_known {
            return Some(Self::deny(direction));
        }
        let mut set = Self {
            direction,
            policies: vec![],
            blocks: vec![],
        };
        let mut block = Block::default();
        for policy in policies {
            let Some(rules) = direction.rules(policy) else {
                continue;
            };
            if !policy.pod_selector.matches(&endpoint.labels) {
                continue;
            }
            set.policies
                .push(format!("{}/{}", policy.namespace, policy.name));
            for rule in rules {
                add_rule(&mut block, direction, endpoint, &policy.namespace, rule);
            }
        }
        if set.policies.is_empty() {
            return None;
        }
        set.blocks.push(block);
        Some(set)
    }

    /// Denies everything, in the name of no policy.
    pub(crate) fn deny(direction: Direction) -> Self {
        Self {
            direction,
            policies: vec![],
            blocks: vec![],
        }
    }
}

fn add_rule(
    block: &mut Block,
    direction: Direction,
    endpoint: &Endpoint,
    namespace: &str,
    rule: &PolicyRule,
) {
    let ports: BTreeSet<Ports> = match &rule.ports {
        None => BTreeSet::from([Ports::Any]),
        Some(ports) => ports
            .iter()
            .flat_map(|port| lower_port(port, direction, endpoint))
            .collect(),
    };
    let peers: Vec<Peer> = match &rule.peers {
        None => vec![Peer::Anyone],
        Some(peers) => peers
            .iter()
            .map(|peer| lower_peer(peer, namespace))
            .collect(),
    };
    for peer in &peers {
        for ports in &ports {
            block.clauses.extend(clause(peer.clone(), ports.clone()));
        }
    }
}

/// A named port of anyone is a port of any pod; addresses have no named ports.
fn clause(peer: Peer, ports: Ports) -> Option<Clause> {
    let peer = match (peer, &ports) {
        (Peer::Anyone, Ports::Named { .. }) => Peer::Pods(PodPeer {
            namespaces: Namespaces::Selected(Selector::All),
            pods: Selector::All,
        }),
        (Peer::Addresses(..), Ports::Named { .. }) => return None,
        (Peer::Addresses(_, ranges), _) if ranges.is_empty() => return None,
        (peer, _) => peer,
    };
    Some(Clause { peer, ports })
}

/// Named ports of ingress are those of the pod itself: there are as many numbers as it has ports
/// of this name and protocol.
fn lower_port(port: &PolicyPort, direction: Direction, endpoint: &Endpoint) -> Vec<Ports> {
    let protocol = port.protocol;
    match (&port.port, direction) {
        (PortMatch::Any, _) => vec![Ports::Range {
            protocol,
            first: 0,
            last: u16::MAX,
        }],
        (PortMatch::Range(first, last), _) => {
            vec![Ports::Range {
                protocol,
                first: *first,
                last: *last,
            }]
        }
        (PortMatch::Named(name), Direction::Egress) => {
            vec![Ports::Named {
                protocol,
                name: name.clone(),
            }]
        }
        (PortMatch::Named(name), Direction::Ingress) => numbers(endpoint, protocol, name)
            .map(|number| Ports::Range {
                protocol,
                first: number,
                last: number,
            })
            .collect(),
    }
}

/// The numbers of a pod's ports with this name and protocol.
pub(crate) fn numbers<'a>(
    endpoint: &'a Endpoint,
    protocol: Protocol,
    name: &'a str,
) -> impl Iterator<Item = u16> + 'a {
    let named = endpoint.ports.iter();
    named
        .filter(move |p| p.protocol == protocol && p.name == name)
        .map(|p| p.port)
}

fn lower_peer(peer: &PolicyPeer, namespace: &str) -> Peer {
    match peer {
        PolicyPeer::Pods { namespaces, pods } => Peer::Pods(PodPeer {
            namespaces: match namespaces {
                None => Namespaces::Named(namespace.to_owned()),
                Some(selector) => Namespaces::Selected(selector.clone()),
            },
            pods: pods.clone(),
        }),
        PolicyPeer::IpBlock { cidr, except } => addresses(cidr, except),
    }
}

fn addresses(cidr: &IpNet, except: &[IpNet]) -> Peer {
    Peer::Addresses(
        intervals::family_of(cidr.addr()),
        intervals::block(cidr, except),
    )
}
