//! Rules of `networking.k8s.io/v1` `NetworkPolicy` -> clauses.

use super::peer::{Namespaces, PeerSelector, PodPeer};
use super::{Clause, Direction, Peer, Ports, clause, numbers};
use crate::intervals;
use model::{NamedPort, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Selector};
use std::collections::BTreeSet;

/// Any pod of any namespace.
pub(super) fn any_pod() -> PeerSelector {
    PeerSelector::Pods(PodPeer {
        namespaces: Namespaces::Selected(Selector::All),
        pods: Selector::All,
    })
}

/// The clauses of one rule; `own_ports` are those of the pod that the policy selects.
pub(super) fn lower(
    rule: &PolicyRule,
    namespace: &str,
    direction: Direction,
    own_ports: &[NamedPort],
) -> Vec<Clause> {
    let ports: BTreeSet<Ports> = match &rule.ports {
        None => BTreeSet::from([Ports::Any]),
        Some(ports) => ports
            .iter()
            .flat_map(|port| lower_port(port, direction, own_ports))
            .collect(),
    };
    let peers: Vec<Peer> = match &rule.peers {
        None => vec![Peer::Anyone],
        Some(peers) => peers
            .iter()
            .map(|peer| lower_peer(peer, namespace))
            .collect(),
    };
    let pairs = peers
        .iter()
        .flat_map(|peer| ports.iter().map(move |ports| (peer.clone(), ports.clone())));
    pairs
        .filter_map(|(peer, ports)| clause(peer, ports, any_pod))
        .collect()
}

/// Named ports of ingress are those of the pod itself: there are as many numbers as it has ports
/// of this name and protocol.
fn lower_port(port: &PolicyPort, direction: Direction, own_ports: &[NamedPort]) -> Vec<Ports> {
    let protocol = port.protocol;
    let range = |first, last| Ports::Range {
        protocol,
        first,
        last,
    };
    match (&port.port, direction) {
        (PortMatch::Any, _) => vec![range(0, u16::MAX)],
        (PortMatch::Range(first, last), _) => vec![range(*first, *last)],
        (PortMatch::Named(name), Direction::Egress) => vec![Ports::Named {
            protocol,
            name: name.clone(),
        }],
        (PortMatch::Named(name), Direction::Ingress) => numbers(own_ports, protocol, name)
            .map(|number| range(number, number))
            .collect(),
    }
}

fn lower_peer(peer: &PolicyPeer, namespace: &str) -> Peer {
    match peer {
        PolicyPeer::Pods { namespaces, pods } => Peer::Selected(PeerSelector::Pods(PodPeer {
            namespaces: match namespaces {
                None => Namespaces::Named(namespace.to_owned()),
                Some(selector) => Namespaces::Selected(selector.clone()),
            },
            pods: pods.clone(),
        })),
        PolicyPeer::IpBlock { cidr, except } => Peer::Addresses(
            intervals::family_of(cidr.addr()),
            intervals::block(cidr, except),
        ),
    }
}
