//! The states of RFC 4271 section 8.2.2 in which there is no connection: when to connect.
//!
//! ```text
//!  Idle ──start──> Connect ──refused, lost──> Active ──retry timer──> Connect
//!                     └──────connected──────> Engaged ──connection ended──> Active
//! ```
//! In `Active` we wait, and accept. A passive session goes from `Idle` to `Active` and stays. A
//! connection that ended with an error leads back to `Idle` for a time that doubles with each such
//! end (DampPeerOscillations, RFC 4271 section 8.1.1); nobody is accepted then.

use super::jitter::Jitter;
use std::time::{Duration, Instant};

/// How long TCP may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// First time in `Idle` after an error, and the longest.
const FIRST_HOLD: Duration = Duration::from_secs(1);
const LONGEST_HOLD: Duration = Duration::from_secs(60);
/// A session that lasted so long makes earlier errors forgotten.
const STABLE: Duration = Duration::from_secs(60);
/// First interval between attempts; doubles up to the configured one.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// When to connect.
#[derive(Debug)]
pub(crate) struct Dial {
    state: State,
    policy: DialPolicy,
    /// Attempts that have failed since the last session.
    failures: u32,
    /// Errors since the last session that lasted.
    errors: u32,
    up_since: Option<Instant>,
    jitter: Jitter,
}

/// Who connects, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DialPolicy {
    pub(crate) passive: bool,
    pub(crate) retry: Duration,
    /// How long a connection waits for the peer's OPEN before ours.
    pub(crate) delay_open: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    IdleHold { until: Instant },
    Connect { give_up_at: Instant },
    Active { retry_at: Option<Instant> },
    Engaged,
}

/// What [`Dial::tick`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Connect,
    GiveUp,
}

impl Dial {
    pub(crate) fn new(policy: DialPolicy, seed: u64) -> Self {
        Self {
            state: State::Idle,
            policy,
            failures: 0,
            errors: 0,
            up_since: None,
            jitter: Jitter::new(seed),
        }
    }

