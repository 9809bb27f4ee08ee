//! Namespaces, policies and endpoints -> the table, incrementally.

mod base;
mod dispatch;
mod host_ports;
mod layout;
mod members;
mod pod_sets;
mod policy_sets;
mod ports;
mod sets;

use crate::endpoint::{Endpoint, EndpointId};
use crate::input::{NodePeer, Policy, PolicyKey};
use crate::ir::{Direction, PolicySet};
use crate::ruleset::changes::Changes;
use crate::ruleset::{Element, Op, Part, Ruleset};
use dispatch::Dispatch;
pub use host_ports::HostPort;
use host_ports::HostPorts;
use ipnet::IpNet;
use layout::Layout;
use members::Members;
use model::{EndpointSlice, HostEndpoint, Labels, NetworkSet, Profile, ServiceAccount, Tier};
use pod_sets::PodSets;
use policy_sets::PolicySets;
use sets::Sets;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// What does not change while the process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Names of the host's ends of pod links begin with this.
    pub interface_prefix: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interface_prefix: model::names::INTERFACE_PREFIX.to_owned(),
        }
    }
}

/// Addresses that matter besides those of pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSets {
    /// Sources whose packets are masqueraded where they leave the cluster.
    pub masquerade: BTreeSet<IpNet>,
    /// Destinations inside the cluster: no masquerading towards them.
    pub pools: BTreeSet<IpNet>,
    /// Sources allowed to send us IP in IP (protocol 4).
    pub ipip_peers: BTreeSet<Ipv4Addr>,
    /// Our tunnel's local address: what is sent to it has to come from one of the peers. None
    /// while we have no tunnel: the tunnels of others are not looked at.
    pub ipip_local: Option<Ipv4Addr>,
}

/// Compiles what it has been told to a [`Ruleset`]: a function of the current state, whatever the
/// order of the updates was.
#[derive(Debug)]
pub struct Compiler {
    options: Options,
    namespaces: BTreeMap<String, Labels>,
    policies: BTreeMap<PolicyKey, Policy>,
    told: Told,
    endpoints: Endpoints,
    network: NetworkSets,
    dirty: Dirty,
    members: Members,
    pod_sets: PodSets,
    policy_sets: PolicySets,
    dispatch: Dispatch,
    host_ports: HostPorts,
    sets: Sets,
    ruleset: Ruleset,
}

/// What was told since the last resolve.
#[derive(Debug, Default)]
struct Dirty {
    endpoints: BTreeSet<EndpointId>,
    /// Namespaces with other labels.
    labels: BTreeSet<String>,
    /// Namespaces with other policies; none for cluster-wide ones.
    policies: BTreeSet<Option<String>>,
    /// The network as it was compiled last.
    network: Option<NetworkSets>,
}

/// What was told that policies refer to.
#[derive(Debug, Default)]
struct Told {
    tiers: Table<String, Tier>,
    network_sets: Table<(Option<String>, String), NetworkSet>,
    host_endpoints: Table<String, HostEndpoint>,
    host_interfaces: BTreeMap<String, BTreeSet<IpAddr>>,
    service_accounts: Table<(String, String), ServiceAccount>,
    profiles: Table<String, Profile>,
    endpoint_slices: Table<(String, String), EndpointSlice>,
    nodes: Table<String, NodePeer>,
    domains: Table<String, BTreeSet<IpAddr>>,
}

/// Values by key, and which keys changed.
#[derive(Debug)]
struct Table<K, V> {
    values: BTreeMap<K, V>,
    changed: BTreeSet<K>,
}

impl<K: Ord + Clone, V: PartialEq> Table<K, V> {
    fn set(&mut self, key: K, value: Option<V>) {
        if self.values.get(&key) == value.as_ref() {
            return;
        }
        self.changed.insert(key.clone());
        match value {
            Some(value) => drop(self.values.insert(key, value)),
            None => drop(self.values.remove(&key)),
        }
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            values: BTreeMap::new(),
            changed: BTreeSet::new(),
        }
    }
}

#[derive(Debug, Default)]
struct Endpoints {
    /// As told.
    told: BTreeMap<EndpointId, Arc<Endpoint>>,
    /// As in the table.
    compiled: BTreeMap<EndpointId, Arc<Endpoint>>,
    /// Of `compiled`, by namespace.
    by_namespace: BTreeMap<String, BTreeSet<EndpointId>>,
}

