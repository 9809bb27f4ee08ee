//! Sets of prefixes by their number in the table: a bit each.

use super::table::SlotId;

/// A set of slots. An empty one takes no memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SlotSet {
    words: Vec<u64>,
    count: usize,
    /// No word before this one has a bit set.
    first: usize,
}

impl SlotSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn contains(&self, slot: SlotId) -> bool {
        let (word, bit) = place(slot);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether it was not there before.
    pub(crate) fn insert(&mut self, slot: SlotId) -> bool {
        let (index, bit) = place(slot);
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        let word = &mut self.words[index];
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        self.first = if self.count == 0 {
            index
        } else {
            self.first.min(index)
        };
        self.count += 1;
        true
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, slot: SlotId) -> bool {
        let (index, bit) = place(slot);
        let Some(word) = self.words.get_mut(index).filter(|word| **word & bit != 0) else {
            return false;
        };
        *word &= !bit;
        self.count -= 1;
        if self.count == 0 {
            *self = Self::default();
        }
        true
    }

    /// In order of number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = SlotId> {
        let words = self.words.iter().enumerate();
        words.flat_map(|(index, word)| {
            let bits = (0..64).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| SlotId::new(index * 64 + bit))
        })
    }

    /// Takes the lowest number out.
    pub(crate) fn pop_first(&mut self) -> Option<SlotId> {
        let words = self.words.get(self.first..)?;
        let skipped = words.iter().position(|word| *word != 0)?;
        self.first += skipped;
        let bit = words[skipped].trailing_zeros() as usize;
        let slot = SlotId::new(self.first * 64 + bit);
        self.remove(slot);
        Some(slot)
    }
}

impl Extend<SlotId> for SlotSet {
    fn extend<I: IntoIterator<Item = SlotId>>(&mut self, slots: I) {
        for slot in slots {
            self.insert(slot);
        }
    }
}

impl FromIterator<SlotId> for SlotSet {
    fn from_iter<I: IntoIterator<Item = SlotId>>(slots: I) -> Self {
        let mut set = Self::default();
        set.extend(slots);
        set
    }
}

fn place(slot: SlotId) -> (usize, u64) {
    (slot.index() / 64, 1 << (slot.index() % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(usize),
        Remove(usize),
        Pop,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..300_usize).prop_map(Step::Insert),
            1 => (0..300_usize).prop_map(Step::Remove),
            1 => Just(Step::Pop),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec(any_step(), 0..200)) {
            let (mut set, mut model) = (SlotSet::default(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Insert(slot) => {
                        prop_assert_eq!(set.insert(SlotId::new(slot)), model.insert(slot));
                    }
                    Step::Remove(slot) => {
                        prop_assert_eq!(set.remove(SlotId::new(slot)), model.remove(&slot));
                    }
                    Step::Pop => {
                        let popped = set.pop_first().map(SlotId::index);
                        prop_assert_eq!(popped, model.pop_first());
                    }
                }
                prop_assert_eq!(set.is_empty(), model.is_empty());
                let all: Vec<usize> = set.iter().map(SlotId::index).collect();
                prop_assert_eq!(all, model.iter().copied().collect::<Vec<_>>());
            }
            for slot in 0..300 {
                prop_assert_eq!(set.contains(SlotId::new(slot)), model.contains(&slot));
            }
        }
    }
}
