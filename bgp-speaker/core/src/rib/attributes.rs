//! Path attributes, each set stored once however many prefixes share it.

use crate::wire::{Attributes, NextHop};
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

/// Attributes and next hop of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PathAttributes {
    pub(crate) attributes: Attributes,
    pub(crate) next_hop: NextHop,
}

impl PathAttributes {
    pub(crate) fn new(attributes: Attributes, next_hop: NextHop) -> Self {
        Self {
            attributes,
            next_hop,
        }
    }

    /// The next hop to pass on: a link-local address is only good on the link it came from.
    pub(crate) fn next_hop_without_link_local(&self) -> NextHop {
        NextHop {
            address: self.next_hop.address,
            link_local: None,
        }
    }

    /// How often an AS number stands in the AS_PATH.
    pub(crate) fn occurrences(&self, as_number: u32) -> usize {
        let hops = self.attributes.as_path.hops();
        hops.filter(|number| *number == as_number).count()
    }
}

/// Every set of attributes in use.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    // A fixed hasher: the same input gives the same run.
    sets: HashSet<Arc<PathAttributes>, BuildHasherDefault<DefaultHasher>>,
    sweep_at: usize,
}

impl Interner {
    const FIRST_SWEEP: usize = 1024;

    /// The one copy of these attributes.
    pub(crate) fn intern(&mut self, attributes: PathAttributes) -> Arc<PathAttributes> {
        if let Some(known) = self.sets.get(&attributes) {
            return Arc::clone(known);
        }
        if self.sets.len() >= self.sweep_at.max(Self::FIRST_SWEEP) {
            self.sets.retain(|set| Arc::strong_count(set) > 1);
            self.sweep_at = self.sets.len() * 2;
        }
        let set = Arc::new(attributes);
        self.sets.insert(Arc::clone(&set));
        set
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.sets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{AsPath, AsSegment};
    use std::net::{IpAddr, Ipv4Addr};

    fn attributes(med: u32) -> PathAttributes {
        let next_hop = NextHop {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            link_local: None,
        };
        PathAttributes::new(
            Attributes {
                med: Some(med),
                ..Attributes::default()
            },
            next_hop,
        )
    }

    #[test]
    fn equal_attributes_are_stored_once() {
        let mut interner = Interner::default();
        let first = interner.intern(attributes(1));
        assert!(Arc::ptr_eq(&first, &interner.intern(attributes(1))));
        assert!(!Arc::ptr_eq(&first, &interner.intern(attributes(2))));
    }

    #[test]
    fn attributes_that_nobody_uses_are_forgotten() {
        let mut interner = Interner::default();
        for med in 0..10_000 {
            interner.intern(attributes(med));
        }
        assert!(
            interner.len() <= Interner::FIRST_SWEEP + 1,
            "{} kept",
            interner.len()
        );
    }

    #[test]
    fn an_as_number_is_counted_in_sequences_and_in_sets() {
        let path = AsPath(vec![
            AsSegment::Set(vec![1, 4]),
            AsSegment::Sequence(vec![4, 5]),
        ]);
        let mut set = attributes(0);
        set.attributes.as_path = path;
        assert_eq!([4, 5, 6].map(|number| set.occurrences(number)), [2, 1, 0]);
    }
}