impl Compiler {
    /// A compiler that knows nothing yet: its table lets no pod speak.
    pub fn new(options: Options) -> Self {
        let mut sets = Sets::default();
        base::declare(&mut sets);
        Self {
            options,
            namespaces: BTreeMap::new(),
            policies: BTreeMap::new(),
            told: Told::default(),
            endpoints: Endpoints::default(),
            network: NetworkSets::default(),
            dirty: Dirty {
                network: Some(NetworkSets::default()),
                ..Dirty::default()
            },
            members: Members::default(),
            pod_sets: PodSets::default(),
            policy_sets: PolicySets::default(),
            dispatch: Dispatch::default(),
            host_ports: HostPorts::default(),
            sets,
            ruleset: Ruleset::default(),
        }
    }

    /// A namespace has these labels, or is gone. Each has the label
    /// `kubernetes.io/metadata.name`, told or not.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        let labels = labels.map(|labels| members::with_name(labels, name));
        if self.namespaces.get(name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
        self.dirty.labels.insert(name.to_owned());
    }

    /// A policy of any kind says this, or is gone.
    pub fn set_policy(&mut self, key: &PolicyKey, policy: Option<Policy>) {
        if self.policies.get(key) == policy.as_ref() {
            return;
        }
        match policy {
            Some(policy) => drop(self.policies.insert(key.clone(), policy)),
            None => drop(self.policies.remove(key)),
        }
        self.dirty.policies.insert(key.namespace.clone());
    }

    /// A tier says this, or is gone. The tiers `kube-admin`, `default` and `kube-baseline` exist
    /// without being told; other tiers that policies name and nobody told stand last, by name.
    pub fn set_tier(&mut self, name: &str, tier: Option<Tier>) {
        self.told.tiers.set(name.to_owned(), tier);
    }

    /// A `NetworkSet` (with a namespace) or `GlobalNetworkSet` says this, or is gone.
    pub fn set_network_set(
        &mut self,
        namespace: Option<&str>,
        name: &str,
        network_set: Option<NetworkSet>,
    ) {
        let key = (namespace.map(str::to_owned), name.to_owned());
        self.told.network_sets.set(key, network_set);
    }

    /// A host endpoint of any node says this, or is gone.
    pub fn set_host_endpoint(&mut self, name: &str, endpoint: Option<HostEndpoint>) {
        self.told.host_endpoints.set(name.to_owned(), endpoint);
    }

    /// The interfaces of this host that are no pod's, by name, with their addresses: host
    /// endpoints without an interface name are found by address.
    pub fn set_host_interfaces(&mut self, interfaces: BTreeMap<String, BTreeSet<IpAddr>>) {
        self.told.host_interfaces = interfaces;
    }

    /// A service account has these labels, or is gone.
    pub fn set_service_account(
        &mut self,
        namespace: &str,
        name: &str,
        account: Option<ServiceAccount>,
    ) {
        let key = (namespace.to_owned(), name.to_owned());
        self.told.service_accounts.set(key, account);
    }

    /// A profile has these labels, or is gone.
    pub fn set_profile(&mut self, name: &str, profile: Option<Profile>) {
        self.told.profiles.set(name.to_owned(), profile);
    }

    /// An endpoint slice says this, or is gone.
    pub fn set_endpoint_slice(
        &mut self,
        namespace: &str,
        name: &str,
        slice: Option<EndpointSlice>,
    ) {
        let key = (namespace.to_owned(), name.to_owned());
        self.told.endpoint_slices.set(key, slice);
    }

    /// A node looks like this to policies, or is gone.
    pub fn set_node(&mut self, name: &str, node: Option<NodePeer>) {
        self.told.nodes.set(name.to_owned(), node);
    }

    /// What a name resolves to, in lower case without a final dot, as of the answers whose time
    /// to live (and grace) has not passed; empty when there are none any more.
    pub fn set_domain(&mut self, name: &str, addresses: BTreeSet<IpAddr>) {
        let addresses = (!addresses.is_empty()).then_some(addresses);
        self.told.domains.set(name.to_owned(), addresses);
    }

    /// A pod anywhere in the cluster looks like this, or is gone.
    pub fn set_endpoint(&mut self, id: &EndpointId, endpoint: Option<Endpoint>) {
        let told = &mut self.endpoints.told;
        if told.get(id).map(Arc::as_ref) == endpoint.as_ref() {
            return;
        }
        match endpoint {
            Some(endpoint) => drop(told.insert(id.clone(), Arc::new(endpoint))),
            None => drop(told.remove(id)),
        }
        self.dirty.endpoints.insert(id.clone());
    }

