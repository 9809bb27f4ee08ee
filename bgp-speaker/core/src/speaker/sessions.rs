//! From octets to sessions, and from sessions to the RIBs.

use super::peer::Peer;
use super::restart::kept_families;
use super::{ConnectionId, Notice, Output, PeerId, Severity, Speaker};
use crate::rib::adj_out::AdjRibOut;
use crate::session::Output as Session;
use crate::session::connection::{Cause, Control, End, Event};
use crate::session::open::Agreement;
use crate::wire::{
    Announced, AttributeFault, Family, Message, Notification, RouteRefresh, SessionParams, Update,
    decode, encode_keepalive, encode_notification, encode_open,
};
use std::time::{Duration, Instant};

/// Pause after the limit of prefixes was exceeded.
const PREFIX_LIMIT_PAUSE: Duration = Duration::from_secs(60);

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
                return;
            };
            match output {
                Session::Connect(connection) => {
                    let output = Output::Connect {
                        connection,
                        target: (peer.key.address, peer.key.port).into(),
                        options: peer.socket_options(),
                    };
                    self.outputs.push_back(output);
                }
                Session::Send(connection, message) => self.send(connection, &message),
                Session::Close(connection) => {
                    let last = peer.take_control(connection).concat();
                    peer.wires.remove(&connection);
                    self.outputs.push_back(Output::Close { connection, last });
                }
                Session::Up(connection, agreement) => self.session_up(connection, agreement, now),
                Session::Update(update) => self.update(id, *update, now),
                Session::RouteRefresh(refresh) => self.route_refresh(id, refresh),
                Session::Down(end, agreement) => self.session_down(id, end, &agreement, now),
                Session::Failed(end) => self.attempt_failed(id, end),
            }
        }
    }

    fn send(&mut self, connection: ConnectionId, message: &Control) {
        let octets = match message {
            Control::Open(open) => encode_open(open),
            Control::Keepalive => encode_keepalive(),
            Control::Notification(notification) => encode_notification(notification),
        };
        let Some(peer) = self.peers.get_mut(&connection.peer) else {
            return;
        };
        if peer.send_control(connection, octets) {
            self.outputs.push_back(Output::Transmit(connection));
        }
    }

    fn session_up(&mut self, connection: ConnectionId, agreement: Box<Agreement>, now: Instant) {
        let id = connection.peer;
        let (Some(peer), Some(config)) = (self.peers.get_mut(&id), &self.config) else {
            return;
        };
        let local = peer.wires.get(&connection).map(|wire| wire.local);
        let key = peer.export_policy(config, &agreement, local);
        peer.member = Some((connection, key.clone()));
        peer.end_of_rib.clear();
        peer.record.established_count += 1;
        peer.record.updates_received = 0;
        peer.record.faults = 0;
        peer.record.last_error = None;
        peer.restart_is_over();
        let export = peer.config.export;
        let text = format!("session with {} is up", peer.key);
        peer.agreement = Some(agreement.clone());
        self.notice(id, Severity::Info, text);
        self.refresh_facts(id);
        self.keep_stale_paths(id, &agreement, now);
        let rib = &self.rib;
        let group = self
            .groups
            .entry(key)
            .or_insert_with_key(|key| AdjRibOut::new(key.clone(), rib));
        group.join(id);
        self.mark_end_of_rib(id, export, &agreement.params.families);
        self.initial_session_up(id, now);
        self.watch_path(id);
        self.announce_output(id);
    }

    fn session_down(&mut self, id: PeerId, end: End, agreement: &Agreement, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let text = format!("session with {} is down: {}", peer.key, end.words);
        peer.agreement = None;
        peer.held_end_of_rib.clear();
        if let Some((_, key)) = peer.member.take()
            && let Some(group) = self.groups.get_mut(&key)
        {
            group.leave(id);
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
                self.rib.sweep(id, family);
            }
        }
        self.rib.mark_stale(id, &kept);
        let restart_time = agreement
            .graceful_restart
            .as_ref()
            .map_or(0, |gr| gr.restart_time);
        let until = now + Duration::from_secs(restart_time.into());
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.stale = kept.into_iter().map(|family| (family, until)).collect();
        }
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
        peer.stale.remove(&family);
        peer.end_of_rib.insert(family);
        let wanted = peer
            .agreement
            .as_ref()
            .map(|agreement| &agreement.params.families);
        let complete = wanted.is_some_and(|all| all.iter().all(|f| peer.end_of_rib.contains(f)));
        if complete {
            self.initial_exchange_done(id, now);
        }
    }

    fn check_limit(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let received = self.rib.count(id).received;
        let Some(limit) = peer
            .config
            .max_prefixes
            .filter(|limit| received > *limit as usize)
        else {
            return;
        };
        let family = peer
            .config
            .families
            .first()
            .copied()
            .unwrap_or(Family::IPV4);
        let notification = Notification::max_prefixes(family, limit);
        let words = format!("peer announced {received} prefixes, over the limit of {limit}");
        peer.session
            .pause(&notification, &words, PREFIX_LIMIT_PAUSE, now);
    }

    fn route_refresh(&mut self, id: PeerId, refresh: RouteRefresh) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        // Subtypes 1 and 2 delimit an enhanced refresh (RFC 7313), which we do not offer.
        if refresh.subtype != 0 {
            return;
        }
        if let Some(group) = peer
            .member
            .as_ref()
            .and_then(|(_, key)| self.groups.get_mut(key))
        {
            group.refresh(id, refresh.family);
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
    let wire = peer.wires.get_mut(&connection)?;
    let message = match wire.framer.next_frame() {
        Ok(Some(frame)) => decode(&frame, params),
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
