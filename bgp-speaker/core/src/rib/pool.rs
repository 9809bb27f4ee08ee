//! Values that many share, each stored once and known by a number of 32 bits.

use hashbrown::HashTable;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::marker::PhantomData;

/// A value of a [`Pool`], for as long as it is held.
#[derive(Debug)]
pub(crate) struct PoolId<T>(u32, PhantomData<fn() -> T>);

impl<T> PoolId<T> {
    /// No value; what a pool never gives out.
    pub(crate) const NONE: Self = Self(0, PhantomData);

    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }
}

// Derived, these would ask the same of `T`.
impl<T> Clone for PoolId<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for PoolId<T> {}
impl<T> PartialEq for PoolId<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for PoolId<T> {}
impl<T> PartialOrd for PoolId<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for PoolId<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// Values by number. A value that nobody holds any more is forgotten and its number used again.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    index: HashTable<u32>,
}

#[derive(Debug)]
struct Entry<T> {
    value: Option<T>,
    holders: u32,
    hash: u32,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
        }
    }
}

impl<T> Pool<T> {
    /// The number of the value that hashes like `key` and `is` it, or else of what `make` makes.
    /// It is to be held at once, or it stays unheld for ever.
    pub(crate) fn intern(
        &mut self,
        key: &impl Hash,
        is: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> PoolId<T> {
        // A fixed hasher: the same input gives the same run.
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key) as u32;
        let entries = &self.entries;
        let found = self.index.find(spread(hash), |index| {
            let entry = &entries[*index as usize];
            entry.hash == hash && entry.value.as_ref().is_some_and(&is)
        });
        if let Some(index) = found {
            return PoolId(*index + 1, PhantomData);
        }
        let entry = Entry {
            value: Some(make()),
            holders: 0,
            hash,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1)
                    .expect("invariant: values do not outgrow memory")
            }
        };
        let entries = &self.entries;
        self.index.insert_unique(spread(hash), index, |index| {
            spread(entries[*index as usize].hash)
        });
        PoolId(index + 1, PhantomData)
    }

    /// The value; none for [`PoolId::NONE`].
    pub(crate) fn get(&self, id: PoolId<T>) -> Option<&T> {
        let index = (id.0 as usize).checked_sub(1)?;
        self.entries.get(index)?.value.as_ref()
    }

    /// One more holds the value.
    pub(crate) fn hold(&mut self, id: PoolId<T>) {
        if let Some(index) = (id.0 as usize).checked_sub(1) {
            self.entries[index].holders += 1;
        }
    }

    /// One less holds the value.
    pub(crate) fn release(&mut self, id: PoolId<T>) {
        let Some(index) = (id.0 as usize).checked_sub(1) else {
            return;
        };
        let entry = &mut self.entries[index];
        entry.holders -= 1;
        if entry.holders > 0 {
            return;
        }
        entry.value = None;
        let number = id.0 - 1;
        let found = self
            .index
            .find_entry(spread(entry.hash), |other| *other == number);
        if let Ok(found) = found {
            found.remove();
        }
        self.free.push(number);
        if self.index.is_empty() {
            *self = Self::default();
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

/// The table looks at the upper bits too.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intern(pool: &mut Pool<String>, text: &str) -> PoolId<String> {
        let id = pool.intern(&text, |known| known == text, || text.to_owned());
        pool.hold(id);
        id
    }

    #[test]
    fn equal_values_are_stored_once_and_forgotten_with_their_last_holder() {
        let mut pool = Pool::default();
        let (a, b) = (intern(&mut pool, "a"), intern(&mut pool, "b"));
        assert_eq!(intern(&mut pool, "a"), a);
        assert_ne!(a, b);
        pool.release(a);
        assert_eq!(pool.get(a).map(String::as_str), Some("a"));
        pool.release(a);
        assert_eq!((pool.get(a), pool.len()), (None, 1));
        assert_eq!(pool.get(PoolId::NONE), None);
        let c = intern(&mut pool, "c");
        assert_eq!(pool.get(c).map(String::as_str), Some("c"));
        assert_eq!(pool.get(b).map(String::as_str), Some("b"));
    }

    #[test]
    fn values_that_come_and_go_take_no_more_room() {
        let mut pool = Pool::default();
        let kept = intern(&mut pool, "kept");
        for number in 0..1000 {
            let id = intern(&mut pool, &number.to_string());
            pool.release(id);
        }
        assert_eq!(pool.entries.len(), 2);
        assert_eq!(pool.get(kept).map(String::as_str), Some("kept"));
    }
}
