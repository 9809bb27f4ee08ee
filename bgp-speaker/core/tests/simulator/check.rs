//! What has to hold once nothing happens any more.

use super::world::{NodeId, World, address};
use bgp_core::{PathStatus, PeerKey};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub(crate) fn key(node: NodeId) -> PeerKey {
    PeerKey::new(IpAddr::V4(address(node)), 179)
}

/// Every session that is configured on both sides is there, and nothing is stale.
pub(crate) fn sessions_are_up(world: &World) {
    for (id, node) in world.nodes.iter().enumerate() {
        let status = node.speaker.status(world.now);
        for peer in status.peers {
            assert_eq!(
                (peer.state.as_str(), peer.stale),
                ("Established", 0),
                "{id} with {}: {:?}",
                peer.key,
                peer.last_error
            );
        }
    }
}

/// A path as both ends of a session see it.
type Seen = (Option<IpAddr>, String, Option<u32>, Vec<String>);

/// What one side has told is what the other side holds, for all sessions.
pub(crate) fn told_is_held(world: &World) {
    for (id, node) in world.nodes.iter().enumerate() {
        let mut held: BTreeMap<String, BTreeMap<IpNet, Seen>> = BTreeMap::new();
        for route in node.speaker.routes() {
            for path in route.paths {
                if path.from == "local" {
                    continue;
                }
                let of_peer = held.entry(path.from.clone()).or_default();
                of_peer.insert(route.prefix, seen(path));
            }
        }
        let ours = key(id);
        for (key, config) in &node.config.peers {
            let other = &world.nodes[node_of(key)];
            let told = other.speaker.advertised(&ours);
            let told: BTreeMap<IpNet, Seen> = told
                .expect("Established")
                .into_iter()
                .map(|told| {
                    let seen = (
                        Some(told.next_hop),
                        told.as_path,
                        told.med,
                        told.communities,
                    );
                    (told.prefix, seen)
                })
                .collect();
            let held = held.remove(&config.name).unwrap_or_default();
            assert_eq!(told, held, "{id} from {key}");
        }
    }
}

fn seen(path: PathStatus) -> Seen {
    (path.next_hop, path.as_path, path.med, path.communities)
}

pub(crate) fn node_of(key: &PeerKey) -> NodeId {
    match key.address {
        IpAddr::V4(v4) => (u32::from(v4) - u32::from(address(0))) as usize,
        IpAddr::V6(_) => unreachable!("sessions are over IPv4 here"),
    }
}

/// Whichever next hop each node takes, a packet reaches a node that originates the prefix.
pub(crate) fn every_packet_arrives(world: &World) {
    let mut owners: BTreeMap<IpNet, BTreeSet<NodeId>> = BTreeMap::new();
    for (id, node) in world.nodes.iter().enumerate() {
        for route in &node.routes {
            owners.entry(route.prefix).or_default().insert(id);
        }
    }
    for (prefix, owners) in &owners {
        // Nodes from which every way is known to lead to an owner.
        let mut safe = owners.clone();
        for start in 0..world.nodes.len() {
            follow(world, prefix, start, &mut safe, &mut BTreeSet::new());
        }
    }
    for (id, node) in world.nodes.iter().enumerate() {
        for prefix in node.fib.keys() {
            assert!(owners.contains_key(prefix), "{id} still has {prefix}");
        }
    }
}

fn follow(
    world: &World,
    prefix: &IpNet,
    at: NodeId,
    safe: &mut BTreeSet<NodeId>,
    way: &mut BTreeSet<NodeId>,
) {
    if safe.contains(&at) {
        return;
    }
    assert!(way.insert(at), "a loop for {prefix}: {way:?}");
    let next_hops = world.nodes[at].fib.get(prefix);
    let next_hops = next_hops.unwrap_or_else(|| panic!("{at} has no way to {prefix}"));
    for next_hop in next_hops {
        let key = PeerKey::new(*next_hop, 179);
        follow(world, prefix, node_of(&key), safe, way);
    }
    way.remove(&at);
    safe.insert(at);
}

/// All forwarding tables.
pub(crate) fn picture(world: &World) -> Vec<BTreeMap<IpNet, BTreeSet<IpAddr>>> {
    world.nodes.iter().map(|node| node.fib.clone()).collect()
}
