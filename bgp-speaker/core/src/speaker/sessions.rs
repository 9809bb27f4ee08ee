//! From octets to sessions, and from sessions to the RIBs.

use super::peer::{Peer, StalePhase};
use super::restart::kept_families;
use super::{ConnectionId, Notice, Output, PeerId, Severity, Speaker};
use crate::config::{Excess, PrefixLimit};
use crate::rib::update_group::UpdateGroup;
use crate::session::Output as Session;
use crate::session::connection::{Cause, Control, End, Event};
use crate::session::open::Agreement;
use crate::wire::{
    Announced, AttributeFault, Family, Message, MessageType, Notification, RouteRefresh,
    SessionParams, Update, decode, encode_keepalive, encode_notification, encode_open,
    encode_route_refresh,
};
use std::time::{Duration, Instant};

/// How long a peer that sends its routes again may take to come to the end (RFC 7313 section 4).
const REFRESH_BOUND: Duration = Duration::from_secs(300);

/// Octets that a framer is given at a time, which bounds what it keeps.
const PIECE: usize = 16 * 1024;

impl Speaker {
    /// Octets of a connection: cuts them into messages and hands them to the session.
    pub(super) fn read(&mut self, connection: ConnectionId, octets: &[u8], now: Instant) {
        for piece in octets.chunks(PIECE) {
            let Some(wire) = self.wire(connection) else {
                return;
            };
            wire.framer.push(piece);
            self.read_messages(connection, now);
        }
    }

    fn read_messages(&mut self, connection: ConnectionId, now: Instant) {
        let id = connection.peer;
        loop {
            let Some(peer) = self.peers.get_mut(&id) else {
                return;
            };
            let Some(event) = next_event(peer, connection) else {
                return;
            };
            peer.session.handle(connection, event, now);
            self.drain_session(id, now);
        }
    }

    fn wire(&mut self, connection: ConnectionId) -> Option<&mut super::peer::Wire> {
        self.peers
            .get_mut(&connection.peer)?
            .wires
            .get_mut(&connection)
    }

    /// Carries out what a session asks for.
    pub(super) fn drain_session(&mut self, id: PeerId, now: Instant) {
        while let Some(peer) = self.peers.get_mut(&id) {
            let Some(output) = peer.session.poll() else {
                peer.note_state(now);
                break;
            };
            match output {
                Session::Connect(connection) => {
                    let output = Output::Connect {
                        connection,
                        target: peer.key.socket_address(),
                        options: peer.socket_options(),
                    };
                    self.outputs.push_back(output);
                }
                Session::Send(connection, message) => self.send(connection, &message, now),
                Session::Close(connection) => {
                    let last = peer.take_control(connection).concat();
                    peer.wires.remove(&connection);
                    self.outputs.push_back(Output::Close { connection, last });
                }
                Session::Up(connection, agreement) => self.session_up(connection, agreement, now),
                Session::Update(update) => self.update(id, *update, now),
                Session::RouteRefresh(refresh) => self.route_refresh(id, refresh, now),
                Session::Down(end, agreement) => self.session_down(id, end, &agreement, now),
                Session::Failed(end) => self.attempt_failed(id, end),
            }
        }
    }

    fn send(&mut self, connection: ConnectionId, message: &Control, now: Instant) {
        let octets = match message {
            Control::Open(open) => encode_open(open),
            Control::Keepalive => encode_keepalive(),
            Control::Notification(notification) => encode_notification(notification),
        };
        if matches!(message, Control::Open(_))
            && let Some(wire) = self.wire(connection)
        {
            wire.opens[0] = octets.as_slice().into();
        }
        self.send_octets(connection, octets, now);
    }

    fn send_octets(&mut self, connection: ConnectionId, octets: Vec<u8>, now: Instant) {
        let Some(peer) = self.peers.get_mut(&connection.peer) else {
            return;
        };
        if peer.send_control(connection, octets, now) {
            self.outputs.push_back(Output::Transmit(connection));
        }
    }

    pub(super) fn send_refresh(&mut self, id: PeerId, refresh: RouteRefresh, now: Instant) {
        let member = self.peers.get(&id).and_then(|peer| peer.member.as_ref());
        if let Some(connection) = member.map(|(connection, _)| *connection) {
            self.send_octets(connection, encode_route_refresh(&refresh), now);
        }
    }

