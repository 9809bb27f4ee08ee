//! Namespaces, policies and endpoints -> the table, incrementally.

mod base;
mod counters;
mod dispatch;
pub mod dns;
mod groups;
mod host;
mod host_ports;
mod inputs;
mod layout;
mod members;
mod options;
mod pod_sets;
mod ports;
mod relay;
mod sets;
mod told;

pub use counters::{Action, Counted, Direction, Reason};
pub use host_ports::HostPort;
pub use options::{DropLog, Failsafe, Options};

use crate::endpoint::{Endpoint, EndpointId};
use crate::hash::{content_name, content_number};
use crate::input::{Policy, PolicyKey};
use crate::ir::{self, Cluster, Hint, Member, Place, PolicySet, Subject};
use crate::ruleset::changes::Changes;
use crate::ruleset::{Element, Op, Part, Ruleset};
use base::Base;
use dispatch::Dispatch;
use groups::{ContentName, Groups, Slot, Wanted};
use host::HostChains;
use host_ports::HostPorts;
use ipnet::IpNet;
use members::{MemberId, Members};
use model::NamedPort;
use pod_sets::PodSets;
use relay::Users;
use sets::Sets;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use told::Told;

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
    /// Sources allowed to send us VXLAN, both families.
    pub vxlan_peers: BTreeSet<IpAddr>,
    /// Local addresses of our VXLAN devices: what is sent to them has to come from one of the
    /// peers.
    pub vxlan_local: BTreeSet<IpAddr>,
}

/// Compiles what it has been told to a [`Ruleset`]: a function of the current state, whatever the
/// order of the updates was, but for the declared sizes of sets that shrank.
#[derive(Debug)]
pub struct Compiler {
    options: Options,
    told: Told,
    /// By namespace; those without one are cluster-wide.
    policies: BTreeMap<Option<String>, BTreeMap<PolicyKey, Policy>>,
    endpoints: Endpoints,
    network: NetworkSets,
    dirty: Dirty,
    members: Members,
    pod_sets: PodSets,
    groups: Groups,
    users: Users,
    dispatch: Dispatch,
    hosts: HostChains,
    own_node: bool,
    /// Policies of local pods speak of names.
    names: bool,
    /// Names of chains that are neither a group's nor a host port's.
    base_chains: BTreeSet<String>,
    host_ports: HostPorts,
    sets: Sets,
    ruleset: Ruleset,
}

/// What was told since the last resolve, besides what [`Told`] remembers itself.
#[derive(Debug, Default)]
struct Dirty {
    endpoints: BTreeSet<EndpointId>,
    /// Namespaces with other policies; none for cluster-wide ones.
    policies: BTreeSet<Option<String>>,
    /// The network as it was compiled last.
    network: Option<NetworkSets>,
    options: bool,
}

#[derive(Debug, Default)]
struct Endpoints {
    /// As told.
    told: BTreeMap<EndpointId, Arc<Endpoint>>,
    /// As in the table.
    compiled: BTreeMap<EndpointId, Arc<Endpoint>>,
    /// Of `compiled`, by namespace.
    by_namespace: BTreeMap<String, BTreeSet<EndpointId>>,
    /// Of `compiled`, by label.
    by_label: BTreeMap<u64, BTreeSet<Arc<EndpointId>>>,
    /// Of `compiled`, those that inherit labels.
    inheriting: BTreeSet<EndpointId>,
}

type NamedSet = (ContentName, Arc<PolicySet>);

/// Policy sets that were found while all that they depend on stays.
#[derive(Debug, Default)]
struct Known<'a> {
    by_class: BTreeMap<(ContentName, ir::Direction, Place), Option<NamedSet>>,
    by_policies: BTreeMap<Depends<'a>, Option<NamedSet>>,
}

/// All that a pod's policy set depends on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Depends<'a> {
    direction: ir::Direction,
    place: Place,
    labels_known: bool,
    /// Compared by identity.
    policies: Vec<*const Policy>,
    ports: &'a [NamedPort],
}

/// Whose policies may be others than before.
#[derive(Debug, Default)]
struct Affected {
    interfaces: BTreeSet<u32>,
    hosts: bool,
}

