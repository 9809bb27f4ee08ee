//! Sets whose elements come and go: counted references, and sizes that follow from counts.

use crate::ruleset::changes::{Changes, ElementChanges};
use crate::ruleset::{Element, KeyType, Ruleset, Set, SetHeader, SetKind, Verdict};
use std::collections::{BTreeMap, BTreeSet};

type Elements = BTreeMap<Element, Option<Verdict>>;

/// Verdict maps are replaced only where a node has more pods than most ever have: it takes three
/// transactions.
const LEAST_OF_MAPS: u32 = 1024;

/// Hash sets by base name. In the kernel a set has its base name and the logarithm of its size:
/// where it grows it is replaced by one of another name.
#[derive(Debug, Default)]
pub(super) struct Sets {
    live: BTreeMap<String, Live>,
    touched: BTreeSet<String>,
    /// Names in the ruleset of sets that are not used any more.
    forgotten: BTreeSet<String>,
}

#[derive(Debug)]
struct Live {
    key: Vec<KeyType>,
    verdict_map: bool,
    /// The ranges that the set has to hold, of a set of ranges.
    ranges: Option<BTreeSet<Element>>,
    /// The name in the ruleset; empty before the first commit.
    name: String,
    /// References beyond the first, of elements with more than one.
    extra: BTreeMap<Element, u32>,
    /// Changes of the number of references since the last commit, in the order they came.
    deltas: Vec<(Element, i64)>,
    /// Verdicts set (`Some`) or removed since the last commit.
    verdicts: BTreeMap<Element, Option<Verdict>>,
}

impl Sets {
    /// A set, empty at first.
    pub(super) fn declare(&mut self, base: &str, key: &[KeyType], verdict_map: bool) {
        self.add(base, key, verdict_map, None);
    }

    /// A set of ranges, empty at first.
    pub(super) fn declare_ranges(&mut self, base: &str, key: &[KeyType]) {
        self.add(base, key, false, Some(BTreeSet::new()));
    }

    /// What a set of ranges has to hold.
    pub(super) fn replace_ranges(&mut self, base: &str, ranges: BTreeSet<Element>) {
        if let Some(live) = self.live.get_mut(base) {
            live.ranges = Some(ranges);
            self.touched.insert(base.to_owned());
        }
    }

    fn add(
        &mut self,
        base: &str,
        key: &[KeyType],
        verdict_map: bool,
        ranges: Option<BTreeSet<Element>>,
    ) {
        let live = Live {
            key: key.to_vec(),
            verdict_map,
            ranges,
            name: String::new(),
            extra: BTreeMap::new(),
            deltas: vec![],
            verdicts: BTreeMap::new(),
        };
        self.live.insert(base.to_owned(), live);
        self.touched.insert(base.to_owned());
    }

    /// Nobody uses the set any more.
    pub(super) fn forget(&mut self, base: &str) {
        if let Some(live) = self.live.remove(base) {
            self.touched.remove(base);
            if !live.name.is_empty() {
                self.forgotten.insert(live.name);
            }
        }
    }

    /// Adds to the number of references of an element, or subtracts from it.
    pub(super) fn count(&mut self, base: &str, element: Element, delta: i64) {
        if let Some(live) = self.live.get_mut(base) {
            live.deltas.push((element, delta));
            if !self.touched.contains(base) {
                self.touched.insert(base.to_owned());
            }
        }
    }

    /// Gives an element of a verdict map its verdict, or removes it.
    pub(super) fn assign(&mut self, base: &str, element: Element, verdict: Option<Verdict>) {
        if let Some(live) = self.live.get_mut(base) {
            live.verdicts.insert(element, verdict);
            self.touched.insert(base.to_owned());
        }
    }

    /// The name that rules have to use, as of the last commit.
    pub(super) fn name(&self, base: &str) -> String {
        self.live
            .get(base)
            .map(|live| live.name.clone())
            .unwrap_or_default()
    }

    /// Puts what happened since the last commit into `changes`; returns the base names of sets
    /// that have another name than before.
    pub(super) fn commit(&mut self, from: &Ruleset, changes: &mut Changes) -> BTreeSet<String> {
        changes.gone_sets.append(&mut self.forgotten);
        let mut renamed = BTreeSet::new();
        for base in std::mem::take(&mut self.touched) {
            if let Some(live) = self.live.get_mut(&base)
                && live.commit(&base, from, changes)
            {
                renamed.insert(base);
            }
        }
        renamed
    }
}

impl Live {
    fn commit(&mut self, base: &str, from: &Ruleset, changes: &mut Changes) -> bool {
        let none = Elements::new();
        let old = from.sets.get(&self.name).map_or(&none, |set| &set.elements);
        let mut change = self.settle_counts(old);
        self.settle_verdicts(old, &mut change);
        self.settle_ranges(old, &mut change);
        let kept = old.len() - change.removed.len();
        let size = self.ranges.is_none().then(|| {
            let declared = from.sets.get(&self.name).and_then(|set| set.header.size);
            let size = resized(declared, kept + change.added.len());
            let least = if self.verdict_map { LEAST_OF_MAPS } else { 0 };
            size.max(least)
        });
        let name = match size {
            Some(size) => format!("{base}_{:02}", size.ilog2()),
            None => base.to_owned(),
        };
        if name == self.name {
            if !(change.added.is_empty() && change.removed.is_empty()) {
                changes.elements.insert(name, change);
            }
            return false;
        }
        let mut elements = old.clone();
        elements.retain(|element, _| !change.removed.contains_key(element));
        elements.append(&mut change.added);
        let header = SetHeader {
            key: self.key.clone(),
            kind: match self.ranges {
                None => SetKind::Hash,
                Some(_) => SetKind::Interval,
            },
            verdict_map: self.verdict_map,
            size,
        };
        if !self.name.is_empty() {
            changes.gone_sets.insert(std::mem::take(&mut self.name));
        }
        changes
            .new_sets
            .insert(name.clone(), Set { header, elements });
        self.name = name;
        true
    }