    fn session_up(&mut self, connection: ConnectionId, agreement: Box<Agreement>, now: Instant) {
        let id = connection.peer;
        let (Some(peer), Some(config)) = (self.peers.get_mut(&id), &self.config) else {
            return;
        };
        let local = peer.wires.get(&connection).map(|wire| wire.local);
        let key = peer.export_policy(config, &agreement, local, self.draining);
        peer.member = Some((connection, key.clone()));
        peer.end_of_rib.clear();
        peer.record.established_count += 1;
        peer.record.updates_received = 0;
        peer.record.faults = 0;
        peer.record.near_limit.clear();
        peer.record.last_error = None;
        peer.restart_is_over();
        let text = format!("session with {} is up", peer.key);
        peer.agreement = Some(agreement.clone());
        self.notice(id, Severity::Info, text);
        self.refresh_facts(id);
        self.keep_stale_paths(id, &agreement, now);
        let rib = &self.rib;
        let group = self
            .groups
            .entry(key)
            .or_insert_with_key(|key| UpdateGroup::new(key.clone(), rib));
        group.join(id);
        self.mark_end_of_rib(id, &agreement.params.families);
        self.initial_session_up(id, now);
        self.watch_path(id);
        self.monitor_up(connection);
        self.announce_output(id);
    }

    fn session_down(&mut self, id: PeerId, end: End, agreement: &Agreement, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let text = format!("session with {} is down: {}", peer.key, end.words);
        self.monitor_down(id, &end);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.agreement = None;
        peer.held_end_of_rib.clear();
        peer.refresh_ends.clear();
        // What a refresh has not brought again may not have been lost.
        let refreshing = std::mem::take(&mut peer.refreshing);
        if let Some((_, key)) = peer.member.take()
            && let Some(group) = self.groups.get_mut(&key)
        {
            group.forget(id);
            self.rib.reclaim_soon();
        }
        self.drop_empty_groups();
        let kept = if end.keeps_routes(agreement) {
            kept_families(agreement)
        } else {
            Vec::new()
        };
        self.rib.retain_families(id, &kept);
        // What was stale before and has not come again has had its chance, unless another
        // connection takes over.
        if !end.is_collision() {
            for family in [Family::IPV4, Family::IPV6] {
                if !refreshing.contains_key(&family) {
                    self.rib.sweep(id, family);
                }
            }
        }
        self.rib.mark_stale(id, &kept);
        self.start_restart_timers(id, &kept, agreement, now);
        self.record_end(id, &end);
        self.notice(id, Severity::Warning, text);
    }

