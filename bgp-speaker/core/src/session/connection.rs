//! One TCP connection from OPEN on (RFC 4271 section 8.2.2):
//!
//! ```text
//!  start ──DelayOpen──> Delayed ──timer: OPEN sent──> OpenSent
//!                          └──OPEN: OPEN, KEEPALIVE sent──> OpenConfirm
//!  start ──OPEN sent──> OpenSent ──OPEN ok, KEEPALIVE sent──> OpenConfirm ──KEEPALIVE──> Established
//!                          │                                      │                         │  ^
//!                          └──────── error, loss, stop ───────────┴────────────> Closed <───┘  │ UPDATE,
//!                                                                                              │ KEEPALIVE,
//!                                                                                              └ ROUTE-REFRESH
//! ```
//! `Delayed` is `Connect` or `Active` with the DelayOpenTimer running. `Idle`, `Connect` and `Active`, the states without a connection, are in [`super::dial`].

use super::jitter::Jitter;
use super::open::{Agreement, Proposal};
use crate::wire::{ErrorCode, Notification, Open, RouteRefresh, Update, WireError};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Hold time until the peer's OPEN is there. RFC 4271 section 8.2.2 suggests 4 minutes; who has not
/// answered in one is better asked anew.
const OPEN_HOLD: Duration = Duration::from_secs(60);

/// What happens to a connection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Open(Open),
    Keepalive,
    Update(Box<Update>),
    RouteRefresh(RouteRefresh),
    Notification(Notification),
    /// The peer sent something that must be answered by this.
    Malformed(WireError),
    /// The connection is gone, and why.
    Lost(String),
    /// We end it: with a NOTIFICATION or without a word.
    Stop(Option<Notification>, String),
    /// The peer has taken nothing of what we send for too long (RFC 9687).
    SendHoldExpired,
    /// Time has passed.
    Tick,
}

/// What a connection asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    Send(Control),
    /// Their OPEN is acceptable: look for a collision.
    Confirming,
    Up,
    Update(Box<Update>),
    RouteRefresh(RouteRefresh),
    Ended(End),
}

/// A message that a session sends by itself; UPDATEs come from the Adj-RIB-Out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    Open(Open),
    Keepalive,
    Notification(Notification),
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) cause: Cause,
    pub(crate) words: String,
}

/// Who ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// TCP, or we without a word.
    Lost,
    Received(Notification),
    Sent(Notification),
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Closed,
    /// Our OPEN waits for theirs.
    Delayed,
    OpenSent,
    OpenConfirm,
    Established,
}

#[derive(Debug)]
enum State {
    Delayed {
        open_at: Instant,
    },
    OpenSent {
        hold_at: Instant,
    },
    OpenConfirm {
        agreement: Box<Agreement>,
        timers: Timers,
    },
    Established {
        agreement: Box<Agreement>,
        timers: Timers,
    },
    Closed,
}

#[derive(Debug, Clone, Copy)]
struct Timers {
    /// None if the hold time is 0.
    running: Option<Running>,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    hold_time: Duration,
    hold_at: Instant,
    keepalive_at: Instant,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    proposal: Proposal,
    jitter: Jitter,
    actions: VecDeque<Action>,
}

impl Connection {
    /// A connection that TCP has just established.
    pub(crate) fn start(proposal: Proposal, delay: Duration, seed: u64, now: Instant) -> Self {
        let mut connection = Self {
            state: State::Delayed {
                open_at: now + delay,
            },
            proposal,
            jitter: Jitter::new(seed),
            actions: VecDeque::new(),
        };
        connection.tick(now);
        connection
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.state {
            State::Delayed { .. } => Phase::Delayed,
            State::OpenSent { .. } => Phase::OpenSent,
            State::OpenConfirm { .. } => Phase::OpenConfirm,
            State::Established { .. } => Phase::Established,
            State::Closed => Phase::Closed,
        }
    }

    pub(crate) fn agreement(&self) -> Option<&Agreement> {
        match &self.state {
            State::OpenConfirm { agreement, .. } | State::Established { agreement, .. } => {
                Some(agreement)
            }
            State::Delayed { .. } | State::OpenSent { .. } | State::Closed => None,
        }
    }

    pub(crate) fn proposal(&self) -> &Proposal {
        &self.proposal
    }

