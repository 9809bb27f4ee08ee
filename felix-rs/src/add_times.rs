//! Where the time of an ADD goes: from the fork of the plugin to the answer on its socket.

use crate::metrics::{Exposition, Histogram};
use model::cni::PluginTimes;
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A part of an ADD. Their sum is the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The plugin was ready to run and had no processor.
    PluginRunqueue,
    /// The plugin ran, until it sent its request.
    Plugin,
    /// The agent was ready to run and had no processor, in whatever phase.
    AgentRunqueue,
    /// From there until the agent looks at it.
    Queue,
    /// Waiting for the Pod object.
    PodObject,
    /// Waiting for the datastore to give a block.
    Block,
    /// Waiting for the kernel to finish an earlier deletion.
    Deletion,
    /// Checks, and the choice of addresses.
    Address,
    Link,
    Journal,
    /// Policy, then routes, in force.
    Program,
    /// Addresses and routes inside the pod.
    PodEnd,
    /// Until the link takes packets.
    Carrier,
    /// Until the answer is written.
    Answer,
}

const PHASES: [(Phase, &str); 14] = [
    (Phase::PluginRunqueue, "plugin_runqueue"),
    (Phase::Plugin, "plugin"),
    (Phase::AgentRunqueue, "agent_runqueue"),
    (Phase::Queue, "queue"),
    (Phase::PodObject, "pod_object"),
    (Phase::Block, "block"),
    (Phase::Deletion, "deletion"),
    (Phase::Address, "address"),
    (Phase::Link, "link"),
    (Phase::Journal, "journal"),
    (Phase::Program, "program"),
    (Phase::PodEnd, "pod_end"),
    (Phase::Carrier, "carrier"),
    (Phase::Answer, "answer"),
];

/// The times of one call.
#[derive(Debug, Clone)]
pub(crate) struct Laps {
    spent: [Duration; PHASES.len()],
    last: Instant,
    /// How long this thread had waited for a processor by then.
    waited: Duration,
}

impl Laps {
    /// The request has been read.
    pub(crate) fn begin(plugin: Option<PluginTimes>) -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::from_secs(now.tv_sec.unsigned_abs())
            + Duration::from_nanos(now.tv_nsec.unsigned_abs());
        Self::begin_at(plugin, now)
    }

    fn begin_at(plugin: Option<PluginTimes>, monotonic: Duration) -> Self {
        let mut laps = Self {
            spent: [Duration::ZERO; PHASES.len()],
            last: Instant::now(),
            waited: waited(),
        };
        if let Some(times) = plugin {
            let runqueue = times.runqueue.min(times.age);
            laps.spend(Phase::PluginRunqueue, Duration::from_micros(runqueue));
            let own = Duration::from_micros(times.age - runqueue);
            laps.spend(Phase::Plugin, own);
            let sent = Duration::from_micros(times.sent);
            laps.spend(Phase::Queue, monotonic.saturating_sub(sent));
        }
        laps
    }

    /// What has passed since the last lap belongs to `phase`, but for what the agent's thread, on
    /// which this is called, waited for a processor.
    pub(crate) fn lap(&mut self, phase: Phase) {
        let (now, waited) = (Instant::now(), waited());
        let passed = now - self.last;
        let runqueue = waited.saturating_sub(self.waited).min(passed);
        self.spend(Phase::AgentRunqueue, runqueue);
        self.spend(phase, passed - runqueue);
        (self.last, self.waited) = (now, waited);
    }

    /// What was not spent in waiting for a processor.
    fn own(&self) -> Duration {
        let runqueue = |phase| matches!(phase, Phase::PluginRunqueue | Phase::AgentRunqueue);
        let both = self.spent.iter().zip(PHASES);
        both.filter(|(_, (phase, _))| !runqueue(*phase))
            .map(|(spent, _)| *spent)
            .sum()
    }

    fn spend(&mut self, phase: Phase, time: Duration) {
        let mut both = self.spent.iter_mut().zip(PHASES);
        if let Some((spent, _)) = both.find(|(_, (of, _))| *of == phase) {
            *spent += time;
        }
    }
}

