//! From Adj-RIB-In to Loc-RIB: which paths are candidates (RFC 4271 section 9.1.2, RFC 4456
//! section 8), and the verdict on each.

use super::attributes::PathAttributes;
use super::decision::{Candidate, Refusal, Verdict, decide};
use super::{DEFAULT_LOCAL_PREF, Destination, Path, PeerFacts, Rib, Source};
use crate::config::Import;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Rib {
    /// Gives every path its verdict and puts the best one first.
    pub(super) fn decide(&self, prefix: &IpNet, destination: &mut Destination) {
        let prefix_refusal = self.check_prefix(prefix, destination);
        let mut eligible = Vec::new();
        let mut candidates = Vec::new();
        for (index, path) in destination.paths.iter_mut().enumerate() {
            match self.candidate(path, prefix_refusal) {
                Ok(candidate) => {
                    eligible.push(index);
                    candidates.push(candidate);
                }
                Err(refusal) => path.verdict = Verdict::Refused(refusal),
            }
        }
        for (index, verdict) in eligible.into_iter().zip(decide(&candidates)) {
            destination.paths[index].verdict = verdict;
        }
        destination.paths.sort_by_key(|path| match path.verdict {
            Verdict::Best => (0, path.source),
            Verdict::Multipath => (1, path.source),
            Verdict::Lost(_) => (2, path.source),
            Verdict::Refused(_) => (3, path.source),
        });
    }

    /// What is wrong with the prefix, whichever peer announces it. What lies within a route of this
    /// node is as much its own as the whole: a longer prefix would win over ours.
    fn check_prefix(&self, prefix: &IpNet, destination: &Destination) -> Option<Refusal> {
        let mut sources = destination.paths.iter().map(|path| path.source);
        if is_martian(prefix) {
            Some(Refusal::Martian)
        } else if sources.any(|source| source == Source::Local) {
            Some(Refusal::OwnPrefix)
        } else {
            self.own.covers(prefix).then_some(Refusal::WithinOwnPrefix)
        }
    }

    fn candidate(
        &self,
        path: &Path,
        prefix_refusal: Option<Refusal>,
    ) -> Result<Candidate, Refusal> {
        let attributes = &path.attributes.attributes;
        let facts = match path.source {
            Source::Local => None,
            Source::Peer(peer) => Some(self.peers.get(&peer).ok_or(Refusal::ImportPolicy)?),
        };
        if let Some(facts) = facts {
            self.check_import(&path.attributes, facts, prefix_refusal)?;
        }
        let router_id = facts.map_or(self.identity.router_id, |facts| facts.router_id);
        Ok(Candidate {
            local: facts.is_none(),
            local_pref: attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
            path_length: attributes.as_path.length(),
            origin: attributes.origin,
            neighbour_as: attributes.as_path.neighbour(),
            med: attributes.med.unwrap_or(0),
            ebgp: facts.is_some_and(|facts| !facts.ibgp),
            router_id: attributes.originator_id.unwrap_or(router_id),
            cluster_list_length: attributes.cluster_list.len(),
            peer_address: facts.map(|facts| facts.address),
        })
    }

    fn check_import(
        &self,
        path: &PathAttributes,
        facts: &PeerFacts,
        prefix_refusal: Option<Refusal>,
    ) -> Result<(), Refusal> {
        if facts.import == Import::None {
            return Err(Refusal::ImportPolicy);
        }
        if let Some(refusal) = prefix_refusal {
            return Err(refusal);
        }
        let next_hop = path.next_hop.address;
        let ours = self.identity.addresses.contains(&next_hop);
        let own_as = [facts.local_as, self.identity.local_as];
        let allowed = usize::from(facts.allow_own_as);
        let checks = [
            (
                own_as
                    .into_iter()
                    .any(|number| path.occurrences(number) > allowed),
                Refusal::OwnAs,
            ),
            (
                path.attributes.originator_id == Some(self.identity.router_id),
                Refusal::OwnOriginator,
            ),
            (
                path.attributes
                    .cluster_list
                    .contains(&self.identity.cluster_id),
                Refusal::OwnCluster,
            ),
            (
                ours || facts.local_address == Some(next_hop),
                Refusal::OwnNextHop,
            ),
            (!is_usable(next_hop), Refusal::UnusableNextHop),
        ];
        match checks.into_iter().find(|(refused, _)| *refused) {
            Some((_, refusal)) => Err(refusal),
            None => Ok(()),
        }
    }
}

/// A link-local next hop means nothing without the interface, which sessions do not know.
fn is_usable(next_hop: IpAddr) -> bool {
    let link_local = match next_hop {
        IpAddr::V4(address) => address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(link_local || next_hop.is_unspecified() || next_hop.is_multicast() || next_hop.is_loopback())
}

/// Addresses that no network routes to (RFC 6890): what lies within is taken from nobody. Shorter
/// prefixes, the default route among them, are none of these.
const MARTIANS: [IpNet; 8] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
        8,
    )),
];

fn is_martian(prefix: &IpNet) -> bool {
    MARTIANS.iter().any(|martian| martian.contains(prefix))
}
