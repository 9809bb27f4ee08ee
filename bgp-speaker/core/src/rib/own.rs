//! Which prefixes lie within the routes of this node.

use ipnet::IpNet;
use std::collections::BTreeSet;

/// The prefixes of this node's routes, without those that lie within another. A default route is
/// left out: it claims what nobody else announces, not every address.
#[derive(Debug, Default)]
pub(super) struct OwnPrefixes(BTreeSet<IpNet>);

impl OwnPrefixes {
    /// Whether a prefix is one of these or lies within one.
    pub(super) fn covers(&self, prefix: &IpNet) -> bool {
        // None lies within another, so no other one stands between a prefix and what covers it.
        let before = self.0.range(..=prefix).next_back();
        before.is_some_and(|own| own.contains(prefix))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Replaces the prefixes, which come in order. Returns what came or went.
    pub(super) fn replace<'a>(&mut self, prefixes: impl IntoIterator<Item = &'a IpNet>) -> Self {
        let specific = prefixes
            .into_iter()
            .filter(|prefix| prefix.prefix_len() > 0);
        let old = std::mem::replace(self, Self::widest(specific));
        Self::widest(old.0.symmetric_difference(&self.0))
    }

    /// Of prefixes in order those that do not lie within another.
    fn widest<'a>(prefixes: impl Iterator<Item = &'a IpNet>) -> Self {
        let mut widest = Self::default();
        for prefix in prefixes {
            if !widest.covers(prefix) {
                widest.0.insert(*prefix);
            }
        }
        widest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// Few enough addresses that prefixes often contain each other.
    fn any_prefix() -> impl Strategy<Value = IpNet> {
        let v4 = (0..16_u32, 0..=5_u8).prop_map(|(address, length)| {
            let length = if length == 0 { 0 } else { 27 + length };
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(0x0a00_0000 + address), length).trunc())
        });
        let v6 = (0..16_u128, 0..=5_u8).prop_map(|(address, length)| {
            let length = if length == 0 { 0 } else { 123 + length };
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from((0xfd << 120) + address), length).trunc())
        });
        prop_oneof![v4, v6]
    }

    fn covered(prefixes: &BTreeSet<IpNet>, prefix: &IpNet) -> bool {
        let mut specific = prefixes.iter().filter(|own| own.prefix_len() > 0);
        specific.any(|own| own.contains(prefix))
    }

    proptest! {
        #[test]
        fn what_is_covered_is_what_any_of_the_prefixes_contains(
            before in prop::collection::btree_set(any_prefix(), 0..6),
            after in prop::collection::btree_set(any_prefix(), 0..6),
            asked in prop::collection::btree_set(any_prefix(), 0..40),
        ) {
            let mut own = OwnPrefixes::default();
            own.replace(&before);
            for prefix in &asked {
                prop_assert_eq!(own.covers(prefix), covered(&before, prefix), "{}", prefix);
            }
            let changed = own.replace(&after);
            for prefix in &asked {
                prop_assert_eq!(own.covers(prefix), covered(&after, prefix), "{}", prefix);
                if covered(&before, prefix) != covered(&after, prefix) {
                    prop_assert!(changed.covers(prefix), "{} is not among what has changed", prefix);
                }
            }
        }
    }
}
