//! Pods that come and go faster than a kubelet makes them, at the CNI plugin of a real node.
//!
//! The node's kubelet stands still, so that the Pod objects bound to its node are ours alone: each
//! is created through the API, gets a network namespace and an ADD of the installed plugin by the
//! agent in its container, lives, and goes by DEL and a deletion of the object. The controllers
//! stand still too, which would mourn the node.

use super::holdings::{Holdings, Process, until_told};
use super::world::{CONTROL, World, text};
use crate::bench::quantile;
use crate::kube::bench::load::connect;
use anyhow::{Context, Result, bail, ensure};
use datastore::kubernetes::{Cluster, Method};
use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Where.
const NODE: &str = "n1";
const NAMESPACE: &str = "cni-churn";
/// Pods that are made first, so that caches and buffers have their size.
const WARM_UP: usize = 100;
const PODS: usize = 3000;
/// Time from one ADD to the next, whether that has been answered or not.
const PERIOD: Duration = Duration::from_millis(100);
/// How long a pod lives.
const LIFE: Duration = Duration::from_secs(6);
/// How long blocks may take to be given back: their addresses rest for 30 s, and two looks a minute
/// apart must find them empty.
const SETTLE: Duration = Duration::from_secs(400);
/// What an agent may have gained, in KiB: less than 3 for each pod.
const GAIN: u64 = 8 * 1024;
/// Pods of the namespace admit each other, so that policy changes with each of them.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: each-other, namespace: cni-churn}\n\
     spec:\n  podSelector: {matchLabels: {app: churn}}\n  policyTypes: [Ingress]\n  \
     ingress: [{from: [{podSelector: {matchLabels: {app: churn}}}]}]\n";

pub(in crate::kube) fn cni_churn(world: &mut World) -> Result<String> {
    world.base()?;
    world.namespace(NAMESPACE)?;
    world.cluster.apply(POLICY)?;
    world.cluster.stop(CONTROL, "controller-manager", "TERM")?;
    world.cluster.stop(NODE, "kubelet", "TERM")?;
    let outcome = without_kubelet(world);
    world.cluster.start(NODE, "kubelet")?;
    let lease = || -> Result<String> {
        let path = ["-n", "kube-node-lease", "get", "lease", NODE];
        let lease = world.cluster.kubectl_json(&path)?;
        Ok(text(&lease, "/spec/renewTime").to_owned())
    };
    let before = lease()?;
    world.until("the kubelet to renew its lease", || {
        ensure!(lease()? != before, "it was renewed at {before}");
        Ok(())
    })?;
    world.cluster.start(CONTROL, "controller-manager")?;
    world.remove(NAMESPACE)?;
    let said = outcome?;
    world.agents_ready()?;
    world.base_is_connected()?;
    Ok(said)
}

fn without_kubelet(world: &World) -> Result<String> {
    let churn = Churn::new(world)?;
    until_told(world, NODE)?;
    let empty = Holdings::of(world, NODE)?;
    churn.run("warm-up", WARM_UP)?;
    as_before(world, &empty)?;
    let before = Process::of(world, NODE)?;
    let lives = churn.run("pod", PODS)?;
    let full = Process::of(world, NODE)?;
    let settling = Instant::now();
    as_before(world, &empty)?;
    let settled = settling.elapsed().as_secs_f64();
    let after = no_more_than(world, before)?;
    Ok(format!(
        "{}; afterwards as before ({settled:.0} s): {}; the agent before: {before}, at the end: {full}, \
         after: {after}",
        lives.words(),
        empty.counts(),
    ))
}

/// A connection that is just being answered is an open file too.
fn no_more_than(world: &World, before: Process) -> Result<Process> {
    world.until("the agent to have no more than before", || {
        let after = Process::of(world, NODE)?;
        ensure!(
            after.memory < before.memory + GAIN
                && after.files <= before.files
                && after.threads <= before.threads,
            "before: {before}, after: {after}"
        );
        Ok(after)
    })
}

fn as_before(world: &World, before: &Holdings) -> Result<()> {
    let what = format!("what {NODE} holds to be as before");
    world.cluster.wait_until(&what, SETTLE, || {
        let differences = before.differences(&Holdings::of(world, NODE)?);
        ensure!(differences.is_empty(), "{}", differences.join("; "));
        Ok(())
    })
}

struct Churn<'a> {
    world: &'a World,
    api: Cluster,
    /// Of the plugin, as a runtime passes it.
    config: Value,
}

/// What became of pods.
#[derive(Default)]
struct Lives {
    /// Milliseconds that an ADD took, with the start of the process.
    add: Vec<f64>,
    /// Milliseconds from when a pod was due until its ADD began.
    late: Vec<f64>,
    /// From when the first one was due until the last ADD was answered, in seconds.
    seconds: f64,
    failed: Option<anyhow::Error>,
}

