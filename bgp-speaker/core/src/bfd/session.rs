//! A session (RFC 5880 section 6): the variables of section 6.8.1 and the rules that change them.
//!
//! ```text
//!            ┌───────── DOWN, AdminDown, timer ───────────┐
//!            v                                            │
//!         ┌──────┐ ──DOWN──> ┌──────┐ ──INIT, UP──> ┌────┴─┐
//!         │ Down │           │ Init │               │  Up  │
//!         └──────┘ <─Admin── └──────┘               └──────┘
//!            └─────────────────INIT────────────────────^
//! ```
//! In capitals: the state that a received packet carries.

use super::packet::{Diagnostic, Packet, State};
use crate::session::jitter::Jitter;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

/// Least interval of transmission while a session is not up (RFC 5880 section 6.8.3).
const SLOW: Duration = Duration::from_secs(1);

/// How a session is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Least interval at which we send.
    pub min_tx: Duration,
    /// Least interval at which we can receive.
    pub min_rx: Duration,
    /// Packets that the other end may miss before it takes the path for broken.
    pub multiplier: NonZeroU8,
    /// Say nothing before the other end does.
    pub passive: bool,
}

impl Default for Profile {
    /// 300 ms, three times, active.
    fn default() -> Self {
        Self {
            min_tx: Duration::from_millis(300),
            min_rx: Duration::from_millis(300),
            multiplier: NonZeroU8::MIN.saturating_add(2),
            passive: false,
        }
    }
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The other end has begun a session that knows nothing of the earlier one.
    pub remote_restarted: bool,
    /// Everything as it is after.
    pub report: Report,
}

/// What a session says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Our state.
    pub state: State,
    /// The state that the other end last said.
    pub remote_state: State,
    /// Why we were last not up.
    pub diagnostic: Diagnostic,
    /// Why the other end was last not up.
    pub remote_diagnostic: Diagnostic,
    /// The other end's BFD outlives its control plane (C bit).
    pub independent: bool,
    /// Interval at which we send, before jitter.
    pub transmit_interval: Duration,
    /// Silence after which the path is taken for broken; zero before anything was heard.
    pub detection_time: Duration,
}

/// A BFD session.
#[derive(Debug)]
pub struct Session {
    profile: Profile,
    state: State,
    diagnostic: Diagnostic,
    discriminator: NonZeroU32,
    /// Held down: AdminDown is said, and what arrives is ignored.
    stopped: bool,
    /// None until something is heard, and again when nothing was for the detection time.
    remote: Option<Remote>,
    /// The intervals that govern timers; those of the profile may wait for the end of a poll.
    desired_min_tx: Duration,
    required_min_rx: Duration,
    polling: bool,
    answer_poll: bool,
    sent_at: Option<Instant>,
    transmit_at: Option<Instant>,
    detect_at: Option<Instant>,
    transition: Option<Transition>,
    jitter: Jitter,
}

/// What the other end last said.
#[derive(Debug, Clone, Copy)]
struct Remote {
    discriminator: NonZeroU32,
    state: State,
    diagnostic: Diagnostic,
    independent: bool,
    demand: bool,
    multiplier: NonZeroU8,
    desired_min_tx: Duration,
    required_min_rx: Duration,
}

impl Session {
    /// A session that is down. `discriminator` names it to the other end and differs from that of
    /// any other session; all randomness comes from `seed`.
    pub fn new(profile: Profile, discriminator: NonZeroU32, seed: u64, now: Instant) -> Self {
        Self {
            profile,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            discriminator,
            stopped: false,
            remote: None,
            desired_min_tx: profile.min_tx.max(SLOW),
            required_min_rx: profile.min_rx,
            polling: false,
            answer_poll: false,
            sent_at: None,
            transmit_at: (!profile.passive).then_some(now),
            detect_at: None,
            transition: None,
            jitter: Jitter::new(seed),
        }
    }

    /// Our name of the session.
    pub fn discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    /// Changes intervals without loss of the session (RFC 5880 section 6.8.3).
    pub fn configure(&mut self, profile: Profile, now: Instant) {
        if self.profile == profile {
            return;
        }
        self.profile = profile;
        if self.state == State::Up {
            self.polling = true;
            // What becomes longer than the other end knows waits for the end of the poll.
            self.desired_min_tx = self.desired_min_tx.min(profile.min_tx);
            self.required_min_rx = self.required_min_rx.max(profile.min_rx);
        } else {
            self.settle();
        }
        self.transmit_soon(now);
    }

