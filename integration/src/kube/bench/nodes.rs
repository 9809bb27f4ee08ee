//! What the watches of many nodes cost one API server. A simulated node has the connection and all
//! watches of an agent, by the agent's own code and with its rights.

use super::load;
use crate::bench::{Row, quantile};
use crate::kube::check::world::{self, AGENT, CONTROL, SYSTEM, World};
use crate::kube::services::api_server;
use anyhow::{Context, Result, ensure};
use datastore::kubernetes::{Cluster, Method};
use model::{Object, Update};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long the cluster is left alone.
const QUIET: Duration = Duration::from_secs(30);
/// How often a label changes.
const CHANGES: usize = 30;
/// Of `/proc/PID/stat` in a second (`USER_HZ`).
const TICKS: f64 = 100.0;
/// The label.
const WAVE: &str = "wave";
/// Open files that a simulated node may need: three of its runtime, its connection, the old and the
/// new one where it connects again.
const FILES: u64 = 16;
/// How long all nodes may take to know everything.
const LONG: Duration = Duration::from_secs(600);

/// The API server with the watches of so many nodes, beside what it was without.
pub(super) fn rows(world: &mut World, count: usize, steal: impl Fn() -> f64) -> Result<Vec<Row>> {
    world.base()?;
    let alone = Usage::of_a_while(world)?;
    let (accepted, start) = (accepted(world)?, Instant::now());
    let nodes = Nodes::start(world, count)?;
    nodes.until_in_sync(count)?;
    let in_sync = start.elapsed().as_secs_f64();
    let connections = self::accepted(world)? - accepted;
    let status = std::fs::read_to_string("/proc/self/status").context("status")?;
    let simulated = resident(&status)?;
    let watched = Usage::of_a_while(world)?;
    let api = load::connect(world, world.cluster.kubeconfig())?;
    let before = Usage::now(world)?;
    let mut told = Vec::new();
    for wave in 0..CHANGES {
        told.push(nodes.tell(&api, count, wave)?);
    }
    let cpu = Usage::now(world)?.cpu - before.cpu;
    let row = |what: &str, unit: &str, ours: f64| {
        Row::alone(&format!("nodes_{count}_{what}"), unit, &[ours], steal())
    };
    let beside = |what: &str, unit: &str, ours: f64, theirs: f64| Row {
        beside: "the three alone".to_owned(),
        theirs,
        ratio: ours / theirs,
        q1: ours / theirs,
        q3: ours / theirs,
        ..row(what, unit, ours)
    };
    Ok(vec![
        row("in_sync", "s", in_sync),
        row("connections_a_node", "", connections / count as f64),
        row("simulated_rss", "MiB", simulated),
        beside("server_rss", "MiB", watched.mib, alone.mib),
        beside("server_cpu", "%", watched.share(), alone.share()),
        row("event_server_cpu", "ms", cpu * 1000.0 / CHANGES as f64),
        row("event_last_p50", "ms", quantile(&told, 0.5)),
        row("event_last_p99", "ms", quantile(&told, 0.99)),
    ])
}

/// TCP connections that the machine of the API server has accepted, of everybody, etcd's too.
fn accepted(world: &World) -> Result<f64> {
    let said = world.cluster.exec(CONTROL, &["cat", "/proc/net/snmp"])?;
    let mut lines = said.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = lines.next().zip(lines.next()).context("snmp")?;
    let mut both = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = both
        .find(|(name, _)| *name == "PassiveOpens")
        .context("PassiveOpens")?;
    value.parse().context("PassiveOpens")
}

/// Resident memory by the text of `/proc/PID/status`, in MiB.
fn resident(status: &str) -> Result<f64> {
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: f64 = kib.context("VmRSS")?.parse().context("VmRSS")?;
    Ok(kib / 1024.0)
}

/// What the API server uses.
struct Usage {
    /// Resident.
    mib: f64,
    /// Seconds of processor time.
    cpu: f64,
    /// In which they were used.
    seconds: f64,
}

impl Usage {
    /// Since its start.
    fn now(world: &World) -> Result<Self> {
        let script = "pid=$(cat /run/machine/apiserver.pid); cat /proc/$pid/stat; grep VmRSS: /proc/$pid/status";
        let said = world.cluster.exec(CONTROL, &["sh", "-c", script])?;
        let (stat, status) = said.split_once('\n').context("stat")?;
        // The name, which may hold anything, ends with the last parenthesis (proc(5)).
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |at: usize| -> Result<f64> {
            let field: &&str = fields.get(at).context("stat")?;
            field.parse().context("stat")
        };
        Ok(Self {
            mib: resident(status)?,
            cpu: (ticks(11)? + ticks(12)?) / TICKS,
            seconds: 0.0,
        })
    }

    /// While nothing happens.
    fn of_a_while(world: &World) -> Result<Self> {
        let (before, start) = (Self::now(world)?, Instant::now());
        // What is measured is what it does by itself.
        std::thread::sleep(QUIET);
        let after = Self::now(world)?;
        Ok(Self {
            cpu: after.cpu - before.cpu,
            seconds: start.elapsed().as_secs_f64(),
            ..after
        })
    }