impl Compiler {
    /// A compiler that knows nothing yet: its table lets no pod speak.
    pub fn new(options: Options) -> Self {
        let mut sets = Sets::default();
        base::declare(&mut sets);
        Self {
            options,
            told: Told::default(),
            policies: BTreeMap::new(),
            endpoints: Endpoints::default(),
            network: NetworkSets::default(),
            dirty: Dirty {
                network: Some(NetworkSets::default()),
                ..Dirty::default()
            },
            members: Members::default(),
            pod_sets: PodSets::default(),
            groups: Groups::default(),
            users: Users::default(),
            dispatch: Dispatch::default(),
            hosts: HostChains::default(),
            own_node: false,
            names: false,
            base_chains: BTreeSet::new(),
            host_ports: HostPorts::default(),
            sets,
            ruleset: Ruleset::default(),
        }
    }

    /// The operations that bring the table up to date since the last call, as one valid
    /// transaction; empty if nothing changed.
    pub fn resolve(&mut self) -> Vec<Op> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut changes = Changes::default();
        self.count_peers_of_nodes(dirty.network.as_ref());
        let affected = self.move_members(&dirty);
        self.assign(&affected);
        let renewed = self.relay(dirty.options, &mut changes);
        let base_changed = self.dispatch(affected.hosts || dirty.options);
        let host_ports = self.host_ports.settle(&mut self.sets, &mut changes);
        let renamed = self.sets.commit(&self.ruleset, &mut changes);
        if host_ports || renamed.iter().any(|name| self.host_ports.looks_up(name)) {
            let prefix = &self.options.interface_prefix;
            self.host_ports
                .render(prefix, &self.sets, &self.ruleset, &mut changes);
        }
        let base_renamed = renamed.iter().any(|name| base::is_base(name));
        if dirty.network.is_some() || dirty.options || base_changed || base_renamed {
            self.render_base(&mut changes);
        }
        for (name, layout) in self.groups.layouts() {
            if base_renamed || renewed.contains(name) || layout.uses(&renamed) {
                for (name, chain) in layout.render(&self.sets) {
                    if self.ruleset.chains.get(&name) != Some(&chain) {
                        changes.chains.insert(name, Some(chain));
                    }
                }
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

    /// What is counted in the counter of this name, and logged with this prefix.
    pub fn explain(&self, name: &str) -> Option<&Counted> {
        self.users.counted(name)
    }

    /// All counters of the table, as of the last [`Self::resolve`].
    pub fn counters(&self) -> impl Iterator<Item = (&str, &Counted)> {
        self.users.all_counted()
    }

    /// Names and patterns of names (with a leading `*.`) that policies of local pods speak of, for
    /// [`Self::set_domain`].
    pub fn domain_names(&self) -> BTreeSet<&str> {
        let in_use = self.members.in_use().filter_map(|peer| match peer {
            ir::PeerSelector::Domains(names) => Some(names),
            _ => None,
        });
        in_use.flatten().map(String::as_str).collect()
    }

    fn watches_names(&self) -> bool {
        let mut in_use = self.members.in_use();
        in_use.any(|peer| matches!(peer, ir::PeerSelector::Domains(_)))
    }

    fn count_peers_of_nodes(&mut self, before: Option<&NetworkSets>) {
        let Some(before) = before else { return };
        let (old, new) = (&before.ipip_peers, &self.network.ipip_peers);
        let gone = old.difference(new).map(|peer| (*peer, -1));
        for (peer, delta) in gone.chain(new.difference(old).map(|peer| (*peer, 1))) {
            let element = Element::exact(&[Part::Address(peer.into())]);
            self.sets.count(base::IPIP, element, delta);
        }
        let (old, new) = (&before.vxlan_peers, &self.network.vxlan_peers);
        let gone = old.difference(new).map(|peer| (*peer, -1));
        for (peer, delta) in gone.chain(new.difference(old).map(|peer| (*peer, 1))) {
            let element = Element::exact(&[Part::Address(peer)]);
            let set = base::VXLAN[usize::from(peer.is_ipv6())];
            self.sets.count(set, element, delta);
        }
    }

    /// Counts members out of sets and into sets.
    fn move_members(&mut self, dirty: &Dirty) -> Affected {
        let namespaces: BTreeSet<String> = keys(self.told.namespaces.take_changed());
        let accounts: BTreeSet<(String, String)> = keys(self.told.service_accounts.take_changed());
        let profiles: BTreeSet<String> = keys(self.told.profiles.take_changed());
        let mut moved = dirty.endpoints.clone();
        moved.extend(self.endpoints.inheriting(&namespaces, &accounts, &profiles));
        let mut affected = Affected::default();
        for id in moved {
            self.move_endpoint(&id, &mut affected);
        }
        for namespace in &dirty.policies {
            let Some(namespace) = namespace else { continue };
            let ids = self
                .endpoints
                .by_namespace
                .get(namespace)
                .into_iter()
                .flatten();
            let compiled = ids.filter_map(|id| self.endpoints.compiled.get(id));
            affected
                .interfaces
                .extend(compiled.filter_map(|endpoint| endpoint.local));
        }
        let tiers = !self.told.tiers.take_changed().is_empty();
        let everywhere = tiers || dirty.policies.contains(&None);
        if everywhere {
            affected.interfaces.extend(self.dispatch.interfaces());
        }
        affected.hosts = everywhere;
        affected.hosts |= !self.told.host_interfaces.take_changed().is_empty();
        self.move_others(&namespaces, &profiles, &mut affected);
        affected
    }

    fn move_endpoint(&mut self, id: &EndpointId, affected: &mut Affected) {
        let old = self.endpoints.compiled.get(id).cloned();
        let new = self.endpoints.told.get(id).cloned();
        let (old, new) = (old.as_deref(), new.as_deref());
        let owners = self.told.owners();
        self.members.set(
            &MemberId::Endpoint(id.clone()),
            old.map(Member::Endpoint),
            new.map(Member::Endpoint),
            owners,
            &self.pod_sets,
            &mut self.sets,
        );
        affected
            .interfaces
            .extend(new.and_then(|endpoint| endpoint.local));
        if old != new {
            count_local(&mut self.sets, old, -1);
            count_local(&mut self.sets, new, 1);
            affected
                .interfaces
                .extend(self.dispatch.set_owner(id, old, new));
            self.endpoints.compile(id);
        }
    }

    /// Members that are no pods.
    fn move_others(
        &mut self,
        namespaces: &BTreeSet<String>,
        profiles: &BTreeSet<String>,
        affected: &mut Affected,
    ) {
        let in_changed = |(namespace, _): &&(Option<String>, String)| {
            namespace
                .as_ref()
                .is_some_and(|name| namespaces.contains(name))
        };
        let mut network_sets = self.told.network_sets.take_changed();
        let told: BTreeSet<_> = network_sets.iter().map(|(key, _)| key.clone()).collect();
        let inheriting = self.told.network_sets.values.keys().filter(in_changed);
        let inheriting = inheriting
            .filter(|key| !told.contains(*key))
            .cloned()
            .collect::<Vec<_>>();
        for key in inheriting {
            let same = self.told.network_sets.values.get(&key).cloned();
            network_sets.push((key, same));
        }
        for ((namespace, name), old) in &network_sets {
            let id = MemberId::NetworkSet(namespace.clone(), name.clone());
            self.move_other(&id, old.as_ref().map(Member::NetworkSet));
        }
        let inherits =
            |host: &model::HostEndpoint| host.profiles.iter().any(|name| profiles.contains(name));
        let hosts = self.told.host_endpoints.values.iter();
        let inheriting = hosts.filter(|(_, host)| inherits(host));
        let inheriting: Vec<_> = inheriting
            .map(|(name, host)| (name.clone(), Some(host.clone())))
            .collect();
        let mut hosts: BTreeMap<_, _> = inheriting.into_iter().collect();
        hosts.extend(self.told.host_endpoints.take_changed());
        for (name, old) in hosts {
            affected.hosts = true;
            let id = MemberId::HostEndpoint(name);
            self.move_other(&id, old.as_ref().map(Member::HostEndpoint));
        }
        for (name, old) in self.told.nodes.take_changed() {
            self.move_other(&MemberId::Node(name), old.as_ref().map(Member::Node));
        }
        for (name, old) in self.told.domains.take_changed() {
            let old = old.as_ref().map(|old| Member::Domain(&name, old));
            self.move_other(&MemberId::Domain(name.clone()), old);
        }
        for ((namespace, name), old) in self.told.endpoint_slices.take_changed() {
            let id = MemberId::Slice(namespace, name);
            self.move_other(&id, old.as_ref().map(Member::Slice));
        }
    }

    fn move_other(&mut self, id: &MemberId, old: Option<Member<'_>>) {
        let owners = self.told.owners();
        let new = self.told.member(id);
        self.members
            .set(id, old, new, owners, &self.pod_sets, &mut self.sets);
    }

    /// Gives the affected endpoints their policy sets.
    fn assign(&mut self, affected: &Affected) {
        let mut known = Known::default();
        let mut wanted = vec![];
        for interface in &affected.interfaces {
            for direction in ir::Direction::BOTH {
                let set = self.wanted(*interface, direction, Place::Pod, &mut known);
                wanted.push((Slot::Pod(*interface, direction), set));
            }
            let egress = ir::Direction::Egress;
            let set = self.wanted(*interface, egress, Place::OwnNode, &mut known);
            wanted.push((Slot::OwnNode(*interface), set));
        }
        for (slot, set) in wanted {
            self.groups.assign(&slot, set);
        }
        if affected.hosts {
            self.assign_hosts();
        }
    }

    fn assign_hosts(&mut self) {
        let owners = host::Owners::new(&self.told, &self.options);
        let mut wanted = BTreeMap::new();
        for endpoint in owners.endpoints() {
            for (direction, place) in host::PLACES {
                let policies = self
                    .policies
                    .get(&None)
                    .into_iter()
                    .flat_map(BTreeMap::values);
                let subject = Subject::Host(endpoint);
                let Some(set) = PolicySet::of(subject, direction, place, policies, self.cluster())
                else {
                    continue;
                };
                let one = Wanted {
                    content: content_name(&set),
                    set: Arc::new(set),
                    class: content_name(&("host endpoint", &endpoint.name)),
                };
                wanted.insert(Slot::Host(endpoint.name.clone(), direction, place), one);
            }
        }
        let gone = self
            .groups
            .slots()
            .filter(|slot| matches!(slot, Slot::Host(..)));
        let gone: Vec<_> = gone
            .filter(|slot| !wanted.contains_key(slot))
            .cloned()
            .collect();
        gone.iter().for_each(|slot| self.groups.assign(slot, None));
        for (slot, wanted) in wanted {
            self.groups.assign(&slot, Some(wanted));
        }
    }

    fn cluster(&self) -> Cluster<'_> {
        Cluster {
            tiers: &self.told.tiers.values,
            owners: self.told.owners(),
        }
    }

    /// The policy set of a pod; endpoints that are alike have the same.
    fn wanted<'a>(
        &'a self,
        interface: u32,
        direction: ir::Direction,
        place: Place,
        known: &mut Known<'a>,
    ) -> Option<Wanted> {
        let mut owners = self.dispatch.owners(interface);
        let endpoint = self.endpoints.compiled.get(owners.next()?)?;
        let class = class(endpoint);
        if owners.next().is_some() {
            let set = PolicySet::deny(direction);
            return (place == Place::Pod).then(|| Wanted {
                content: content_name(&set),
                set: Arc::new(set),
                class: content_name(&("several owners", interface)),
            });
        }
        let key = (class.clone(), direction, place);
        let by_class = known.by_class.entry(key).or_insert_with(|| {
            let own = self.policies.get(&Some(endpoint.namespace.clone()));
            let policies = own.into_iter().chain(self.policies.get(&None));
            let policies = policies.flat_map(BTreeMap::values);
            let (subject, cluster) = (Subject::Pod(endpoint), self.cluster());
            let applying = match endpoint.labels_known {
                true => ir::applying(subject, direction, place, policies, cluster),
                false => vec![],
            };
            let names = applying.iter().map(|policy| std::ptr::from_ref(*policy));
            let key = Depends {
                direction,
                place,
                labels_known: endpoint.labels_known,
                policies: names.collect(),
                ports: &endpoint.ports,
            };
            let set = known.by_policies.entry(key).or_insert_with(|| {
                let set = PolicySet::of(subject, direction, place, applying, cluster)?;
                Some((content_name(&set), Arc::new(set)))
            });
            set.clone()
        });
        let (content, set) = by_class.clone()?;
        Some(Wanted {
            set,
            content,
            class,
        })
    }

