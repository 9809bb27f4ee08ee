//! Selectors of peers in use: whom they select, and which sets take their members.
//!
//! A member is compared with the selectors that may select it only: each selector is filed under
//! a label or a namespace without which it can't match, where it has one.

use super::pod_sets::PodSets;
use super::sets::Sets;
use crate::endpoint::EndpointId;
use crate::ir::{Asked, Hint, Member, Owners, PeerSelector};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Names what peers may select.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MemberId {
    Endpoint(EndpointId),
    HostEndpoint(String),
    NetworkSet(Option<String>, String),
    Node(String),
    Domain(String),
    Slice(String, String),
}

/// Members of every selector in use.
#[derive(Debug, Default)]
pub(super) struct Members {
    numbers: BTreeMap<PeerSelector, u32>,
    selectors: BTreeMap<u32, Selected>,
    next: u32,
    filed: Filed,
    /// The selectors that select a member.
    joined: BTreeMap<Arc<MemberId>, BTreeSet<u32>>,
    /// Selectors whose members have not been looked for.
    unfilled: BTreeSet<u32>,
    /// Base names of sets whose prefixes are others than before.
    prefixes: BTreeSet<String>,
}

#[derive(Debug)]
struct Selected {
    peer: PeerSelector,
    members: BTreeSet<Arc<MemberId>>,
    /// Members with prefixes.
    wide: BTreeSet<Arc<MemberId>>,
    /// Base names of the sets that take the members.
    users: BTreeSet<String>,
}

/// Numbers of selectors by what they need.
#[derive(Debug, Default)]
struct Filed {
    labels: BTreeMap<String, BTreeMap<String, BTreeSet<u32>>>,
    keys: BTreeMap<String, BTreeSet<u32>>,
    namespaces: BTreeMap<String, BTreeSet<u32>>,
    rest: BTreeSet<u32>,
}

impl Members {
    /// A member, or what it inherits labels from, is another than before: counts it out of and
    /// into the sets of all selectors that it leaves or joins.
    pub(super) fn set(
        &mut self,
        id: &MemberId,
        old: Option<Member<'_>>,
        new: Option<Member<'_>>,
        owners: Owners<'_>,
        pod_sets: &PodSets,
        sets: &mut Sets,
    ) {
        let same_keys = matches!((old, new), (Some(a), Some(b)) if a.same_keys(b));
        let asked = new.map(|new| Asked::new(new, owners));
        let mut candidates = self.joined.get(id).cloned().unwrap_or_default();
        if let Some(asked) = &asked {
            self.filed.candidates(asked, &mut candidates);
        }
        for number in candidates {
            let Some(selected) = self.selectors.get_mut(&number) else {
                continue;
            };
            let was = old.filter(|_| selected.members.contains(id));
            let is = asked
                .as_ref()
                .filter(|asked| selected.peer.matches(asked))
                .map(|asked| asked.member);
            if was.is_none() && is.is_none() || was.is_some() && is.is_some() && same_keys {
                continue;
            }
            for base in &selected.users {
                let Some(set) = pod_sets.get(base) else {
                    continue;
                };
                for (member, delta) in was.map(|m| (m, -1)).into_iter().chain(is.map(|m| (m, 1))) {
                    set.count(base, &selected.peer, member, delta, sets);
                    if member.wide().next().is_some() {
                        self.prefixes.insert(base.clone());
                    }
                }
            }
            enlist(selected, number, id, is, &mut self.joined);
        }
    }

    /// A set takes the members of a selector. Returns those that were found before, to be counted
    /// in; [`Self::fill`] looks for those of a selector that nobody used.
    pub(super) fn add_user(&mut self, peer: &PeerSelector, base: &str) -> Vec<Arc<MemberId>> {
        let Some(number) = self.numbers.get(peer).copied() else {
            let number = self.next;
            self.next += 1;
            self.numbers.insert(peer.clone(), number);
            self.filed.file(&peer.hint(), number);
            self.unfilled.insert(number);
            let selected = Selected {
                peer: peer.clone(),
                members: BTreeSet::new(),
                wide: BTreeSet::new(),
                users: BTreeSet::from([base.to_owned()]),
            };
            self.selectors.insert(number, selected);
            return vec![];
        };
        let Some(selected) = self.selectors.get_mut(&number) else {
            return vec![];
        };
        selected.users.insert(base.to_owned());
        if !selected.wide.is_empty() {
            self.prefixes.insert(base.to_owned());
        }
        selected.members.iter().cloned().collect()
    }

    /// What the selectors need that [`Self::fill`] has to look for.
    pub(super) fn unfilled(&self) -> Vec<Hint> {
        let unfilled = self.unfilled.iter();
        let selectors = unfilled.filter_map(|number| self.selectors.get(number));
        selectors.map(|selected| selected.peer.hint()).collect()
    }

    /// Looks for the members of selectors that are used for the first time, among `everybody` who
    /// may be one.
    pub(super) fn fill<'a>(
        &mut self,
        everybody: impl Iterator<Item = (MemberId, Asked<'a>)>,
        pod_sets: &PodSets,
        sets: &mut Sets,
    ) {
        let mut filed = Filed::default();
        for number in &self.unfilled {
            if let Some(selected) = self.selectors.get(number) {
                filed.file(&selected.peer.hint(), *number);
            }
        }
        let mut candidates = BTreeSet::new();
        for (id, asked) in everybody {
            candidates.clear();
            filed.candidates(&asked, &mut candidates);
            for number in &candidates {
                let Some(selected) = self.selectors.get_mut(number) else {
                    continue;
                };
                if !selected.peer.matches(&asked) {
                    continue;
                }
                enlist(selected, *number, &id, Some(asked.member), &mut self.joined);
                for base in &selected.users {
                    if let Some(set) = pod_sets.get(base) {
                        set.count(base, &selected.peer, asked.member, 1, sets);
                    }
                }
                if asked.member.wide().next().is_some() {
                    self.prefixes.extend(selected.users.iter().cloned());
                }
            }
        }
        self.unfilled.clear();
    }

