//! `cargo lab bench kube`: pods that start, memory, requests.

use super::check::world::{self, World, pod, text};
use super::{Cache, Cluster, Options, Proxy, reference};
use crate::bench::{Row, Series, Steal, Target, quantile};
use crate::kube::shape::NODES;
use crate::lab::{Lab, Watch};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::BufReader;
use std::process::Stdio;
use std::time::Instant;

/// Pods that are started at once.
const PODS: usize = 100;
/// Rounds for each network.
const ROUNDS: usize = 3;

/// When each pod was first seen scheduled and Ready, and what the runtimes waited for plugins.
struct Startup {
    ready_ms: Vec<f64>,
    adds: Histogram,
}

/// Runs the benchmark on a cluster of its own.
///
/// # Errors
/// The cluster does not come up, or pods do not start.
pub(crate) fn run() -> Result<Vec<Row>> {
    Cache::locate().fill()?;
    let image = world::build_image()?;
    let options = Options {
        prefix: "ockb".to_owned(),
        proxy: Proxy::Nftables,
    };
    let cluster = Cluster::up(&options)?;
    let rows = measure(&cluster, image);
    let down = cluster.down();
    let rows = rows?;
    down.map(|()| rows)
}

fn measure(cluster: &Cluster, image: std::path::PathBuf) -> Result<Vec<Row>> {
    let mut world = World::new(cluster, image);
    let steal = Steal::now();
    reference::install(cluster)?;
    let theirs = rounds(&world)?;
    reference::remove(cluster)?;
    world::install(&mut world)?;
    let start = super::check::requests::mark(&world)?;
    let ours = rounds(&world)?;
    let requests = super::check::requests::since(&world, start)?;
    let steal = steal.share_since();
    let beside = "ptp + host-local";
    let mut rows = Vec::new();
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        let mut series = Series::default();
        for (ours, theirs) in ours.iter().zip(&theirs) {
            series.push(quantile(&ours.ready_ms, q), quantile(&theirs.ready_ms, q));
        }
        let what = format!("scheduled to Ready {name}");
        rows.push(series.row(&what, "ms", beside, steal, Target::Ratio(1.0)));
    }
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        let mut series = Series::default();
        for (ours, theirs) in ours.iter().zip(&theirs) {
            series.push(ours.adds.quantile(q)?, theirs.adds.quantile(q)?);
        }
        let target = (q > 0.9).then_some(Target::Ours(25.0));
        rows.push(series.row(
            &format!("ADD in containerd {name}"),
            "ms",
            beside,
            steal,
            target,
        ));
    }
    let about_pods = requests
        .iter()
        .filter(|request| request.is_about_pods())
        .count();
    let each = about_pods as f64 / (PODS * ROUNDS) as f64;
    rows.push(Row::alone("requests a pod", "", &[each], steal));
    rows.push(Row::alone(
        "agent RSS, no pods",
        "MiB",
        &[memory(&world)?],
        steal,
    ));
    world.base()?;
    elsewhere(&world)?;
    rows.push(Row {
        target: Some(Target::Ours(30.0)),
        ..Row::alone("agent RSS, 1,000 pods", "MiB", &[memory(&world)?], steal)
    });
    world.remove("elsewhere")?;
    let (agent, server) = event_to_rule(&mut world)?;
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        let of = |values: &[f64]| [quantile(values, q)];
        rows.push(Row {
            target: (q > 0.9).then_some(Target::Ours(2.0)),
            ..Row::alone(
                &format!("watch bytes to rule {name}"),
                "ms",
                &of(&agent),
                steal,
            )
        });
        let what = format!("kubectl to watch bytes {name}");
        rows.push(Row::alone(&what, "ms", &of(&server), steal));
    }
    Ok(rows)
}

fn rounds(world: &World) -> Result<Vec<Startup>> {
    (0..ROUNDS).map(|_| startup(world)).collect()
}