    /// Sends packets to the chains of those whom they concern. Returns whether base chains may be
    /// others than before.
    fn dispatch(&mut self, hosts: bool) -> bool {
        let moved = self.groups.take_moved();
        let mut of_hosts = hosts;
        for slot in &moved {
            of_hosts |= matches!(slot, Slot::Host(..));
            Dispatch::assign(slot, self.groups.chain(slot), &mut self.sets);
        }
        let own_node = self
            .groups
            .slots()
            .any(|slot| matches!(slot, Slot::OwnNode(_)));
        let names = self.watches_names();
        let mut differs = std::mem::replace(&mut self.own_node, own_node) != own_node;
        differs |= std::mem::replace(&mut self.names, names) != names;
        if !of_hosts {
            return differs;
        }
        let owners = host::Owners::new(&self.told, &self.options);
        let hosts = owners.chains(|endpoint, direction, place| {
            let slot = Slot::Host(endpoint.name.clone(), direction, place);
            self.groups.chain(&slot).cloned()
        });
        let differ = hosts != self.hosts;
        self.hosts = hosts;
        differs || differ
    }

    fn render_base(&mut self, changes: &mut Changes) {
        let (chains, own_sets) = Base {
            options: &self.options,
            network: &self.network,
            sets: &self.sets,
            own_node: self.own_node,
            names: self.names,
            hosts: &self.hosts,
        }
        .chains();
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
        let names: BTreeSet<String> = chains.keys().cloned().collect();
        for gone in self.base_chains.difference(&names) {
            changes.chains.insert(gone.clone(), None);
        }
        self.base_chains = names;
        for (name, chain) in chains {
            if self.ruleset.chains.get(&name) != Some(&chain) {
                changes.chains.insert(name, Some(chain));
            }
        }
    }
}

