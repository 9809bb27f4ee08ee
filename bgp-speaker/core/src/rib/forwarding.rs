//! From Loc-RIB to the forwarding table: next hops of the paths in use, and their weights.

use super::attributes::PathAttributes;
use super::decision::Verdict;
use super::pool::PoolId;
use super::table::SlotId;
use super::{Rib, Source};
use crate::config::{FibChange, FibNextHop};
use crate::wire::Attributes;
use std::net::IpAddr;

/// Subtype of the link bandwidth community (draft-ietf-idr-link-bandwidth), whose type is two-octet
/// AS specific, transitive or not.
const LINK_BANDWIDTH: u8 = 4;
const TWO_OCTET_AS: u8 = 0x00;
const NON_TRANSITIVE: u8 = 0x40;

/// What the forwarding table has been told about a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Forwarding {
    pub(super) next_hops: Vec<FibNextHop>,
    pub(super) priority: Option<u32>,
}

impl Rib {
    /// The difference to what the forwarding table has been told. Routes of this node are not
    /// forwarded to anybody.
    pub(super) fn fib_change(&mut self, slot: SlotId) -> Option<FibChange> {
        let wanted = self.wanted(slot);
        let installed = self.table[slot].installed;
        let nothing = Forwarding::default();
        if wanted == *self.forwarding.get(installed).unwrap_or(&nothing) {
            return None;
        }
        let id = if wanted.next_hops.is_empty() {
            PoolId::NONE
        } else {
            let is = |known: &Forwarding| *known == wanted;
            self.forwarding.intern(&wanted, is, || wanted.clone())
        };
        self.forwarding.hold(id);
        self.forwarding.release(installed);
        self.table[slot].installed = id;
        let prefix = *self.table[slot].prefix();
        Some(if wanted.next_hops.is_empty() {
            FibChange::Remove { prefix }
        } else {
            FibChange::Set {
                prefix,
                next_hops: wanted.next_hops,
                priority: wanted.priority,
            }
        })
    }

    fn wanted(&self, slot: SlotId) -> Forwarding {
        let mut ways = Vec::new();
        let mut priority = None;
        for (verdict, _, path) in self.usable(slot) {
            let in_use = matches!(verdict, Verdict::Best | Verdict::Multipath);
            if !in_use || path.source == Source::Local {
                continue;
            }
            if verdict == Verdict::Best {
                priority = path.priority;
            }
            let bandwidth = link_bandwidth(&path.attributes.attributes);
            ways.push((self.way(path.source, path.attributes), bandwidth));
        }
        if ways.len() > 1 {
            ways.sort_by_key(|(way, _)| *way);
            ways.dedup_by_key(|(way, _)| *way);
        }
        let weights = weights(ways.iter().map(|(_, bandwidth)| *bandwidth));
        let weighted = ways.iter().zip(weights);
        Forwarding {
            next_hops: weighted
                .map(|(((address, scope), _), weight)| FibNextHop {
                    address: *address,
                    scope: *scope,
                    weight,
                })
                .collect(),
            priority,
        }
    }

    /// Address and interface to forward to. Of two addresses the global one is used, as it can be
    /// resolved by itself, unless the peer is on a link where only link-local ones are known.
    fn way(&self, source: Source, path: &PathAttributes) -> (IpAddr, u32) {
        let scope = match source {
            Source::Local => 0,
            Source::Peer(peer) => self.peer(peer).map_or(0, |facts| facts.scope),
        };
        let address = match path.next_hop.link_local {
            Some(link_local) if scope != 0 => link_local.into(),
            Some(_) | None => path.next_hop.address,
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
