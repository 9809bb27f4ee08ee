//! Changes between two rulesets, and the order of operations that makes them one valid
//! transaction.

use super::{Chain, Element, Op, Ruleset, Set, Verdict};
use std::collections::{BTreeMap, BTreeSet};

type Elements = BTreeMap<Element, Option<Verdict>>;

/// What one transaction changes. A name is in at most one of `new_sets`, `gone_sets` and
/// `elements`.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Sets to create, with their elements.
    pub(crate) new_sets: BTreeMap<String, Set>,
    /// Sets to remove.
    pub(crate) gone_sets: BTreeSet<String>,
    /// Elements of sets that stay.
    pub(crate) elements: BTreeMap<String, ElementChanges>,
    /// Chains to create or rewrite, or to remove (`None`).
    pub(crate) chains: BTreeMap<String, Option<Chain>>,
    /// Counters to create.
    pub(crate) new_counters: BTreeSet<String>,
    /// Counters to remove.
    pub(crate) gone_counters: BTreeSet<String>,
}

/// What changes in one set. An element in both gets another verdict.
#[derive(Debug, Default)]
pub(crate) struct ElementChanges {
    pub(crate) removed: Elements,
    pub(crate) added: Elements,
}

impl Ruleset {
    /// The operations that lead from `self` to `desired`: one valid transaction, empty where they
    /// are equal. None where something keeps its name and changes what can't be changed: the table
    /// has to be replaced.
    pub fn diff(&self, desired: &Ruleset) -> Option<Vec<Op>> {
        if self.needs_rebuild(desired) {
            return None;
        }
        let mut changes = Changes::default();
        for (name, set) in &desired.sets {
            match self.sets.get(name) {
                None => drop(changes.new_sets.insert(name.clone(), set.clone())),
                Some(old) if old.elements == set.elements => {}
                Some(old) => {
                    let change = element_changes(&old.elements, &set.elements);
                    changes.elements.insert(name.clone(), change);
                }
            }
        }
        let gone = self
            .sets
            .keys()
            .filter(|name| !desired.sets.contains_key(*name));
        changes.gone_sets = gone.cloned().collect();
        let missing = |from: &Self, other: &Self| {
            let names = from.counters.difference(&other.counters);
            names.cloned().collect()
        };
        changes.new_counters = missing(desired, self);
        changes.gone_counters = missing(self, desired);
        for (name, chain) in &desired.chains {
            if self.chains.get(name) != Some(chain) {
                changes.chains.insert(name.clone(), Some(chain.clone()));
            }
        }
        for name in self
            .chains
            .keys()
            .filter(|name| !desired.chains.contains_key(*name))
        {
            changes.chains.insert(name.clone(), None);
        }
        Some(changes.ops(self))
    }

    fn needs_rebuild(&self, desired: &Ruleset) -> bool {
        let set = |(name, set): (&String, &Set)| {
            desired
                .sets
                .get(name)
                .is_some_and(|other| other.header != set.header)
        };
        let chain = |(name, chain): (&String, &Chain)| {
            desired
                .chains
                .get(name)
                .is_some_and(|other| other.hook != chain.hook)
        };
        self.sets.iter().any(set) || self.chains.iter().any(chain)
    }
}

fn element_changes(old: &Elements, new: &Elements) -> ElementChanges {
    let missing = |from: &Elements, other: &Elements| {
        let differs = from
            .iter()
            .filter(|(key, value)| other.get(*key) != Some(*value));
        differs
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    ElementChanges {
        removed: missing(old, new),
        added: missing(new, old),
    }
}

impl Changes {
    /// The operations, given the ruleset that they start from. New sets and chains come first,
    /// then what rules look up, rules, dispatch (verdict maps), and deletions in the reverse order
    /// of references. Within a set, deletions come first: they make room.
    pub(crate) fn ops(&self, from: &Ruleset) -> Vec<Op> {
        let mut ops = vec![];
        ops.extend(self.new_counters.iter().cloned().map(Op::AddCounter));
        for (name, set) in &self.new_sets {
            ops.push(Op::AddSet(name.clone(), set.header.clone()));
        }
        for (name, chain) in &self.chains {
            if let (Some(chain), false) = (chain, from.chains.contains_key(name)) {
                ops.push(Op::AddChain(name.clone(), chain.hook.clone()));
            }
        }
        self.push_elements(from, false, &mut ops);
        for (name, chain) in &self.chains {
            let Some(chain) = chain else { continue };
            if from
                .chains
                .get(name)
                .is_some_and(|old| !old.rules.is_empty())
            {
                ops.push(Op::FlushChain(name.clone()));
            }
            if !chain.rules.is_empty() {
                ops.push(Op::AddRules(name.clone(), chain.rules.clone()));
            }
        }
        self.push_elements(from, true, &mut ops);
        self.push_deletions(from, &mut ops);
        ops
    }

    fn push_elements(&self, from: &Ruleset, verdict_maps: bool, ops: &mut Vec<Op>) {
        for (name, change) in &self.elements {
            if from
                .sets
                .get(name)
                .is_some_and(|set| set.header.verdict_map == verdict_maps)
            {
                push_some(ops, Op::DeleteElements, name, &change.removed);
                push_some(ops, Op::AddElements, name, &change.added);
            }
        }
        for (name, set) in &self.new_sets {
            if set.header.verdict_map == verdict_maps {
                push_some(ops, Op::AddElements, name, &set.elements);
            }
        }
    }

    fn push_deletions(&self, from: &Ruleset, ops: &mut Vec<Op>) {
        let gone = || {
            let chains = self.chains.iter().filter(|(_, chain)| chain.is_none());
            chains.filter_map(|(name, _)| Some((name, from.chains.get(name)?)))
        };
        for (name, chain) in gone() {
            if !chain.rules.is_empty() {
                ops.push(Op::FlushChain(name.clone()));
            }
        }
        // Elements of a map hold their chains until the kernel has destroyed the map.
        for name in &self.gone_sets {
            if let Some(set) = from.sets.get(name).filter(|set| set.header.verdict_map) {
                push_some(ops, Op::DeleteElements, name, &set.elements);
            }
        }
        ops.extend(gone().map(|(name, _)| Op::DeleteChain(name.clone())));
        ops.extend(
            self.gone_sets
                .iter()
                .map(|name| Op::DeleteSet(name.clone())),
        );
        ops.extend(self.gone_counters.iter().cloned().map(Op::DeleteCounter));
    }

    /// Carries the changes out.
    pub(crate) fn apply_to(self, ruleset: &mut Ruleset) {
        for (name, change) in self.elements {
            if let Some(set) = ruleset.sets.get_mut(&name) {
                for key in change.removed.keys() {
                    set.elements.remove(key);
                }
                set.elements.extend(change.added);
            }
        }
        for name in self.gone_sets {
            ruleset.sets.remove(&name);
        }
        ruleset.sets.extend(self.new_sets);
        ruleset
            .counters
            .retain(|name| !self.gone_counters.contains(name));
        ruleset.counters.extend(self.new_counters);
        for (name, chain) in self.chains {
            match chain {
                Some(chain) => drop(ruleset.chains.insert(name, chain)),
                None => drop(ruleset.chains.remove(&name)),
            }
        }
    }
}

type ElementList = Vec<(Element, Option<Verdict>)>;

fn push_some(ops: &mut Vec<Op>, op: fn(String, ElementList) -> Op, name: &str, all: &Elements) {
    if !all.is_empty() {
        let list = all
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        ops.push(op(name.to_owned(), list));
    }
}
