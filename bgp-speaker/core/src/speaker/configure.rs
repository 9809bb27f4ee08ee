//! A configuration replaces another one: only what differs is touched.

use super::peer::{Peer, dial_policy};
use super::{ConnectionId, Output, PeerId, Speaker};
use crate::config::{PeerConfig, PeerKey, SpeakerConfig};
use crate::rib::Identity;
use crate::rib::adj_out::AdjRibOut;
use crate::session::open::Proposal;
use crate::wire::{ErrorCode, Notification};
use std::net::IpAddr;
use std::time::Instant;

impl Speaker {
    /// Replaces the configuration. A session is ended only if it is configured no more, or if
    /// something in its OPEN or its TCP connection has to differ.
    pub fn set_config(&mut self, config: SpeakerConfig, now: Instant) {
        if self.config.as_ref() == Some(&config) {
            return;
        }
        self.rib.set_identity(identity(&config));
        let gone: Vec<_> = self
            .by_key
            .keys()
            .filter(|key| !config.peers.contains_key(key))
            .copied()
            .collect();
        for key in gone {
            self.remove_peer(key, now);
        }
        for (key, peer) in &config.peers {
            match self.by_key.get(key).copied() {
                Some(id) => self.change_peer(id, peer, &config, now),
                None => self.add_peer(*key, peer, &config, now),
            }
        }
        let first = self.config.replace(config).is_none();
        for id in self.peer_ids() {
            self.regroup(id);
        }
        self.drop_empty_groups();
        if first {
            self.start_sessions(now);
        }
        self.check_convergence(now);
    }

    /// Starts everything once configuration and routes of this node are known.
    pub(super) fn start_sessions(&mut self, now: Instant) {
        if !self.may_start() {
            return;
        }
        self.convergence.start(now);
        for peer in self.peers.values_mut() {
            peer.session.start(now);
        }
        self.check_convergence(now);
    }

    fn may_start(&self) -> bool {
        self.config.is_some() && self.local_routes.is_some() && !self.stopped
    }

    fn add_peer(
        &mut self,
        key: PeerKey,
        peer_config: &PeerConfig,
        config: &SpeakerConfig,
        now: Instant,
    ) {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        let restarting = self.restart.restarting && !self.convergence.is_reached();
        let proposal = self.proposal(peer_config, config, restarting);
        let seed = self.seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut peer = Peer::new(id, key, peer_config.clone(), proposal, seed, now);
        self.rib.set_peer(id, peer.facts(None));
        if self.may_start() {
            peer.session.start(now);
        }
        self.by_key.insert(key, id);
        self.peers.insert(id, peer);
    }

    fn remove_peer(&mut self, key: PeerKey, now: Instant) {
        let Some(id) = self.by_key.remove(&key) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&id) {
            let cease = Notification::new(ErrorCode::CEASE_PEER_DECONFIGURED);
            peer.session
                .stop(Some(&cease), "it is configured no more", now);
        }
        self.drain_session(id, now);
        if self
            .peers
            .remove(&id)
            .is_some_and(|peer| peer.watched.is_some())
        {
            self.outputs.push_back(Output::Watch {
                peer: id,
                path: None,
            });
        }
        self.rib.remove_peer(id);
    }

    fn change_peer(
        &mut self,
        id: PeerId,
        peer_config: &PeerConfig,
        config: &SpeakerConfig,
        now: Instant,
    ) {
        let may_start = self.may_start();
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let restarting = peer.session.proposal().restarting;
        let proposal = self.proposal(peer_config, config, restarting);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let reset = !speaks_the_same(&proposal, peer.session.proposal())
            || !connects_the_same(peer_config, &peer.config);
        let password = peer_config.password.clone();
        let rekey = password.filter(|password| peer.config.password.as_ref() != Some(password));
        peer.config = peer_config.clone();
        peer.session.set_proposal(proposal);
        peer.session.set_policy(dial_policy(peer_config), now);
        if reset && may_start {
            let cease = Notification::new(ErrorCode::CEASE_CONFIG_CHANGE);
            peer.session
                .reset(&cease, "its configuration has changed", now);
            self.drain_session(id, now);
        } else if let Some(password) = rekey {
            let rekey = |connection: &ConnectionId| Output::Rekey {
                connection: *connection,
                peer: peer.key.address,
                password: password.clone(),
            };
            self.outputs.extend(peer.wires.keys().map(rekey));
        }
        self.refresh_facts(id);
        self.watch_path(id);
    }

    /// Tells the decision process what is known about a peer now.
    pub(super) fn refresh_facts(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get(&id) {
            let facts = peer.facts(self.rib.peer(id));
            self.rib.set_peer(id, facts);
        }
    }

    /// Moves an Established peer to another update group if what it is to be told has changed.
    fn regroup(&mut self, id: PeerId) {
        let Some(config) = &self.config else { return };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let (Some((connection, old)), Some(agreement)) = (&peer.member, &peer.agreement) else {
            return;
        };
        let (connection, old) = (*connection, old.clone());
        let local = peer.wires.get(&connection).map(|wire| wire.local);
        let new = peer.export_policy(config, agreement, local);
        if new == old {
            return;
        }
        peer.member = Some((connection, new.clone()));
        let rib = &self.rib;
        let mut group = self
            .groups
            .remove(&new)
            .unwrap_or_else(|| AdjRibOut::new(new.clone(), rib));
        match self.groups.get_mut(&old) {
            Some(old) => group.move_in(id, old),
            None => group.join(id),
        }
        self.groups.insert(new, group);
        self.announce_output(id);
    }

    pub(super) fn drop_empty_groups(&mut self) {
        self.groups.retain(|_, group| !group.is_empty());
    }

    fn proposal(&self, peer: &PeerConfig, config: &SpeakerConfig, restarting: bool) -> Proposal {
        Proposal {
            name: peer.name.clone(),
            local_as: peer.local_as.unwrap_or(config.local_as),
            remote_as: peer.remote_as,
            router_id: config.router_id,
            hold_time: peer.hold_time,
            families: peer.families.clone(),
            restart_time: peer.restart_time,
            restarting,
            forwarding_preserved: self.restart.forwarding_preserved,
        }
    }
}

fn identity(config: &SpeakerConfig) -> Identity {
    let v4 = config.next_hop_v4.map(IpAddr::V4);
    let v6 = config.next_hop_v6.map(IpAddr::V6);
    Identity {
        local_as: config.local_as,
        router_id: config.router_id,
        cluster_id: config.cluster_id(),
        addresses: v4.into_iter().chain(v6).collect(),
    }
}

/// Whether both make for the same OPEN and the same checks of theirs.
fn speaks_the_same(one: &Proposal, other: &Proposal) -> bool {
    Proposal {
        name: String::new(),
        ..one.clone()
    } == Proposal {
        name: String::new(),
        ..other.clone()
    }
}

fn connects_the_same(one: &PeerConfig, other: &PeerConfig) -> bool {
    one.source_address == other.source_address
        && one.bind_device == other.bind_device
        && one.password.is_some() == other.password.is_some()
        && one.ttl_security == other.ttl_security
        && one.multihop == other.multihop
}
