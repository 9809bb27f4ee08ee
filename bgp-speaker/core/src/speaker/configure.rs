//! A configuration replaces another one: only what differs is touched.

use super::peer::{Initial, Origin, Peer, Refusals, dial_policy};
use super::{ConnectionId, Output, PeerId, Speaker};
use crate::config::{PeerConfig, PeerKey, SpeakerConfig};
use crate::rib::Identity;
use crate::rib::update_group::UpdateGroup;
use crate::session::open::Proposal;
use crate::wire::{ErrorCode, Notification};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

impl Speaker {
    /// Replaces the configuration. A session is ended only if it is configured no more, or if
    /// something in its OPEN or its TCP connection has to differ. Where other peers come in the
    /// place of one that is configured no more, its session ends once they have said what they
    /// have, or after half a minute.
    pub fn set_config(&mut self, config: SpeakerConfig, now: Instant) {
        if self.config.as_ref() == Some(&config) {
            return;
        }
        self.rib.set_identity(identity(&config));
        let first = self.config.replace(config.clone()).is_none();
        let gone = self.by_key.iter();
        let gone = gone.filter(|(key, id)| !self.is_configured(key, **id, &config));
        let (replaced, gone): (BTreeSet<_>, BTreeSet<_>) = gone
            .map(|(key, _)| *key)
            .partition(|key| config.peers.contains_key(key));
        for key in replaced {
            self.remove_peer(key, now);
        }
        for (key, peer) in &config.peers {
            match self.by_key.get(key).copied() {
                Some(id) => self.change_peer(id, peer, &config, now),
                None => drop(self.add_peer(*key, Origin::Listed, peer, &config, now)),
            }
        }
        self.change_dynamic_peers(&config, now);
        self.find_interface_peers(&config, now);
        self.let_go(&gone, now);
        self.regroup_all();
        if first {
            self.start_sessions(now);
        }
        self.check_convergence(now);
    }

    fn is_configured(&self, key: &PeerKey, id: PeerId, config: &SpeakerConfig) -> bool {
        match self.peers.get(&id).map(|peer| &peer.origin) {
            Some(Origin::Listed) => config.peers.contains_key(key),
            Some(Origin::Dynamic(range)) => {
                config.dynamic_peers.contains_key(range) && !config.peers.contains_key(key)
            }
            Some(Origin::Interface(name)) => config.interface_peers.contains_key(&**name),
            None => false,
        }
    }

    /// Starts everything once configuration and routes of this node are known.
    pub(super) fn start_sessions(&mut self, now: Instant) {
        if !self.may_start() {
            return;
        }
        self.convergence.start(now);
        for peer in self.peers.values_mut() {
            if peer.is_wanted() {
                peer.session.start(now);
            }
        }
        self.check_convergence(now);
    }

    fn may_start(&self) -> bool {
        self.config.is_some() && self.local_routes.is_some() && !self.stopped
    }

    pub(super) fn add_peer(
        &mut self,
        key: PeerKey,
        origin: Origin,
        peer_config: &PeerConfig,
        config: &SpeakerConfig,
        now: Instant,
    ) -> PeerId {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        let restarting = self.restart.restarting && !self.convergence.is_reached();
        let proposal = self.proposal(peer_config, config, restarting);
        let seed = self.seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut peer = Peer::new(id, key, origin, peer_config.clone(), proposal, seed, now);
        self.rib.set_peer(id, peer.facts(config, None));
        if !peer.is_wanted() {
            peer.initial = Initial::Over;
        } else if self.may_start() {
            peer.session.start(now);
        }
        self.by_key.insert(key, id);
        self.peers.insert(id, peer);
        id
    }

    pub(super) fn remove_peer(&mut self, key: PeerKey, now: Instant) {
        let Some(id) = self.by_key.remove(&key) else {
            return;
        };
        self.leaving.forget(&key);
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

    pub(super) fn change_peer(
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
        if peer.config != *peer_config {
            peer.refusals = Refusals::default();
            peer.over_limit = false;
        }
        let password = peer_config.password.clone();
        let rekey = password.filter(|password| peer.config.password.as_ref() != Some(password));
        peer.config = peer_config.clone();
        peer.session.set_proposal(proposal);
        peer.session.set_policy(dial_policy(peer_config), now);
        if !peer.is_wanted() {
            self.shut_down(id, now);
        } else if peer.session.is_stopped() {
            if may_start {
                peer.session.start(now);
            }
        } else if reset && may_start {
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
        if let (Some(peer), Some(config)) = (self.peers.get(&id), &self.config) {
            let facts = peer.facts(config, self.rib.peer(id));
            self.rib.set_peer(id, facts);
        }
    }

    /// Ends the session of a peer that is not to have one, with the text that it is to be told
    /// (RFC 9003), and forgets its routes.
    fn shut_down(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let text = peer.config.shutdown.clone().unwrap_or_default();
        let cease = Notification::with_text(ErrorCode::CEASE_ADMIN_SHUTDOWN, &text);
        peer.session
            .stop(Some(&cease), "it is shut down by configuration", now);
        peer.initial = Initial::Over;
        peer.stale.clear();
        self.drain_session(id, now);
        self.rib.retain_families(id, &[]);
        self.refresh_facts(id);
    }

    /// Moves every Established peer to the update group that it belongs to now.
    pub(super) fn regroup_all(&mut self) {
        for id in self.peer_ids() {
            self.regroup(id);
        }
        self.drop_empty_groups();
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
        let new = peer.export_policy(config, agreement, local, self.draining);
        if new == old {
            return;
        }
        let Some(mut other) = self.groups.remove(&old) else {
            return;
        };
        peer.member = Some((connection, new.clone()));
        let rib = &self.rib;
        let group = self
            .groups
            .entry(new)
            .or_insert_with_key(|key| UpdateGroup::new(key.clone(), rib));
        group.take_over(&mut other, id, rib);
        self.groups.insert(old, other);
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
            extended_next_hop: peer.extended_next_hop,
            add_path: peer.add_path,
            role: peer.role,
            strict_role: peer.strict_role,
            restart_time: peer.restart_time,
            long_lived_stale_time: peer.long_lived_stale_time,
            restarting,
            forwarding_preserved: self.restart.forwarding_preserved,
        }
    }
}

fn identity(config: &SpeakerConfig) -> Identity {
    let v4 = config.next_hop_v4.map(IpAddr::V4);
    let v6 = config.next_hop_v6.map(IpAddr::V6);
    let ranges = config.dynamic_peers.values().map(|range| &range.peer);
    let all = config.peers.values().chain(config.interface_peers.values());
    let clusters = all.chain(ranges).filter_map(|peer| peer.cluster_id);
    Identity {
        local_as: config.local_as,
        router_id: config.router_id,
        cluster_ids: clusters.chain([config.cluster_id()]).collect(),
        addresses: v4.into_iter().chain(v6).collect(),
        decision: config.decision,
        metric: config.metric,
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