fn keys<K: Ord, V>(changed: Vec<(K, Option<V>)>) -> BTreeSet<K> {
    changed.into_iter().map(|(key, _)| key).collect()
}

/// All of an endpoint that policies can see.
fn class(endpoint: &Endpoint) -> ContentName {
    content_name(&(
        &endpoint.namespace,
        &endpoint.labels,
        &endpoint.ports,
        endpoint.labels_known,
        &endpoint.service_account,
        &endpoint.profiles,
    ))
}

impl Endpoints {
    /// Those that inherit labels from any of these.
    fn inheriting(
        &self,
        namespaces: &BTreeSet<String>,
        accounts: &BTreeSet<(String, String)>,
        profiles: &BTreeSet<String>,
    ) -> BTreeSet<EndpointId> {
        let mut found = BTreeSet::new();
        for name in namespaces {
            found.extend(self.by_namespace.get(name).into_iter().flatten().cloned());
        }
        for (namespace, account) in accounts {
            let here = self.by_namespace.get(namespace).into_iter().flatten();
            let runs_as = |id: &&EndpointId| {
                let endpoint = self.compiled.get(*id);
                endpoint.is_some_and(|e| e.service_account.as_ref() == Some(account))
            };
            found.extend(here.filter(runs_as).cloned());
        }
        if !profiles.is_empty() {
            let names_one = |(_, endpoint): &(&EndpointId, &Arc<Endpoint>)| {
                endpoint.profiles.iter().any(|name| profiles.contains(name))
            };
            found.extend(
                self.compiled
                    .iter()
                    .filter(names_one)
                    .map(|(id, _)| id.clone()),
            );
        }
        found
    }

