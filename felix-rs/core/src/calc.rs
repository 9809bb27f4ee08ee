//! The state of this node's world. `on_*` store and mark; `resolve` computes what follows.

pub(crate) mod feed;
mod felix;
mod links;
mod peering;
mod pods;
mod resolve;
mod resolved;
mod tunnels;

use crate::checks::{self, TunnelKinds};
use crate::dns::Names;
use crate::objects::{Objects, Phase};
use crate::routes::{Topology, Withheld};
use crate::underlay::Underlay;
use crate::workloads::{EndpointKey, LocalEndpoint};
use bgp_core::{FibChange, FibNextHop, LocalRoute, SpeakerConfig};
use ipnet::IpNet;
use model::dataplane::{Link, RouteKind, Tunnel};
use model::{Invalid, Kind, Object, ObjectKey, Pool, Text, Update, WorkloadEndpoint, names};
use pods::Seen;
use policy::ruleset::Ruleset;
use policy::{Compiler, EndpointId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// MTU where the uplink is not known yet.
const DEFAULT_MTU: u32 = 1500;
/// The longest IPv4 packet: loopback's MTU is greater.
const LARGEST_MTU: u32 = 65_535;

/// What this node should have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// Routes of this node's own pods and blocks.
    pub local: BTreeMap<IpNet, RouteKind>,
    /// Routes learnt by BGP.
    pub learned: BTreeMap<IpNet, RouteKind>,
    /// Metrics of those of `learned` that have another than [`names::ROUTE_METRIC`].
    pub metrics: BTreeMap<IpNet, u32>,
    /// Addresses of pods that are gone: their routes go whatever else is unknown.
    pub freed: BTreeSet<IpNet>,
    /// The tunnel devices by name.
    pub tunnels: BTreeMap<String, Tunnel>,
    /// BGP sessions; none while this node has no address.
    pub sessions: Option<SpeakerConfig>,
    /// What is advertised.
    pub advertised: BTreeSet<LocalRoute>,
    /// Addresses by which pods that are BGP peers reach this node, by the interface that has to
    /// hold them.
    pub peering: BTreeMap<u32, BTreeSet<IpAddr>>,
}

impl Desired {
    /// The route for this destination. Pods and blocks of this node win over what peers say.
    pub fn route(&self, dest: &IpNet) -> Option<&RouteKind> {
        self.local.get(dest).or_else(|| self.learned.get(dest))
    }

    /// The metric of the route for this destination.
    pub fn metric(&self, dest: &IpNet) -> u32 {
        let set = self.metrics.get(dest);
        let set = set.filter(|_| !self.local.contains_key(dest));
        set.copied().unwrap_or(names::ROUTE_METRIC)
    }

    /// All destinations.
    pub fn prefixes(&self) -> impl Iterator<Item = &IpNet> {
        self.local.keys().chain(self.learned.keys())
    }
}

/// What has to be computed again.
#[derive(Debug, Default)]
struct Dirty {
    topology: bool,
    local: bool,
    all_learned: bool,
    learned: BTreeSet<IpNet>,
    sessions: bool,
    /// Addresses of Services that this node announces.
    services: bool,
    /// Interfaces of the node, or their addresses.
    host_interfaces: bool,
}

