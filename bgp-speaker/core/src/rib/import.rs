//! From Adj-RIB-In to Loc-RIB: which paths are candidates (RFC 4271 section 9.1.2, RFC 4456
//! section 8), and the verdict on each.

use super::attributes::PathAttributes;
use super::decision::{Candidate, Refusal, Verdict, decide};
use super::{DEFAULT_LOCAL_PREF, Destination, Overlay, Path, PeerFacts, Rib, Source};
use crate::config::{Decision, Import, Role};
use crate::filter::{Action, Community, PeerType, Route, RouteSource};
use crate::wire::{Attributes, Family};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Rib {
    /// Gives every path its verdict and puts the best one first.
    pub(super) fn decide(&mut self, prefix: &IpNet, destination: &mut Destination) {
        let prefix_refusal = self.check_prefix(prefix, destination);
        let mut eligible = Vec::new();
        let mut candidates = Vec::new();
        let mut overlays = Vec::new();
        for (index, path) in destination.paths.iter_mut().enumerate() {
            match self.import(prefix, path, prefix_refusal) {
                Ok((candidate, overlay)) => {
                    eligible.push(index);
                    candidates.push(candidate);
                    overlays.extend(overlay);
                }
                Err(refusal) => path.verdict = Verdict::Refused(refusal),
            }
        }
        self.set_overlays(prefix, overlays);
        let verdicts = decide(&candidates, &self.identity.decision);
        for (index, verdict) in eligible.into_iter().zip(verdicts) {
            destination.paths[index].verdict = verdict;
        }
        destination.paths.sort_by_key(|path| {
            let rank = match path.verdict {
                Verdict::Best => 0,
                Verdict::Multipath => 1,
                Verdict::Lost(_) => 2,
                Verdict::Refused(_) => 3,
            };
            (rank, path.source, path.path_id())
        });
    }

    /// A path as the decision sees it, and what policy has changed of it.
    fn import(
        &mut self,
        prefix: &IpNet,
        path: &Path,
        prefix_refusal: Option<Refusal>,
    ) -> Result<(Candidate, Option<Overlay>), Refusal> {
        let Source::Peer(peer) = path.source else {
            let identity = &self.identity;
            let (attributes, id) = (&path.attributes.attributes, identity.router_id);
            let candidate = candidate(path, attributes, id, None, &identity.decision);
            return Ok((candidate, None));
        };
        let facts = self.peers.get(&peer).ok_or(Refusal::ImportPolicy)?;
        self.check_import(&path.attributes, facts, prefix_refusal)?;
        let (attributes, priority) = apply_policy(prefix, path, facts)?;
        let decision = &self.identity.decision;
        let candidate = candidate(path, &attributes, facts.router_id, Some(facts), decision);
        let attributes = match attributes {
            Cow::Borrowed(_) if priority.is_none() => return Ok((candidate, None)),
            Cow::Borrowed(unchanged) => unchanged.clone(),
            Cow::Owned(changed) => changed,
        };
        let attributes = PathAttributes::new(attributes, path.attributes.next_hop);
        let overlay = Overlay {
            source: path.source,
            path_id: path.path_id(),
            announcement: self.intern(path.source, attributes),
            priority,
        };
        Ok((candidate, Some(overlay)))
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

    fn check_import(
        &self,
        path: &PathAttributes,
        facts: &PeerFacts,
        prefix_refusal: Option<Refusal>,
    ) -> Result<(), Refusal> {
        if facts.import == Import::None && facts.import_filter.rules.is_empty() {
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
                    .iter()
                    .any(|id| self.identity.cluster_ids.contains(id)),
                Refusal::OwnCluster,
            ),
            (
                ours || facts.local_address == Some(next_hop),
                Refusal::OwnNextHop,
            ),
            (!is_usable(next_hop, facts.scope), Refusal::UnusableNextHop),
        ];
        match checks.into_iter().find(|(refused, _)| *refused) {
            Some((_, refusal)) => Err(refusal),
            None => Ok(()),
        }
    }
}

