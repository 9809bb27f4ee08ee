//! From the layouts before to the layouts after: which sets, prefixes and counters come and go.

use super::counters::Counted;
use super::groups::Renewed;
use super::layout::Layout;
use super::pod_sets::{PodSet, twin};
use super::{Compiler, MemberId};
use crate::endpoint::EndpointId;
use crate::ir::{Asked, Member, PeerSelector};
use crate::ruleset::Set;
use crate::ruleset::changes::Changes;
use std::collections::{BTreeMap, BTreeSet};

/// How many layouts use what is named by its content.
#[derive(Debug, Default)]
pub(super) struct Users {
    fixed: BTreeMap<String, (Set, usize)>,
    counters: BTreeMap<String, (Counted, usize)>,
}

impl Users {
    pub(super) fn counted(&self, name: &str) -> Option<&Counted> {
        self.counters.get(name).map(|(counted, _)| counted)
    }

    pub(super) fn all_counted(&self) -> impl Iterator<Item = (&str, &Counted)> {
        let all = self.counters.iter();
        all.map(|(name, (counted, _))| (name.as_str(), counted))
    }

    fn add(&mut self, layout: &Layout) {
        for (name, set) in &layout.fixed {
            let entry = self.fixed.entry(name.clone());
            entry.or_insert_with(|| (set.clone(), 0)).1 += 1;
        }
        for (name, counted) in &layout.counters {
            let entry = self.counters.entry(name.clone());
            let (now, users) = entry.or_insert_with(|| (counted.clone(), 0));
            now.clone_from(counted);
            *users += 1;
        }
    }

    fn remove(&mut self, layout: &Layout) {
        layout
            .fixed
            .keys()
            .for_each(|name| release(&mut self.fixed, name));
        layout
            .counters
            .keys()
            .for_each(|name| release(&mut self.counters, name));
    }
}

fn release<V>(all: &mut BTreeMap<String, (V, usize)>, name: &str) {
    if let Some((_, users)) = all.get_mut(name) {
        *users -= 1;
        if *users == 0 {
            all.remove(name);
        }
    }
}

impl Compiler {
    /// Settles who shares which chain. Returns the names of chains to be rendered.
    pub(super) fn relay(&mut self, again: bool, changes: &mut Changes) -> BTreeSet<String> {
        let (mut renewed, gone) = self.groups.settle(&self.options);
        if again {
            renewed.extend(self.groups.lay_out_again(&self.options));
        }
        let groups = std::mem::take(&mut self.groups);
        for Renewed { name, old } in &renewed {
            if let Some(layout) = groups.layout(name) {
                self.users.add(layout);
                self.take_up(old.as_ref(), layout);
            }
        }
        let replaced = renewed
            .iter()
            .filter_map(|one| Some((one.old.as_ref()?, &one.name)));
        let replaced = replaced.map(|(old, name)| (old, groups.layout(name)));
        for (old, new) in replaced.chain(gone.iter().map(|old| (old, None))) {
            self.users.remove(old);
            self.lay_down(old, new);
            let stays = |name: &&String| new.is_some_and(|new| new.names().any(|n| n == *name));
            for name in old.names().filter(|name| !stays(name)) {
                changes.chains.insert(name.clone(), None);
            }
        }
        self.groups = groups;
        self.fill();
        self.put_prefixes();
        if !(renewed.is_empty() && gone.is_empty()) {
            self.change_fixed(changes);
        }
        renewed.into_iter().map(|one| one.name).collect()
    }

    /// Sets of peers that a layout uses and the one before did not, or used with other selectors.
    fn take_up(&mut self, old: Option<&Layout>, new: &Layout) {
        for (base, set) in &new.pod_sets {
            let before = old.and_then(|old| old.pod_sets.get(base));
            if before == Some(set) {
                continue;
            }
            let known = self.pod_sets.put(base, set);
            if before.is_none() {
                self.pod_sets.add_user(base);
            }
            match known {
                None => {
                    self.sets.declare(base, &set.key(), false);
                    if set.has_twin() {
                        self.sets.declare_ranges(&twin(base), &set.key());
                    }
                    set.terms.keys().for_each(|peer| self.add_peer(base, peer));
                }
                Some(known) if known != *set => self.change_terms(base, &known, set),
                Some(_) => {}
            }
        }
    }

    /// Sets of peers that the layout before used and the one after does not.
    fn lay_down(&mut self, old: &Layout, new: Option<&Layout>) {
        let stays = |base: &String| new.is_some_and(|new| new.pod_sets.contains_key(base));
        for base in old.pod_sets.keys().filter(|base| !stays(base)) {
            let Some(set) = self.pod_sets.remove_user(base) else {
                continue;
            };
            self.sets.forget(base);
            self.sets.forget(&twin(base));
            for peer in set.terms.keys() {
                self.members.remove_user(peer, base);
            }
        }
    }