    /// The addresses that matter besides those of pods.
    pub fn set_network(&mut self, network: NetworkSets) {
        let before = std::mem::replace(&mut self.network, network);
        self.dirty.network.get_or_insert(before);
    }

    /// All ports of this node that lead to pods, and where.
    pub fn set_host_ports(&mut self, ports: BTreeMap<HostPort, SocketAddr>) {
        self.host_ports.set(ports);
    }

    /// The operations that bring the table up to date since the last call, as one valid
    /// transaction; empty if nothing changed.
    pub fn resolve(&mut self) -> Vec<Op> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut changes = Changes::default();
        self.count_peers_of_nodes(dirty.network.as_ref());
        let interfaces = self.move_endpoints(&dirty);
        let new_chains = self.dispatch(interfaces, &mut changes);
        let host_ports = self.host_ports.settle(&mut self.sets, &mut changes);
        let renamed = self.sets.commit(&self.ruleset, &mut changes);
        if host_ports || renamed.iter().any(|name| self.host_ports.looks_up(name)) {
            let prefix = &self.options.interface_prefix;
            self.host_ports
                .render(prefix, &self.sets, &self.ruleset, &mut changes);
        }
        let base_changed = renamed.iter().any(|name| base::is_base(name));
        if dirty.network.is_some() || base_changed {
            self.render_base(&mut changes);
        }
        for layout in self
            .policy_sets
            .to_render(&new_chains, &renamed, base_changed)
        {
            let chain = layout.render(&self.sets);
            if self.ruleset.chains.get(&layout.chain) != Some(&chain) {
                changes.chains.insert(layout.chain.clone(), Some(chain));
            }
        }
        let ops = changes.ops(&self.ruleset);
        changes.apply_to(&mut self.ruleset);
        ops
    }

    /// All of the table, as of the last [`Self::resolve`].
    pub fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }

    fn count_peers_of_nodes(&mut self, before: Option<&NetworkSets>) {
        let Some(before) = before else { return };
        let (old, new) = (&before.ipip_peers, &self.network.ipip_peers);
        let gone = old.difference(new).map(|peer| (*peer, -1));
        for (peer, delta) in gone.chain(new.difference(old).map(|peer| (*peer, 1))) {
            let element = Element::exact(&[Part::Address(peer.into())]);
            self.sets.count(base::IPIP, element, delta);
        }
    }

    /// Counts endpoints out of sets and into sets. Returns the interfaces whose policies may be
    /// others than before.
    fn move_endpoints(&mut self, dirty: &Dirty) -> BTreeSet<u32> {
        let mut moved = dirty.endpoints.clone();
        let namespaces = &self.endpoints.by_namespace;
        moved.extend(
            dirty
                .labels
                .iter()
                .filter_map(|name| namespaces.get(name))
                .flatten()
                .cloned(),
        );
        let mut interfaces = BTreeSet::new();
        for id in moved {
            let old = self.endpoints.compiled.get(&id).cloned();
            let new = self.endpoints.told.get(&id).cloned();
            let (old, new) = (old.as_deref(), new.as_deref());
            self.members.set(
                &id,
                old,
                new,
                &self.namespaces,
                &self.pod_sets,
                &mut self.sets,
            );
            if old != new {
                count_local(&mut self.sets, old, -1);
                count_local(&mut self.sets, new, 1);
                interfaces.extend(self.dispatch.set_owner(&id, old, new));
                self.endpoints.compile(&id);
            }
        }
        for id in dirty
            .policies
            .iter()
            .filter_map(|n| self.endpoints.by_namespace.get(n.as_ref()?))
            .flatten()
        {
            interfaces.extend(
                self.endpoints
                    .compiled
                    .get(id)
                    .and_then(|endpoint| endpoint.local),
            );
        }
        interfaces
    }

    /// Sends the packets of these interfaces to the chains that their pods need. Returns the names
    /// of chains that are needed for the first time.
    fn dispatch(&mut self, interfaces: BTreeSet<u32>, changes: &mut Changes) -> BTreeSet<String> {
        let mut new_chains = BTreeSet::new();
        for interface in interfaces {
            for direction in Direction::BOTH {
                let wanted = self.wanted(interface, direction);
                let chain = wanted.as_ref().map(layout::chain_name);
                let before = self.dispatch.set_chain(interface, direction, chain.clone());
                if before == chain {
                    continue;
                }
                Dispatch::assign(interface, direction, chain.as_ref(), &mut self.sets);
                if let (Some(set), Some(chain)) = (wanted, chain)
                    && self.policy_sets.add_user(&chain, &set)
                {
                    new_chains.insert(chain);
                }
                before
                    .iter()
                    .for_each(|name| self.policy_sets.remove_user(name));
            }
        }
        let unused = self.policy_sets.remove_unused();
        let never_used = |layout: &Layout| new_chains.contains(&layout.chain);
        let (never_used, unused): (Vec<_>, Vec<_>) = unused.into_iter().partition(never_used);
        new_chains.retain(|name| never_used.iter().all(|layout| layout.chain != *name));
        new_chains
            .iter()
            .for_each(|name| self.declare(name, changes));
        unused
            .iter()
            .for_each(|layout| self.forget(layout, changes));
        new_chains
    }

    fn wanted(&self, interface: u32, direction: Direction) -> Option<PolicySet> {
        let mut owners = self.dispatch.owners(interface);
        let endpoint = self.endpoints.compiled.get(owners.next()?)?;
        if owners.next().is_some() {
            return Some(PolicySet::deny(direction));
        }
        let policies = self.policies.values().filter_map(|policy| match policy {
            Policy::Kubernetes(policy) if policy.namespace == endpoint.namespace => Some(policy),
            _ => None,
        });
        PolicySet::of(endpoint, direction, policies)
    }

    fn declare(&mut self, name: &str, changes: &mut Changes) {
        let Some(layout) = self.policy_sets.get(name) else {
            return;
        };
        changes.new_sets.extend(layout.fixed.clone());
        for (base, pod_set) in &layout.pod_sets {
            if !self.pod_sets.add_user(base, pod_set) {
                continue;
            }
            self.sets.declare(base, &pod_set.key(), false);
            for peer in pod_set.terms.keys() {
                let compiled = &self.endpoints.compiled;
                let members = self
                    .members
                    .add_user(peer, base, compiled, &self.namespaces);
                for endpoint in members.iter().filter_map(|id| compiled.get(id)) {
                    pod_set.count(base, peer, endpoint, 1, &mut self.sets);
                }
            }
        }
    }

    fn forget(&mut self, layout: &Layout, changes: &mut Changes) {
        for base in layout.pod_sets.keys() {
            if let Some(pod_set) = self.pod_sets.remove_user(base) {
                self.sets.forget(base);
                pod_set
                    .terms
                    .keys()
                    .for_each(|peer| self.members.remove_user(peer, base));
            }
        }
        changes.gone_sets.extend(layout.fixed.keys().cloned());
        changes.chains.insert(layout.chain.clone(), None);
    }

    fn render_base(&self, changes: &mut Changes) {
        let prefix = &self.options.interface_prefix;
        let (chains, own_sets) = base::chains(prefix, &self.network, &self.sets);
        let is_ours = |name: &&String| base::is_own_set(name);
        let gone = self
            .ruleset
            .sets
            .keys()
            .filter(is_ours)
            .filter(|n| !own_sets.contains_key(*n));
        changes.gone_sets.extend(gone.cloned());
        let added = own_sets
            .into_iter()
            .filter(|(name, _)| !self.ruleset.sets.contains_key(name));
        changes.new_sets.extend(added);
        if self.ruleset.chains.contains_key(base::NAT) && !chains.contains_key(base::NAT) {
            changes.chains.insert(base::NAT.to_owned(), None);
        }
        for (name, chain) in chains {
            if self.ruleset.chains.get(&name) != Some(&chain) {
                changes.chains.insert(name, Some(chain));
            }
        }
    }
}

impl Endpoints {
    /// The endpoint goes into the table as told.
    fn compile(&mut self, id: &EndpointId) {
        if let Some(old) = self.compiled.remove(id)
            && let Some(others) = self.by_namespace.get_mut(&old.namespace)
        {
            others.remove(id);
            if others.is_empty() {
                self.by_namespace.remove(&old.namespace);
            }
        }
        if let Some(new) = self.told.get(id) {
            self.by_namespace
                .entry(new.namespace.clone())
                .or_default()
                .insert(id.clone());
            self.compiled.insert(id.clone(), Arc::clone(new));
        }
    }
}

/// What a local pod may speak with and be spoken to.
fn count_local(sets: &mut Sets, endpoint: Option<&Endpoint>, delta: i64) {
    let Some((endpoint, interface)) = endpoint.and_then(|e| Some((e, e.local?))) else {
        return;
    };
    for ip in &endpoint.ips {
        let own = Element::exact(&[Part::Ifindex(interface), Part::Address(*ip)]);
        sets.count(base::LOCAL[usize::from(ip.is_ipv6())], own, delta);
    }
}
