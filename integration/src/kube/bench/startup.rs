//! Pods from the scheduler's word to Ready, and what the runtimes waited for plugins.

use crate::bench::{Row, Series, Target, quantile};
use crate::kube::check::world::{self, World, pod, text};
use crate::kube::shape::NODES;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::BufReader;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// Pods that are started at once.
pub(super) const PODS: usize = 100;
/// Rounds for each network.
pub(super) const ROUNDS: usize = 3;

/// One round.
pub(super) struct Startup {
    /// Of each pod, from the first sight of a node's name in it to the condition Ready.
    ready_ms: Vec<f64>,
    adds: Histogram,
}

/// As many rounds as are compared.
pub(super) fn rounds(world: &World) -> Result<Vec<Startup>> {
    (0..ROUNDS).map(|_| round(world)).collect()
}

/// What is said of both networks.
pub(super) fn rows(ours: &[Startup], theirs: &[Startup], steal: f64) -> Result<Vec<Row>> {
    let beside = "ptp + host-local";
    let series = |of: &dyn Fn(&Startup) -> Result<f64>| -> Result<Series> {
        let mut series = Series::default();
        for (ours, theirs) in ours.iter().zip(theirs) {
            series.push(of(ours)?, of(theirs)?);
        }
        Ok(series)
    };
    let mut rows = Vec::new();
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        let series = series(&|round| Ok(quantile(&round.ready_ms, q)))?;
        let what = format!("scheduled_ready_{name}");
        rows.push(series.row(&what, "ms", beside, steal, Target::Ratio(1.0)));
    }
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        let series = series(&|round| round.adds.quantile(q))?;
        let target = (q > 0.9).then_some(Target::Ours(25.0));
        rows.push(series.row(&format!("add_{name}"), "ms", beside, steal, target));
    }
    let mean = series(&|round| round.adds.mean())?;
    rows.push(mean.row("add_mean", "ms", beside, steal, None));
    let share = series(&|round| {
        let ready: f64 = round.ready_ms.iter().sum();
        Ok(100.0 * round.adds.mean()? * round.ready_ms.len() as f64 / ready)
    })?;
    rows.push(share.row("add_share_of_ready", "%", beside, steal, None));
    Ok(rows)
}

/// Starts [`PODS`] pods through the scheduler, and removes them.
fn round(world: &World) -> Result<Startup> {
    world.namespace("startup")?;
    let before = adds(world)?;
    let (mut watch, events) = watch(world)?;
    // No nodeName: the scheduler's word is the start.
    let manifest: String = (0..PODS)
        .map(|index| pod("startup", &format!("startup-{index}"), "-", "startup"))
        .map(|pod| pod.replace("  nodeName: -\n", ""))
        .collect();
    world
        .cluster
        .kubectl_stdin(&["create", "-f", "-"], &manifest)?;
    let ready_ms = all_ready(&events);
    let _ = watch.kill();
    let _ = watch.wait();
    let ready_ms = ready_ms?;
    let adds = adds(world)?.since(&before);
    world.remove("startup")?;
    Ok(Startup { ready_ms, adds })
}

/// Every state of the pods, with the time when it was read.
fn watch(world: &World) -> Result<(Child, Receiver<(Instant, Value)>)> {
    let mut command = world.cluster.kubectl_command()?;
    command.args(["-n", "startup", "get", "pods", "--watch", "-o", "json"]);
    let mut watch = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("kubectl --watch")?;
    let stdout = watch.stdout.take().context("kubectl --watch")?;
    let (sender, events) = channel();
    std::thread::spawn(move || {
        let stream = serde_json::Deserializer::from_reader(BufReader::new(stdout));
        for event in stream.into_iter::<Value>().map_while(Result::ok) {
            if sender.send((Instant::now(), event)).is_err() {
                break;
            }
        }
    });
    Ok((watch, events))
}

