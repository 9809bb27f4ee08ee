//! Path attributes with what the decision asks about them.

use crate::wire::{Attributes, NextHop};

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
