//! From Adj-RIB-In to Loc-RIB: which paths are candidates (RFC 4271 section 9.1.2, RFC 4456
//! section 8), and the verdict on each.

use super::attributes::PathAttributes;
use super::decision::{Candidate, Refusal, Verdict, decide};
use super::{DEFAULT_LOCAL_PREF, Destination, Path, PeerFacts, Rib, Source};
use crate::config::Import;
use std::net::IpAddr;

impl Rib {
    /// Gives every path its verdict and puts the best one first.
    pub(super) fn decide(&self, destination: &mut Destination) {
        let own_prefix = destination
            .paths
            .iter()
            .any(|path| path.source == Source::Local);
        let mut eligible = Vec::new();
        let mut candidates = Vec::new();
        for (index, path) in destination.paths.iter_mut().enumerate() {
            match self.candidate(path, own_prefix) {
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

    fn candidate(&self, path: &Path, own_prefix: bool) -> Result<Candidate, Refusal> {
        let attributes = &path.attributes.attributes;
        let facts = match path.source {
            Source::Local => None,
            Source::Peer(peer) => Some(self.peers.get(&peer).ok_or(Refusal::ImportPolicy)?),
        };
        if let Some(facts) = facts {
            self.check_import(&path.attributes, facts, own_prefix)?;
        }
        let router_id = facts.map_or(self.identity.router_id, |facts| facts.router_id);
        Ok(Candidate {
            local: facts.is_none(),
            local_pref: attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
            path_length: path.attributes.path_length(),
            origin: attributes.origin,
            neighbour_as: path.attributes.neighbour_as(),
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
        own_prefix: bool,
    ) -> Result<(), Refusal> {
        let next_hop = path.next_hop.address;
        let ours = self.identity.addresses.contains(&next_hop);
        let own_as = [facts.local_as, self.identity.local_as];
        let allowed = usize::from(facts.allow_own_as);
        let checks = [
            (facts.import == Import::None, Refusal::ImportPolicy),
            (own_prefix, Refusal::OwnPrefix),
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
