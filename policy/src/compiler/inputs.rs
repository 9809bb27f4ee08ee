//! What the compiler is told.

use super::options::Options;
use super::{Compiler, HostPort, NetworkSets};
use crate::endpoint::{Endpoint, EndpointId};
use crate::input::{NodePeer, Policy, PolicyKey};
use crate::ir::with_name;
use ipnet::IpNet;
use model::{EndpointSlice, HostEndpoint, Labels, NetworkSet, Profile, ServiceAccount, Tier};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

impl Compiler {
    /// A namespace has these labels, or is gone. Each has the label
    /// `kubernetes.io/metadata.name`, told or not.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        let labels = labels.map(|labels| with_name(labels, name));
        self.told.namespaces.set(name.to_owned(), labels);
    }

    /// A policy of any kind says this, or is gone.
    pub fn set_policy(&mut self, key: &PolicyKey, policy: Option<Policy>) {
        self.policies.set(key, policy, &mut self.dirty.policies);
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
        let table = &mut self.told.host_interfaces;
        let gone: Vec<String> = table.values.keys().cloned().collect();
        for name in gone
            .into_iter()
            .filter(|name| !interfaces.contains_key(name))
        {
            table.set(name, None);
        }
        for (name, addresses) in interfaces {
            table.set(name, Some(addresses));
        }
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
        self.endpoints.set(id, endpoint);
    }

    /// The addresses that matter besides those of pods.
    pub fn set_network(&mut self, network: NetworkSets) {
        let before = std::mem::replace(&mut self.network, network);
        self.dirty.network.get_or_insert(before);
    }

    /// All networks behind pods of this node that are routers, by the pod's interface: the pod may
    /// speak for them, and what is for them may go there. The pod's policies are theirs.
    pub fn set_behind_pods(&mut self, networks: BTreeSet<(u32, IpNet)>) {
        if self.behind != networks {
            self.behind = networks;
            self.dirty.behind = true;
        }
    }

    /// All ports of this node that lead to pods, and where.
    pub fn set_host_ports(&mut self, ports: BTreeMap<HostPort, SocketAddr>) {
        self.host_ports.set(ports);
    }

    /// The table is to be made with these.
    pub fn set_options(&mut self, options: Options) {
        if self.options != options {
            self.options = options;
            self.dirty.options = true;
        }
    }
}