impl Lives {
    fn words(&self) -> String {
        let count = self.add.len();
        format!(
            "{count} pods in {:.1} s, {:.1} a second; ADD p50 {:.1} ms, p99 {:.1} ms; begun after the \
             pod was due p50 {:.1} ms, p99 {:.1} ms",
            self.seconds,
            count as f64 / self.seconds,
            quantile(&self.add, 0.5),
            quantile(&self.add, 0.99),
            quantile(&self.late, 0.5),
            quantile(&self.late, 0.99),
        )
    }
}

fn held(lives: &Mutex<Lives>) -> MutexGuard<'_, Lives> {
    lives.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Churn<'a> {
    fn new(world: &'a World) -> Result<Self> {
        let path = "/etc/cni/net.d/10-ocicat.conflist";
        let list = std::fs::read(world.cluster.inside(NODE, path)?).context(path)?;
        let list: Value = serde_json::from_slice(&list).context(path)?;
        let mut config = list.pointer("/plugins/0").context(path)?.clone();
        config["name"] = list["name"].clone();
        config["cniVersion"] = list["cniVersion"].clone();
        Ok(Self {
            world,
            api: connect(world, world.cluster.kubeconfig())?,
            config,
        })
    }

    /// So many pods, one each [`PERIOD`], however long the others take.
    fn run(&self, prefix: &str, count: usize) -> Result<Lives> {
        let lives = Mutex::new(Lives::default());
        let start = Instant::now();
        thread::scope(|scope| {
            for number in 0..u32::try_from(count).unwrap_or(u32::MAX) {
                let due = start + PERIOD * number;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if held(&lives).failed.is_some() {
                    return;
                }
                let lives = &lives;
                scope.spawn(move || {
                    let name = format!("{prefix}-{number}");
                    if let Err(error) = self.live(&name, start, due, lives) {
                        held(lives).failed.get_or_insert(error.context(name));
                    }
                });
            }
        });
        let mut lives = lives.into_inner().unwrap_or_else(PoisonError::into_inner);
        match lives.failed.take() {
            Some(error) => Err(error),
            None => Ok(lives),
        }
    }

    /// One pod, from its object to its end.
    fn live(&self, name: &str, start: Instant, due: Instant, lives: &Mutex<Lives>) -> Result<()> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let made = self.ask(Method::POST, &path, Some(pod(name)))?;
        let uid = text(&made, "/metadata/uid");
        self.world
            .cluster
            .exec(NODE, &["ip", "netns", "add", name])?;
        let begun = Instant::now();
        let result = self.plugin("ADD", name, uid)?;
        let took = begun.elapsed();
        let addresses = result["ips"].as_array().map_or(0, Vec::len);
        ensure!(addresses == 2, "ADD said {result}");
        {
            let mut lives = held(lives);
            lives.add.push(took.as_secs_f64() * 1000.0);
            let late = begun.saturating_duration_since(due);
            lives.late.push(late.as_secs_f64() * 1000.0);
            lives.seconds = lives.seconds.max(start.elapsed().as_secs_f64());
        }
        thread::sleep((due + LIFE).saturating_duration_since(Instant::now()));
        self.plugin("DEL", name, uid)?;
        self.world
            .cluster
            .exec(NODE, &["ip", "netns", "del", name])?;
        let path = format!("{path}/{name}?gracePeriodSeconds=0");
        self.ask(Method::DELETE, &path, None).map(drop)
    }

    fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let (api, asked) = (self.api.clone(), path.to_owned());
        let request = async move { api.call(method, &asked, None, body.as_ref()).await };
        // On the client's own thread, which is in the network namespace of the API server.
        let request = self.api.runtime().spawn(request);
        let answer = self.api.runtime().block_on(request);
        Ok(answer.context("a request")??)
    }

    /// Calls the installed plugin as the node's runtime does.
    fn plugin(&self, command: &str, name: &str, uid: &str) -> Result<Value> {
        let mut child = self
            .world
            .cluster
            .command(NODE)?
            .arg("/opt/cni/bin/ocicat")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", name)
            .env("CNI_NETNS", format!("/run/netns/{name}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={name};\
                     K8S_POD_UID={uid};K8S_POD_INFRA_CONTAINER_ID={name}"
                ),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("the plugin")?;
        let mut stdin = child.stdin.take().context("the plugin's input")?;
        stdin
            .write_all(self.config.to_string().as_bytes())
            .context("the plugin's input")?;
        drop(stdin);
        let output = child.wait_with_output().context("the plugin's output")?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let more = String::from_utf8_lossy(&output.stderr);
            bail!("CNI {command}: {} {}", said.trim(), more.trim());
        }
        match said.trim() {
            "" => Ok(Value::Null),
            said => serde_json::from_str(said).with_context(|| format!("CNI {command}: {said}")),
        }
    }
}

/// Bound to its node from the start; nobody starts its container.
fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "churn"}},
        "spec": {
            "nodeName": NODE,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "nobody", "image": "registry.example/nobody:v1"}],
        },
    })
}