    /// Those that selectors with these hints may select; `None` is all of them.
    fn candidates(&self, hints: &[Hint]) -> Option<BTreeSet<&EndpointId>> {
        let mut found = BTreeSet::new();
        for hint in hints {
            match hint {
                // Labels that Calico adds are in no index.
                Hint::Label(key, _) if key.starts_with("projectcalico.org/") => return None,
                Hint::Label(key, value) => {
                    let number = label_number(key, value);
                    let here = self.by_label.get(&number).into_iter().flatten();
                    found.extend(here.map(Arc::as_ref));
                    found.extend(&self.inheriting);
                }
                Hint::Namespace(name) => {
                    found.extend(self.by_namespace.get(name).into_iter().flatten());
                }
                Hint::None => return None,
            }
        }
        Some(found)
    }

    /// The endpoint goes into the table as told.
    fn compile(&mut self, id: &EndpointId) {
        if let Some(old) = self.compiled.remove(id) {
            if let Some(others) = self.by_namespace.get_mut(&old.namespace) {
                others.remove(id);
                if others.is_empty() {
                    self.by_namespace.remove(&old.namespace);
                }
            }
            self.inheriting.remove(id);
            for label in &old.labels {
                let number = label_number(label.0, label.1);
                if let Some(others) = self.by_label.get_mut(&number) {
                    others.remove(id);
                    if others.is_empty() {
                        self.by_label.remove(&number);
                    }
                }
            }
        }
        if let Some(new) = self.told.get(id) {
            let shared = Arc::new(id.clone());
            for label in &new.labels {
                let others = self.by_label.entry(label_number(label.0, label.1));
                others.or_default().insert(Arc::clone(&shared));
            }
            if !new.profiles.is_empty() {
                self.inheriting.insert(id.clone());
            }
            self.by_namespace
                .entry(new.namespace.clone())
                .or_default()
                .insert(id.clone());
            self.compiled.insert(id.clone(), Arc::clone(new));
        }
    }
}

/// A label as a number; others may have the same.
fn label_number(key: &str, value: &str) -> u64 {
    content_number(&(key, value))
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
