//! The node mesh and `BGPPeer` objects -> peers.

use super::filters::{self, Filters};
use super::secrets::{self, SecretError};
use super::workloads::{LocalPod, Workloads};
use super::{address, settings};
use crate::objects::Objects;
use bgp_core::wire::Family;
use bgp_core::{
    DynamicPeers, Export, Import, Password, PeerConfig, PeerKey, PrefixLimit, RemoteAs,
};
use ipnet::IpNet;
use model::{BgpConfiguration, BgpPeer, BgpPeerType, Invalid, Kind, Node, ObjectKey, SecretKeyRef};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Hold time that we propose, in seconds (RFC 4271 section 10 suggests 90).
const HOLD_TIME: u16 = 90;
/// Time between attempts to connect.
const CONNECT_RETRY: Duration = Duration::from_secs(2);
/// More prefixes than this from one peer end its session: a peer that leaks a full table.
const MAX_PREFIXES: u32 = 100_000;

/// The sessions of a node, one object after the other.
pub(super) struct Builder<'a> {
    pub(super) own: &'a Node,
    pub(super) objects: &'a Objects,
    pub(super) local_as: u32,
    pub(super) peers: BTreeMap<PeerKey, PeerConfig>,
    pub(super) dynamic_peers: BTreeMap<IpNet, DynamicPeers>,
    pub(super) interface_peers: BTreeMap<String, PeerConfig>,
    pub(super) workloads: Workloads,
    pub(super) problems: Vec<Invalid>,
}

