//! The table of prefixes: each has a number, and a few octets of its own.
//!
//! The number stays the same as long as anybody may need it, so that what is kept beside the table
//! (Adj-RIB-Outs, sets of prefixes) is an array or a bit set. A million prefixes with one path each
//! take some 45 MB here; a tree of maps would take ten times that.

use super::Announcement;
use super::decision::{Refusal, Verdict};
use super::forwarding::Forwarding;
use crate::rib::pool::PoolId;
use hashbrown::HashTable;
use ipnet::IpNet;
use std::ops::{Index, IndexMut};

/// Number of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotId(u32);

impl SlotId {
    pub(super) fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("invariant: prefixes do not outgrow memory"))
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A path as it is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredPath {
    /// Who announces it with which attributes.
    pub(super) announcement: PoolId<Announcement>,
    /// The peer's path identifier (RFC 7911); 0 without.
    pub(super) path_id: u32,
    pub(super) verdict: Verdict,
    pub(super) stale: bool,
}

impl StoredPath {
    const NONE: Self = Self::new(PoolId::NONE, 0);

    pub(super) const fn new(announcement: PoolId<Announcement>, path_id: u32) -> Self {
        Self {
            announcement,
            path_id,
            verdict: Verdict::Refused(Refusal::ImportPolicy),
            stale: false,
        }
    }
}

/// What is kept for a prefix.
#[derive(Debug)]
pub(super) struct Slot {
    /// What the forwarding table has been told.
    pub(super) installed: PoolId<Forwarding>,
    /// The only path, the usual case. Several are in `Table::several`, and this has their place.
    only: StoredPath,
    place: Place,
    /// Waits for a decision.
    pub(super) dirty: bool,
    /// Waits to be told to the forwarding table.
    pub(super) fib_dirty: bool,
    /// Waits to be given back.
    pub(super) vacant: bool,
    prefix: IpNet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The slot is not in use.
    Free,
    /// There is no path, or one.
    Inline,
    /// `only.path_id` is an index into `Table::several`.
    Several,
}

impl Slot {
    pub(super) fn prefix(&self) -> &IpNet {
        &self.prefix
    }
}

/// Prefixes by number and by name.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<SlotId>,
    index: HashTable<u32>,
    several: Vec<Vec<StoredPath>>,
    free_several: Vec<u32>,
    /// Slots with a path.
    occupied: usize,
    seed: u64,
}

impl Index<SlotId> for Table {
    type Output = Slot;

    fn index(&self, slot: SlotId) -> &Slot {
        &self.slots[slot.index()]
    }
}

impl IndexMut<SlotId> for Table {
    fn index_mut(&mut self, slot: SlotId) -> &mut Slot {
        &mut self.slots[slot.index()]
    }
}

