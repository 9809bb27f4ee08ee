//! Namespaces, policies and endpoints -> the table, incrementally.

mod assign;
mod base;
mod behind;
mod counters;
mod dispatch;
pub mod dns;
mod endpoints;
mod groups;
mod host;
mod host_ports;
mod inputs;
mod layout;
mod members;
mod moves;
mod options;
mod parts;
mod pod_sets;
mod policies;
mod ports;
mod relay;
mod sets;
mod told;

pub use counters::{Action, Counted, Direction, Reason};
pub use host_ports::HostPort;
pub use options::{DropLog, Failsafe, Options};

use crate::ir;
use crate::ruleset::changes::Changes;
use crate::ruleset::{Op, Ruleset};
use base::Base;
use dispatch::Dispatch;
use endpoints::Endpoints;
use groups::Groups;
use host::HostChains;
use host_ports::HostPorts;
use ipnet::IpNet;
use members::{MemberId, Members};
use pod_sets::PodSets;
use policies::{Policies, Subjects};
use relay::Users;
use sets::Sets;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use told::Told;

/// Addresses that matter besides those of pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSets {
    /// Sources whose packets are masqueraded where they leave the cluster.
    pub masquerade: BTreeSet<IpNet>,
    /// Destinations inside the cluster: no masquerading towards them.
    pub pools: BTreeSet<IpNet>,
    /// Source ports of what is masqueraded, first to last; none where the kernel chooses.
    pub nat_ports: Option<(u16, u16)>,
    /// Source address of what is masqueraded over IPv4; none is that of the interface.
    pub nat_address: Option<Ipv4Addr>,
    /// Bits of the mark that packets get on their way into a VXLAN: with a mark, the kernel chooses
    /// the path flow by flow, and does not keep one for each end.
    pub spread: Option<u32>,
    /// Sources allowed to send us IP in IP, both families.
    pub ipip_peers: BTreeSet<IpAddr>,
    /// Our tunnel's local address: what is sent to it has to come from one of the peers. None
    /// while we have no tunnel: the tunnels of others are not looked at.
    pub ipip_local: Option<Ipv4Addr>,
    /// Likewise of the tunnel over IPv6.
    pub ip6_local: Option<Ipv6Addr>,
    /// Sources allowed to send us VXLAN, both families.
    pub vxlan_peers: BTreeSet<IpAddr>,
    /// Local addresses of our VXLAN devices: in their families VXLAN has to come from one of the
    /// peers.
    pub vxlan_local: BTreeSet<IpAddr>,
    /// Announced ranges of Services: what is forwarded there belongs to none that is in use, and
    /// would come back from whoever it is sent to.
    pub services: BTreeSet<IpNet>,
    /// Tells the sender so.
    pub reject_unused_services: bool,
}

/// Compiles what it has been told to a [`Ruleset`]: a function of the current state, whatever the
/// order of the updates was, but for the declared sizes of sets that shrank.
#[derive(Debug)]
pub struct Compiler {
    options: Options,
    told: Told,
    policies: Policies,
    endpoints: Endpoints,
    network: NetworkSets,
    behind: BTreeSet<(u32, IpNet)>,
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
    /// Whom policies that changed may be about, by namespace; none for cluster-wide ones.
    policies: BTreeMap<Option<String>, Subjects>,
    /// The network as it was compiled last.
    network: Option<NetworkSets>,
    /// Networks behind pods.
    behind: bool,
    options: bool,
}

impl Compiler {
    /// A compiler that knows nothing yet: its table lets no pod speak.
    pub fn new(options: Options) -> Self {
        let mut sets = Sets::default();
        base::declare(&mut sets);
        Self {
            options,
            told: Told::default(),
            policies: Policies::default(),
            endpoints: Endpoints::default(),
            network: NetworkSets::default(),
            behind: BTreeSet::new(),
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
        let base_changed = self.dispatch(affected.hosts || dirty.options, &mut changes);
        let host_ports = self.host_ports.settle(&mut self.sets, &mut changes);
        let renamed = self.sets.commit(&self.ruleset, &mut changes);
        if host_ports || renamed.iter().any(|name| self.host_ports.looks_up(name)) {
            let prefix = &self.options.interface_prefix;
            self.host_ports
                .render(prefix, &self.sets, &self.ruleset, &mut changes);
        }
        let base_renamed = renamed.iter().any(|name| base::is_base(name));
        if dirty.network.is_some() || dirty.behind || dirty.options || base_changed || base_renamed
        {
            self.render_base(&mut changes);
        }
        // Sets keep their names nearly always.
        let some = !(renewed.is_empty() && renamed.is_empty());
        for (name, layout) in self.groups.layouts().filter(|_| base_renamed || some) {
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

    /// Whether the table, as of the last [`Self::resolve`], has chains for single interfaces of this
    /// node.
    pub fn has_host_endpoints_of_interfaces(&self) -> bool {
        self.hosts.names_interfaces()
    }

    fn watches_names(&self) -> bool {
        let mut in_use = self.members.in_use();
        in_use.any(|peer| matches!(peer, ir::PeerSelector::Domains(_)))
    }

    fn render_base(&mut self, changes: &mut Changes) {
        let (chains, own_sets) = Base {
            options: &self.options,
            network: &self.network,
            behind: &self.behind,
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
