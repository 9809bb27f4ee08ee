//! Pods from the scheduler's word to Ready, and what the runtimes waited for plugins.

use super::time::{Agents, Histogram, Pressure};
use crate::bench::{Row, Series, Target, quantile};
use crate::kube::check::world::{self, World, pod, text};
use crate::kube::shape::NODES;
use anyhow::{Context, Result};
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
    /// Percent of the time in which somebody waited for a processor.
    pressure: f64,
    /// None of the other network.
    agents: Option<Agents>,
}

/// Whose network it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    Ours,
    Reference,
}

/// As many rounds as are compared.
pub(super) fn rounds(world: &World, network: Network) -> Result<Vec<Startup>> {
    (0..ROUNDS).map(|_| round(world, network)).collect()
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
        rows.push(Row {
            limit: ours.first().and_then(|round| round.adds.limit()),
            ..series.row(&format!("add_{name}"), "ms", beside, steal, target)
        });
    }
    let mean = series(&|round| round.adds.mean())?;
    rows.push(mean.row("add_mean", "ms", beside, steal, None));
    let share = series(&|round| {
        let ready: f64 = round.ready_ms.iter().sum();
        Ok(100.0 * round.adds.mean()? * round.ready_ms.len() as f64 / ready)
    })?;
    rows.push(share.row("add_share_of_ready", "%", beside, steal, None));
    let pressure = series(&|round| Ok(round.pressure))?;
    rows.push(pressure.row("processor_pressure", "%", beside, steal, None));
    rows.extend(parts(ours, steal)?);
    Ok(rows)
}

/// Where the time of an ADD goes, as the plugin and the agents see it.
fn parts(ours: &[Startup], steal: f64) -> Result<Vec<Row>> {
    let alone = |what: &str, of: &dyn Fn(&Startup, &Agents) -> Result<f64>| -> Result<Row> {
        let mut values = Vec::new();
        for round in ours {
            let agents = round.agents.as_ref().context("no agent was asked")?;
            values.push(of(round, agents)?);
        }
        Ok(Row::alone(what, "ms", &values, steal))
    };
    let adds = |round: &Startup| -> Result<f64> { Ok(round.adds.count()? as f64) };
    let agents = ours.iter().find_map(|round| round.agents.as_ref());
    let mut rows = vec![
        alone("add_outside_mean", &|round, agents| {
            Ok(round.adds.mean()? - agents.whole.mean()?)
        })?,
        alone("add_inside_mean", &|_, agents| agents.whole.mean())?,
        Row {
            limit: agents.and_then(|agents| agents.whole.limit()),
            ..alone("add_inside_p99", &|_, agents| agents.whole.quantile(0.99))?
        },
    ];
    let own = [("mean", None), ("p99", Some(0.99))];
    for (name, q) in own {
        let of = |_: &Startup, agents: &Agents| match q {
            Some(q) => agents.own.quantile(q),
            None => agents.own.mean(),
        };
        rows.push(Row {
            limit: agents.and_then(|agents| agents.own.limit()),
            ..alone(&format!("add_own_{name}"), &of)?
        });
    }
    let none = BTreeMap::new();
    for name in agents.map_or(&none, |agents| &agents.phases).keys() {
        let phase = |_: &Startup, agents: &Agents| match agents.phases.get(name) {
            Some(phase) => phase.mean(),
            None => Ok(0.0),
        };
        rows.push(alone(&format!("add_inside_{name}"), &phase)?);
    }
    rows.push(alone("agent_runqueue_an_add", &|round, agents| {
        Ok(agents.runqueue / adds(round)?)
    })?);
    rows.push(alone("agent_cpu_an_add", &|round, agents| {
        Ok(agents.cpu / adds(round)?)
    })?);
    Ok(rows)
}

/// Starts [`PODS`] pods through the scheduler, and removes them.
fn round(world: &World, network: Network) -> Result<Startup> {
    world.namespace("startup")?;
    let agents = || match network {
        Network::Ours => Agents::now(world).map(Some),
        Network::Reference => Ok(None),
    };
    let before = (adds(world)?, agents()?);
    let pressure = Pressure::now()?;
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
    let pressure = pressure.since_then()?;
    let after = (adds(world)?, agents()?);
    world.remove("startup")?;
    Ok(Startup {
        ready_ms,
        adds: after.0.since(&before.0),
        pressure,
        agents: after.1.zip(before.1).map(|(now, then)| now.since(&then)),
    })
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

/// What the runtimes of all nodes have counted.
fn adds(world: &World) -> Result<Histogram> {
    let mut histogram = Histogram::default();
    for node in &NODES {
        let url = "http://127.0.0.1:1338/v1/metrics";
        let metrics = world
            .cluster
            .exec(node.name, &["curl", "-sf", "--noproxy", "*", url])?;
        histogram.read(
            &metrics,
            "network_plugin_operations_duration_seconds_",
            "\"set_up_pod\"",
        );
    }
    Ok(histogram)
}