/// Milliseconds of each pod from the first sight of its node's name.
fn all_ready(events: &Receiver<(Instant, Value)>) -> Result<Vec<f64>> {
    let mut scheduled: BTreeMap<String, Instant> = BTreeMap::new();
    let mut ready: BTreeMap<String, f64> = BTreeMap::new();
    let deadline = Instant::now() + world::PATIENCE * 2;
    while ready.len() < PODS {
        let left = deadline.saturating_duration_since(Instant::now());
        let (at, pod) = events
            .recv_timeout(left)
            .with_context(|| format!("{} pods are Ready, not {PODS}", ready.len()))?;
        let name = text(&pod, "/metadata/name").to_owned();
        if text(&pod, "/spec/nodeName").is_empty() {
            continue;
        }
        let start = *scheduled.entry(name.clone()).or_insert(at);
        if world::is_ready(&pod) {
            let took = (at - start).as_secs_f64() * 1000.0;
            ready.entry(name).or_insert(took);
        }
    }
    Ok(ready.into_values().collect())
}

/// How many operations took at most so many milliseconds, as Prometheus counts.
#[derive(Debug, Clone, Default, PartialEq)]
struct Histogram {
    /// By upper bound in microseconds.
    buckets: BTreeMap<u64, u64>,
    /// Seconds of all operations.
    sum: f64,
}

impl Histogram {
    /// Adds what containerd says of its waits for ADD.
    fn read(&mut self, metrics: &str) {
        let of_add = |line: &&str| {
            line.contains("network_plugin_operations_duration_seconds_")
                && line.contains("\"set_up_pod\"")
        };
        for line in metrics.lines().filter(of_add) {
            let value = line
                .rsplit(' ')
                .next()
                .and_then(|word| word.parse::<f64>().ok())
                .unwrap_or(0.0);
            let bound = line
                .split("le=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            match bound {
                Some(bound) => {
                    let micros = bound.parse().ok().filter(|bound: &f64| bound.is_finite());
                    let micros = micros.map_or(u64::MAX, |seconds| (seconds * 1e6) as u64);
                    *self.buckets.entry(micros).or_default() += value as u64;
                }
                None if line.contains("_seconds_sum") => self.sum += value,
                None => {}
            }
        }
    }

    fn since(&self, before: &Self) -> Self {
        let less = |(bound, count): (&u64, &u64)| {
            let earlier = before.buckets.get(bound).copied().unwrap_or(0);
            (*bound, count.saturating_sub(earlier))
        };
        Self {
            buckets: self.buckets.iter().map(less).collect(),
            sum: self.sum - before.sum,
        }
    }

    fn count(&self) -> Result<u64> {
        let total = self.buckets.values().next_back().copied().unwrap_or(0);
        ensure!(total > 0, "the runtime counted no operation of a plugin");
        Ok(total)
    }

    /// In milliseconds.
    fn mean(&self) -> Result<f64> {
        Ok(self.sum * 1000.0 / self.count()? as f64)
    }

    /// In milliseconds, on a line between the bounds of the bucket that holds it.
    fn quantile(&self, q: f64) -> Result<f64> {
        let rank = q * self.count()? as f64;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            let (bound, count) = (*bound as f64 / 1000.0, *count as f64);
            if count >= rank && count > below {
                return Ok(lower + (bound - lower) * (rank - below) / (count - below));
            }
            (lower, below) = (bound, count);
        }
        Ok(f64::INFINITY)
    }
}

/// What the runtimes of all nodes have counted.
fn adds(world: &World) -> Result<Histogram> {
    let mut histogram = Histogram::default();
    for node in &NODES {
        let url = "http://127.0.0.1:1338/v1/metrics";
        let metrics = world
            .cluster
            .exec(node.name, &["curl", "-sf", "--noproxy", "*", url])?;
        histogram.read(&metrics);
    }
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(counts: [u64; 4]) -> Histogram {
        let mut histogram = Histogram::default();
        let start = "containerd_cri_network_plugin_operations_duration_seconds_seconds";
        for (bound, count) in ["0.005", "0.01", "0.025", "+Inf"].iter().zip(counts) {
            histogram.read(&format!(
                "{start}_bucket{{operation_type=\"set_up_pod\",le=\"{bound}\"}} {count}\n"
            ));
        }
        histogram.read(&format!(
            "{start}_sum{{operation_type=\"set_up_pod\"}} {}\n",
            counts[3] as f64 / 100.0
        ));
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
    fn what_was_counted_before_does_not_count() {
        let later = metrics([10, 60, 120, 120]).since(&metrics([10, 10, 20, 20]));
        assert_eq!(later.count().unwrap(), 100);
        assert_eq!(later.quantile(0.5).unwrap(), 10.0);
        assert!((later.mean().unwrap() - 10.0).abs() < 1e-6);
    }
}
