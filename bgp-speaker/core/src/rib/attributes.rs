//! Path attributes, each set stored once however many prefixes share it.

use crate::wire::{AsPath, AsSegment, Attributes, NextHop};
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

/// Attributes and next hop of a path, with what the decision process asks of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PathAttributes {
    pub(crate) attributes: Attributes,
    pub(crate) next_hop: NextHop,
    path_length: u32,
}

impl PathAttributes {
    pub(crate) fn new(attributes: Attributes, next_hop: NextHop) -> Self {
        let path_length = path_length(&attributes.as_path);
        Self {
            attributes,
            next_hop,
            path_length,
        }
    }

    /// The next hop to pass on: a link-local address is only good on the link it came from.
    pub(crate) fn next_hop_without_link_local(&self) -> NextHop {
        NextHop {
            address: self.next_hop.address,
            link_local: None,
        }
    }

    /// Length of the AS_PATH; a set counts as one (RFC 4271 section 9.1.2.2).
    pub(crate) fn path_length(&self) -> u32 {
        self.path_length
    }

    /// The AS that the path came from; none if it begins with a set or is empty.
    pub(crate) fn neighbour_as(&self) -> Option<u32> {
        match self.attributes.as_path.0.first() {
            Some(AsSegment::Sequence(numbers)) => numbers.first().copied(),
            Some(AsSegment::Set(_)) | None => None,
        }
    }

    /// How often an AS number stands in the AS_PATH.
    pub(crate) fn occurrences(&self, as_number: u32) -> usize {
        let segments = self.attributes.as_path.0.iter();
        let numbers = segments.flat_map(|segment| match segment {
            AsSegment::Sequence(numbers) | AsSegment::Set(numbers) => numbers,
        });
        numbers.filter(|number| **number == as_number).count()
    }
}

fn path_length(path: &AsPath) -> u32 {
    let length: usize = path
        .0
        .iter()
        .map(|segment| match segment {
            AsSegment::Sequence(numbers) => numbers.len(),
            AsSegment::Set(_) => 1,
        })
        .sum();
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The path as operators write it: `65001 65002 {65003,65004}`.
pub(crate) fn as_path_text(path: &AsPath) -> String {
    let join = |numbers: &[u32], separator| {
        numbers
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(separator)
    };
    let segments = path.0.iter().map(|segment| match segment {
        AsSegment::Sequence(numbers) => join(numbers, " "),
        AsSegment::Set(numbers) => format!("{{{}}}", join(numbers, ",")),
    });
    segments.collect::<Vec<_>>().join(" ")
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
    fn a_set_counts_as_one_and_hides_the_neighbour() {
        let path = AsPath(vec![
            AsSegment::Set(vec![1, 2, 3]),
            AsSegment::Sequence(vec![4, 4]),
        ]);
        let mut set = attributes(0);
        set.attributes.as_path = path;
        let set = PathAttributes::new(set.attributes, set.next_hop);
        assert_eq!(
            (set.path_length(), set.neighbour_as(), set.occurrences(4)),
            (3, None, 2)
        );
        assert_eq!(as_path_text(&set.attributes.as_path), "{1,2,3} 4 4");
    }
}
