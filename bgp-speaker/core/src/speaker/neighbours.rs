//! Peers that nobody has listed: those that connect from within a range, and those that are found
//! on an interface.

use super::peer::Origin;
use super::{PeerId, Rejected, Speaker, rejected};
use crate::config::{BGP_PORT, PeerConfig, PeerKey, SpeakerConfig};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

impl Speaker {
    /// A router has been found on an interface by its link-local address, or is there no more:
    /// address and interface index. It matters where `interface_peers` names the interface.
    pub fn set_neighbour(
        &mut self,
        interface: &str,
        neighbour: Option<(Ipv6Addr, u32)>,
        now: Instant,
    ) {
        let before = match neighbour {
            Some(neighbour) => self.neighbours.insert(interface.to_owned(), neighbour),
            None => self.neighbours.remove(interface),
        };
        if before == neighbour {
            return;
        }
        if let Some(config) = self.config.clone() {
            self.find_interface_peers(&config, now);
            self.check_convergence(now);
        }
    }

    /// One peer for each interface that has a neighbour; one that has moved is another one.
    pub(super) fn find_interface_peers(&mut self, config: &SpeakerConfig, now: Instant) {
        for (interface, peer) in &config.interface_peers {
            let found = self.neighbours.get(interface);
            let wanted = found.map(|(address, scope)| PeerKey {
                address: IpAddr::V6(*address),
                port: BGP_PORT,
                scope: *scope,
            });
            let origin = Origin::Interface(Arc::from(interface.as_str()));
            let mut present = self.peers.iter().filter(|(_, peer)| peer.origin == origin);
            let present = present.next().map(|(id, peer)| (*id, peer.key));
            let peer = unnumbered(peer);
            match (present, wanted) {
                (Some((id, key)), Some(wanted)) if key == wanted => {
                    self.change_peer(id, &peer, config, now);
                }
                (present, wanted) => {
                    if let Some((_, key)) = present {
                        self.remove_peer(key, now);
                    }
                    let free = wanted.filter(|key| !self.by_key.contains_key(key));
                    if let Some(key) = free {
                        self.add_peer(key, origin, &peer, config, now);
                    }
                }
            }
        }
    }

    /// What is said of a range is said of the peers that it has.
    pub(super) fn change_dynamic_peers(&mut self, config: &SpeakerConfig, now: Instant) {
        for id in self.peer_ids() {
            let Some(Origin::Dynamic(range)) = self.peers.get(&id).map(|peer| peer.origin.clone())
            else {
                continue;
            };
            if let Some(peers) = config.dynamic_peers.get(&range) {
                self.change_peer(id, &passive(&peers.peer), config, now);
            }
        }
    }

    /// A peer for whoever connects from an address that nobody has listed.
    pub(super) fn admit(&mut self, key: PeerKey, now: Instant) -> Result<PeerId, Rejected> {
        let address = key.address;
        let stranger = || {
            rejected(format!(
                "connection from {address}, which is no peer of ours"
            ))
        };
        let config = self.config.clone().ok_or_else(stranger)?;
        let ranges = config.dynamic_peers.iter();
        let (range, peers) = ranges
            .filter(|(range, _)| range.trunc().contains(&address))
            .max_by_key(|(range, _)| range.prefix_len())
            .ok_or_else(stranger)?;
        let origin = Origin::Dynamic(*range);
        let present = self.peers.values().filter(|peer| peer.origin == origin);
        if present.count() >= peers.limit as usize {
            return Err(rejected(format!(
                "connection from {address}: there are {} peers of {range} already, which is the limit",
                peers.limit
            )));
        }
        Ok(self.add_peer(key, origin, &passive(&peers.peer), &config, now))
    }

    /// Forgets a peer of a range once it has gone and none of its routes are kept.
    pub(super) fn forget_if_gone(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let dynamic = matches!(peer.origin, Origin::Dynamic(_));
        if dynamic && peer.session.is_alone() && peer.stale.is_empty() {
            let key = peer.key;
            self.remove_peer(key, now);
        }
    }
}

fn passive(peer: &PeerConfig) -> PeerConfig {
    PeerConfig {
        passive: true,
        ..peer.clone()
    }
}

/// There is no IPv4 address on such a link.
fn unnumbered(peer: &PeerConfig) -> PeerConfig {
    PeerConfig {
        extended_next_hop: true,
        ..peer.clone()
    }
}
