//! What the speaker says about itself.

use super::peer::Peer;
use super::{PathStatus, PeerId, PeerStatus, RouteStatus, Speaker, SpeakerStatus};
use crate::rib::{Path, Source};
use crate::wire::Family;
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
                    .map(|path| self.path_status(path))
                    .collect(),
            })
            .collect()
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
            remote_as: peer.config.remote_as,
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
            bfd: peer.record.bfd,
            last_error: peer.record.last_error.clone(),
            last_notification_received: peer.record.last_notification_received.clone(),
            last_notification_sent: peer.record.last_notification_sent.clone(),
        }
    }

    fn path_status(&self, path: &Path) -> PathStatus {
        let attributes = &path.attributes.attributes;
        let (from, next_hop) = match path.source {
            Source::Local => ("local".to_owned(), None),
            Source::Peer(id) => {
                let name = self.peers.get(&id).map(|peer| peer.config.name.clone());
                (
                    name.unwrap_or_default(),
                    Some(path.attributes.next_hop.address),
                )
            }
        };
        PathStatus {
            from,
            next_hop,
            as_path: attributes.as_path.to_string(),
            local_pref: attributes.local_pref,
            med: attributes.med,
            stale: path.stale,
            verdict: path.verdict.to_string(),
        }
    }
}

fn family_name(family: &Family) -> String {
    match *family {
        Family::IPV4 => "ipv4-unicast".to_owned(),
        Family::IPV6 => "ipv6-unicast".to_owned(),
        Family { afi, safi } => format!("afi {afi} safi {safi}"),
    }
}
