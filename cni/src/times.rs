//! What this process has cost so far, for the agent to count.

use model::cni::PluginTimes;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// Taken as soon as the process runs.
pub(crate) struct Start {
    at: Instant,
    /// From the fork until then.
    before: Duration,
}

impl Start {
    pub(crate) fn now() -> Self {
        let at = Instant::now();
        let (ran, waited) = schedstat().unwrap_or_default();
        Self {
            at,
            before: ran + waited,
        }
    }

    /// To be sent at once.
    pub(crate) fn times(&self) -> PluginTimes {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (_, waited) = schedstat().unwrap_or_default();
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = Duration::from_secs(now.tv_sec.unsigned_abs());
        PluginTimes {
            age: micros(self.before + self.at.elapsed()),
            runqueue: micros(waited),
            sent: micros(seconds + Duration::from_nanos(now.tv_nsec.unsigned_abs())),
        }
    }
}

/// Time of this thread on a processor, and ready without one, since its fork.
fn schedstat() -> Option<(Duration, Duration)> {
    parse(&std::fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

/// The first two of three numbers, in nanoseconds (Linux, Documentation/scheduler/sched-stats).
fn parse(text: &str) -> Option<(Duration, Duration)> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    let mut next = || Some(Duration::from_nanos(numbers.next()?.ok()?));
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_on_a_processor_and_time_without_one_are_told_apart() {
        let nanos = Duration::from_nanos;
        assert_eq!(parse("1500 2500 7\n"), Some((nanos(1500), nanos(2500))));
        assert_eq!(parse("1500"), None);
        assert_eq!(parse("a b c"), None);
    }

    #[test]
    fn what_is_sent_is_of_this_process_and_clock() {
        let start = Start::now();
        let first = start.times();
        let second = start.times();
        assert!(first.age <= second.age && first.sent <= second.sent);
        assert!(first.runqueue <= second.runqueue && second.runqueue <= second.age);
    }
}