/// Everything that this node knows. `on_*` store and mark; [`Calc::resolve`] computes.
pub struct Calc {
    node: String,
    tunnel_kinds: TunnelKinds,
    /// Of the command line; the datastore's configuration is added.
    policy_options: policy::Options,
    objects: Objects,
    compiler: Compiler,
    local: BTreeMap<EndpointKey, LocalEndpoint>,
    /// Workload endpoints that the compiler was told of.
    seen: BTreeMap<EndpointId, Seen>,
    /// Those of each pod, by a number that follows from its name: a Pod object changes what the compiler sees.
    by_pod: BTreeSet<(u64, EndpointId)>,
    /// Lists of names of profiles, each held once.
    profiles: Pool<Arc<[Text]>>,
    own_blocks: BTreeSet<IpNet>,
    /// Blocks of the datastore by object, to know what a deletion is about.
    blocks: BTreeMap<ObjectKey, IpNet>,
    /// Ways to pods of other nodes in this node's blocks.
    strays: BTreeMap<IpNet, Vec<IpAddr>>,
    /// Addresses outside of own blocks whose pod is gone.
    departed: BTreeSet<IpAddr>,
    /// Gateways to BGP peers, whatever BGP says of the way to them.
    to_peers: BTreeMap<IpNet, IpAddr>,
    /// This node's own address on the IPIP device.
    tunnel_address: Option<Ipv4Addr>,
    underlay: Underlay,
    names: Names,
    fib: BTreeMap<IpNet, Vec<FibNextHop>>,
    /// Metrics that filters have set of prefixes of `fib`.
    fib_metrics: BTreeMap<IpNet, u32>,
    topology: Topology,
    /// Tunnel devices that were made a moment ago.
    settling: BTreeSet<String>,
    withheld: BTreeMap<IpNet, Withheld>,
    /// Networks behind pods that are BGP peers, and the interfaces that lead there.
    behind: BTreeMap<IpNet, BTreeSet<u32>>,
    session_problems: Vec<Invalid>,
    desired: Desired,
    dirty: Dirty,
    touched: BTreeSet<IpNet>,
}

impl Calc {
    /// The world of node `node`, of which nothing is known yet.
    pub fn new(node: &str, tunnel_kinds: TunnelKinds, policy_options: policy::Options) -> Self {
        let policy_options = policy::Options {
            node: node.to_owned(),
            ..policy_options
        };
        Self {
            node: node.to_owned(),
            tunnel_kinds,
            compiler: Compiler::new(policy_options.clone()),
            policy_options,
            objects: Objects::default(),
            local: BTreeMap::new(),
            seen: BTreeMap::new(),
            by_pod: BTreeSet::new(),
            profiles: Pool::default(),
            own_blocks: BTreeSet::new(),
            blocks: BTreeMap::new(),
            strays: BTreeMap::new(),
            departed: BTreeSet::new(),
            to_peers: BTreeMap::new(),
            tunnel_address: None,
            underlay: Underlay::default(),
            names: Names::default(),
            fib: BTreeMap::new(),
            fib_metrics: BTreeMap::new(),
            topology: Topology::default(),
            settling: BTreeSet::new(),
            withheld: BTreeMap::new(),
            behind: BTreeMap::new(),
            session_problems: Vec::new(),
            desired: Desired::default(),
            dirty: Dirty {
                topology: true,
                sessions: true,
                ..Dirty::default()
            },
            touched: BTreeSet::new(),
        }
    }

    /// One update of the datastore. Returns the objects whose version in force changed.
    pub fn on_update(&mut self, update: Update) -> Vec<ObjectKey> {
        // What is said of blocks counts only while it is news.
        self.dirty.topology |= matches!(update, Update::InSync | Update::Lost { .. });
        let changed = self.objects.apply(update);
        for key in &changed {
            self.on_object(key);
        }
        changed
    }

    /// The view of an earlier process; see [`Objects::restore`].
    pub fn restore(&mut self, objects: Vec<Object>) -> Vec<ObjectKey> {
        let restored = self.objects.restore(objects);
        for key in &restored {
            self.on_object(key);
        }
        restored
    }

    /// Go on without the datastore.
    pub fn start_from_snapshot(&mut self) {
        self.objects.start_from_snapshot();
    }

