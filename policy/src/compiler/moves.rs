//! From what was told to members of sets: who joins and who leaves.

use super::endpoints::count_local;
use super::members::MemberId;
use super::policies::Subjects;
use super::{Compiler, Dirty, NetworkSets, base};
use crate::endpoint::EndpointId;
use crate::ir::{Asked, Member};
use crate::ruleset::{Element, Part};
use std::collections::{BTreeMap, BTreeSet};

/// Whose policies may be others than before.
#[derive(Debug, Default)]
pub(super) struct Affected {
    pub(super) interfaces: BTreeSet<u32>,
    pub(super) hosts: bool,
}

impl Compiler {
    pub(super) fn count_peers_of_nodes(&mut self, before: Option<&NetworkSets>) {
        let Some(before) = before else { return };
        let (old, new) = (&before.ipip_peers, &self.network.ipip_peers);
        let gone = old.difference(new).map(|peer| (*peer, -1));
        for (peer, delta) in gone.chain(new.difference(old).map(|peer| (*peer, 1))) {
            let element = Element::exact(&[Part::Address(peer)]);
            let set = base::IPIP[usize::from(peer.is_ipv6())];
            self.sets.count(set, element, delta);
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
    pub(super) fn move_members(&mut self, dirty: &Dirty) -> Affected {
        let namespaces: BTreeSet<String> = keys(self.told.namespaces.take_changed());
        let accounts: BTreeSet<(String, String)> = keys(self.told.service_accounts.take_changed());
        let profiles: BTreeSet<String> = keys(self.told.profiles.take_changed());
        let mut moved = self.endpoints.changed();
        moved.extend(self.endpoints.inheriting(&namespaces, &accounts, &profiles));
        let mut affected = Affected::default();
        for id in moved {
            self.move_endpoint(&id, &mut affected);
        }
        if !dirty.policies.is_empty() {
            let subjects = self.subjects(&dirty.policies);
            affected.interfaces.extend(subjects);
        }
        let tiers = !self.told.tiers.take_changed().is_empty();
        if tiers {
            affected.interfaces.extend(self.dispatch.interfaces());
        }
        affected.hosts = tiers || dirty.policies.contains_key(&None);
        affected.hosts |= !self.told.host_interfaces.take_changed().is_empty();
        self.move_others(&namespaces, &profiles, &mut affected);
        affected
    }

    /// Interfaces of the pods of this node that policies which changed may be about.
    fn subjects(&self, changed: &BTreeMap<Option<String>, Subjects>) -> BTreeSet<u32> {
        let cluster_wide = changed.get(&None);
        let may_be = |interface: &u32| {
            let mut owners = self.dispatch.owners(*interface);
            owners.any(|id| {
                let Some(endpoint) = self.endpoints.get(id) else {
                    return false;
                };
                let asked = Asked::new(Member::Endpoint(endpoint), self.told.owners());
                let own = changed.get(&Some(endpoint.namespace.to_string()));
                let mut changed = own.into_iter().chain(cluster_wide);
                changed.any(|subjects| subjects.may_hold(&asked))
            })
        };
        self.dispatch.interfaces().filter(may_be).collect()
    }

    fn move_endpoint(&mut self, id: &EndpointId, affected: &mut Affected) {
        let (old, new) = self.endpoints.compile(id);
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
        let inherits = |host: &model::HostEndpoint| {
            host.profiles
                .iter()
                .any(|name| profiles.contains(name.as_str()))
        };
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
}

fn keys<K: Ord, V>(changed: Vec<(K, Option<V>)>) -> BTreeSet<K> {
    changed.into_iter().map(|(key, _)| key).collect()
}