    fn settle_counts(&mut self, old: &Elements) -> ElementChanges {
        let mut deltas = std::mem::take(&mut self.deltas);
        deltas.sort_by(|(a, _), (b, _)| a.cmp(b));
        let (mut added, mut removed) = (vec![], vec![]);
        for run in deltas.chunk_by(|(a, _), (b, _)| a == b) {
            let delta: i64 = run.iter().map(|(_, delta)| delta).sum();
            let Some((element, _)) = run.first() else {
                continue;
            };
            let is_in = old.contains_key(element);
            let extra = self.extra.remove(element).unwrap_or_default();
            let references = i64::from(is_in) + i64::from(extra) + delta;
            debug_assert!(
                references >= 0,
                "more references dropped than taken: {element:?}"
            );
            if let Ok(extra @ 1..) = u32::try_from(references - 1) {
                self.extra.insert(element.clone(), extra);
            }
            match (is_in, references > 0) {
                (false, true) => added.push((element.clone(), None)),
                (true, false) => removed.push((element.clone(), None)),
                _ => {}
            }
        }
        // Sorted already, so that the maps are built in one pass.
        ElementChanges {
            added: added.into_iter().collect(),
            removed: removed.into_iter().collect(),
        }
    }

    fn settle_ranges(&self, old: &Elements, change: &mut ElementChanges) {
        let Some(ranges) = &self.ranges else { return };
        let gone = old.iter().filter(|(element, _)| !ranges.contains(element));
        change
            .removed
            .extend(gone.map(|(element, _)| (element.clone(), None)));
        let added = ranges.iter().filter(|element| !old.contains_key(element));
        change
            .added
            .extend(added.map(|element| (element.clone(), None)));
    }

    fn settle_verdicts(&mut self, old: &Elements, change: &mut ElementChanges) {
        for (element, verdict) in std::mem::take(&mut self.verdicts) {
            let before = old.get(&element);
            if before.and_then(Option::as_ref) == verdict.as_ref() {
                continue;
            }
            if let Some(before) = before {
                change.removed.insert(element.clone(), before.clone());
            }
            if let Some(verdict) = verdict {
                change.added.insert(element, Some(verdict));
            }
        }
    }
}

/// The size of a set that has one already: it shrinks only when it would be no more than half as
/// full as it may be, so that a count that goes up and down does not replace the set each time.
/// Sizes, and nothing else, depend on history.
fn resized(declared: Option<u32>, count: usize) -> u32 {
    let wanted = size_for(count);
    match declared {
        Some(declared) if wanted < declared && size_for(count * 2) >= declared => declared,
        _ => wanted,
    }
}

/// The declared size of a set of `count` elements: a power of four from 64 on, at most three
/// quarters full.
pub(super) fn size_for(count: usize) -> u32 {
    let mut size = 64_u32;
    while count > size as usize / 4 * 3 && size < 1 << 30 {
        size *= 4;
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::{Op, Part};

    fn element(n: u32) -> Element {
        Element::exact(&[Part::Address(std::net::Ipv4Addr::from(n).into())])
    }

    fn commit(sets: &mut Sets, ruleset: &mut Ruleset) -> Vec<Op> {
        let mut changes = Changes::default();
        sets.commit(ruleset, &mut changes);
        let ops = changes.ops(ruleset);
        changes.apply_to(ruleset);
        ops
    }

    #[test]
    fn an_element_leaves_with_its_last_reference() {
        let (mut sets, mut ruleset) = (Sets::default(), Ruleset::default());
        sets.declare("a", &[KeyType::Ipv4], false);
        sets.count("a", element(1), 1);
        sets.count("a", element(1), 1);
        commit(&mut sets, &mut ruleset);
        sets.count("a", element(1), -1);
        assert!(commit(&mut sets, &mut ruleset).is_empty());
        sets.count("a", element(1), -1);
        let gone = vec![(element(1), None)];
        assert_eq!(
            commit(&mut sets, &mut ruleset),
            [Op::DeleteElements("a_06".into(), gone)]
        );
    }

    #[test]
    fn a_set_that_fills_up_is_replaced_by_a_larger_one() {
        let (mut sets, mut ruleset) = (Sets::default(), Ruleset::default());
        sets.declare("a", &[KeyType::Ipv4], false);
        (0..48).for_each(|n| sets.count("a", element(n), 1));
        commit(&mut sets, &mut ruleset);
        sets.count("a", element(48), 1);
        commit(&mut sets, &mut ruleset);
        assert_eq!(ruleset.sets.keys().collect::<Vec<_>>(), ["a_08"]);
        assert_eq!(ruleset.sets["a_08"].elements.len(), 49);
        assert_eq!(ruleset.sets["a_08"].header.size, Some(256));
        sets.count("a", element(48), -1);
        commit(&mut sets, &mut ruleset);
        assert_eq!(ruleset.sets.keys().collect::<Vec<_>>(), ["a_08"]);
        (24..48).for_each(|n| sets.count("a", element(n), -1));
        commit(&mut sets, &mut ruleset);
        assert_eq!(ruleset.sets.keys().collect::<Vec<_>>(), ["a_06"]);
    }
}