thread_local! {
    /// This thread's times, opened once.
    static SCHEDSTAT: Option<File> = File::open("/proc/thread-self/schedstat").ok();
}

/// How long this thread has been ready to run without a processor (the second number of
/// Linux's sched-stats, in nanoseconds); nothing where the kernel does not count it.
fn waited() -> Duration {
    let mut text = [0; 64];
    let length = SCHEDSTAT.with(|file| file.as_ref()?.read_at(&mut text, 0).ok());
    let text = text.get(..length.unwrap_or(0)).unwrap_or_default();
    let mut words = text.split(u8::is_ascii_whitespace);
    let nanos = words.nth(1).and_then(|word| str::from_utf8(word).ok());
    Duration::from_nanos(nanos.and_then(|word| word.parse().ok()).unwrap_or(0))
}

/// What is counted of all ADDs that gave a pod its network.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddTimes(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    whole: Histogram,
    own: Histogram,
    phases: [Histogram; PHASES.len()],
}

impl AddTimes {
    /// An answer has been written.
    pub(crate) fn observe(&self, laps: &Laps) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.whole.observe(laps.spent.iter().sum());
        counted.own.observe(laps.own());
        for (histogram, spent) in counted.phases.iter_mut().zip(laps.spent) {
            histogram.observe(spent);
        }
    }

    /// Says what was counted.
    pub(crate) fn write(&self, text: &mut Exposition) {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.histogram(
            "ocicat_cni_add_seconds",
            "From the fork of the CNI plugin to the answer of its ADD.",
            &counted.whole,
        );
        text.histogram(
            "ocicat_cni_add_own_seconds",
            "Of ocicat_cni_add_seconds, what plugin and agent did not spend in waiting for a processor.",
            &counted.own,
        );
        let phases = counted.phases.iter().zip(PHASES);
        text.histograms(
            "ocicat_cni_add_phase_seconds",
            "Parts of ocicat_cni_add_seconds.",
            "phase",
            phases.map(|(histogram, (_, name))| (name, histogram)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_has_its_place_and_their_sum_is_the_whole() {
        let plugin = PluginTimes {
            age: 9_000,
            runqueue: 7_000,
            sent: 1_000_000,
        };
        let mut laps = Laps::begin_at(Some(plugin), Duration::from_micros(1_004_000));
        for (phase, _) in PHASES {
            laps.spend(phase, Duration::from_micros(1));
        }
        let times = AddTimes::default();
        times.observe(&laps);
        let mut text = Exposition::default();
        times.write(&mut text);
        let text = text.finish();
        for line in [
            "ocicat_cni_add_seconds_sum 0.013014",
            "ocicat_cni_add_own_seconds_sum 0.006012",
            "ocicat_cni_add_seconds_count 1",
            "ocicat_cni_add_phase_seconds_sum{phase=\"plugin_runqueue\"} 0.007001",
            "ocicat_cni_add_phase_seconds_sum{phase=\"plugin\"} 0.002001",
            "ocicat_cni_add_phase_seconds_sum{phase=\"queue\"} 0.004001",
            "ocicat_cni_add_phase_seconds_bucket{phase=\"answer\",le=\"0.0005\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }

    #[test]
    fn a_plugin_that_says_nothing_or_nonsense_costs_nothing() {
        let nonsense = PluginTimes {
            age: 5,
            runqueue: 9,
            sent: u64::MAX,
        };
        for plugin in [None, Some(nonsense)] {
            let laps = Laps::begin_at(plugin, Duration::from_secs(1));
            let sum: Duration = laps.spent.iter().sum();
            assert!(sum <= Duration::from_micros(5), "{sum:?}");
        }
    }
}