    /// The RFC's name of the state, while there is no connection.
    pub(crate) fn name(&self) -> &'static str {
        match self.state {
            State::Idle | State::IdleHold { .. } => "Idle",
            State::Connect { .. } => "Connect",
            State::Active { .. } | State::Engaged => "Active",
        }
    }

    /// Connect at the next tick, unless passive.
    pub(crate) fn start(&mut self, now: Instant) {
        self.failures = 0;
        self.errors = 0;
        self.activate(now);
    }

    fn activate(&mut self, now: Instant) {
        self.state = State::Active {
            retry_at: (!self.policy.passive).then_some(now),
        };
    }

    pub(crate) fn delay_open(&self) -> Duration {
        self.policy.delay_open
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state == State::Idle
    }

    pub(crate) fn stop(&mut self) {
        self.state = State::Idle;
    }

    /// An attempt is under way and its result no longer matters.
    pub(crate) fn is_connecting(&self) -> bool {
        matches!(self.state, State::Connect { .. })
    }

    /// A different policy; takes effect at the next attempt.
    pub(crate) fn set_policy(&mut self, policy: DialPolicy, now: Instant) {
        if self.policy == policy {
            return;
        }
        self.policy = policy;
        if let State::Active { .. } = self.state {
            self.start(now);
        }
    }

    /// There is a connection: nothing to dial.
    pub(crate) fn engage(&mut self) {
        self.state = State::Engaged;
    }

    /// The session is up: the next failure is the first.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.failures = 0;
        self.up_since = Some(now);
        self.state = State::Engaged;
    }

    /// The last connection has ended with an error.
    pub(crate) fn error(&mut self, now: Instant) {
        if self.state == State::Idle {
            return;
        }
        let since = self.up_since.take();
        if since.is_some_and(|since| now.saturating_duration_since(since) >= STABLE) {
            self.errors = 0;
        }
        let hold = FIRST_HOLD
            .saturating_mul(1_u32.checked_shl(self.errors).unwrap_or(u32::MAX))
            .min(LONGEST_HOLD);
        self.errors = self.errors.saturating_add(1).min(31);
        self.state = State::IdleHold {
            until: now + self.jitter.apply(hold),
        };
    }

    /// There is no connection any more, or none came about. At least `pause` passes.
    pub(crate) fn failed(&mut self, pause: Duration, now: Instant) {
        if self.state == State::Idle {
            return;
        }
        let interval = FIRST_RETRY
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(self.policy.retry)
            .max(pause);
        self.failures = self.failures.saturating_add(1).min(31);
        let retry_at = now + self.jitter.apply(interval);
        self.state = State::Active {
            retry_at: (!self.policy.passive).then_some(retry_at),
        };
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Connect { give_up_at } => Some(give_up_at),
            State::Active { retry_at } => retry_at,
            State::IdleHold { until } => Some(until),
            State::Idle | State::Engaged => None,
        }
    }

    pub(crate) fn tick(&mut self, now: Instant) -> Option<Step> {
        if let State::IdleHold { until } = self.state
            && now >= until
        {
            self.activate(now);
        }
        match self.state {
            State::Active { retry_at: Some(at) } if now >= at => {
                self.state = State::Connect {
                    give_up_at: now + CONNECT_TIMEOUT,
                };
                Some(Step::Connect)
            }
            State::Connect { give_up_at } if now >= give_up_at => Some(Step::GiveUp),
            State::Idle
            | State::IdleHold { .. }
            | State::Connect { .. }
            | State::Active { .. }
            | State::Engaged => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dial(passive: bool) -> (Dial, Instant) {
        let policy = DialPolicy {
            passive,
            retry: Duration::from_secs(5),
            delay_open: Duration::ZERO,
        };
        let mut dial = Dial::new(policy, 1);
        let now = Instant::now();
        dial.start(now);
        (dial, now)
    }

    #[test]
    fn attempts_are_spaced_up_to_the_configured_interval() {
        let (mut dial, mut now) = dial(false);
        let mut gaps = Vec::new();
        for _ in 0..5 {
            assert_eq!(dial.tick(now), Some(Step::Connect));
            dial.failed(Duration::ZERO, now);
            let next = dial.next_deadline().expect("another attempt");
            gaps.push(next - now);
            assert_eq!(dial.tick(now), None);
            now = next;
        }
        for (gap, seconds) in gaps.iter().zip([1, 2, 4, 5, 5]) {
            let whole = Duration::from_secs(seconds);
            assert!((whole * 3 / 4..=whole).contains(gap), "{gaps:?}");
        }
    }

    #[test]
    fn a_passive_session_never_connects() {
        let (mut dial, now) = dial(true);
        dial.failed(Duration::ZERO, now);
        assert_eq!(dial.next_deadline(), None);
        assert_eq!(dial.tick(now + Duration::from_secs(3600)), None);
    }

    #[test]
    fn an_attempt_without_an_answer_is_given_up() {
        let (mut dial, now) = dial(false);
        assert_eq!(dial.tick(now), Some(Step::Connect));
        assert_eq!(dial.tick(now + CONNECT_TIMEOUT), Some(Step::GiveUp));
    }

    #[test]
    fn a_stopped_session_stays_idle_after_a_failure() {
        let (mut dial, now) = dial(false);
        dial.stop();
        dial.failed(Duration::ZERO, now);
        assert_eq!((dial.name(), dial.next_deadline()), ("Idle", None));
    }

    #[test]
    fn errors_keep_a_session_idle_ever_longer_until_one_lasts() {
        let (mut dial, mut now) = dial(true);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            dial.error(now);
            assert_eq!(dial.name(), "Idle");
            let until = dial.next_deadline().expect("the hold ends");
            let whole = Duration::from_secs(seconds);
            assert!((whole * 3 / 4..=whole).contains(&(until - now)));
            now = until;
            assert_eq!((dial.tick(now), dial.name()), (None, "Active"));
            dial.succeeded(now);
        }
        dial.error(now + STABLE);
        let hold = dial.next_deadline().expect("the hold ends") - (now + STABLE);
        assert!(hold <= FIRST_HOLD, "{hold:?}");
    }
}
