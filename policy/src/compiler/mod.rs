//! Namespaces, policies and endpoints -> the table, incrementally.

mod base;
mod sets;

use crate::endpoint::{Endpoint, EndpointId};
use crate::ruleset::changes::Changes;
use crate::ruleset::{Op, Ruleset};
use ipnet::IpNet;
use model::{Labels, NetworkPolicy};
use sets::Sets;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

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
}

/// Compiles what it has been told to a [`Ruleset`]: a function of the current state, whatever the
/// order of the updates was.
#[derive(Debug)]
pub struct Compiler {
    options: Options,
    namespaces: BTreeMap<String, Labels>,
    policies: BTreeMap<String, BTreeMap<String, NetworkPolicy>>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    network: NetworkSets,
    sets: Sets,
    ruleset: Ruleset,
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
            endpoints: BTreeMap::new(),
            network: NetworkSets::default(),
            sets,
            ruleset: Ruleset::default(),
        }
    }

    /// A namespace has these labels, or is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
    }

    /// A policy says this, or is gone.
    pub fn set_policy(&mut self, namespace: &str, name: &str, policy: Option<NetworkPolicy>) {
        let policies = self.policies.entry(namespace.to_owned()).or_default();
        match policy {
            Some(policy) => drop(policies.insert(name.to_owned(), policy)),
            None => drop(policies.remove(name)),
        }
    }

    /// A pod anywhere in the cluster looks like this, or is gone.
    pub fn set_endpoint(&mut self, id: &EndpointId, endpoint: Option<Endpoint>) {
        match endpoint {
            Some(endpoint) => drop(self.endpoints.insert(id.clone(), endpoint)),
            None => drop(self.endpoints.remove(id)),
        }
    }

    /// The addresses that matter besides those of pods.
    pub fn set_network(&mut self, network: NetworkSets) {
        self.network = network;
    }

    /// The operations that bring the table up to date since the last call, as one valid
    /// transaction; empty if nothing changed.
    pub fn resolve(&mut self) -> Vec<Op> {
        let mut changes = Changes::default();
        self.sets.commit(&self.ruleset, &mut changes);
        let (chains, own_sets) =
            base::chains(&self.options.interface_prefix, &self.network, &self.sets);
        changes.chains = chains
            .into_iter()
            .map(|(name, chain)| (name, Some(chain)))
            .collect();
        changes
            .chains
            .retain(|name, chain| self.ruleset.chains.get(name) != chain.as_ref());
        changes.new_sets.extend(own_sets);
        changes
            .new_sets
            .retain(|name, _| !self.ruleset.sets.contains_key(name));
        let ops = changes.ops(&self.ruleset);
        changes.apply_to(&mut self.ruleset);
        ops
    }

    /// All of the table, as of the last [`Self::resolve`].
    pub fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }
}
