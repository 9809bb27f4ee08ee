//! Nodes, peers and configuration -> sessions and what to advertise.

mod filters;
mod originate;
mod peers;
mod secrets;
mod settings;
mod workloads;

pub use originate::local_routes;
pub(crate) use originate::service_ranges;
pub use workloads::LocalPod;
pub(crate) use workloads::Workloads;

use crate::objects::Objects;
use bgp_core::SpeakerConfig;
use ipnet::IpNet;
use model::{BindMode, Invalid, Kind, Node, ObjectKey, names};
use peers::Builder;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// The speaker's configuration, and what contradicts it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sessions {
    /// None while this node has no address.
    pub config: Option<SpeakerConfig>,
    /// Pods of this node among the peers.
    pub(crate) workloads: Workloads,
    /// The addresses by which they reach their node, by the interface that has to hold them.
    pub(crate) peering: BTreeMap<u32, BTreeSet<IpAddr>>,
    /// Objects that can't be used as they are.
    pub problems: Vec<Invalid>,
}

/// The sessions of node `name`, on which these pods run.
pub fn sessions(name: &str, objects: &Objects, pods: &[LocalPod]) -> Sessions {
    let mut problems = Vec::new();
    let Some(own) = objects.node(name) else {
        return Sessions::none(problems);
    };
    let Some(router_id) = router_id(own) else {
        let reason = "missing: without an address this node has no BGP sessions".to_owned();
        problems.push(Invalid {
            object: ObjectKey::global(Kind::Node, name),
            field: "spec.bgp.ipv4Address".into(),
            reason,
        });
        return Sessions::none(problems);
    };
    let configuration = objects.bgp_configuration();
    let duplicates = duplicate_addresses(objects, &mut problems);
    let local_as = own.as_number.unwrap_or(configuration.as_number);
    let mut builder = Builder {
        own,
        objects,
        local_as,
        peers: BTreeMap::new(),
        dynamic_peers: BTreeMap::new(),
        interface_peers: BTreeMap::new(),
        workloads: BTreeMap::new(),
        problems,
    };
    for peer in objects.bgp_peers() {
        builder.add_object(peer, pods);
    }
    let in_mesh = own.route_reflector_cluster_id.is_none() && !duplicates.contains(name);
    if configuration.node_to_node_mesh_enabled && in_mesh {
        builder.add_mesh(&duplicates, &configuration);
    }
    let peering = builder.peering_addresses();
    let Builder {
        peers,
        dynamic_peers,
        interface_peers,
        workloads,
        problems,
        ..
    } = builder;
    let config = SpeakerConfig {
        listen_port: configuration.listen_port,
        listen_addresses: match configuration.bind_mode {
            BindMode::None => BTreeSet::new(),
            BindMode::NodeIp => own_addresses(own)
                .chain(peering.values().flatten().copied())
                .collect(),
        },
        next_hop_v4: own.ipv4_address.map(|net| net.addr()),
        next_hop_v6: own.ipv6_address.map(|net| net.addr()),
        cluster_id: own.route_reflector_cluster_id,
        metric: Some(names::ROUTE_METRIC),
        peers,
        dynamic_peers,
        interface_peers,
        ..SpeakerConfig::new(local_as, router_id)
    };
    Sessions {
        config: Some(config),
        workloads,
        peering,
        problems,
    }
}

impl Sessions {
    fn none(problems: Vec<Invalid>) -> Self {
        Self {
            config: None,
            workloads: Workloads::new(),
            peering: BTreeMap::new(),
            problems,
        }
    }
}

/// The IPv4 address, or 32 bits that derive from the IPv6 one (RFC 6286 asks only for uniqueness
/// within the AS).
fn router_id(node: &Node) -> Option<Ipv4Addr> {
    if let Some(net) = node.ipv4_address {
        return Some(net.addr());
    }
    let octets = node.ipv6_address?.addr().octets();
    let folded = octets.chunks_exact(4).fold([0_u8; 4], |mut sum, chunk| {
        for (a, b) in sum.iter_mut().zip(chunk) {
            *a = a.rotate_left(1) ^ b;
        }
        sum
    });
    Some(Ipv4Addr::from(folded))
}

fn address(node: &Node) -> Option<IpAddr> {
    own_addresses(node).next()
}

/// Routes of this node's own to its peers, by the gateways that the objects name (`reachableBy`).
pub(crate) fn reachable_by(name: &str, objects: &Objects) -> BTreeMap<IpNet, IpAddr> {
    let own = objects.node(name);
    own.map(|own| peers::reachable_by(own, objects))
        .unwrap_or_default()
}

fn own_addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    let v4 = node.ipv4_address.map(|net| IpAddr::V4(net.addr()));
    let v6 = node.ipv6_address.map(|net| IpAddr::V6(net.addr()));
    v4.into_iter().chain(v6)
}

/// Nodes whose address an earlier node (by name) has too. They get no sessions.
fn duplicate_addresses(objects: &Objects, problems: &mut Vec<Invalid>) -> BTreeSet<String> {
    let mut holders: BTreeMap<IpAddr, &str> = BTreeMap::new();
    let mut duplicates = BTreeSet::new();
    for node in objects.nodes() {
        let Some(address) = address(node) else {
            continue;
        };
        if let Some(holder) = holders.get(&address) {
            problems.push(Invalid {
                object: ObjectKey::global(Kind::Node, &node.name),
                field: "spec.bgp.ipv4Address".into(),
                reason: format!("{address} is the address of Node/{holder} already"),
            });
            duplicates.insert(node.name.clone());
        } else {
            holders.insert(address, &node.name);
        }
    }
    duplicates
}

#[cfg(test)]
mod tests;
