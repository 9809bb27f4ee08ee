//! Where the time goes: histograms of the runtimes and of the agents, and who waited for a
//! processor.

use crate::kube::check::world::{AGENT, World, node_names};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::Instant;

/// How many operations took at most so many milliseconds, as Prometheus counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Histogram {
    /// By upper bound in microseconds; without a bound, the largest number.
    buckets: BTreeMap<u64, u64>,
    /// Seconds of all operations.
    sum: f64,
}

impl Histogram {
    /// Adds a histogram of seconds: its samples have `family` in their name and `label` among
    /// their labels.
    pub(super) fn read(&mut self, metrics: &str, family: &str, label: &str) {
        let of_it = |line: &&str| {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            name.contains(family) && line.contains(label)
        };
        for line in metrics.lines().filter(of_it) {
            let value = line.rsplit(' ').next();
            let value = value.and_then(|word| word.parse::<f64>().ok());
            let value = value.unwrap_or(0.0);
            let bound = line.split("le=\"").nth(1);
            match bound.and_then(|rest| rest.split('"').next()) {
                Some(bound) => {
                    let seconds = bound.parse().ok().filter(|bound: &f64| bound.is_finite());
                    let micros = seconds.map_or(u64::MAX, |seconds| (seconds * 1e6) as u64);
                    *self.buckets.entry(micros).or_default() += value as u64;
                }
                None if line.contains("_sum") => self.sum += value,
                None => {}
            }
        }
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        let less = |(bound, count): (&u64, &u64)| {
            let earlier = before.buckets.get(bound).copied().unwrap_or(0);
            (*bound, count.saturating_sub(earlier))
        };
        Self {
            buckets: self.buckets.iter().map(less).collect(),
            sum: self.sum - before.sum,
        }
    }

    pub(super) fn count(&self) -> Result<u64> {
        let total = self.buckets.values().next_back().copied().unwrap_or(0);
        ensure!(total > 0, "no operation of a plugin was counted");
        Ok(total)
    }

    /// In milliseconds.
    pub(super) fn mean(&self) -> Result<f64> {
        Ok(self.sum * 1000.0 / self.count()? as f64)
    }

    /// In milliseconds, on a line between the bounds of the bucket that holds it; infinite beyond
    /// [`Self::limit`].
    pub(super) fn quantile(&self, q: f64) -> Result<f64> {
        let rank = q * self.count()? as f64;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            let count = *count as f64;
            if count >= rank && count > below {
                if *bound == u64::MAX {
                    break;
                }
                let bound = *bound as f64 / 1000.0;
                return Ok(lower + (bound - lower) * (rank - below) / (count - below));
            }
            (lower, below) = (*bound as f64 / 1000.0, count);
        }
        Ok(f64::INFINITY)
    }

    /// The last bound, in milliseconds.
    pub(super) fn limit(&self) -> Option<f64> {
        let bounds = self.buckets.keys().rev();
        let last = bounds.copied().find(|bound| *bound != u64::MAX);
        last.map(|bound| bound as f64 / 1000.0)
    }
}

/// What the agents counted of ADDs, and what they used.
#[derive(Debug, Clone, Default)]
pub(super) struct Agents {
    /// From the fork of the plugin to its answer.
    pub(super) whole: Histogram,
    /// Of that, what was not spent in waiting for a processor.
    pub(super) own: Histogram,
    /// Its parts.
    pub(super) phases: BTreeMap<String, Histogram>,
    /// Milliseconds of all their threads on a processor.
    pub(super) cpu: f64,
    /// Milliseconds in which their loops could run and had no processor.
    pub(super) runqueue: f64,
}

impl Agents {
    /// Since they started.
    pub(super) fn now(world: &World) -> Result<Self> {
        let mut agents = Self::default();
        for node in node_names() {
            agents.read(&metrics(world, node)?);
            let script =
                format!("p=$(pidof {AGENT}) && cat /proc/$p/schedstat /proc/$p/task/*/schedstat");
            let said = world.cluster.exec(node, &["sh", "-c", &script])?;
            let threads = said.lines().map(schedstat);
            let threads = threads.collect::<Result<Vec<_>>>()?;
            let (main, all) = threads.split_first().context("no agent runs")?;
            agents.runqueue += main.1;
            agents.cpu += all.iter().map(|(ran, _)| ran).sum::<f64>();
        }
        Ok(agents)
    }

    fn read(&mut self, metrics: &str) {
        self.whole.read(metrics, "ocicat_cni_add_seconds_", "");
        self.own.read(metrics, "ocicat_cni_add_own_seconds_", "");
        let family = "ocicat_cni_add_phase_seconds_";
        let names = metrics.lines().filter_map(|line| {
            let labels = line.strip_prefix(family)?.strip_prefix("sum{phase=\"")?;
            labels.split('"').next()
        });
        for name in names {
            let phase = self.phases.entry(name.to_owned()).or_default();
            phase.read(metrics, family, &format!("{{phase=\"{name}\""));
        }
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        let none = Histogram::default();
        let phases = self.phases.iter().map(|(name, phase)| {
            let earlier = before.phases.get(name).unwrap_or(&none);
            (name.clone(), phase.since(earlier))
        });
        Self {
            whole: self.whole.since(&before.whole),
            own: self.own.since(&before.own),
            phases: phases.collect(),
            cpu: self.cpu - before.cpu,
            runqueue: self.runqueue - before.runqueue,
        }
    }
}