    pub(crate) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Delayed { open_at } => Some(*open_at),
            State::OpenSent { hold_at } => Some(*hold_at),
            State::OpenConfirm { timers, .. } | State::Established { timers, .. } => timers
                .running
                .map(|running| running.hold_at.min(running.keepalive_at)),
            State::Closed => None,
        }
    }

    pub(crate) fn handle(&mut self, event: Event, now: Instant) {
        match (&mut self.state, event) {
            (State::Closed, _) => {}
            (_, Event::Stop(Some(notification), words)) => self.end_with(notification, words),
            (_, Event::Stop(None, words)) | (_, Event::Lost(words)) => {
                self.end(Cause::Lost, words);
            }
            (_, Event::Notification(notification)) => {
                let words = format!("peer sent {notification}");
                self.end(Cause::Received(notification), words);
            }
            (_, Event::Malformed(error)) => {
                self.end_with(
                    error.notification,
                    format!("peer sent what is no BGP: {}", error.reason),
                );
            }
            (_, Event::Tick) => self.tick(now),
            (_, Event::SendHoldExpired) => {
                let words = "send hold timer expired: the peer does not read".to_owned();
                self.end_with(Notification::new(ErrorCode::SEND_HOLD_TIMER_EXPIRED), words);
            }
            (State::Delayed { .. }, Event::Open(open)) => {
                self.send_open(now);
                self.opened(&open, now);
            }
            (
                State::Delayed { .. },
                Event::Keepalive | Event::Update(_) | Event::RouteRefresh(_),
            ) => {
                self.unexpected(ErrorCode::FSM_UNSPECIFIC);
            }
            (State::OpenSent { .. }, Event::Open(open)) => self.opened(&open, now),
            (
                State::OpenSent { .. },
                Event::Keepalive | Event::Update(_) | Event::RouteRefresh(_),
            ) => {
                self.unexpected(ErrorCode::FSM_OPEN_SENT);
            }
            (State::OpenConfirm { .. }, Event::Keepalive) => self.establish(now),
            (
                State::OpenConfirm { .. },
                Event::Open(_) | Event::Update(_) | Event::RouteRefresh(_),
            ) => {
                self.unexpected(ErrorCode::FSM_OPEN_CONFIRM);
            }
            (State::Established { timers, .. }, Event::Keepalive) => timers.heard(now),
            (State::Established { timers, .. }, Event::Update(update)) => {
                timers.heard(now);
                self.actions.push_back(Action::Update(update));
            }
            (State::Established { timers, .. }, Event::RouteRefresh(refresh)) => {
                timers.heard(now);
                self.actions.push_back(Action::RouteRefresh(refresh));
            }
            (State::Established { .. }, Event::Open(_)) => {
                self.unexpected(ErrorCode::FSM_ESTABLISHED)
            }
        }
    }

    fn send_open(&mut self, now: Instant) {
        self.state = State::OpenSent {
            hold_at: now + OPEN_HOLD,
        };
        let open = Control::Open(self.proposal.open());
        self.actions.push_back(Action::Send(open));
    }

    fn opened(&mut self, open: &Open, now: Instant) {
        match self.proposal.accept(open) {
            Ok(agreement) => {
                let timers = Timers::start(agreement.hold_time, &mut self.jitter, now);
                self.state = State::OpenConfirm {
                    agreement: Box::new(agreement),
                    timers,
                };
                self.actions.push_back(Action::Send(Control::Keepalive));
                self.actions.push_back(Action::Confirming);
            }
            Err(refusal) => self.end_with(refusal.notification, refusal.words),
        }
    }

    fn establish(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::OpenConfirm {
                agreement,
                mut timers,
            } => {
                timers.heard(now);
                self.state = State::Established { agreement, timers };
                self.actions.push_back(Action::Up);
            }
            other => self.state = other,
        }
    }

    fn tick(&mut self, now: Instant) {
        match &mut self.state {
            State::Delayed { open_at } if now >= *open_at => self.send_open(now),
            State::OpenSent { hold_at } if now >= *hold_at => {
                self.end_with(hold_expired(), "the peer never sent an OPEN".into());
            }
            State::OpenConfirm { timers, .. } | State::Established { timers, .. } => {
                let Some(running) = &mut timers.running else {
                    return;
                };
                if now >= running.hold_at {
                    let words = format!(
                        "hold timer expired: nothing heard for {} s",
                        running.hold_time.as_secs()
                    );
                    return self.end_with(hold_expired(), words);
                }
                if now >= running.keepalive_at {
                    running.keepalive_at = now + self.jitter.apply(running.hold_time / 3);
                    self.actions.push_back(Action::Send(Control::Keepalive));
                }
            }
            State::Delayed { .. } | State::OpenSent { .. } | State::Closed => {}
        }
    }

    fn unexpected(&mut self, error: ErrorCode) {
        self.end_with(Notification::new(error), format!("we sent {error}"));
    }

    fn end_with(&mut self, notification: Notification, words: String) {
        self.actions
            .push_back(Action::Send(Control::Notification(notification.clone())));
        self.end(Cause::Sent(notification), words);
    }

    fn end(&mut self, cause: Cause, words: String) {
        self.state = State::Closed;
        self.actions.push_back(Action::Ended(End { cause, words }));
    }
}

impl End {
    /// Another connection with the same peer was kept.
    pub(crate) fn is_collision(&self) -> bool {
        match &self.cause {
            Cause::Lost => false,
            Cause::Received(notification) | Cause::Sent(notification) => {
                notification.error_code() == ErrorCode::CEASE_COLLISION
            }
        }
    }

    /// Something is wrong that another attempt may well meet again: attempts are to be spaced.
    /// Cease is no error (RFC 4486), but a decision.
    pub(crate) fn is_error(&self) -> bool {
        match &self.cause {
            Cause::Lost => false,
            Cause::Received(notification) | Cause::Sent(notification) => {
                notification.code != ErrorCode::CEASE_UNSPECIFIC.code
            }
        }
    }

    /// Whether routes of a peer that takes part in graceful restart are kept (RFC 4724 section 4.2,
    /// RFC 8538 section 3). A collision ends a connection, not the session.
    pub(crate) fn keeps_routes(&self, agreement: &Agreement) -> bool {
        agreement.graceful_restart.is_some()
            && match &self.cause {
                Cause::Lost => true,
                Cause::Received(_) | Cause::Sent(_) if self.is_collision() => true,
                Cause::Received(notification) | Cause::Sent(notification) => {
                    agreement.survives_notification()
                        && notification.error_code() != ErrorCode::CEASE_HARD_RESET
                }
            }
    }
}

impl Timers {
    fn start(hold_time: Option<Duration>, jitter: &mut Jitter, now: Instant) -> Self {
        let running = hold_time.map(|hold_time| Running {
            hold_time,
            hold_at: now + hold_time,
            keepalive_at: now + jitter.apply(hold_time / 3),
        });
        Self { running }
    }

    fn heard(&mut self, now: Instant) {
        if let Some(running) = &mut self.running {
            running.hold_at = now + running.hold_time;
        }
    }
}

fn hold_expired() -> Notification {
    Notification::new(ErrorCode::HOLD_TIMER_EXPIRED)
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
