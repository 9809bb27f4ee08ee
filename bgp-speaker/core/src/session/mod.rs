//! The session with one peer: dialling, its connections, and which of two survives a collision.
//!
//! [`dial`] has the states of RFC 4271 section 8 without a connection, [`connection`] those with
//! one; here is what joins them. There may be one Established connection and one more of each
//! direction; section 6.8 decides between them as soon as the peer's OPEN tells its identifier.

mod collision;
pub(crate) mod connection;
mod dial;
pub(crate) mod jitter;
pub(crate) mod open;

use crate::speaker::{ConnectionId, PeerId};
use crate::wire::{Notification, RouteRefresh, Update};
use connection::{Action, Cause, Connection, Control, End, Event, Phase};
use dial::Dial;
pub(crate) use dial::DialPolicy;
use jitter::Jitter;
use open::{Agreement, Proposal};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Outgoing,
    Incoming,
}

/// What a session asks for and tells.
#[derive(Debug)]
pub(crate) enum Output {
    /// Open a TCP connection.
    Connect(ConnectionId),
    Send(ConnectionId, Control),
    /// Close once everything sent is out.
    Close(ConnectionId),
    Up(ConnectionId, Box<Agreement>),
    Update(Box<Update>),
    RouteRefresh(RouteRefresh),
    /// An Established session has ended.
    Down(End, Box<Agreement>),
    /// An attempt has failed.
    Failed(End),
}

/// The session with one peer.
#[derive(Debug)]
pub(crate) struct Session {
    peer: PeerId,
    proposal: Proposal,
    dial: Dial,
    /// The connection being opened, while `dial` says `Connect`.
    connecting: Option<ConnectionId>,
    slots: Vec<Slot>,
    refuse_until: Option<Instant>,
    serial: u32,
    jitter: Jitter,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Slot {
    id: ConnectionId,
    direction: Direction,
    connection: Connection,
    since: Instant,
    /// Agreement and time of becoming Established.
    up: Option<(Box<Agreement>, Instant)>,
}

impl Session {
    /// A session that is idle until started.
    pub(crate) fn new(peer: PeerId, proposal: Proposal, policy: DialPolicy, seed: u64) -> Self {
        let mut jitter = Jitter::new(seed);
        Self {
            peer,
            proposal,
            dial: Dial::new(policy, jitter.next()),
            connecting: None,
            slots: Vec::new(),
            refuse_until: None,
            serial: 0,
            jitter,
            outputs: VecDeque::new(),
        }
    }

    pub(crate) fn start(&mut self, now: Instant) {
        self.dial.start(now);
    }

    /// What the next connection proposes.
    pub(crate) fn set_proposal(&mut self, proposal: Proposal) {
        self.proposal = proposal;
    }

    pub(crate) fn proposal(&self) -> &Proposal {
        &self.proposal
    }

    pub(crate) fn set_policy(&mut self, policy: DialPolicy, now: Instant) {
        self.dial.set_policy(policy, now);
    }

    /// The state of RFC 4271 section 8.2.2 that has come furthest.
    pub(crate) fn state(&self) -> &'static str {
        match self.slots.iter().map(|slot| slot.connection.phase()).max() {
            Some(Phase::Established) => "Established",
            Some(Phase::OpenConfirm) => "OpenConfirm",
            Some(Phase::OpenSent) => "OpenSent",
            Some(Phase::Delayed) => "Connect",
            Some(Phase::Closed) | None => self.dial.name(),
        }
    }

    pub(crate) fn is_established(&self) -> bool {
        self.established().is_some()
    }

    /// Whether it has been stopped, or never started.
    pub(crate) fn is_stopped(&self) -> bool {
        self.dial.is_stopped()
    }

    /// Whether there is no connection, open or being opened.
    pub(crate) fn is_alone(&self) -> bool {
        self.slots.is_empty() && self.connecting.is_none()
    }

    /// The Established connection.
    pub(crate) fn established(&self) -> Option<ConnectionId> {
        self.slots
            .iter()
            .find(|slot| slot.up.is_some())
            .map(|slot| slot.id)
    }