    fn change_terms(&mut self, base: &str, old: &PodSet, new: &PodSet) {
        match (old.has_twin(), new.has_twin()) {
            (false, true) => self.sets.declare_ranges(&twin(base), &new.key()),
            (true, false) => self.sets.forget(&twin(base)),
            (false, false) | (true, true) => {}
        }
        for peer in new
            .terms
            .keys()
            .filter(|peer| !old.terms.contains_key(*peer))
        {
            self.add_peer(base, peer);
        }
        for (peer, terms) in &old.terms {
            let kept = new.terms.get(peer);
            let gone = terms
                .iter()
                .filter(|term| kept.is_none_or(|kept| !kept.contains(*term)));
            let gone: Vec<_> = gone.map(|term| (old, term, -1)).collect();
            let added = kept
                .into_iter()
                .flatten()
                .filter(|term| !terms.contains(*term));
            let changed: Vec<_> = gone
                .into_iter()
                .chain(added.map(|term| (new, term, 1)))
                .collect();
            if changed.is_empty() {
                continue;
            }
            for id in self.members.of(peer, base) {
                let Some(member) = find(&self.endpoints, &self.told, &id) else {
                    continue;
                };
                for (set, term, delta) in &changed {
                    set.count_term(base, term, member, *delta, &mut self.sets);
                }
            }
            if kept.is_none() {
                self.members.remove_user(peer, base);
            }
        }
    }

    fn add_peer(&mut self, base: &str, peer: &PeerSelector) {
        let (endpoints, told) = (&self.endpoints, &self.told);
        for id in self.members.add_user(peer, base) {
            let member = find(endpoints, told, &id);
            if let (Some(set), Some(member)) = (self.pod_sets.get(base), member) {
                set.count(base, peer, member, 1, &mut self.sets);
            }
        }
    }

    /// Members of selectors that are used for the first time.
    fn fill(&mut self) {
        let hints = self.members.unfilled();
        if hints.is_empty() {
            return;
        }
        let owners = self.told.owners();
        let candidates = self
            .endpoints
            .candidates(&hints, &self.told.profiles.values);
        let some = candidates.iter().flatten();
        let some = some.filter_map(|id| Some((*id, self.endpoints.get(id)?)));
        let all = candidates.is_none().then(|| self.endpoints.all());
        let endpoints = some.chain(all.into_iter().flatten());
        let endpoints = endpoints
            .map(|(id, endpoint)| (MemberId::Endpoint(id.clone()), Member::Endpoint(endpoint)));
        let everybody = endpoints.chain(self.told.members());
        let everybody = everybody.map(|(id, member)| (id, Asked::new(member, owners)));
        self.members.fill(everybody, &self.pod_sets, &mut self.sets);
    }

    /// Prefixes of members of which some changed.
    fn put_prefixes(&mut self) {
        for base in self.members.take_prefixes() {
            let Some(set) = self.pod_sets.get(&base).filter(|set| set.has_twin()) else {
                continue;
            };
            let elements = set.prefixes(|peer| {
                let wide = self.members.wide(peer);
                let members = wide.filter_map(|id| self.told.member(id));
                members.flat_map(|member| member.wide()).collect()
            });
            self.sets.replace_ranges(&twin(&base), elements);
        }
    }

    /// Sets and counters that are named by content, as far as they come or go.
    fn change_fixed(&self, changes: &mut Changes) {
        let is_fixed = |name: &String| name.starts_with(FIXED) && !super::base::is_own_set(name);
        for (name, (set, _)) in &self.users.fixed {
            if !self.ruleset.sets.contains_key(name) {
                changes.new_sets.insert(name.clone(), set.clone());
            }
        }
        let there = self.ruleset.sets.keys().filter(|name| is_fixed(name));
        let gone = there.filter(|name| !self.users.fixed.contains_key(*name));
        changes.gone_sets.extend(gone.cloned());
        let counters: BTreeSet<&String> = self.users.counters.keys().collect();
        let there: BTreeSet<&String> = self.ruleset.counters.iter().collect();
        let new = counters.difference(&there);
        changes.new_counters.extend(new.map(|name| (*name).clone()));
        let gone = there.difference(&counters);
        changes
            .gone_counters
            .extend(gone.map(|name| (*name).clone()));
    }
}

/// Names of fixed sets begin with one of these letters, and those of other sets never do.
const FIXED: [char; 5] = ['c', 'f', 'p', 'q', 'r'];

fn find<'a>(
    endpoints: &'a super::Endpoints,
    told: &'a super::Told,
    id: &'a MemberId,
) -> Option<Member<'a>> {
    match id {
        MemberId::Endpoint(id) => endpoint(endpoints, id),
        other => told.member(other),
    }
}

fn endpoint<'a>(endpoints: &'a super::Endpoints, id: &EndpointId) -> Option<Member<'a>> {
    endpoints.get(id).map(Member::Endpoint)
}
