//! From the bytes of a watch to a rule in the kernel.

use crate::bench::{Row, Target, quantile};
use crate::kube::check::world::{self, AGENT, SYSTEM, World};
use crate::kube::services::api_server;
use crate::kube::shape::CONTROL_PLANE;
use crate::lab::watch::{Event, Watch};
use crate::lab::{Lab, Netns, wait};
use anyhow::{Context, Result, ensure};
use kernel::KernelEvent;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How often a label comes and goes.
const CHANGES: usize = 100;
/// A pod with the label may talk to a pod of n1.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: event, namespace: base}\n\
     spec:\n  podSelector: {matchLabels: {name: base-0}}\n  policyTypes: [Ingress]\n  \
     ingress: [{from: [{podSelector: {matchLabels: {event: 'yes'}}}]}]\n";

/// A pod of another node gets a label and loses it.
pub(super) fn rows(world: &mut World, steal: impl Fn() -> f64) -> Result<Vec<Row>> {
    world.base()?;
    ask_the_server_itself(world)?;
    world.cluster.apply(POLICY)?;
    let measured = changes(world);
    world.kubectl(&["-n", "base", "delete", "networkpolicy", "event"])?;
    let (agent, server) = measured?;
    let mut rows = Vec::new();
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        let alone = |what: &str, values: &[f64]| {
            let row = Row::alone(
                &format!("{what}_{name}"),
                "ms",
                &[quantile(values, q)],
                steal(),
            );
            Row {
                n: values.len(),
                ..row
            }
        };
        rows.push(Row {
            target: (q > 0.9).then_some(Target::Ours(2.0)),
            ..alone("watch_bytes_to_rule", &agent)
        });
        rows.push(alone("kubectl_to_watch_bytes", &server));
    }
    Ok(rows)
}

/// Milliseconds from the last bytes that the API server sent to the agent until the kernel has
/// taken the transaction, and from `kubectl` to the bytes.
fn changes(world: &World) -> Result<(Vec<f64>, Vec<f64>)> {
    let lab = Lab::new()?;
    let netns = world.cluster.netns("n1");
    let packets = Watch::packets(&lab, &netns, &filter(world)?)?;
    let commits = commits(&netns)?;
    let (mut agent, mut api) = (Vec::new(), Vec::new());
    for change in 0..CHANGES {
        // Of the change before, the kernel may have more to say.
        while commits.recv_timeout(Duration::from_millis(100)).is_ok() {}
        packets.clear();
        let label = match change % 2 {
            0 => "event=yes",
            _ => "event-",
        };
        let asked = Instant::now();
        world.kubectl(&["-n", "base", "label", "pod", "base-1", label])?;
        let seen = commits
            .recv_timeout(world::PATIENCE)
            .context("no transaction for a changed label")?;
        let between = |packet: &Event| asked <= packet.at && packet.at <= seen;
        // The packet is told of by a process that may have to wait; the time in it is its own.
        let told = wait::until(Duration::from_secs(1), "the packet", || {
            let events = packets.events();
            let found = events.into_iter().rfind(between);
            found.ok_or_else(|| "nothing".to_owned())
        });
        // None before the first packet that the monitor, just started, has seen.
        if let Ok(bytes) = told {
            agent.push((seen - bytes.at).as_secs_f64() * 1000.0);
            api.push((bytes.at - asked).as_secs_f64() * 1000.0);
        }
    }
    ensure!(
        agent.len() > CHANGES / 2,
        "{} of {CHANGES} changes were seen",
        agent.len()
    );
    Ok((agent, api))
}

/// When the kernel took a transaction on the agent's table.
fn commits(netns: &Netns) -> Result<Receiver<Instant>> {
    // 0 is nobody's port: transactions of everybody.
    let mut events = netns.within(|| kernel::monitor(0, 0))??;
    let (sender, commits) = channel();
    std::thread::spawn(move || {
        while let Some(event) = events.blocking_recv() {
            let at = Instant::now();
            if event == KernelEvent::OurTableChanged && sender.send(at).is_err() {
                return;
            }
        }
    });
    Ok(commits)
}

/// What the API server sends to the agent of n1.
fn filter(world: &World) -> Result<String> {
    let server = CONTROL_PLANE.ipv4;
    let peer = format!("{server}:6443");
    let sockets = world.cluster.exec("n1", &["ss", "-Htnp", "dst", &peer])?;
    let ports: Vec<String> = sockets
        .lines()
        .filter(|line| line.contains(AGENT))
        .filter_map(|line| line.split_whitespace().nth(3)?.rsplit(':').next())
        .map(|port| format!("dst port {port}"))
        .collect();
    ensure!(
        !ports.is_empty(),
        "no connection of the agent to {peer}: {sockets}"
    );
    Ok(format!(
        "src host {server} and tcp[tcpflags] & tcp-push != 0 and ({})",
        ports.join(" or ")
    ))
}

/// The agents ask the API server itself and not its Service: what translates the Service's address
/// gives their connections other ports on the wire.
fn ask_the_server_itself(world: &World) -> Result<()> {
    let set = format!("daemonset/{AGENT}");
    let server = format!("OCICAT_API_SERVERS={}", api_server());
    world.kubectl(&["-n", SYSTEM, "set", "env", &set, &server])?;
    world.agents_ready()
}
