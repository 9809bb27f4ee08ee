//! Networks behind pods that are routers: a pod speaks for them, and is handed what is for them.

use super::parts::{FAMILIES, lookup, saddr};
use crate::hash::content_name;
use crate::intervals::{self, Ranges};
use crate::ruleset::{Element, Family, Field, KeyType, Part, Set, SetHeader, SetKind, Statement};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};

/// How the names of these sets begin.
pub(super) const BEHIND: &str = "behind";

/// `(interface, prefix)`: the networks of a family, by the interface of their pod.
pub(super) struct Behind(BTreeMap<Family, (String, Set)>);

impl Behind {
    pub(super) fn new(networks: &BTreeSet<(u32, IpNet)>) -> Self {
        let sets = FAMILIES.into_iter().zip(['4', '6']);
        Self(
            sets.filter_map(|(family, digit)| Some((family, set(networks, family, digit)?)))
                .collect(),
        )
    }

    /// The set of a family looked up by these fields; none where no network is behind a pod.
    pub(super) fn lookup(
        &self,
        fields: [Field; 2],
        family: Family,
        negate: bool,
    ) -> Option<Statement> {
        let (name, _) = self.0.get(&family)?;
        Some(lookup(&fields, name.clone(), negate))
    }

    pub(super) fn into_sets(self) -> impl Iterator<Item = (String, Set)> {
        self.0.into_values()
    }
}

/// Ranges of one interface do not overlap: the kernel refuses those that do.
fn set(networks: &BTreeSet<(u32, IpNet)>, family: Family, digit: char) -> Option<(String, Set)> {
    let mut by_interface: BTreeMap<u32, Vec<(u128, u128)>> = BTreeMap::new();
    for (interface, prefix) in networks {
        if intervals::family_of(prefix.addr()) == family {
            let ranges = by_interface.entry(*interface).or_default();
            ranges.push(intervals::prefix_range(prefix));
        }
    }
    let of_interface = by_interface.into_iter();
    let content: Vec<(u32, Ranges)> = of_interface
        .map(|(interface, ranges)| (interface, Ranges::union(ranges)))
        .collect();
    if content.is_empty() {
        return None;
    }
    let address = |number| Part::Address(intervals::address(family, number));
    let elements = content.iter().flat_map(|(interface, ranges)| {
        let interface = Part::Ifindex(*interface);
        let range = move |(first, last)| {
            Element::ranges(&[(interface, interface), (address(first), address(last))])
        };
        ranges.iter().map(range)
    });
    let set = Set {
        header: SetHeader {
            key: vec![KeyType::Ifindex, saddr(family).key_type()],
            kind: SetKind::Interval,
            verdict_map: false,
            size: None,
        },
        elements: elements.map(|element| (element, None)).collect(),
    };
    Some((format!("{BEHIND}{digit}_{}", content_name(&content)), set))
}