impl Table {
    /// An empty table. The seed keeps peers from choosing prefixes that meet in the hash table; it
    /// decides nothing that can be seen.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            several: Vec::new(),
            free_several: Vec::new(),
            occupied: 0,
            seed,
        }
    }

    /// Number of prefixes with a path.
    pub(super) fn len(&self) -> usize {
        self.occupied
    }

    pub(super) fn find(&self, prefix: &IpNet) -> Option<SlotId> {
        let slots = &self.slots;
        let found = self.index.find(hash(prefix, self.seed), |slot| {
            slots[*slot as usize].prefix == *prefix
        });
        found.copied().map(SlotId)
    }

    /// The slot of a prefix, a free one if there is none.
    pub(super) fn find_or_insert(&mut self, prefix: &IpNet) -> SlotId {
        if let Some(slot) = self.find(prefix) {
            return slot;
        }
        let slot = Slot {
            installed: PoolId::NONE,
            only: StoredPath::NONE,
            place: Place::Inline,
            dirty: false,
            fib_dirty: false,
            vacant: false,
            prefix: *prefix,
        };
        if self.index.len() == self.index.capacity() {
            self.make_index(self.index.len() * 2 + 1);
        }
        let id = match self.free.pop() {
            Some(id) => {
                self[id] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                SlotId::new(self.slots.len() - 1)
            }
        };
        let (slots, seed) = (&self.slots, self.seed);
        self.index.insert_unique(hash(prefix, seed), id.0, |slot| {
            hash(&slots[*slot as usize].prefix, seed)
        });
        id
    }

    /// Gives back slots without paths. That the index is made anew is cheaper than taking many out
    /// of it one by one, so there should be many.
    pub(super) fn remove(&mut self, slots: &[SlotId]) {
        for slot in slots {
            self[*slot].place = Place::Free;
        }
        self.free.extend(slots);
        if self.free.len() == self.slots.len() {
            *self = Self::new(self.seed);
            return;
        }
        self.make_index(self.slots.len() - self.free.len());
    }

    /// From the slots in their order, which is also that of memory.
    fn make_index(&mut self, capacity: usize) {
        // First, so that both are not there at once.
        self.index = HashTable::new();
        let (slots, seed) = (&self.slots, self.seed);
        let mut index = HashTable::with_capacity(capacity);
        for (number, slot) in (0..).zip(slots) {
            if slot.place != Place::Free {
                index.insert_unique(hash(&slot.prefix, seed), number, |slot: &u32| {
                    hash(&slots[*slot as usize].prefix, seed)
                });
            }
        }
        self.index = index;
    }

    /// All slots in use, by number.
    pub(super) fn slots(&self) -> impl Iterator<Item = SlotId> {
        let used = |(_, slot): &(usize, &Slot)| slot.place != Place::Free;
        let slots = self.slots.iter().enumerate().filter(used);
        slots.map(|(index, _)| SlotId::new(index))
    }

    /// All slots in use, by prefix.
    pub(super) fn sorted(&self) -> Vec<SlotId> {
        let mut slots: Vec<SlotId> = self.slots().collect();
        slots.sort_unstable_by_key(|slot| self[*slot].prefix);
        slots
    }

    pub(super) fn paths(&self, slot: SlotId) -> &[StoredPath] {
        let slot = &self[slot];
        match slot.place {
            Place::Several => &self.several[slot.only.path_id as usize],
            Place::Inline if !slot.only.announcement.is_none() => std::slice::from_ref(&slot.only),
            Place::Inline | Place::Free => &[],
        }
    }

    pub(super) fn paths_mut(&mut self, slot: SlotId) -> &mut [StoredPath] {
        let slot = &mut self.slots[slot.index()];
        match slot.place {
            Place::Several => &mut self.several[slot.only.path_id as usize],
            Place::Inline if !slot.only.announcement.is_none() => {
                std::slice::from_mut(&mut slot.only)
            }
            Place::Inline | Place::Free => &mut [],
        }
    }

    pub(super) fn add_path(&mut self, id: SlotId, path: StoredPath) {
        let slot = &mut self.slots[id.index()];
        match slot.place {
            Place::Several => self.several[slot.only.path_id as usize].push(path),
            Place::Inline | Place::Free if slot.only.announcement.is_none() => {
                slot.only = path;
                self.occupied += 1;
            }
            Place::Inline | Place::Free => {
                let paths = vec![slot.only, path];
                slot.only = StoredPath::NONE;
                slot.place = Place::Several;
                slot.only.path_id = match self.free_several.pop() {
                    Some(index) => {
                        self.several[index as usize] = paths;
                        index
                    }
                    None => {
                        self.several.push(paths);
                        SlotId::new(self.several.len() - 1).0
                    }
                };
            }
        }
    }

    /// Takes the path at `index` out of the slot's paths.
    pub(super) fn remove_path(&mut self, id: SlotId, index: usize) -> StoredPath {
        let slot = &mut self.slots[id.index()];
        if slot.place != Place::Several {
            self.occupied -= 1;
            return std::mem::replace(&mut slot.only, StoredPath::NONE);
        }
        let at = slot.only.path_id;
        let paths = &mut self.several[at as usize];
        let removed = paths.remove(index);
        if let [last] = paths[..] {
            slot.only = last;
            slot.place = Place::Inline;
            *paths = Vec::new();
            self.free_several.push(at);
        }
        removed
    }
}