    /// Goes to AdminDown for good, and says so, once more at each call.
    pub fn stop(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.stopped, true) {
            self.enter(State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN);
            self.detect_at = None;
        }
        self.transmit_soon(now);
    }

    /// The other end knows of no session that is up: after [`Session::stop`], nothing more to say.
    pub fn is_released(&self) -> bool {
        self.stopped && self.remote.is_none_or(|remote| remote.state <= State::Down)
    }

    /// A packet for this session has arrived (RFC 5880 section 6.8.6, from the choice of the
    /// session on).
    pub fn receive(&mut self, packet: &Packet, now: Instant) {
        let interval = self.transmit_interval();
        let remote_restarted = packet.your_discriminator.is_none()
            && self
                .remote
                .is_some_and(|remote| remote.discriminator != packet.my_discriminator);
        self.remote = Some(Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            diagnostic: packet.diagnostic,
            independent: packet.independent,
            demand: packet.demand,
            multiplier: packet.multiplier,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
        });
        if self.stopped {
            return;
        }
        if packet.final_ && self.polling {
            self.polling = false;
            self.settle();
        }
        match (self.state, packet.state) {
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                self.enter(State::Down, Diagnostic::NEIGHBOR_SIGNALED_DOWN);
                if let Some(transition) = &mut self.transition {
                    transition.remote_restarted = remote_restarted;
                }
            }
            (State::Down, State::Down) => self.enter(State::Init, Diagnostic::NONE),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.enter(State::Up, Diagnostic::NONE);
                self.polling = true;
            }
            (State::Down, State::AdminDown | State::Up)
            | (State::Init, State::Down)
            | (State::Up, State::Init | State::Up)
            | (State::AdminDown, _) => {}
        }
        self.answer_poll |= packet.poll;
        let detection_time = self.detection_time();
        self.detect_at = (!detection_time.is_zero()).then(|| now + detection_time);
        if self.transition.is_some() || self.transmit_at.is_none() {
            self.transmit_soon(now);
        } else if self.transmit_interval() < interval {
            self.schedule(now);
        }
    }

    /// What has to be sent by `now`, if anything; call again until there is nothing.
    pub fn transmit(&mut self, now: Instant) -> Option<Packet> {
        self.expire(now);
        if std::mem::take(&mut self.answer_poll) {
            // F outside the schedule; P and F never go together.
            return Some(Packet {
                poll: false,
                final_: true,
                ..self.packet()
            });
        }
        self.transmit_at.filter(|at| *at <= now)?;
        self.sent_at = Some(now);
        if !self.is_periodic() {
            self.transmit_at = None;
            return None;
        }
        self.schedule(now);
        Some(self.packet())
    }

    /// The last change of state, once; follows [`Session::receive`], [`Session::transmit`] and
    /// [`Session::stop`].
    pub fn transition(&mut self) -> Option<Transition> {
        self.transition.take()
    }

    /// When [`Session::transmit`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.transmit_at.into_iter().chain(self.detect_at).min()
    }

    /// What is known.
    pub fn report(&self) -> Report {
        let remote = self.remote.as_ref();
        Report {
            state: self.state,
            remote_state: remote.map_or(State::Down, |remote| remote.state),
            diagnostic: self.diagnostic,
            remote_diagnostic: remote.map_or(Diagnostic::NONE, |remote| remote.diagnostic),
            independent: remote.is_some_and(|remote| remote.independent),
            transmit_interval: self.transmit_interval(),
            detection_time: self.detection_time(),
        }
    }

    /// Nothing was heard for the detection time (RFC 5880 section 6.8.4).
    fn expire(&mut self, now: Instant) {
        if self.detect_at.is_none_or(|at| now < at) {
            return;
        }
        self.detect_at = None;
        match self.state {
            State::Init | State::Up => {
                self.enter(State::Down, Diagnostic::DETECTION_TIME_EXPIRED);
                self.transmit_soon(now);
            }
            State::AdminDown | State::Down => {}
        }
        self.remote = None;
    }

    fn enter(&mut self, state: State, diagnostic: Diagnostic) {
        let from = std::mem::replace(&mut self.state, state);
        self.diagnostic = diagnostic;
        if state != State::Up {
            self.polling = false;
        }
        self.settle();
        let report = self.report();
        // Two changes between two looks are one.
        let from = self.transition.map_or(from, |earlier| earlier.from);
        self.transition = Some(Transition {
            from,
            remote_restarted: false,
            report,
        });
    }

    /// The intervals of the profile, as far as the state allows them, govern from here on.
    fn settle(&mut self) {
        self.desired_min_tx = self.advertised_min_tx();
        self.required_min_rx = self.profile.min_rx;
    }

    fn advertised_min_tx(&self) -> Duration {
        match self.state {
            State::Up => self.profile.min_tx,
            State::AdminDown | State::Down | State::Init => self.profile.min_tx.max(SLOW),
        }
    }

    /// RFC 5880 section 6.8.7: whether periodic packets are sent at all.
    fn is_periodic(&self) -> bool {
        let Some(remote) = &self.remote else {
            return !self.profile.passive;
        };
        let demanded =
            remote.demand && self.state == State::Up && remote.state == State::Up && !self.polling;
        !remote.required_min_rx.is_zero() && !demanded
    }

    fn transmit_interval(&self) -> Duration {
        let wanted = self
            .remote
            .map_or(Duration::ZERO, |remote| remote.required_min_rx);
        self.desired_min_tx.max(wanted)
    }

    /// RFC 5880 section 6.8.4.
    fn detection_time(&self) -> Duration {
        self.remote.map_or(Duration::ZERO, |remote| {
            self.required_min_rx.max(remote.desired_min_tx) * u32::from(remote.multiplier.get())
        })
    }

    /// The content differs from what was last sent: the other end learns it at once (section 6.8.7).
    fn transmit_soon(&mut self, now: Instant) {
        self.transmit_at = (self.remote.is_some() || !self.profile.passive).then_some(now);
    }

    /// One jittered interval after the last packet: up to a quarter less, and at least a tenth if a
    /// single missed packet counts (section 6.8.7).
    fn schedule(&mut self, now: Instant) {
        let interval = self.transmit_interval();
        let mut jittered = self.jitter.apply(interval);
        if self.profile.multiplier == NonZeroU8::MIN {
            jittered = jittered.min(interval * 9 / 10);
        }
        self.transmit_at = Some(self.sent_at.unwrap_or(now) + jittered);
    }

    fn packet(&self) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.polling,
            final_: false,
            independent: false,
            demand: false,
            multiplier: self.profile.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.map(|remote| remote.discriminator),
            desired_min_tx: self.advertised_min_tx(),
            required_min_rx: self.profile.min_rx,
            required_min_echo_rx: Duration::ZERO,
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