    /// What was agreed on with the connection, once their OPEN is there.
    pub(crate) fn agreement(&self, id: ConnectionId) -> Option<&Agreement> {
        self.slots
            .iter()
            .find(|slot| slot.id == id)?
            .connection
            .agreement()
    }

    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let connections = self
            .slots
            .iter()
            .filter_map(|slot| slot.connection.next_deadline());
        connections.chain(self.dial.next_deadline()).min()
    }

    /// The peer has connected to us. None: not now.
    pub(crate) fn accept(&mut self, now: Instant) -> Option<ConnectionId> {
        if self.dial.name() == "Idle" || self.refuse_until.is_some_and(|until| now < until) {
            return None;
        }
        let superseded = self
            .slots
            .iter()
            .position(|slot| slot.direction == Direction::Incoming && slot.up.is_none());
        if let Some(index) = superseded {
            let words = "the peer has connected anew".to_owned();
            self.handle_slot(index, Event::Stop(None, words), now);
        }
        let id = self.new_id();
        self.begin(id, Direction::Incoming, now);
        Some(id)
    }

    /// TCP has established the connection asked for.
    pub(crate) fn connected(&mut self, id: ConnectionId, now: Instant) {
        if self.connecting == Some(id) {
            self.connecting = None;
            self.begin(id, Direction::Outgoing, now);
            return;
        }
        self.outputs.push_back(Output::Close(id));
    }

    /// TCP could not establish the connection asked for.
    pub(crate) fn connect_failed(&mut self, id: ConnectionId, words: String, now: Instant) {
        if self.connecting != Some(id) {
            return;
        }
        self.connecting = None;
        if self.slots.is_empty() {
            self.dial.failed(Duration::ZERO, now);
        } else {
            self.dial.engage();
        }
        self.outputs.push_back(Output::Failed(End {
            cause: Cause::Lost,
            words,
        }));
    }

    /// Something happened to a connection; unknown connections have ended and are ignored.
    pub(crate) fn handle(&mut self, id: ConnectionId, event: Event, now: Instant) {
        if let Some(index) = self.slots.iter().position(|slot| slot.id == id) {
            self.handle_slot(index, event, now);
        }
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        match self.dial.tick(now) {
            Some(dial::Step::Connect) => {
                let id = self.new_id();
                self.connecting = Some(id);
                self.outputs.push_back(Output::Connect(id));
            }
            Some(dial::Step::GiveUp) => {
                if let Some(id) = self.connecting {
                    self.outputs.push_back(Output::Close(id));
                    self.connect_failed(id, "no answer".into(), now);
                }
            }
            None => {}
        }
        let due: Vec<_> = self
            .slots
            .iter()
            .filter(|slot| slot.connection.next_deadline().is_some_and(|at| at <= now))
            .map(|slot| slot.id)
            .collect();
        for id in due {
            self.handle(id, Event::Tick, now);
        }
    }

    /// Ends all connections with a NOTIFICATION, routes included, and dials again.
    pub(crate) fn reset_hard(&mut self, notification: &Notification, words: &str, now: Instant) {
        self.begin_again(Farewell::Hard(notification), words, now);
    }

    /// Ends all connections with a NOTIFICATION over which RFC 8538 keeps routes, and dials again.
    pub(crate) fn reset(&mut self, notification: &Notification, words: &str, now: Instant) {
        self.begin_again(Farewell::Soft(notification), words, now);
    }

    /// A peer that sees our next connection before it has read why the last one ends takes us for
    /// restarted and keeps our routes (RFC 4724 section 5).
    fn begin_again(&mut self, farewell: Farewell<'_>, words: &str, now: Instant) {
        let was_connected = !self.slots.is_empty();
        self.end_all(farewell, words, now);
        self.dial.start(now);
        if was_connected {
            self.dial.failed(Duration::ZERO, now);
        }
    }

    /// Ends all connections, routes included, and dials again.
    pub(crate) fn fail(&mut self, notification: &Notification, words: &str, now: Instant) {
        self.end_all(Farewell::Hard(notification), words, now);
        self.dial.failed(Duration::ZERO, now);
    }

    /// Ends all connections, routes included, and stays away for `pause`.
    pub(crate) fn pause(
        &mut self,
        notification: &Notification,
        words: &str,
        pause: Duration,
        now: Instant,
    ) {
        self.refuse_until = Some(now + pause);
        self.end_all(Farewell::Hard(notification), words, now);
        self.dial.failed(pause, now);
    }

    /// Ends all connections for good; without a NOTIFICATION the peer may keep our routes.
    pub(crate) fn stop(&mut self, notification: Option<&Notification>, words: &str, now: Instant) {
        self.dial.stop();
        self.end_all(
            notification.map_or(Farewell::Silent, Farewell::Hard),
            words,
            now,
        );
    }

    /// Ends all connections for good; a peer that can keep our routes may (RFC 8538).
    pub(crate) fn leave(&mut self, notification: &Notification, words: &str, now: Instant) {
        self.dial.stop();
        self.end_all(Farewell::Soft(notification), words, now);
    }

    fn end_all(&mut self, farewell: Farewell<'_>, words: &str, now: Instant) {
        self.abandon_attempt();
        while let Some(slot) = self.slots.first() {
            let survives = slot
                .up
                .as_ref()
                .is_some_and(|(a, _)| a.survives_notification());
            let notification = match farewell {
                Farewell::Silent => None,
                Farewell::Hard(notification) if survives => {
                    Some(notification.clone().into_hard_reset())
                }
                Farewell::Hard(notification) | Farewell::Soft(notification) => {
                    Some(notification.clone())
                }
            };
            self.handle_slot(0, Event::Stop(notification, words.to_owned()), now);
        }
    }

    fn abandon_attempt(&mut self) {
        if let Some(id) = self.connecting.take() {
            self.outputs.push_back(Output::Close(id));
        }
    }

    fn new_id(&mut self) -> ConnectionId {
        self.serial += 1;
        ConnectionId {
            peer: self.peer,
            serial: self.serial,
        }
    }

    fn begin(&mut self, id: ConnectionId, direction: Direction, now: Instant) {
        let (proposal, delay) = (self.proposal.clone(), self.dial.delay_open());
        let connection = Connection::start(proposal, delay, self.jitter.next(), now);
        self.slots.push(Slot {
            id,
            direction,
            connection,
            since: now,
            up: None,
        });
        if !self.dial.is_connecting() || direction == Direction::Outgoing {
            self.dial.engage();
        }
        self.drain(self.slots.len() - 1, now);
    }

    fn handle_slot(&mut self, index: usize, event: Event, now: Instant) {
        self.slots[index].connection.handle(event, now);
        self.drain(index, now);
    }

    /// Carries out what the connection asks for.
    fn drain(&mut self, index: usize, now: Instant) {
        let id = self.slots[index].id;
        let mut collision = false;
        while let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == id) {
            let Some(action) = slot.connection.poll() else {
                break;
            };
            match action {
                Action::Send(message) => self.outputs.push_back(Output::Send(id, message)),
                Action::Confirming => collision = true,
                Action::Up => self.came_up(id, now),
                Action::Update(update) => self.outputs.push_back(Output::Update(update)),
                Action::RouteRefresh(refresh) => {
                    self.outputs.push_back(Output::RouteRefresh(refresh));
                }
                Action::Ended(end) => self.ended(id, end, now),
            }
        }
        if collision {
            self.arbitrate(id, now);
        }
    }

    fn came_up(&mut self, id: ConnectionId, now: Instant) {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == id) else {
            return;
        };
        let Some(agreement) = slot.connection.agreement().cloned() else {
            return;
        };
        let agreement = Box::new(agreement);
        slot.up = Some((agreement.clone(), now));
        self.abandon_attempt();
        self.dial.succeeded(now);
        self.outputs.push_back(Output::Up(id, agreement));
    }

    fn ended(&mut self, id: ConnectionId, end: End, now: Instant) {
        let Some(index) = self.slots.iter().position(|slot| slot.id == id) else {
            return;
        };
        let slot = self.slots.remove(index);
        self.outputs.push_back(Output::Close(id));
        if self.slots.is_empty() && self.connecting.is_none() {
            if end.is_error() {
                self.dial.error(now);
            } else {
                self.dial.failed(Duration::ZERO, now);
            }
        }
        self.outputs.push_back(match slot.up {
            Some((agreement, _)) => Output::Down(end, agreement),
            None => Output::Failed(end),
        });
    }
}

/// How a peer is told that we end the session.
#[derive(Clone, Copy)]
enum Farewell<'a> {
    Silent,
    Soft(&'a Notification),
    Hard(&'a Notification),
}

#[cfg(test)]
mod tests;