    /// Percent of one processor.
    fn share(&self) -> f64 {
        100.0 * self.cpu / self.seconds
    }
}

/// Simulated nodes. They go when dropped.
struct Nodes {
    in_sync: Arc<AtomicUsize>,
    waves: Receiver<String>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Nodes {
    fn start(world: &World, count: usize) -> Result<Self> {
        open_files(FILES * count as u64)?;
        let folder = tempfile::tempdir().context("a kubeconfig")?;
        let kubeconfig = folder.path().join("kubeconfig");
        write_kubeconfig(world, &kubeconfig)?;
        let in_sync = Arc::new(AtomicUsize::new(0));
        let (sender, waves) = channel();
        let mut nodes = Vec::new();
        for number in 0..count {
            let cluster = load::connect(world, kubeconfig.clone())?;
            let updates = cluster.watch(&format!("simulated-{number}"));
            nodes.push((cluster, updates));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .context("a runtime")?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let known = Arc::clone(&in_sync);
        std::thread::spawn(move || {
            for (cluster, updates) in nodes {
                runtime.spawn(node(cluster, updates, Arc::clone(&known), sender.clone()));
            }
            // Dropping the runtime ends its tasks, and they their connections.
            let _ = runtime.block_on(stopped);
        });
        Ok(Self {
            in_sync,
            waves,
            _stop: stop,
        })
    }

    fn until_in_sync(&self, count: usize) -> Result<()> {
        crate::lab::wait::until(LONG, "all nodes to be in sync", || {
            match self.in_sync.load(Ordering::Relaxed) {
                known if known == count => Ok(()),
                known => Err(format!("{known} of {count} are")),
            }
        })
    }

    /// Milliseconds from the request for a change until the last node has been told of it.
    fn tell(&self, api: &Cluster, count: usize, wave: usize) -> Result<f64> {
        let wanted = format!("wave-{wave}");
        let patch = json!({"metadata": {"labels": {WAVE: wanted}}});
        let path = "/api/v1/namespaces/base/pods/base-1";
        let start = Instant::now();
        let kind = Some("application/merge-patch+json");
        let client = api.clone();
        let asked = async move { client.call(Method::PATCH, path, kind, Some(&patch)).await };
        // On the client's own thread, which is in the network namespace of the API server.
        let asked = api.runtime().spawn(asked);
        let answer = api.runtime().block_on(asked).context("a request")?;
        answer.context("a label")?;
        let mut told = 0;
        while told < count {
            let left = world::PATIENCE.saturating_sub(start.elapsed());
            let wave = self.waves.recv_timeout(left);
            let wave = wave.with_context(|| format!("{told} of {count} nodes know {wanted}"))?;
            told += usize::from(wave == wanted);
        }
        Ok(start.elapsed().as_secs_f64() * 1000.0)
    }
}

/// Lets this process have so many open files. Without the right to raise the limit above its
/// maximum (`CAP_SYS_RESOURCE`), as many as that allows.
fn open_files(wanted: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let up_to = |maximum: Option<u64>| Rlimit {
        current: maximum,
        maximum,
    };
    let raised = up_to(limit.maximum.map(|maximum| maximum.max(wanted)));
    setrlimit(Resource::Nofile, raised)
        .or_else(|_| setrlimit(Resource::Nofile, up_to(limit.maximum)))
        .context("open files")
}

/// One node: takes in what it is told, as an agent does.
async fn node(
    _cluster: Cluster,
    mut updates: mpsc::Receiver<Update>,
    in_sync: Arc<AtomicUsize>,
    waves: Sender<String>,
) {
    let mut first = true;
    while let Some(update) = updates.recv().await {
        match update {
            Update::InSync if first => {
                first = false;
                in_sync.fetch_add(1, Ordering::Relaxed);
            }
            Update::Apply {
                object: Object::Pod(pod),
                ..
            } => {
                if let Some(wave) = pod.labels.get(WAVE) {
                    // Nobody listens at the end.
                    let _ = waves.send(wave.to_string());
                }
            }
            _ => {}
        }
    }
}

/// A kubeconfig with the rights of the agents.
fn write_kubeconfig(world: &World, path: &Path) -> Result<()> {
    let arguments = ["-n", SYSTEM, "create", "token", AGENT, "--duration=2h"];
    let token = world.kubectl(&arguments)?;
    let folder = world.cluster.kubeconfig();
    let authority = folder.with_file_name("ca.crt");
    ensure!(authority.is_file(), "{} is not there", authority.display());
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
         clusters: [{{name: lab, cluster: {{server: '{}', certificate-authority: {}}}}}]\n\
         users: [{{name: me, user: {{token: {}}}}}]\n\
         contexts: [{{name: lab, context: {{cluster: lab, user: me}}}}]\n",
        api_server(),
        authority.display(),
        token.trim()
    );
    std::fs::write(path, text).with_context(|| path.display().to_string())
}