impl Builder<'_> {
    pub(super) fn refuse(&mut self, kind: Kind, name: &str, field: &str, reason: impl ToString) {
        self.problems.push(Invalid {
            object: ObjectKey::global(kind, name),
            field: field.to_owned(),
            reason: reason.to_string(),
        });
    }

    /// Every other node. The node with the lower address waits, as in Calico: a second connection
    /// between the same two would only have to be torn down again.
    pub(super) fn add_mesh(
        &mut self,
        duplicates: &BTreeSet<String>,
        configuration: &BgpConfiguration,
    ) {
        let objects = self.objects;
        let password = match self.password(configuration.node_mesh_password.as_ref()) {
            Ok(password) => password,
            Err(error) => {
                let field = "spec.nodeMeshPassword.secretKeyRef";
                return self.refuse(Kind::BgpConfiguration, &configuration.name, field, error);
            }
        };
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
            peer.restart_time = configuration.node_mesh_max_restart_time;
            peer.password.clone_from(&password);
            let key = PeerKey::new(session, self.listen_port());
            self.peers.entry(key).or_insert(peer);
        }
    }

    pub(super) fn add_object(&mut self, object: &BgpPeer, pods: &[LocalPod]) {
        let objects = self.objects;
        if object.local_workload_selector.is_some() {
            if selects(object, self.own) {
                self.add_workloads(object, pods);
            }
        } else if let Some(peer_ip) = object.peer_ip {
            if selects(object, self.own) && Some(peer_ip) != address(self.own) {
                let key = PeerKey::new(peer_ip, object.peer_port);
                self.insert(object, key, stated_as(object));
            }
        } else if let Some(interface) = &object.peer_interface {
            if selects(object, self.own) {
                self.insert_interface(object, interface);
            }
        } else if let Some(range) = object.peer_prefix {
            if selects(object, self.own) {
                self.insert_range(object, range);
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
            return self.refuse(Kind::BgpPeer, &object.name, "spec.peerIP", reason);
        }
        if let Some(peer) = self.session(object, remote_as, Some(key.address)) {
            self.peers.insert(key, peer);
        }
    }

    /// The router on a link.
    fn insert_interface(&mut self, object: &BgpPeer, interface: &str) {
        let field = "spec.ocicat.peerInterface";
        if let Some(other) = self.interface_peers.get(interface) {
            let reason = format!("{interface} is the link of {} already", other.name);
            return self.refuse(Kind::BgpPeer, &object.name, field, reason);
        }
        if let Some(peer) = self.session(object, stated_as(object), None) {
            self.interface_peers.insert(interface.to_owned(), peer);
        }
    }

    /// Whoever connects from a range. Of two ranges that overlap, the longer prefix counts; of two
    /// that are the same, the first object.
    fn insert_range(&mut self, object: &BgpPeer, range: model::DynamicPeers) {
        let field = "spec.ocicat.peerPrefix";
        if let Some(other) = self.dynamic_peers.get(&range.prefix) {
            let reason = format!(
                "{} is the range of {} already",
                range.prefix, other.peer.name
            );
            return self.refuse(Kind::BgpPeer, &object.name, field, reason);
        }
        if let Some(peer) = self.session(object, stated_as(object), Some(range.prefix.addr())) {
            let limit = range.limit;
            self.dynamic_peers
                .insert(range.prefix, DynamicPeers { limit, peer });
        }
    }

    /// What an object says of a session with `remote`, or with whoever is on a link; none where something that it asks for is
    /// not there: nothing passes rather than everything.
    pub(super) fn session(
        &mut self,
        object: &BgpPeer,
        remote_as: RemoteAs,
        remote: Option<IpAddr>,
    ) -> Option<PeerConfig> {
        let mut peer = self.peer(format!("BGPPeer/{}", object.name), remote_as);
        peer.source_address = remote.and_then(|remote| own_address(self.own, remote));
        settings::apply(object, &mut peer);
        if let Some(profile) = object.bfd {
            self.watch_hops(&mut peer, profile, remote);
        }
        match filters::of(object, self.objects) {
            Ok(Filters { import, export }) => {
                (peer.import_filter, peer.export_filter) = (import, export);
            }
            Err(name) => {
                let reason = format!("there is no BGPFilter/{name}, so there is no session");
                self.refuse(Kind::BgpPeer, &object.name, "spec.filters", reason);
                return None;
            }
        }
        match self.password(object.password.as_ref()) {
            Ok(password) => peer.password = password,
            Err(error) => {
                let field = "spec.password.secretKeyRef";
                self.refuse(Kind::BgpPeer, &object.name, field, error);
                return None;
            }
        }
        let requires_policy = self.objects.bgp_configuration().ebgp_requires_policy;
        if requires_policy && object.filters.is_empty() && !self.is_internal(remote_as) {
            (peer.import, peer.export) = (Import::Unstated, Export::Unstated);
        }
        Some(peer)
    }

    /// A path of one hop (RFC 5881) is one within a subnet of ours; a longer one is watched only
    /// where that is asked for (RFC 5883).
    fn watch_hops(
        &self,
        peer: &mut PeerConfig,
        profile: model::BfdProfile,
        remote: Option<IpAddr>,
    ) {
        let v4 = self.own.ipv4_address.map(IpNet::V4);
        let v6 = self.own.ipv6_address.map(IpNet::V6);
        let mut subnets = v4.into_iter().chain(v6);
        let direct = remote.is_none_or(|remote| subnets.any(|net| net.contains(&remote)));
        if direct && !profile.multihop {
            peer.multihop = false;
        } else if !profile.multihop {
            peer.bfd = None;
        }
    }

    fn password(&self, reference: Option<&SecretKeyRef>) -> Result<Option<Password>, SecretError> {
        let found = reference.map(|reference| secrets::password(reference, self.objects));
        found.transpose().map(Option::flatten)
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
            // IPv4 pods of a node without an IPv4 address.
            extended_next_hop: self.own.ipv4_address.is_none(),
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

/// Routes to peers themselves, by the gateways that their objects name.
pub(super) fn reachable_by(own: &Node, objects: &Objects) -> BTreeMap<IpNet, IpAddr> {
    let for_us = objects.bgp_peers().filter(|object| selects(object, own));
    let routes = for_us.filter_map(|object| {
        let (peer, gateway) = (object.peer_ip?, object.reachable_by?);
        Some((IpNet::from(peer), gateway))
    });
    routes.collect()
}

/// IPv4 routes can have IPv6 next hops (RFC 8950), and not the other way round.
fn families(node: &Node) -> Vec<Family> {
    let v4 = Some(Family::IPV4);
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

/// The AS numbers that an object takes of a peer that is no node.
pub(super) fn stated_as(object: &BgpPeer) -> RemoteAs {
    match (object.as_number, object.remote_as) {
        (Some(number), _) => RemoteAs::Number(number),
        (None, model::RemoteAs::Auto) => RemoteAs::Auto,
        (None, model::RemoteAs::Type(BgpPeerType::External)) => RemoteAs::External,
        (None, model::RemoteAs::Type(BgpPeerType::Internal)) => RemoteAs::Internal,
    }
}

fn selects(peer: &BgpPeer, node: &Node) -> bool {
    match &peer.node {
        Some(name) => *name == node.name,
        None => peer.node_selector.matches(&node.labels),
    }
}