    fn on_object(&mut self, key: &ObjectKey) {
        let object = self.objects.get(key).cloned();
        match key.kind {
            Kind::Pod => {
                let namespace = key.namespace.as_deref().unwrap_or_default();
                self.refresh_pod(namespace, &key.name);
                self.dirty.sessions |= self.peers_with_pods();
            }
            Kind::WorkloadEndpoint => self.on_workload_endpoint(key),
            Kind::Node
            | Kind::IpPool
            | Kind::BgpConfiguration
            | Kind::BgpPeer
            | Kind::BgpFilter
            | Kind::Secret => {
                self.dirty.topology = true;
                self.dirty.sessions = true;
                self.feed_compiler(key, object);
            }
            Kind::Service | Kind::EndpointSlice => {
                self.dirty.services = true;
                self.feed_compiler(key, object);
            }
            Kind::IpamBlock => self.on_block(key, object),
            Kind::FelixConfiguration => {
                self.dirty.topology = true;
                self.feed_options();
            }
            Kind::Namespace => {
                self.dirty.sessions |= self.peers_with_pods();
                self.feed_compiler(key, object);
            }
            _ => self.feed_compiler(key, object),
        }
    }

    /// A block appeared, changed hands or went: whose route to it is believed.
    fn on_block(&mut self, key: &ObjectKey, object: Option<Object>) {
        let block = match object {
            // Addresses of Services are announced by many nodes.
            Some(Object::IpamBlock(block)) if !block.is_virtual() => Some(block),
            _ => None,
        };
        if let Some(cidr) = self.blocks.remove(key) {
            self.topology.block_owners.remove(&cidr);
            self.dirty.learned.insert(cidr);
        }
        if let Some(block) = block {
            self.blocks.insert(key.clone(), block.cidr);
            self.topology.block_owners.insert(block.cidr, block.node);
            self.dirty.learned.insert(block.cidr);
        }
    }

    /// Whether the table tells interfaces of the node apart.
    pub(crate) fn has_host_endpoints_of_interfaces(&self) -> bool {
        self.compiler.has_host_endpoints_of_interfaces()
    }

    /// The link by which the node reaches an address that none of its pods has.
    pub(crate) fn way_to(&self, address: IpAddr) -> Option<&Link> {
        let width = if address.is_ipv4() { 32 } else { 128 };
        let by_us = (1..=width).rev().find_map(|length| {
            let prefix = IpNet::new(address, length).ok()?.trunc();
            match self.desired.learned.get(&prefix)? {
                RouteKind::Via(hops) => hops.first()?.ifindex,
                RouteKind::Device { ifindex } => Some(*ifindex),
                RouteKind::Blackhole => None,
            }
        });
        let by_others = || self.underlay.gateways(address)?.first()?.ifindex;
        self.underlay.link(by_us.or_else(by_others)?)
    }

    /// The node's own name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The blocks that this node owns.
    pub fn set_own_blocks(&mut self, blocks: BTreeSet<IpNet>) {
        if self.own_blocks != blocks {
            self.own_blocks = blocks;
            self.dirty.local = true;
            self.dirty.sessions = true;
        }
    }

    /// This node's own address on the IPIP device, from one of its blocks: what the node itself
    /// sends to pods behind the tunnel comes from there.
    pub fn set_tunnel_address(&mut self, address: Option<Ipv4Addr>) {
        if self.tunnel_address != address {
            self.tunnel_address = address;
            self.dirty.topology = true;
        }
    }

    /// Pods of other nodes whose addresses are in this node's own blocks, and their nodes'
    /// addresses: a block changed hands while they ran. BGP refuses what is part of an own block.
    pub fn set_strays(&mut self, strays: BTreeMap<IpNet, Vec<IpAddr>>) {
        if self.strays != strays {
            let before = std::mem::replace(&mut self.strays, strays);
            let all = before.keys().chain(self.strays.keys());
            self.dirty.learned.extend(all.copied());
        }
    }

    /// Tunnel devices that were made a moment ago: where there is another way, it is kept for the
    /// time that the other nodes need to make theirs.
    pub fn set_settling(&mut self, devices: BTreeSet<String>) {
        if self.settling != devices {
            self.settling = devices;
            self.dirty.all_learned = true;
        }
    }

    /// Prefixes learnt by BGP.
    pub fn learned_prefixes(&self) -> impl Iterator<Item = &IpNet> {
        self.fib.keys()
    }

    /// The blocks that this node owns.
    pub fn own_blocks(&self) -> &BTreeSet<IpNet> {
        &self.own_blocks
    }

