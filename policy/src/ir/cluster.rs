//! Rules of `policy.networking.k8s.io/v1alpha2` `ClusterNetworkPolicy` -> clauses.

use super::kubernetes::any_pod;
use super::peer::{Namespaces, PeerSelector, PodPeer};
use super::{Clause, Direction, Peer, Ports, clause, numbers};
use crate::intervals::{self, Ranges};
use crate::ruleset::Family;
use model::{ClusterPeer, ClusterPort, ClusterRule, NamedPort, Protocol};
use std::collections::BTreeSet;

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// The clauses of one rule; `own_ports` are those of the pod that the policy selects.
pub(super) fn lower(
    rule: &ClusterRule,
    direction: Direction,
    own_ports: &[NamedPort],
) -> Vec<Clause> {
    let ports: BTreeSet<Ports> = match &rule.protocols {
        None => BTreeSet::from([Ports::Any]),
        Some(ports) => ports
            .iter()
            .flat_map(|port| lower_port(port, direction, own_ports))
            .collect(),
    };
    let peers: Vec<Peer> = match &rule.peers {
        None => vec![Peer::Anyone],
        Some(peers) => peers.iter().flat_map(lower_peer).collect(),
    };
    let pairs = peers
        .iter()
        .flat_map(|peer| ports.iter().map(move |ports| (peer.clone(), ports.clone())));
    pairs
        .filter_map(|(peer, ports)| clause(peer, ports, any_pod))
        .collect()
}

/// A named port has the protocol that it has in the pod.
fn lower_port(port: &ClusterPort, direction: Direction, own_ports: &[NamedPort]) -> Vec<Ports> {
    let name = match port {
        ClusterPort::Range {
            protocol,
            first,
            last,
        } => {
            return vec![Ports::Range {
                protocol: *protocol,
                first: *first,
                last: *last,
            }];
        }
        ClusterPort::Named(name) => name,
    };
    let of_protocol = |protocol| match direction {
        Direction::Egress => vec![Ports::Named {
            protocol,
            name: name.clone(),
        }],
        Direction::Ingress => numbers(own_ports, protocol, name)
            .map(|number| Ports::Range {
                protocol,
                first: number,
                last: number,
            })
            .collect(),
    };
    PROTOCOLS.into_iter().flat_map(of_protocol).collect()
}

fn lower_peer(peer: &ClusterPeer) -> Vec<Peer> {
    match peer {
        ClusterPeer::Pods(pods) => vec![Peer::Selected(PeerSelector::Pods(PodPeer {
            namespaces: Namespaces::Selected(pods.namespaces.clone()),
            pods: pods.pods.clone(),
        }))],
        ClusterPeer::Networks(networks) => [Family::Ipv4, Family::Ipv6]
            .map(|family| {
                let of_family = networks
                    .iter()
                    .filter(|net| intervals::family_of(net.addr()) == family);
                Peer::Addresses(
                    family,
                    Ranges::union(of_family.map(intervals::prefix_range)),
                )
            })
            .into(),
        ClusterPeer::Nodes(selector) => vec![Peer::Selected(PeerSelector::Nodes(selector.clone()))],
        ClusterPeer::DomainNames(names) => {
            let names = names.iter().cloned().collect();
            vec![Peer::Selected(PeerSelector::Domains(names))]
        }
    }
}
