//! From Loc-RIB to the forwarding table: next hops of the paths in use, and their weights.

use super::decision::Verdict;
use super::{Destination, Path, Rib, Source};
use crate::config::{FibChange, FibNextHop};
use crate::wire::Attributes;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Subtype of the link bandwidth community (draft-ietf-idr-link-bandwidth), whose type is two-octet
/// AS specific, transitive or not.
const LINK_BANDWIDTH: u8 = 4;
const TWO_OCTET_AS: u8 = 0x00;
const NON_TRANSITIVE: u8 = 0x40;

impl Rib {
    /// The difference to what the forwarding table has been told. Routes of this node are not
    /// forwarded to anybody.
    pub(super) fn fib_change(
        &mut self,
        prefix: &IpNet,
        destination: &mut Destination,
    ) -> Option<FibChange> {
        let next_hops = self.next_hops(prefix, destination);
        let best = destination.best().filter(|_| !next_hops.is_empty());
        let priority = best.and_then(|path| self.learned(prefix, path).priority);
        let told = match priority {
            Some(priority) => self.priorities.insert(*prefix, priority),
            None if self.priorities.is_empty() => None,
            None => self.priorities.remove(prefix),
        };
        if next_hops == destination.installed && priority == told {
            return None;
        }
        destination.installed.clone_from(&next_hops);
        let prefix = *prefix;
        Some(if next_hops.is_empty() {
            FibChange::Remove { prefix }
        } else {
            FibChange::Set {
                prefix,
                next_hops,
                priority,
            }
        })
    }

    fn next_hops(&self, prefix: &IpNet, destination: &Destination) -> Vec<FibNextHop> {
        let in_use = destination.paths.iter().filter(|path| {
            matches!(path.verdict, Verdict::Best | Verdict::Multipath)
                && path.source != Source::Local
        });
        let mut bandwidths = BTreeMap::new();
        for path in in_use {
            let attributes = &self.learned(prefix, path).attributes.attributes;
            bandwidths.insert(self.way(path), link_bandwidth(attributes));
        }
        let weights = weights(bandwidths.values().copied());
        let ways = bandwidths.into_keys().zip(weights);
        ways.map(|((address, scope), weight)| FibNextHop {
            address,
            scope,
            weight,
        })
        .collect()
    }

    /// Address and interface to forward to. Of two addresses the global one is used, as it can be
    /// resolved by itself, unless the peer is on a link where only link-local ones are known.
    fn way(&self, path: &Path) -> (IpAddr, u32) {
        let next_hop = path.attributes.next_hop;
        let scope = match path.source {
            Source::Local => 0,
            Source::Peer(peer) => self.peer(peer).map_or(0, |facts| facts.scope),
        };
        let address = match next_hop.link_local {
            Some(link_local) if scope != 0 => link_local.into(),
            Some(_) | None => next_hop.address,
        };
        match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => (address, scope),
            IpAddr::V4(_) | IpAddr::V6(_) => (address, 0),
        }
    }
}

/// Octets per second.
fn link_bandwidth(attributes: &Attributes) -> Option<f32> {
    let mut communities = attributes.extended_communities.iter();
    communities.find_map(|octets| match *octets {
        [
            TWO_OCTET_AS | NON_TRANSITIVE,
            LINK_BANDWIDTH,
            _,
            _,
            a,
            b,
            c,
            d,
        ] => {
            let bandwidth = f32::from_be_bytes([a, b, c, d]);
            (bandwidth.is_finite() && bandwidth > 0.0).then_some(bandwidth)
        }
        _ => None,
    })
}

/// In proportion to the bandwidths, in lowest terms; all equal unless all are known.
fn weights(bandwidths: impl Iterator<Item = Option<f32>> + Clone) -> Vec<u8> {
    let Some(known) = bandwidths.clone().collect::<Option<Vec<f32>>>() else {
        return vec![1; bandwidths.count()];
    };
    let greatest = known.iter().copied().fold(0.0, f32::max);
    let scaled = known.iter().map(|bandwidth| {
        let share = (bandwidth / greatest * 255.0).round().clamp(1.0, 255.0);
        share as u8
    });
    let divisor = scaled.clone().fold(0, greatest_common_divisor).max(1);
    scaled.map(|weight| weight / divisor).collect()
}

fn greatest_common_divisor(a: u8, b: u8) -> u8 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_follow_bandwidths_where_all_are_known() {
        let cases: [(&[Option<f32>], &[u8]); 6] = [
            (&[Some(1e9), Some(1e9)], &[1, 1]),
            (&[Some(1e9), Some(1e10)], &[26, 255]),
            (&[Some(1e9), Some(3e9)], &[1, 3]),
            (&[Some(1e9), None], &[1, 1]),
            (&[Some(1.0), Some(1e30)], &[1, 255]),
            (&[], &[]),
        ];
        for (bandwidths, expected) in cases {
            assert_eq!(
                weights(bandwidths.iter().copied()),
                expected,
                "{bandwidths:?}"
            );
        }
    }

    #[test]
    fn a_bandwidth_that_is_no_number_is_none() {
        let read = |octets: [u8; 8]| {
            link_bandwidth(&Attributes {
                extended_communities: vec![octets],
                ..Attributes::default()
            })
        };
        let [a, b, c, d] = 125e6_f32.to_be_bytes();
        assert_eq!(read([0x40, 4, 0xfd, 0xe8, a, b, c, d]), Some(125e6));
        assert_eq!(read([0x00, 4, 0xfd, 0xe8, a, b, c, d]), Some(125e6));
        assert_eq!(read([0x40, 2, 0xfd, 0xe8, a, b, c, d]), None);
        for bad in [f32::NAN, f32::INFINITY, -1.0, 0.0] {
            let [a, b, c, d] = bad.to_be_bytes();
            assert_eq!(read([0x40, 4, 0, 0, a, b, c, d]), None, "{bad}");
        }
    }
}
