//! What decides one direction of one endpoint, between policies and chains: tiers in order, in
//! each of them blocks in order; the first block with a clause that matches decides.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | [`PolicySet`], [`Block`], [`Clause`] |
//! | `order` | which policies are about an endpoint, in which order |
//! | `kubernetes`, `cluster`, `calico` | rules of each kind -> clauses |
//! | `peer` | who may be at an end: [`PeerSelector`], [`Member`] |

mod calico;
mod cluster;
mod kubernetes;
mod order;
mod peer;

pub(crate) use order::{Cluster, Subject, applying};
pub use peer::domain_matches;
pub(crate) use peer::{
    Asked, Hint, Member, Namespaces, Owners, PeerSelector, PodPeer, needed_label, with_name,
};

use crate::input::PolicyKey;
use crate::intervals::Ranges;
use crate::ruleset::Family;
use model::{NamedPort, Protocol, TierDefault};
use std::collections::BTreeSet;

/// Seen from the endpoint that a policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Egress, Self::Ingress];
}

/// Which packets of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// Of a pod, forwarded.
    Pod,
    /// From a pod to its own node.
    OwnNode,
    /// Of a host endpoint, to or from this host.
    Host,
    /// Through a host endpoint, forwarded.
    HostForward,
    /// Into a host endpoint, before destination NAT.
    PreDnat,
    /// Of a host endpoint, before connection tracking.
    Untracked,
}

/// What decides one direction of an endpoint. All endpoints with an equal value share a chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PolicySet {
    pub(crate) direction: Direction,
    pub(crate) place: Place,
    pub(crate) tiers: Vec<TierSet>,
    /// What is denied where no tier decides; `None` allows.
    pub(crate) end: Option<Denial>,
}

/// Why something is denied without a rule of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Denial {
    /// The labels of the pod, or its owner, are not known.
    Unknown,
    /// No policy allows anything to the host endpoint.
    HostEndpoint,
}

/// The policies of one tier that are about the endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TierSet {
    pub(crate) name: String,
    pub(crate) items: Vec<Item>,
    /// What follows where no item decided.
    pub(crate) default: TierDefault,
    /// The policies that are in force, in order: who denies at the end of the tier.
    pub(crate) policies: Vec<PolicyKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Item {
    Block(Block),
    Staged(Staged),
}

/// A policy that is counted and never decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Staged {
    pub(crate) policy: PolicyKey,
    pub(crate) blocks: Vec<Block>,
}

/// What a block does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Allowed, whatever comes later.
    Allow,
    /// Denied, whatever comes later.
    Deny,
    /// On to the next tier.
    Pass,
    /// Written to the log; the next rule goes on.
    Log,
}

/// Clauses whose order does not matter, for they do the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Block {
    pub(crate) action: Action,
    /// Whose clauses these are.
    pub(crate) policies: Vec<PolicyKey>,
    pub(crate) clauses: BTreeSet<Clause>,
}

/// Matches where all of it does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Clause {
    /// Who is at the other end: the source in ingress, the destination in egress.
    pub(crate) peer: Peer,
    /// The destination port.
    pub(crate) ports: Ports,
    /// What else has to match.
    pub(crate) guards: BTreeSet<Guard>,
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Peer {
    Anyone,
    /// The pod itself.
    Itself,
    Selected(PeerSelector),
    Addresses(Family, Ranges),
}

/// Which destination ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ports {
    /// Any port of any protocol, and protocols without ports.
    Any,
    /// Any packet of a protocol (`IPPROTO_*`).
    Protocol(u8),
    /// First to last of one protocol; all of them includes packets whose port can't be read.
    Range {
        protocol: Protocol,
        first: u16,
        last: u16,
    },
    /// The peer's port of this name. Only with [`Peer::Selected`].
    Named { protocol: Protocol, name: String },
    /// Any port that the peer has. Only with a Service.
    Own,
}

/// An end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum End {
    Source,
    Destination,
}

/// A condition besides peer and destination port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Guard {
    Family(Family),
    Protocol(u8),
    NotProtocol(u8),
    Icmp {
        /// ICMP or ICMPv6.
        version: Family,
        message: IcmpMessage,
        negate: bool,
    },
    /// Addresses of both families.
    Nets {
        end: End,
        v4: Ranges,
        v6: Ranges,
        negate: bool,
    },
    Selected {
        end: End,
        peer: PeerSelector,
        negate: bool,
    },
    /// The destination is an address and a port of a Service.
    ServicePort(PeerSelector),
    /// Numbers of ports, of whichever protocol the packet has.
    Ports {
        end: End,
        ports: Ranges,
        negate: bool,
    },
    /// Ports with a name, of whoever is at the end.
    NamedPort {
        end: End,
        peer: PeerSelector,
        protocol: Protocol,
        name: String,
        negate: bool,
    },
}

/// An ICMP or ICMPv6 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct IcmpMessage {
    pub(crate) icmp_type: u8,
    pub(crate) code: Option<u8>,
}

impl Clause {
    pub(crate) fn new(peer: Peer, ports: Ports) -> Self {
        Self {
            peer,
            ports,
            guards: BTreeSet::new(),
        }
    }
}

impl PolicySet {
    /// Denies everything, in the name of no policy.
    pub(crate) fn deny(direction: Direction) -> Self {
        let itself = Clause::new(Peer::Itself, Ports::Any);
        let block = Block {
            action: Action::Allow,
            policies: vec![],
            clauses: [itself].into(),
        };
        Self {
            direction,
            place: Place::Pod,
            tiers: vec![TierSet {
                name: String::new(),
                items: vec![Item::Block(block)],
                default: TierDefault::Pass,
                policies: vec![],
            }],
            end: Some(Denial::Unknown),
        }
    }
}

impl TierSet {
    /// True where a packet may leave the tier for the next one.
    pub(crate) fn leads_on(&self) -> bool {
        let passes =
            |item: &Item| matches!(item, Item::Block(block) if block.action == Action::Pass);
        self.default == TierDefault::Pass || self.items.iter().any(passes)
    }
}

/// The numbers of the ports among `ports` with this name and protocol.
pub(crate) fn numbers<'a>(
    ports: &'a [NamedPort],
    protocol: Protocol,
    name: &'a str,
) -> impl Iterator<Item = u16> + 'a {
    let named = ports.iter();
    named
        .filter(move |p| p.protocol == protocol && p.name == name)
        .map(|p| p.port)
}

/// A named port of anyone is a port of any pod, or of any endpoint, as `everybody` says; what has
/// only an address has no named ports.
fn clause(peer: Peer, ports: Ports, everybody: impl Fn() -> PeerSelector) -> Option<Clause> {
    let peer = match (peer, &ports) {
        (Peer::Anyone, Ports::Named { .. }) => Peer::Selected(everybody()),
        (Peer::Addresses(..), Ports::Named { .. }) => return None,
        (Peer::Addresses(_, ranges), _) if ranges.is_empty() => return None,
        (Peer::Selected(selector), Ports::Named { .. }) if !selector.has_ports() => return None,
        (peer, _) => peer,
    };
    Some(Clause::new(peer, ports))
}
