//! Pauses between attempts: longer each time, and not the same on all nodes.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Doubling pauses, each between half and all of its length.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// Attempts that failed since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// An attempt failed: how long to wait before the next one.
    pub(super) fn failed(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        jittered(doubled.min(self.longest))
    }
}

/// Between half of the time and all of it.
pub(super) fn jittered(time: Duration) -> Duration {
    // The keys of a hasher are random in each process and differ from hasher to hasher.
    let random = RandomState::new().hash_one(0_u8) % 1024;
    let half = time / 2;
    half + half * u32::try_from(random).unwrap_or_default() / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        for expected in [100, 200, 400, 800, 1000, 1000] {
            let (pause, expected) = (backoff.failed(), Duration::from_millis(expected));
            assert!(pause >= expected / 2 && pause <= expected, "{pause:?}");
        }
        assert_eq!(backoff.failures(), 6);
        backoff.succeeded();
        assert!(backoff.failed() <= first);
    }
}
