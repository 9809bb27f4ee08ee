//! What the speaker says about itself.

use super::peer::Peer;
use super::{
    AdvertisedStatus, PathStatus, PeerId, PeerStatus, RouteStatus, Speaker, SpeakerStatus,
};
use crate::config::PeerKey;
use crate::filter::Community;
use crate::rib::attributes::PathAttributes;
use crate::rib::{Path, Source};
use crate::wire::{Attributes, Family, Nlri};
use ipnet::IpNet;
use std::time::Instant;

impl Speaker {
    /// The state of all sessions.
    pub fn status(&self, now: Instant) -> SpeakerStatus {
        SpeakerStatus {
            local_as: self.config.as_ref().map(|config| config.local_as),
            router_id: self.config.as_ref().map(|config| config.router_id),
            converged: self.convergence.is_reached(),
            prefixes: self.rib.len(),
            listen_error: None,
            peers: self
                .by_key
                .values()
                .filter_map(|id| {
                    self.peers
                        .get(id)
                        .map(|peer| self.peer_status(*id, peer, now))
                })
                .collect(),
        }
    }

    /// Every path to every prefix, with what decided for or against it.
    pub fn routes(&self) -> Vec<RouteStatus> {
        let table = self.rib.destinations();
        table
            .map(|(prefix, destination)| RouteStatus {
                prefix,
                paths: destination
                    .paths()
                    .iter()
                    .map(|path| self.path_status(&prefix, path))
                    .collect(),
            })
            .collect()
    }

    /// What a peer has been told or is about to be, in order of prefix; none without a session.
    pub fn advertised(&self, key: &PeerKey) -> Option<Vec<AdvertisedStatus>> {
        let id = self.by_key.get(key)?;
        let (_, policy) = self.peers.get(id)?.member.as_ref()?;
        let all = self.groups.get(policy)?.advertised(*id, &self.rib);
        let told = |(nlri, path): (Nlri, PathAttributes)| AdvertisedStatus {
            prefix: nlri.prefix,
            path_id: nlri.path_id,
            next_hop: path.next_hop.address,
            as_path: path.attributes.as_path.to_string(),
            local_pref: path.attributes.local_pref,
            med: path.attributes.med,
            communities: communities(&path.attributes),
        };
        Some(all.into_iter().map(told).collect())
    }

    fn peer_status(&self, id: PeerId, peer: &Peer, now: Instant) -> PeerStatus {
        let count = self.rib.count(id);
        let agreement = peer.agreement.as_deref();
        let member = peer.member.as_ref();
        let group = member.and_then(|(_, key)| self.groups.get(key));
        let wire = member.and_then(|(connection, _)| peer.wires.get(connection));
        let families = agreement.map(|agreement| agreement.params.families.as_slice());
        PeerStatus {
            key: peer.key,
            name: peer.config.name.clone(),
            state: peer.record.state.to_owned(),
            since: now.saturating_duration_since(peer.record.since).as_secs(),
            remote_as: self.remote_as(id, peer),
            local_address: wire.map(|wire| wire.local),
            router_id: agreement.map(|agreement| agreement.router_id),
            hold_time: agreement.map(|agreement| {
                let seconds = agreement
                    .hold_time
                    .map_or(0, |hold_time| hold_time.as_secs());
                u16::try_from(seconds).unwrap_or(u16::MAX)
            }),
            families: families
                .unwrap_or_default()
                .iter()
                .map(family_name)
                .collect(),
            received: count.received,
            stale: count.stale,
            advertised: group.map_or(0, |group| group.count(id)),
            updates_received: peer.record.updates_received,
            faults: peer.record.faults,
            established_count: peer.record.established_count,
            bfd: peer.record.bfd.map(Into::into),
            last_error: peer.record.last_error.clone(),
            last_notification_received: peer.record.last_notification_received.clone(),
            last_notification_sent: peer.record.last_notification_sent.clone(),
        }
    }

    /// The AS number that the peer has or, before it has said so, must have.
    fn remote_as(&self, id: PeerId, peer: &Peer) -> Option<u32> {
        let facts = self.rib.peer(id)?;
        let agreed = peer.agreement.as_ref();
        let number = agreed.map_or(facts.remote_as, |agreement| agreement.remote_as);
        (number != 0).then_some(number)
    }

    fn path_status(&self, prefix: &IpNet, path: &Path) -> PathStatus {
        let attributes = self.rib.attributes_in_use(prefix, path);
        let source = match path.source {
            Source::Local => None,
            Source::Peer(id) => Some(self.peers.get(&id)),
        };
        let peer = source.flatten();
        let from = match source {
            None => "local".to_owned(),
            Some(peer) => peer
                .map(|peer| peer.config.name.clone())
                .unwrap_or_default(),
        };
        let next_hop = source.map(|_| path.attributes.next_hop.address);
        PathStatus {
            from,
            peer: peer.map(|peer| peer.key),
            next_hop,
            as_path: attributes.as_path.to_string(),
            local_pref: attributes.local_pref,
            med: attributes.med,
            communities: communities(attributes),
            path_id: path.path_id(),
            stale: path.stale,
            verdict: path.verdict.to_string(),
        }
    }
}

fn communities(attributes: &Attributes) -> Vec<String> {
    let standard = attributes.communities.iter().copied();
    let large = attributes.large_communities.iter().copied();
    let extended = attributes.extended_communities.iter().copied();
    let all = standard
        .map(Community::Standard)
        .chain(large.map(Community::Large))
        .chain(extended.map(Community::Extended));
    all.map(|community| community.to_string()).collect()
}

fn family_name(family: &Family) -> String {
    match *family {
        Family::IPV4 => "ipv4-unicast".to_owned(),
        Family::IPV6 => "ipv6-unicast".to_owned(),
        Family { afi, safi } => format!("afi {afi} safi {safi}"),
    }
}