/// Tables are dense, and neighbours come together: sixteen prefixes that follow each other are next
/// to each other in the hash table (by the low bits), with different tags (the high bits). Where
/// each sixteen is, nobody can foresee.
fn hash(prefix: &IpNet, seed: u64) -> u64 {
    let number = match prefix {
        IpNet::V4(net) => {
            let number = u64::from(u32::from(net.addr())) << 32 >> (64 - net.prefix_len()).min(63);
            u128::from(number)
        }
        IpNet::V6(net) => {
            let host = u32::from(128 - net.prefix_len());
            u128::from(net.addr()).checked_shr(host).unwrap_or(0)
        }
    };
    let (sixteen, place) = (number >> 4, (number & 15) as u64);
    let kind = u64::from(prefix.prefix_len()) << 1 | u64::from(prefix.network().is_ipv4());
    let mixed = fold(sixteen as u64 ^ kind << 56, seed ^ 0x9e37_79b9_7f4a_7c15);
    let mixed = fold(mixed ^ (sixteen >> 64) as u64, 0xa076_1d64_78bd_642f);
    (mixed & !15 | place) ^ place << 59
}

/// Both halves of a product; `by` is made odd, so that nothing of `value` is lost.
fn fold(value: u64, by: u64) -> u64 {
    let product = u128::from(value) * u128::from(by | 1);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    fn prefix(number: u32) -> IpNet {
        IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::from(number << 8), 24))
    }

    #[test]
    fn a_prefix_keeps_its_number_and_the_number_is_used_again() {
        let mut table = Table::new(7);
        let slots: Vec<SlotId> = (0..100).map(|n| table.find_or_insert(&prefix(n))).collect();
        assert_eq!(table.find_or_insert(&prefix(42)), slots[42]);
        table.remove(&[slots[42]]);
        assert_eq!(table.find(&prefix(42)), None);
        assert_eq!(table.find_or_insert(&prefix(1000)), slots[42]);
        assert_eq!(table.sorted().len(), 100);
        assert_eq!(table[table.sorted()[99]].prefix(), &prefix(1000));
    }

    #[test]
    fn a_slot_takes_little() {
        assert!(size_of::<Slot>() <= 40, "{} octets", size_of::<Slot>());
    }

    #[test]
    fn neighbours_are_next_to_each_other_and_sixteens_are_anywhere() {
        let sixteen: Vec<u64> = (32..48).map(|n| hash(&prefix(n), 7)).collect();
        let low: Vec<u64> = sixteen.iter().map(|hash| hash & 0xffff).collect();
        assert!(low.is_sorted() && low[15] - low[0] == 15, "{low:x?}");
        let tags: BTreeSet<u64> = sixteen.iter().map(|hash| hash >> 57).collect();
        assert_eq!(tags.len(), 16);
        let first_of_each = (0..4096).map(|n| hash(&prefix(16 * n), 7) >> 4 & 0xffff);
        let places: BTreeSet<u64> = first_of_each.collect();
        assert!(places.len() > 3800, "{}", places.len());
    }

    #[test]
    fn prefixes_of_any_length_and_family_hash_apart() {
        let texts = [
            "0.0.0.0/0",
            "::/0",
            "10.0.0.0/8",
            "10.0.0.0/16",
            "10.0.0.0/32",
            "a00::/8",
        ];
        let hashes = texts.map(|text| hash(&text.parse().unwrap(), 7));
        assert_eq!(BTreeSet::from(hashes).len(), texts.len(), "{hashes:x?}");
    }
}