/// What a node's agent counts.
pub(super) fn metrics(world: &World, node: &str) -> Result<String> {
    let url = format!("http://127.0.0.1:{}/metrics", model::names::HEALTH_PORT);
    world
        .cluster
        .exec(node, &["curl", "-sf", "--noproxy", "*", &url])
}

/// Milliseconds on a processor, and ready without one (Linux, sched-stats).
fn schedstat(line: &str) -> Result<(f64, f64)> {
    let mut numbers = line.split_whitespace().map(str::parse::<f64>);
    let mut next = || -> Result<f64> {
        let nanos = numbers.next().context("schedstat")?;
        Ok(nanos.context("schedstat")? / 1e6)
    };
    Ok((next()?, next()?))
}

/// Pressure on the machine's processors (Linux, PSI).
pub(super) struct Pressure {
    at: Instant,
    /// Microseconds in which somebody waited for one.
    waited: f64,
}

impl Pressure {
    pub(super) fn now() -> Result<Self> {
        let path = "/proc/pressure/cpu";
        let text = std::fs::read_to_string(path).context(path)?;
        let total = text.lines().find_map(|line| {
            let fields = line.strip_prefix("some ")?;
            fields.split("total=").nth(1)?.trim().parse().ok()
        });
        Ok(Self {
            at: Instant::now(),
            waited: total.context(path)?,
        })
    }

    /// Percent of the time since then in which somebody waited.
    pub(super) fn since_then(&self) -> Result<f64> {
        let now = Self::now()?;
        let micros = (now.at - self.at).as_secs_f64() * 1e6;
        Ok(100.0 * (now.waited - self.waited) / micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(counts: [u64; 4]) -> Histogram {
        let mut histogram = Histogram::default();
        let start = "containerd_cri_network_plugin_operations_duration_seconds_seconds";
        let mut read = |text: &str| histogram.read(text, "operations_duration_seconds_", "_pod\"");
        for (bound, count) in ["0.005", "0.01", "0.025", "+Inf"].iter().zip(counts) {
            read(&format!(
                "{start}_bucket{{operation_type=\"set_up_pod\",le=\"{bound}\"}} {count}\n"
            ));
        }
        read(&format!(
            "# HELP {start} x\n{start}_sum{{operation_type=\"set_up_pod\"}} {}\n",
            counts[3] as f64 / 100.0
        ));
        read(&format!("{start}_sum{{operation_type=\"status\"}} 9\n"));
        histogram
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_that_holds_it() {
        let histogram = metrics([0, 50, 100, 100]);
        assert_eq!(histogram.quantile(0.5).unwrap(), 10.0);
        assert_eq!(histogram.quantile(0.25).unwrap(), 7.5);
        assert!(histogram.quantile(0.99).unwrap() < 25.0);
        assert!(Histogram::default().quantile(0.5).is_err());
    }

    #[test]
    fn a_quantile_beyond_the_last_bound_is_not_made_up() {
        let histogram = metrics([0, 50, 97, 100]);
        assert_eq!(histogram.quantile(0.99).unwrap(), f64::INFINITY);
        assert!(histogram.quantile(0.97).unwrap() <= 25.0);
        assert_eq!(histogram.limit(), Some(25.0));
        assert_eq!(Histogram::default().limit(), None);
    }

    #[test]
    fn what_was_counted_before_does_not_count() {
        let later = metrics([10, 60, 120, 120]).since(&metrics([10, 10, 20, 20]));
        assert_eq!(later.count().unwrap(), 100);
        assert_eq!(later.quantile(0.5).unwrap(), 10.0);
        assert!((later.mean().unwrap() - 10.0).abs() < 1e-6);
    }

    #[test]
    fn the_parts_of_an_add_are_told_apart() {
        let mut agents = Agents::default();
        agents.read(
            "ocicat_cni_add_seconds_bucket{le=\"+Inf\"} 4\nocicat_cni_add_seconds_sum 8\n\
             ocicat_cni_add_phase_seconds_bucket{phase=\"plugin\",le=\"+Inf\"} 4\n\
             ocicat_cni_add_phase_seconds_sum{phase=\"plugin\"} 6\n\
             ocicat_cni_add_phase_seconds_bucket{phase=\"plugin_runqueue\",le=\"+Inf\"} 4\n\
             ocicat_cni_add_phase_seconds_sum{phase=\"plugin_runqueue\"} 2\n",
        );
        assert_eq!(agents.whole.mean().unwrap(), 2000.0);
        assert_eq!(agents.phases["plugin"].mean().unwrap(), 1500.0);
        assert_eq!(agents.phases["plugin_runqueue"].mean().unwrap(), 500.0);
        let twice = agents.clone().since(&agents);
        assert!(twice.whole.count().is_err() && twice.cpu == 0.0);
    }
}