    /// A set takes the members of a selector no longer.
    pub(super) fn remove_user(&mut self, peer: &PeerSelector, base: &str) {
        let Some(number) = self.numbers.get(peer).copied() else {
            return;
        };
        let Some(selected) = self.selectors.get_mut(&number) else {
            return;
        };
        selected.users.remove(base);
        if !selected.wide.is_empty() {
            self.prefixes.insert(base.to_owned());
        }
        if !selected.users.is_empty() {
            return;
        }
        let members = std::mem::take(&mut selected.members);
        for id in &members {
            leave(&mut self.joined, id, number);
        }
        self.selectors.remove(&number);
        self.numbers.remove(peer);
        self.filed.remove(&peer.hint(), number);
        self.unfilled.remove(&number);
    }

    /// Members of a selector that a set takes, as far as they were looked for.
    pub(super) fn of(&self, peer: &PeerSelector, base: &str) -> Vec<Arc<MemberId>> {
        let number = self.numbers.get(peer);
        let selected = number.and_then(|number| self.selectors.get(number));
        let selected = selected.filter(|selected| selected.users.contains(base));
        selected
            .into_iter()
            .flat_map(|one| one.members.iter().cloned())
            .collect()
    }

    /// Members of a selector with prefixes.
    pub(super) fn wide(&self, peer: &PeerSelector) -> impl Iterator<Item = &MemberId> {
        let number = self.numbers.get(peer);
        let selected = number.and_then(|number| self.selectors.get(number));
        selected
            .into_iter()
            .flat_map(|one| one.wide.iter().map(Arc::as_ref))
    }

    /// Takes the base names of sets whose prefixes are others than before.
    pub(super) fn take_prefixes(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.prefixes)
    }

    /// The selectors in use.
    pub(super) fn in_use(&self) -> impl Iterator<Item = &PeerSelector> {
        self.numbers.keys()
    }
}

/// Puts a member on the list of a selector, or off it.
fn enlist(
    selected: &mut Selected,
    number: u32,
    id: &MemberId,
    is: Option<Member<'_>>,
    joined: &mut BTreeMap<Arc<MemberId>, BTreeSet<u32>>,
) {
    let Some(member) = is else {
        selected.members.remove(id);
        selected.wide.remove(id);
        leave(joined, id, number);
        return;
    };
    let known = joined.get_key_value(id).map(|(id, _)| Arc::clone(id));
    let id = known.unwrap_or_else(|| Arc::new(id.clone()));
    selected.members.insert(Arc::clone(&id));
    match member.wide().next() {
        Some(_) => drop(selected.wide.insert(Arc::clone(&id))),
        None => drop(selected.wide.remove(&id)),
    }
    joined.entry(id).or_default().insert(number);
}

fn leave(joined: &mut BTreeMap<Arc<MemberId>, BTreeSet<u32>>, id: &MemberId, number: u32) {
    if let Some(numbers) = joined.get_mut(id) {
        numbers.remove(&number);
        if numbers.is_empty() {
            joined.remove(id);
        }
    }
}

impl Filed {
    fn file(&mut self, hint: &Hint, number: u32) {
        let drawer = match hint {
            Hint::Label(key, value) => {
                let of_key = self.labels.entry(key.clone()).or_default();
                of_key.entry(value.clone()).or_default()
            }
            Hint::Key(key) => self.keys.entry(key.clone()).or_default(),
            Hint::Namespace(name) => self.namespaces.entry(name.clone()).or_default(),
            Hint::None => &mut self.rest,
        };
        drawer.insert(number);
    }

    fn remove(&mut self, hint: &Hint, number: u32) {
        match hint {
            Hint::Label(key, value) => {
                if let Some(of_key) = self.labels.get_mut(key) {
                    remove_from(of_key, value, number);
                    if of_key.is_empty() {
                        self.labels.remove(key);
                    }
                }
            }
            Hint::Key(key) => remove_from(&mut self.keys, key, number),
            Hint::Namespace(name) => remove_from(&mut self.namespaces, name, number),
            Hint::None => drop(self.rest.remove(&number)),
        }
    }

    fn candidates(&self, asked: &Asked<'_>, into: &mut BTreeSet<u32>) {
        into.extend(&self.rest);
        if let Some(namespace) = asked.member.namespace() {
            into.extend(self.namespaces.get(namespace).into_iter().flatten());
        }
        asked.each_label(|key, value| {
            let drawer = self.labels.get(key).and_then(|of_key| of_key.get(value));
            into.extend(drawer.into_iter().flatten());
            into.extend(self.keys.get(key).into_iter().flatten());
        });
    }
}

fn remove_from(drawers: &mut BTreeMap<String, BTreeSet<u32>>, name: &str, number: u32) {
    if let Some(drawer) = drawers.get_mut(name) {
        drawer.remove(&number);
        if drawer.is_empty() {
            drawers.remove(name);
        }
    }
}
