//! When the initial exchange is over, and what a restarted speaker holds back until then
//! (RFC 4724 section 4.1).
//!
//! Every peer is waited for on its own: one that cannot be reached delays nobody for longer than
//! [`session_bound`], one that is slow for no longer than [`SLOW`]. Only the end of the exchange
//! waits: routes are learnt, used and announced as they come.

use super::peer::{Initial, Peer};
use super::{PeerId, Speaker};
use crate::config::PeerConfig;
use std::time::{Duration, Instant};

/// How long a session is waited for, and the routes of a peer that need not send End-of-RIB.
const UNREACHABLE: Duration = Duration::from_secs(5);
/// How long End-of-RIB is waited for, and a connection of a peer that we do not connect to.
const SLOW: Duration = Duration::from_secs(30);
/// The longest that a restarted speaker waits for a session, whatever the restart time.
const PATIENT: Duration = Duration::from_secs(120);
/// How long a restarted speaker holds End-of-RIB back after its start: while it does, peers go on
/// using routes of ours that may be gone.
const HOLD: Duration = Duration::from_secs(30);

/// Progress of the initial exchange.
#[derive(Debug, Default)]
pub(super) struct Convergence {
    started: Option<Instant>,
    reached: Milestone,
    released: Milestone,
    deadline: Option<Instant>,
}

/// Something that comes about once and is told once.
#[derive(Debug, Default)]
struct Milestone {
    reached: bool,
    told: bool,
}

impl Milestone {
    fn take(&mut self) -> bool {
        self.reached && !std::mem::replace(&mut self.told, true)
    }
}

impl Convergence {
    pub(super) fn start(&mut self, now: Instant) {
        self.started.get_or_insert(now);
    }

    pub(super) fn is_reached(&self) -> bool {
        self.reached.reached
    }

    /// Whether End-of-RIB need not be held back any longer.
    pub(super) fn is_released(&self) -> bool {
        self.released.reached
    }

    /// True once, after it has been reached.
    pub(super) fn take_reached(&mut self) -> bool {
        self.reached.take()
    }

    /// True once, when held End-of-RIB markers may go.
    pub(super) fn take_released(&mut self) -> bool {
        self.released.take()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// How long a session with a peer is waited for. A restarted speaker still forwards by the routes
/// that the peer announced before, and giving up on the peer would be the end of them.
fn session_bound(peer: &PeerConfig, restarting: bool) -> Duration {
    if restarting {
        Duration::from_secs(peer.restart_time.into()).clamp(SLOW, PATIENT)
    } else if peer.passive {
        SLOW
    } else {
        UNREACHABLE
    }
}

impl Speaker {
    /// Looks whether all peers are through, or have to be given up on.
    pub(super) fn check_convergence(&mut self, now: Instant) {
        let Some(started) = self.convergence.started else {
            return;
        };
        if self.convergence.is_reached() {
            return;
        }
        let restarting = self.restart.restarting;
        let mut deadline: Option<Instant> = None;
        for peer in self.peers.values_mut() {
            let until = match peer.initial {
                Initial::Session => started + session_bound(&peer.config, restarting),
                Initial::EndOfRib { until } => until,
                Initial::Over => continue,
            };
            if now >= until {
                peer.initial = Initial::Over;
            } else {
                deadline = Some(deadline.map_or(until, |earlier| earlier.min(until)));
            }
        }
        let release = started + HOLD;
        self.convergence.reached.reached = deadline.is_none();
        self.convergence.released.reached |= deadline.is_none() || now >= release;
        self.convergence.deadline = if self.convergence.is_released() {
            deadline
        } else {
            deadline.map(|deadline| deadline.min(release))
        };
        if self.convergence.is_reached() {
            // From now on whoever connects meets a speaker that has been here before.
            self.peers.values_mut().for_each(Peer::restart_is_over);
        }
    }

    /// A session has come up.
    pub(super) fn initial_session_up(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.initial == Initial::Session {
            let marks = peer
                .agreement
                .as_ref()
                .is_some_and(|a| a.graceful_restart.is_some());
            let bound = if marks { SLOW } else { UNREACHABLE };
            peer.initial = Initial::EndOfRib { until: now + bound };
        }
        self.check_convergence(now);
    }

    /// The peer has sent all of its routes.
    pub(super) fn initial_exchange_done(&mut self, id: PeerId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.initial = Initial::Over;
        }
        self.check_convergence(now);
        self.check_leaving(now);
    }

    /// Sends the End-of-RIB markers that had to wait.
    pub(super) fn release_end_of_rib(&mut self) {
        for id in self.peer_ids() {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            let held = std::mem::take(&mut peer.held_end_of_rib);
            let Some((_, key)) = &peer.member else {
                continue;
            };
            if let Some(group) = self.groups.get_mut(key) {
                group.end_of_rib(id, &held);
            }
            self.announce_output(id);
        }
    }
}