/// Starts [`PODS`] pods through the scheduler, and removes them.
fn startup(world: &World) -> Result<Startup> {
    world.namespace("startup")?;
    let before = adds(world)?;
    let mut command = world.cluster.kubectl_command()?;
    command.args(["-n", "startup", "get", "pods", "--watch", "-o", "json"]);
    let mut watch = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("kubectl --watch")?;
    let stdout = watch.stdout.take().context("kubectl --watch")?;
    let (sender, events) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let stream = serde_json::Deserializer::from_reader(BufReader::new(stdout));
        for event in stream.into_iter::<Value>().map_while(Result::ok) {
            if sender.send((Instant::now(), event)).is_err() {
                break;
            }
        }
    });
    // No nodeName: the scheduler's word is the start.
    let manifest: String = (0..PODS)
        .map(|index| pod("startup", &format!("startup-{index}"), "-", "startup"))
        .map(|pod| pod.replace("  nodeName: -\n", ""))
        .collect();
    world
        .cluster
        .kubectl_stdin(&["create", "-f", "-"], &manifest)?;
    let mut scheduled: BTreeMap<String, Instant> = BTreeMap::new();
    let mut ready: BTreeMap<String, f64> = BTreeMap::new();
    let deadline = Instant::now() + world::PATIENCE * 2;
    while ready.len() < PODS {
        let left = deadline.saturating_duration_since(Instant::now());
        let (at, pod) = events
            .recv_timeout(left)
            .with_context(|| format!("{} pods are Ready, not {PODS}", ready.len()))?;
        let name = text(&pod, "/metadata/name").to_owned();
        if !text(&pod, "/spec/nodeName").is_empty() {
            let start = *scheduled.entry(name.clone()).or_insert(at);
            if world::is_ready(&pod) {
                ready
                    .entry(name)
                    .or_insert((at - start).as_secs_f64() * 1000.0);
            }
        }
    }
    let _ = watch.kill();
    let _ = watch.wait();
    let adds = adds(world)?.since(&before);
    world.remove("startup")?;
    Ok(Startup {
        ready_ms: ready.into_values().collect(),
        adds,
    })
}

/// Resident memory of the largest agent, in MiB.
fn memory(world: &World) -> Result<f64> {
    Ok(super::check::load::memory(world)? as f64 / 1024.0)
}

/// Makes 1,000 pods on ten nodes that nobody runs, and waits until an agent knows the last.
fn elsewhere(world: &World) -> Result<()> {
    world.namespace("elsewhere")?;
    let mut manifest = String::new();
    for node in 0..10 {
        manifest.push_str(&format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: far-{node}, labels: {{far: 'yes'}}}}\n"
        ));
    }
    world.cluster.apply(&manifest)?;
    let mut manifest = String::new();
    for number in 0..1000 {
        let address = format!("10.245.{}.{}", number / 250, number % 250 + 1);
        let pod = pod(
            "elsewhere",
            &format!("far-{number}"),
            &format!("far-{}", number % 10),
            "far",
        );
        let annotation =
            format!("annotations: {{cni.projectcalico.org/podIP: {address}/32}}, labels:");
        manifest.push_str(&pod.replacen("labels:", &annotation, 1));
    }
    world
        .cluster
        .kubectl_stdin(&["create", "-f", "-"], &manifest)?;
    world.cluster.apply(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: far, namespace: base}\n\
         spec:\n  podSelector: {matchLabels: {name: base-0}}\n  policyTypes: [Ingress]\n  \
         ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: elsewhere}}}]}]\n",
    )?;
    world.until("the last of 1,000 addresses in a set", || {
        let table = world.cluster.netns("n1").run(&[
            "nft",
            "list",
            "table",
            "inet",
            model::names::NFT_TABLE,
        ])?;
        ensure!(table.contains("10.245.3.250"), "it is not there");
        Ok(())
    })?;
    world.kubectl(&["-n", "base", "delete", "networkpolicy", "far"])?;
    world
        .kubectl(&["delete", "nodes", "-l", "far=yes"])
        .map(drop)
}