    fn attempt_failed(&mut self, id: PeerId, end: End) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if peer.session.is_established() || end.is_collision() {
            return;
        }
        // Said once, not at every attempt.
        let known = peer.record.last_error.as_ref() == Some(&end.words);
        let text = format!("no session with {}: {}", peer.key, end.words);
        self.record_end(id, &end);
        if !known {
            self.notice(id, Severity::Warning, text);
        }
    }

    fn record_end(&mut self, id: PeerId, end: &End) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.record.last_error = Some(end.words.clone());
        match &end.cause {
            Cause::Lost => {}
            Cause::Received(notification) => {
                peer.record.last_notification_received = Some(notification.to_string());
            }
            Cause::Sent(notification) => {
                peer.record.last_notification_sent = Some(notification.to_string());
            }
        }
    }

    fn update(&mut self, id: PeerId, update: Update, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.record.updates_received += 1;
        self.monitor_update(id, &update);
        if !update.withdrawn.is_empty() {
            self.rib.withdraw(id, &update.withdrawn);
        }
        for Announced { next_hop, nlri } in &update.announced {
            let attributes = update.attributes.clone();
            self.rib.announce(id, attributes, *next_hop, nlri);
        }
        self.note_faults(id, &update.faults);
        if let Some(family) = update.end_of_rib {
            self.end_of_rib_received(id, family, now);
        }
        self.check_limit(id, now);
    }

    /// Counts what RFC 7606 lets a session survive; the first of a session is worth a line.
    fn note_faults(&mut self, id: PeerId, faults: &[AttributeFault]) {
        let (Some(fault), Some(peer)) = (faults.first(), self.peers.get_mut(&id)) else {
            return;
        };
        let first = peer.record.faults == 0;
        peer.record.faults += faults.len() as u64;
        if first {
            let text = format!("malformed attribute in an UPDATE: {fault}");
            self.notice(id, Severity::Warning, text);
        }
    }

    fn end_of_rib_received(&mut self, id: PeerId, family: Family, now: Instant) {
        self.rib.sweep(id, family);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let was_last_resort = peer
            .stale
            .remove(&family)
            .is_some_and(|stale| stale.phase == StalePhase::LastResort);
        peer.end_of_rib.insert(family);
        let wanted = peer
            .agreement
            .as_ref()
            .map(|agreement| &agreement.params.families);
        let complete = wanted.is_some_and(|all| all.iter().all(|f| peer.end_of_rib.contains(f)));
        if was_last_resort {
            self.refresh_facts(id);
        }
        if complete {
            self.initial_exchange_done(id, now);
        }
    }

    fn check_limit(&mut self, id: PeerId, now: Instant) {
        for (family, received) in self.rib.count(id).received_by_family() {
            self.check_limit_of(id, family, received, now);
        }
    }

    fn check_limit_of(&mut self, id: PeerId, family: Family, received: usize, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(limit) = peer.config.prefix_limit else {
            return;
        };
        let maximum = limit.maximum as usize;
        let warn_at = maximum.saturating_mul(limit.warn_at.into()) / 100;
        let near = received > warn_at.min(maximum) && limit.warn_at <= 100;
        let over = received > maximum;
        if received <= warn_at {
            peer.record.near_limit.remove(&family);
        }
        if (near || over) && peer.record.near_limit.insert(family) {
            let text =
                format!("peer announces {received} {family} prefixes; the limit is {maximum}");
            self.notice(id, Severity::Warning, text);
        }
        if over {
            self.over_limit(id, family, received, limit, now);
        }
    }

    fn over_limit(
        &mut self,
        id: PeerId,
        family: Family,
        received: usize,
        limit: PrefixLimit,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let notification = Notification::max_prefixes(family, limit.maximum);
        let maximum = limit.maximum;
        let words =
            format!("peer announced {received} {family} prefixes, over the limit of {maximum}");
        match limit.excess {
            Excess::Warn => {}
            Excess::Restart(pause) => peer.session.pause(&notification, &words, pause, now),
            Excess::Idle => {
                peer.over_limit = true;
                peer.session.stop(Some(&notification), &words, now);
            }
        }
    }

    fn route_refresh(&mut self, id: PeerId, refresh: RouteRefresh, now: Instant) {
        let RouteRefresh { family, subtype } = refresh;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let agreement = peer.agreement.as_deref();
        let enhanced = agreement.is_some_and(|agreement| {
            agreement.enhanced_refresh && agreement.params.families.contains(&family)
        });
        match subtype {
            0 => self.tell_again(id, family, now),
            1 if enhanced => {
                peer.refreshing.insert(family, now + REFRESH_BOUND);
                self.rib.mark_stale(id, &[family]);
            }
            2 if enhanced && peer.refreshing.remove(&family).is_some() => {
                self.rib.sweep(id, family);
            }
            // RFC 7313 section 5 wants others ignored.
            _ => {}
        }
    }

    /// Tells a peer everything of a family again, between markers if it understands them and has
    /// been told everything once (RFC 7313 section 4).
    pub(super) fn tell_again(&mut self, id: PeerId, family: Family, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some((_, key)) = &peer.member else {
            return;
        };
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let initial = peer.held_end_of_rib.contains(&family) || group.wants_to_send(id);
        let agreement = peer.agreement.as_deref();
        let enhanced = agreement.is_some_and(|agreement| {
            agreement.enhanced_refresh && agreement.params.families.contains(&family)
        });
        group.refresh(id, family);
        if enhanced && !initial && !peer.refresh_ends.contains(&family) {
            peer.refresh_ends.push(family);
            self.send_refresh(id, RouteRefresh { family, subtype: 1 }, now);
        }
        self.announce_output(id);
    }

    pub(super) fn notice(&mut self, id: PeerId, severity: Severity, text: String) {
        if let Some(peer) = self.peers.get(&id) {
            let peer = peer.config.name.clone();
            self.outputs.push_back(Output::Notice(Notice {
                peer,
                severity,
                text,
            }));
        }
    }
}

/// The next message of a connection as an event.
fn next_event(peer: &mut Peer, connection: ConnectionId) -> Option<Event> {
    let unknown = SessionParams::default();
    let params = peer
        .session
        .agreement(connection)
        .map_or(&unknown, |agreement| &agreement.params);
    let agreed = peer.session.agreement(connection).is_some();
    let wire = peer.wires.get_mut(&connection)?;
    // We announce RFC 8654, so that a peer that knows it may use it from its OPEN on.
    wire.framer.set_extended_message(agreed);
    let message = match wire.framer.next_frame() {
        Ok(Some(frame)) => {
            if frame.kind() == MessageType::Open {
                wire.opens[1] = frame.bytes().into();
            }
            decode(&frame, params)
        }
        Ok(None) => return None,
        Err(error) => Err(error),
    };
    Some(match message {
        Ok(Message::Open(open)) => Event::Open(open),
        Ok(Message::Keepalive) => Event::Keepalive,
        Ok(Message::Update(update)) => Event::Update(Box::new(update)),
        Ok(Message::RouteRefresh(refresh)) => Event::RouteRefresh(refresh),
        Ok(Message::Notification(notification)) => Event::Notification(notification),
        Err(error) => Event::Malformed(error),
    })
}
