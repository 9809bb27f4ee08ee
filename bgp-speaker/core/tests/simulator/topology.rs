//! Networks to simulate.

use super::check::key;
use super::world::{NodeId, address};
use bgp_core::{Export, LocalRoute, PeerConfig, SpeakerConfig};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

pub(crate) type Nodes = Vec<(SpeakerConfig, BTreeSet<LocalRoute>)>;

fn speaker(node: NodeId, local_as: u32) -> SpeakerConfig {
    let number = u32::try_from(node).unwrap();
    let router_id = Ipv4Addr::from(0xc000_0000 + number + 1);
    SpeakerConfig {
        next_hop_v4: Some(address(node)),
        ..SpeakerConfig::new(local_as, router_id)
    }
}

/// A prefix of a node's own.
pub(crate) fn prefix(node: NodeId, index: usize) -> IpNet {
    let network = 0x6400_0000 + u32::try_from(node * 16 + index).unwrap() * 64;
    IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::from(network), 26))
}

pub(crate) fn routes(
    node: NodeId,
    indices: impl IntoIterator<Item = usize>,
) -> BTreeSet<LocalRoute> {
    let routes = indices.into_iter().map(|index| prefix(node, index));
    routes.map(LocalRoute::from).collect()
}

/// Both ends of a session; the second connects.
fn join(nodes: &mut Nodes, a: NodeId, b: NodeId, tune: impl Fn(NodeId, &mut PeerConfig)) {
    for (at, other) in [(a, b), (b, a)] {
        let remote_as = nodes[other].0.local_as;
        let mut peer = PeerConfig {
            passive: at == a,
            export: Export::All,
            ..PeerConfig::new(format!("Node/n{other}"), remote_as)
        };
        tune(at, &mut peer);
        nodes[at].0.peers.insert(key(other), peer);
    }
}

/// Every leaf switch with every spine switch, and hosts below the leaves: external sessions only.
pub(crate) fn fabric(spines: usize, leaves: usize, hosts: usize) -> Nodes {
    let mut nodes = Nodes::new();
    for _ in 0..spines {
        nodes.push((speaker(nodes.len(), 65000), BTreeSet::new()));
    }
    for leaf in 0..leaves {
        let id = nodes.len();
        let number = 65001 + u32::try_from(leaf).unwrap();
        nodes.push((speaker(id, number), BTreeSet::new()));
        for spine in 0..spines {
            join(&mut nodes, spine, id, |_, _| {});
        }
        for _ in 0..hosts {
            let host = nodes.len();
            let number = 4_200_000_000 + u32::try_from(host).unwrap();
            nodes.push((speaker(host, number), routes(host, 0..2)));
            join(&mut nodes, id, host, |at, peer| {
                // A host is no router between leaves.
                if at == host {
                    peer.export = Export::OwnRoutes;
                }
            });
        }
    }
    nodes
}

/// Clients of two reflectors, in one AS.
pub(crate) fn reflected(clients: usize) -> Nodes {
    let mut nodes = Nodes::new();
    for reflector in 0..2 {
        nodes.push((speaker(reflector, 64512), BTreeSet::new()));
    }
    join(&mut nodes, 0, 1, |_, _| {});
    for _ in 0..clients {
        let client = nodes.len();
        nodes.push((speaker(client, 64512), routes(client, 0..2)));
        for reflector in 0..2 {
            join(&mut nodes, reflector, client, |at, peer| {
                if at == client {
                    peer.export = Export::OwnRoutes;
                } else {
                    peer.route_reflector_client = true;
                }
            });
        }
    }
    nodes
}

/// Everybody with everybody, in one AS.
pub(crate) fn mesh(size: usize) -> Nodes {
    let mut nodes = Nodes::new();
    for id in 0..size {
        nodes.push((speaker(id, 64512), routes(id, 0..2)));
        for other in 0..id {
            join(&mut nodes, other, id, |_, peer| {
                peer.export = Export::OwnRoutes;
            });
        }
    }
    nodes
}
