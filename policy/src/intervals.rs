//! Ranges of addresses and ports: union and difference, merged and in order.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ruleset::Family;

/// Ranges of one family, both ends included, in order, neither overlapping nor adjacent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    /// The union of any ranges.
    pub(crate) fn union(ranges: impl IntoIterator<Item = (u128, u128)>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match merged.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => {
                    previous.1 = previous.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// What is here but not in `other`.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let mut left = vec![];
        for &(first, last) in &self.0 {
            let mut from = Some(first);
            for &(cut_first, cut_last) in &other.0 {
                let Some(start) = from else { break };
                if cut_last < start || cut_first > last {
                    continue;
                }
                if cut_first > start {
                    left.push((start, cut_first - 1));
                }
                from = cut_last.checked_add(1).filter(|next| *next <= last);
            }
            left.extend(from.map(|start| (start, last)));
        }
        Self(left)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u128, u128)> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True where these are all the addresses of `family`.
    pub(crate) fn is_all(&self, family: Family) -> bool {
        self.0 == [(0, largest(family))]
    }
}

/// The addresses of a prefix.
pub(crate) fn prefix_range(prefix: &IpNet) -> (u128, u128) {
    (number(prefix.network()), number(prefix.broadcast()))
}

/// The ranges of `family` that `cidr` without `except` covers.
pub(crate) fn block(cidr: &IpNet, except: &[IpNet]) -> Ranges {
    let same = except
        .iter()
        .filter(|cut| family_of(cut.addr()) == family_of(cidr.addr()));
    let cuts = Ranges::union(same.map(prefix_range));
    Ranges::union([prefix_range(cidr)]).minus(&cuts)
}

/// The family of an address.
pub(crate) fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::Ipv4,
        IpAddr::V6(_) => Family::Ipv6,
    }
}

/// The address of `family` with this number.
pub(crate) fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::Ipv6 => Ipv6Addr::from(number).into(),
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => address.into(),
    }
}

fn largest(family: Family) -> u128 {
    match family {
        Family::Ipv4 => u128::from(u32::MAX),
        Family::Ipv6 => u128::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges() -> impl Strategy<Value = Vec<(u128, u128)>> {
        prop::collection::vec((0u128..64, 0u128..16), 0..6)
            .prop_map(|all| all.into_iter().map(|(at, len)| (at, at + len)).collect())
    }

    proptest! {
        #[test]
        fn difference_of_unions_holds_exactly_what_is_in_one_but_not_the_other(
            a in ranges(), b in ranges(),
        ) {
            let contains = |all: &[(u128, u128)], x| all.iter().any(|r| r.0 <= x && x <= r.1);
            let result = Ranges::union(a.clone()).minus(&Ranges::union(b.clone()));
            for x in 0..100 {
                prop_assert_eq!(contains(&result.0, x), contains(&a, x) && !contains(&b, x));
            }
            prop_assert!(result.0.windows(2).all(|w| w[0].1 + 1 < w[1].0));
        }
    }

    #[test]
    fn a_block_may_be_everything_and_except_may_reach_its_end() {
        let all: IpNet = "::/0".parse().unwrap();
        assert!(block(&all, &[]).is_all(Family::Ipv6));
        let half: IpNet = "8000::/1".parse().unwrap();
        assert_eq!(block(&all, &[half]).0, vec![(0, (1 << 127) - 1)]);
        assert!(block(&half, &[half]).is_empty());
    }
}
