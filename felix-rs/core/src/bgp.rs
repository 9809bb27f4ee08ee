//! Nodes, peers and configuration -> sessions and what to advertise.

mod filters;
mod settings;

use crate::objects::Objects;
use bgp_core::wire::Family;
use bgp_core::{
    Export, Import, LocalRoute, PeerConfig, PeerKey, PrefixLimit, RemoteAs, SpeakerConfig,
};
use filters::Filters;
use ipnet::IpNet;
use model::{BgpPeer, BgpPeerType, Invalid, Kind, Node, ObjectKey};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Hold time that we propose, in seconds (RFC 4271 section 10 suggests 90).
const HOLD_TIME: u16 = 90;
/// Time between attempts to connect.
const CONNECT_RETRY: Duration = Duration::from_secs(2);
/// More prefixes than this from one peer end its session: a peer that leaks a full table.
const MAX_PREFIXES: u32 = 100_000;

/// The speaker's configuration, and what contradicts it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sessions {
    /// None while this node has no address.
    pub config: Option<SpeakerConfig>,
    /// Objects that can't be used as they are.
    pub problems: Vec<Invalid>,
}

/// The sessions of node `name`.
pub fn sessions(name: &str, objects: &Objects) -> Sessions {
    let mut problems = Vec::new();
    let Some(own) = objects.node(name) else {
        return Sessions {
            config: None,
            problems,
        };
    };
    let Some(router_id) = router_id(own) else {
        let reason = "missing: without an address this node has no BGP sessions".to_owned();
        problems.push(Invalid {
            object: ObjectKey::global(Kind::Node, name),
            field: "spec.bgp.ipv4Address".into(),
            reason,
        });
        return Sessions {
            config: None,
            problems,
        };
    };
    let configuration = objects.bgp_configuration();
    let duplicates = duplicate_addresses(objects, &mut problems);
    let local_as = own.as_number.unwrap_or(configuration.as_number);
    let mut builder = Builder {
        own,
        objects,
        local_as,
        peers: BTreeMap::new(),
        problems,
    };
    for peer in objects.bgp_peers() {
        match settings::refused(peer) {
            Some(field) if selects(peer, own) => builder.refuse(Kind::BgpPeer, &peer.name, field),
            Some(_) => {}
            None => builder.add_object(peer),
        }
    }
    let in_mesh = own.route_reflector_cluster_id.is_none() && !duplicates.contains(name);
    if configuration.node_mesh_password.is_some() {
        let field = "spec.nodeMeshPassword";
        builder.refuse(Kind::BgpConfiguration, &configuration.name, field);
    } else if configuration.node_to_node_mesh_enabled && in_mesh {
        builder.add_mesh(&duplicates, configuration.node_mesh_max_restart_time);
    }
    let Builder {
        peers, problems, ..
    } = builder;
    let config = SpeakerConfig {
        listen_port: configuration.listen_port,
        next_hop_v4: own.ipv4_address.map(|net| net.addr()),
        next_hop_v6: own.ipv6_address.map(|net| net.addr()),
        cluster_id: own.route_reflector_cluster_id,
        peers,
        ..SpeakerConfig::new(local_as, router_id)
    };
    Sessions {
        config: Some(config),
        problems,
    }
}

/// What this node advertises: its blocks, except those of pools that are not exported.
pub fn local_routes(blocks: &BTreeSet<IpNet>, objects: &Objects) -> BTreeSet<LocalRoute> {
    let exported = |block: &&IpNet| {
        !objects
            .pools()
            .any(|pool| pool.disable_bgp_export && pool.cidr.contains(*block))
    };
    blocks
        .iter()
        .filter(exported)
        .map(|block| LocalRoute::from(*block))
        .collect()
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
    node.ipv4_address
        .map(|net| IpAddr::V4(net.addr()))
        .or_else(|| node.ipv6_address.map(|net| IpAddr::V6(net.addr())))
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

struct Builder<'a> {
    own: &'a Node,
    objects: &'a Objects,
    local_as: u32,
    peers: BTreeMap<PeerKey, PeerConfig>,
    problems: Vec<Invalid>,
}