    /// The Loc-RIB changed.
    pub fn on_fib(&mut self, change: FibChange) {
        match change {
            FibChange::Set {
                prefix,
                next_hops,
                priority,
            } => {
                self.fib.insert(prefix, next_hops);
                match priority {
                    None | Some(names::ROUTE_METRIC) => self.fib_metrics.remove(&prefix),
                    Some(set) => self.fib_metrics.insert(prefix, set),
                };
                self.dirty.learned.insert(prefix);
            }
            FibChange::Remove { prefix } => {
                self.fib.remove(&prefix);
                self.fib_metrics.remove(&prefix);
                self.dirty.learned.insert(prefix);
            }
        }
    }

    /// What should be, as of the last [`Calc::resolve`].
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// The routes of these destinations are gone from the kernel, as wanted.
    pub fn confirm_freed(&mut self, dests: &[IpNet]) {
        for dest in dests {
            self.desired.freed.remove(dest);
        }
    }

    /// Prefixes whose desired route changed since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<IpNet> {
        std::mem::take(&mut self.touched)
    }

    /// Our whole table as of the last [`Calc::resolve`].
    pub fn ruleset(&self) -> &Ruleset {
        self.compiler.ruleset()
    }

    /// What a counter of our table counts, and what the log lines with this prefix are about.
    pub fn explain(&self, name: &str) -> Option<&policy::Counted> {
        self.compiler.explain(name.trim())
    }

    /// All counters of our table.
    pub fn counters(&self) -> impl Iterator<Item = (&str, &policy::Counted)> {
        self.compiler.counters()
    }

    /// Namespace and name of the pod that has this address.
    pub fn pod_at(&self, address: IpAddr) -> Option<(&str, &str)> {
        let mut all = self.seen.values().map(Seen::endpoint);
        let holds = |endpoint: &&WorkloadEndpoint| {
            let mut nets = endpoint.ip_networks.iter();
            nets.any(|net| net.addr() == address)
        };
        all.find(holds)
            .map(|endpoint| (endpoint.namespace.as_str(), endpoint.pod.as_str()))
    }

    /// The namespace of Secrets that other objects name, where it is not [`names::SECRETS_NAMESPACE`].
    pub fn set_secrets_namespace(&mut self, namespace: &str) {
        self.objects.set_secrets_namespace(namespace);
        self.dirty.sessions = true;
    }

    /// Objects in force.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// How much is known.
    pub fn phase(&self) -> Phase {
        self.objects.phase()
    }

    /// Links, addresses and foreign routes of this node.
    pub fn underlay(&self) -> &Underlay {
        &self.underlay
    }

    /// Routes that are not in the kernel, and why.
    pub fn withheld(&self) -> impl Iterator<Item = &Withheld> {
        self.withheld.values()
    }

    /// Routes of ours that the kernel does not use, because somebody else has one to the same
    /// destination with a lower metric.
    pub fn overridden(&self) -> Vec<String> {
        let wins = |dest: &IpNet| self.underlay.metric_of_foreign(dest);
        let all = self.desired.prefixes();
        let all = all.filter_map(|dest| Some((dest, wins(dest)?)));
        let all = all.filter(|(dest, metric)| *metric < self.desired.metric(dest));
        all.map(|(dest, metric)| {
            format!("{dest}: somebody else's route with metric {metric} wins over ours")
        })
        .collect()
    }

    /// Kinds of tunnel devices that pools want and this kernel lacks.
    pub fn missing_kinds(&self) -> Vec<checks::MissingKind<'_>> {
        checks::missing_kinds(&self.objects, self.tunnel_kinds)
    }

    /// Everything that is wrong with objects, alone or together.
    pub fn problems(&self) -> Vec<Invalid> {
        let mut problems: Vec<Invalid> = self.objects.rejected().cloned().collect();
        problems.extend(checks::overlapping_pools(&self.objects));
        problems.extend(checks::unsupported_encapsulation(
            &self.objects,
            self.tunnel_kinds,
        ));
        problems.extend(self.session_problems.iter().cloned());
        problems
    }
}

#[cfg(test)]
mod tests;