fn candidate(
    path: &Path,
    attributes: &Attributes,
    router_id: Ipv4Addr,
    facts: Option<&PeerFacts>,
    decision: &Decision,
) -> Candidate {
    Candidate {
        local: facts.is_none(),
        last_resort: Community::LLGR_STALE.is_on(attributes),
        local_pref: attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
        path_length: attributes.as_path.length(),
        origin: attributes.origin,
        neighbour_as: attributes.as_path.neighbour(),
        med: attributes.med.unwrap_or(0),
        ebgp: facts.is_some_and(|facts| !facts.ibgp),
        router_id: attributes.originator_id.unwrap_or(router_id),
        cluster_list_length: attributes.cluster_list.len(),
        peer_address: facts.map(|facts| facts.address),
        path_id: path.path_id(),
        as_path: (!decision.as_path_relax).then(|| attributes.as_path.clone()),
    }
}

/// What the standards and the import filter make of a path that is sound: its attributes, and the
/// metric that the filter has set.
fn apply_policy<'a>(
    prefix: &IpNet,
    path: &'a Path,
    facts: &PeerFacts,
) -> Result<(Cow<'a, Attributes>, Option<u32>), Refusal> {
    let mut attributes = Cow::Borrowed(&path.attributes.attributes);
    if !facts.ibgp && Community::GRACEFUL_SHUTDOWN.is_on(&attributes) {
        // RFC 8326 section 4.
        attributes.to_mut().local_pref = Some(0);
    }
    if let Some(role) = facts.role {
        check_role(role, facts.remote_as, &mut attributes)?;
    }
    if path.stale && facts.long_lived.contains(&Family::of(prefix)) {
        if Community::NO_LLGR.is_on(&attributes) {
            return Err(Refusal::NoLongLived);
        }
        if !Community::LLGR_STALE.is_on(&attributes) {
            Community::LLGR_STALE.add_to(attributes.to_mut());
        }
    }
    let mut priority = None;
    let rule = facts.import_filter.decide(&Route {
        prefix: *prefix,
        attributes: &attributes,
        source: RouteSource::RemotePeers,
        peer_type: facts.peer_type(),
        interface: facts.interface.as_deref(),
        priority: None,
    });
    match rule {
        Some((_, rule)) if rule.action == Action::Reject => return Err(Refusal::ImportFilter),
        Some((_, rule)) => {
            if !rule.operations.is_empty() {
                rule.apply(attributes.to_mut(), &mut priority);
            }
        }
        None => match facts.import {
            Import::All => {}
            Import::None => return Err(Refusal::ImportPolicy),
            Import::Unstated if facts.ibgp => {}
            Import::Unstated => return Err(Refusal::NoPolicy),
        },
    }
    Ok((attributes, priority))
}

/// RFC 9234 section 5, on receipt; `role` is ours.
fn check_role(
    role: Role,
    remote_as: u32,
    attributes: &mut Cow<'_, Attributes>,
) -> Result<(), Refusal> {
    match (role, attributes.otc) {
        (Role::Provider | Role::RouteServer, Some(_)) => Err(Refusal::RouteLeak),
        (Role::Peer, Some(number)) if number != remote_as => Err(Refusal::RouteLeak),
        (Role::Peer | Role::Customer | Role::RouteServerClient, None) => {
            attributes.to_mut().otc = Some(remote_as);
            Ok(())
        }
        (Role::Provider | Role::RouteServer, None)
        | (Role::Peer | Role::Customer | Role::RouteServerClient, Some(_)) => Ok(()),
    }
}

impl PeerFacts {
    pub(super) fn peer_type(&self) -> PeerType {
        if self.ibgp {
            PeerType::Internal
        } else {
            PeerType::External
        }
    }
}

/// A link-local next hop means nothing without the interface that the peer is on.
fn is_usable(next_hop: IpAddr, scope: u32) -> bool {
    let link_local = match next_hop {
        IpAddr::V4(address) => address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local() && scope == 0,
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