impl Builder<'_> {
    /// There is no session rather than one that is less restricted than was asked for.
    fn refuse(&mut self, kind: Kind, name: &str, field: &str) {
        self.problems.push(Invalid {
            object: ObjectKey::global(kind, name),
            field: field.to_owned(),
            reason: "not supported yet, so there is no session".to_owned(),
        });
    }

    /// Every other node. The node with the lower address waits, as in Calico: a second connection
    /// between the same two would only have to be torn down again.
    fn add_mesh(&mut self, duplicates: &BTreeSet<String>, restart_time: u16) {
        let objects = self.objects;
        for node in objects.nodes() {
            if node.name == self.own.name
                || node.route_reflector_cluster_id.is_some()
                || duplicates.contains(&node.name)
            {
                continue;
            }
            let Some(session) = session_address(self.own, node) else {
                continue;
            };
            let ours = session_address(node, self.own);
            if Some(session) == ours {
                continue;
            }
            let remote_as = RemoteAs::Number(self.node_as(node));
            let mut peer = self.peer(format!("Node/{}", node.name), remote_as);
            peer.passive = ours < Some(session);
            peer.source_address = ours;
            peer.restart_time = restart_time;
            peer.multihop = true;
            let key = PeerKey::new(session, self.listen_port());
            self.peers.entry(key).or_insert(peer);
        }
    }

    fn add_object(&mut self, object: &BgpPeer) {
        let objects = self.objects;
        if let Some(peer_ip) = object.peer_ip {
            if selects(object, self.own) && Some(peer_ip) != address(self.own) {
                let remote_as = match (object.as_number, object.remote_as) {
                    (Some(number), _) => RemoteAs::Number(number),
                    (None, model::RemoteAs::Auto) => RemoteAs::Auto,
                    (None, model::RemoteAs::Type(BgpPeerType::External)) => RemoteAs::External,
                    (None, model::RemoteAs::Type(BgpPeerType::Internal)) => RemoteAs::Internal,
                };
                self.insert(object, PeerKey::new(peer_ip, object.peer_port), remote_as);
            }
        } else if let Some(selector) = &object.peer_selector {
            for node in objects.nodes().filter(|node| node.name != self.own.name) {
                let forward = selects(object, self.own) && selector.matches(&node.labels);
                let reverse = object.reverse_peering
                    && selects(object, node)
                    && selector.matches(&self.own.labels);
                let Some(session) = session_address(self.own, node) else {
                    continue;
                };
                if forward || reverse {
                    let key = PeerKey::new(session, self.listen_port());
                    self.insert(object, key, RemoteAs::Number(self.node_as(node)));
                }
            }
        }
    }

    fn insert(&mut self, object: &BgpPeer, key: PeerKey, remote_as: RemoteAs) {
        if let Some(other) = self.peers.get(&key) {
            let reason = format!("{} is the peer of {} already", key.address, other.name);
            self.problems.push(Invalid {
                object: ObjectKey::global(Kind::BgpPeer, &object.name),
                field: "spec.peerIP".into(),
                reason,
            });
            return;
        }
        let mut peer = self.peer(format!("BGPPeer/{}", object.name), remote_as);
        peer.source_address = own_address(self.own, key.address);
        settings::apply(object, &mut peer);
        match filters::of(object, self.objects) {
            Ok(Filters { import, export }) => {
                (peer.import_filter, peer.export_filter) = (import, export);
            }
            // Nothing passes rather than everything.
            Err(name) => {
                self.problems.push(Invalid {
                    object: ObjectKey::global(Kind::BgpPeer, &object.name),
                    field: "spec.filters".into(),
                    reason: format!("there is no BGPFilter/{name}, so there is no session"),
                });
                return;
            }
        }
        let requires_policy = self.objects.bgp_configuration().ebgp_requires_policy;
        if requires_policy && object.filters.is_empty() && !self.is_internal(remote_as) {
            (peer.import, peer.export) = (Import::Unstated, Export::Unstated);
        }
        self.peers.insert(key, peer);
    }

    fn peer(&self, name: String, remote_as: RemoteAs) -> PeerConfig {
        let internal = self.is_internal(remote_as);
        PeerConfig {
            hold_time: HOLD_TIME,
            connect_retry: CONNECT_RETRY,
            multihop: true,
            route_reflector_client: self.own.route_reflector_cluster_id.is_some() && internal,
            prefix_limit: Some(PrefixLimit::new(MAX_PREFIXES)),
            families: families(self.own),
            export: self.export(internal),
            ..PeerConfig::new(name, remote_as)
        }
    }

    /// A route reflector passes on what it learns; everybody else says only what is its own.
    fn export(&self, internal: bool) -> Export {
        if self.own.route_reflector_cluster_id.is_some() && internal {
            Export::All
        } else {
            Export::OwnRoutes
        }
    }

    /// A peer that may be either is told no more than an external one.
    fn is_internal(&self, remote_as: RemoteAs) -> bool {
        match remote_as {
            RemoteAs::Number(number) => number == self.local_as,
            RemoteAs::Internal => true,
            RemoteAs::External | RemoteAs::Auto => false,
        }
    }

    fn node_as(&self, node: &Node) -> u32 {
        node.as_number
            .unwrap_or_else(|| self.objects.bgp_configuration().as_number)
    }

    fn listen_port(&self) -> u16 {
        self.objects.bgp_configuration().listen_port
    }
}

fn families(node: &Node) -> Vec<Family> {
    let v4 = node.ipv4_address.map(|_| Family::IPV4);
    let v6 = node.ipv6_address.map(|_| Family::IPV6);
    v4.into_iter().chain(v6).collect()
}

/// The address of `other` that this node can have a session with: of a family that both have.
fn session_address(own: &Node, other: &Node) -> Option<IpAddr> {
    match (own.ipv4_address, other.ipv4_address) {
        (Some(_), Some(net)) => Some(IpAddr::V4(net.addr())),
        _ => match (own.ipv6_address, other.ipv6_address) {
            (Some(_), Some(net)) => Some(IpAddr::V6(net.addr())),
            _ => None,
        },
    }
}

/// Our address of the family of `peer`, as Calico's `sourceAddress: UseNodeIP`.
fn own_address(own: &Node, peer: IpAddr) -> Option<IpAddr> {
    match peer {
        IpAddr::V4(_) => own.ipv4_address.map(|net| IpAddr::V4(net.addr())),
        IpAddr::V6(_) => own.ipv6_address.map(|net| IpAddr::V6(net.addr())),
    }
}

fn selects(peer: &BgpPeer, node: &Node) -> bool {
    match &peer.node {
        Some(name) => *name == node.name,
        None => peer.node_selector.matches(&node.labels),
    }
}

#[cfg(test)]
mod tests;
