//! What was told besides pods and policies, and what of it the table already knows.

use super::members::MemberId;
use crate::input::NodePeer;
use crate::ir::{Member, Owners};
use model::{EndpointSlice, HostEndpoint, Labels, NetworkSet, Profile, ServiceAccount, Tier};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) namespaces: Table<String, Labels>,
    pub(super) tiers: Table<String, Tier>,
    pub(super) network_sets: Table<(Option<String>, String), NetworkSet>,
    pub(super) host_endpoints: Table<String, HostEndpoint>,
    pub(super) host_interfaces: Table<String, BTreeSet<IpAddr>>,
    pub(super) service_accounts: Table<(String, String), ServiceAccount>,
    pub(super) profiles: Table<String, Profile>,
    pub(super) endpoint_slices: Table<(String, String), EndpointSlice>,
    pub(super) nodes: Table<String, NodePeer>,
    pub(super) domains: Table<String, BTreeSet<IpAddr>>,
}

/// Values by key, and what they were when the table was made last.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    pub(super) values: BTreeMap<K, V>,
    pub(super) before: BTreeMap<K, Option<V>>,
}

impl<K: Ord + Clone, V: PartialEq> Table<K, V> {
    pub(super) fn set(&mut self, key: K, value: Option<V>) {
        if self.values.get(&key) == value.as_ref() {
            return;
        }
        let old = match value {
            Some(value) => self.values.insert(key.clone(), value),
            None => self.values.remove(&key),
        };
        self.before.entry(key).or_insert(old);
    }

    /// Takes what differs from what it was, with what it was.
    pub(super) fn take_changed(&mut self) -> Vec<(K, Option<V>)> {
        let before = std::mem::take(&mut self.before).into_iter();
        before
            .filter(|(key, old)| self.values.get(key) != old.as_ref())
            .collect()
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            values: BTreeMap::new(),
            before: BTreeMap::new(),
        }
    }
}

impl Told {
    pub(super) fn owners(&self) -> Owners<'_> {
        Owners {
            namespaces: &self.namespaces.values,
            service_accounts: &self.service_accounts.values,
            profiles: &self.profiles.values,
        }
    }

    /// Everything that peers may select, besides pods.
    pub(super) fn members(&self) -> impl Iterator<Item = (MemberId, Member<'_>)> {
        let sets = self.network_sets.values.iter();
        let sets = sets.map(|((namespace, name), set)| {
            let id = MemberId::NetworkSet(namespace.clone(), name.clone());
            (id, Member::NetworkSet(set))
        });
        let hosts = self.host_endpoints.values.iter();
        let hosts = hosts.map(|(name, host)| {
            (
                MemberId::HostEndpoint(name.clone()),
                Member::HostEndpoint(host),
            )
        });
        let nodes = self.nodes.values.iter();
        let nodes = nodes.map(|(name, node)| (MemberId::Node(name.clone()), Member::Node(node)));
        let domains = self.domains.values.iter();
        let domains = domains.map(|(name, addresses)| {
            (
                MemberId::Domain(name.clone()),
                Member::Domain(name, addresses),
            )
        });
        let slices = self.endpoint_slices.values.iter();
        let slices = slices.map(|((namespace, name), slice)| {
            let id = MemberId::Slice(namespace.clone(), name.clone());
            (id, Member::Slice(slice))
        });
        sets.chain(hosts).chain(nodes).chain(domains).chain(slices)
    }

    /// A member that is no pod.
    pub(super) fn member<'a>(&'a self, id: &'a MemberId) -> Option<Member<'a>> {
        match id {
            MemberId::Endpoint(_) => None,
            MemberId::HostEndpoint(name) => self
                .host_endpoints
                .values
                .get(name)
                .map(Member::HostEndpoint),
            MemberId::NetworkSet(namespace, name) => {
                let key = (namespace.clone(), name.clone());
                self.network_sets.values.get(&key).map(Member::NetworkSet)
            }
            MemberId::Node(name) => self.nodes.values.get(name).map(Member::Node),
            MemberId::Domain(name) => {
                let addresses = self.domains.values.get(name)?;
                Some(Member::Domain(name, addresses))
            }
            MemberId::Slice(namespace, name) => {
                let key = (namespace.clone(), name.clone());
                self.endpoint_slices.values.get(&key).map(Member::Slice)
            }
        }
    }
}