/// A pod of another node gets a label and loses it: milliseconds from the last bytes that the API
/// server sent to the agent until the kernel reports the element, and from `kubectl` to the bytes.
fn event_to_rule(world: &mut World) -> Result<(Vec<f64>, Vec<f64>)> {
    const CHANGES: usize = 100;
    world.base()?;
    world.cluster.apply(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: event, namespace: base}\n\
         spec:\n  podSelector: {matchLabels: {name: base-0}}\n  policyTypes: [Ingress]\n  \
         ingress: [{from: [{podSelector: {matchLabels: {event: 'yes'}}}]}]\n",
    )?;
    let lab = Lab::new()?;
    let netns = world.cluster.netns("n1");
    let server = super::shape::CONTROL_PLANE.ipv4;
    let sockets = world
        .cluster
        .exec("n1", &["ss", "-Htnp", "dst", &format!("{server}:6443")])?;
    let ports: Vec<String> = sockets
        .lines()
        .filter(|line| line.contains(world::AGENT))
        .filter_map(|line| line.split_whitespace().nth(3)?.rsplit(':').next())
        .map(|port| format!("dst port {port}"))
        .collect();
    ensure!(
        !ports.is_empty(),
        "no connection of the agent to {server}: {sockets}"
    );
    let filter = format!(
        "src host {server} and tcp[tcpflags] & tcp-push != 0 and ({})",
        ports.join(" or ")
    );
    let packets = Watch::packets(&lab, &netns, &filter)?;
    let kernel = Watch::nft(&lab, &netns)?;
    let (mut agent, mut api) = (Vec::new(), Vec::new());
    for change in 0..CHANGES {
        packets.clear();
        kernel.clear();
        let label = if change % 2 == 0 {
            "event=yes"
        } else {
            "event-"
        };
        let asked = Instant::now();
        world.kubectl(&["-n", "base", "label", "pod", "base-1", label])?;
        let seen = kernel.wait_for(world::PATIENCE, "the element", |line| {
            line.contains("element")
        })?;
        let bytes = packets
            .events()
            .into_iter()
            .rfind(|packet| packet.at <= seen.at);
        // None before the first packet that the monitor, just started, has seen.
        if let Some(bytes) = bytes {
            agent.push((seen.at - bytes.at).as_secs_f64() * 1000.0);
            api.push((bytes.at - asked).as_secs_f64() * 1000.0);
        }
    }
    ensure!(
        agent.len() > CHANGES / 2,
        "{} of {CHANGES} changes were seen",
        agent.len()
    );
    world.kubectl(&["-n", "base", "delete", "networkpolicy", "event"])?;
    Ok((agent, api))
}

/// How many operations took at most so many milliseconds, as Prometheus counts.
#[derive(Debug, Clone, Default, PartialEq)]
struct Histogram {
    /// By upper bound in microseconds.
    buckets: BTreeMap<u64, u64>,
}

impl Histogram {
    fn read(&mut self, metrics: &str) {
        for line in metrics.lines() {
            if !line.contains("network_plugin_operations_duration_seconds_bucket")
                || !line.contains("\"SetUpPod\"")
                    && !line.contains("SETUP_POD")
                    && !line.contains("setup_pod")
            {
                continue;
            }
            let bound = line
                .split("le=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            let count = line
                .rsplit(' ')
                .next()
                .and_then(|word| word.parse::<f64>().ok());
            if let (Some(bound), Some(count)) = (bound, count) {
                let micros = bound.parse::<f64>().map_or(u64::MAX, |s| (s * 1e6) as u64);
                *self.buckets.entry(micros).or_default() += count as u64;
            }
        }
    }

    fn since(&self, before: &Self) -> Self {
        let less = |(bound, count): (&u64, &u64)| {
            (
                *bound,
                count - before.buckets.get(bound).copied().unwrap_or(0).min(*count),
            )
        };
        Self {
            buckets: self.buckets.iter().map(less).collect(),
        }
    }

    /// In milliseconds, on a line between the bounds of the bucket that holds it.
    fn quantile(&self, q: f64) -> Result<f64> {
        let total = self.buckets.values().next_back().copied().unwrap_or(0);
        ensure!(total > 0, "the runtime counted no operation of a plugin");
        let rank = q * total as f64;
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

    #[test]
    fn a_quantile_lies_in_the_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        let line = |bound: &str, count: u64| {
            format!(
                "c_cri_network_plugin_operations_duration_seconds_bucket{{operation_type=\"setup_pod\",le=\"{bound}\"}} {count}\n"
            )
        };
        histogram.read(
            &[
                line("0.005", 0),
                line("0.01", 50),
                line("0.025", 100),
                line("+Inf", 100),
            ]
            .concat(),
        );
        assert_eq!(histogram.quantile(0.5).unwrap(), 10.0);
        assert_eq!(histogram.quantile(0.25).unwrap(), 7.5);
        assert!(histogram.quantile(0.99).unwrap() < 25.0);
        assert!(Histogram::default().quantile(0.5).is_err());
    }
}
