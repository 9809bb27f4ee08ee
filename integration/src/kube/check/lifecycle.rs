//! What comes and goes: agents, runtimes, nodes.

use super::world::{AGENT, Member, SYSTEM, World, items, node_names, pod, text};
use crate::kube::shape::{Host, NODES};
use crate::lab::probe::Flow;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::time::Duration;

/// Datagrams a second of each flow.
const RATE: u32 = 1000;

/// A flow from each node to the next, IPv4 and IPv6.
fn flows(base: &[Member]) -> Result<Vec<Flow<'_>>> {
    let mut flows = Vec::new();
    for (index, from) in base.iter().take(3).enumerate() {
        let to = &base[(index + 1) % 3];
        let address = to.addresses[index % to.addresses.len()];
        flows.push(from.probe.flow(&to.probe, address, RATE)?);
    }
    Ok(flows)
}

/// Ends the flows; fails if a datagram was lost.
fn lossless(flows: Vec<Flow<'_>>) -> Result<String> {
    let (mut sent, mut gap) = (0, Duration::ZERO);
    for flow in flows {
        let report = flow.stop()?;
        ensure!(report.lost() == 0, "{report}");
        sent += report.sent.count;
        gap = gap.max(Duration::from_micros(report.received.longest_gap_us));
    }
    Ok(format!(
        "{sent} datagrams, 0 lost, longest gap {} ms",
        gap.as_millis()
    ))
}

pub(super) fn rolling_update(world: &mut World) -> Result<String> {
    world.base()?;
    let running = flows(world.made_base()?)?;
    let set = format!("daemonset/{AGENT}");
    world.kubectl(&["-n", SYSTEM, "rollout", "restart", &set])?;
    world.agents_ready()?;
    lossless(running)
}

pub(super) fn kill(world: &mut World) -> Result<String> {
    world.base()?;
    let running = flows(world.made_base()?)?;
    for node in node_names() {
        kill_agent(world, node)?;
    }
    world.agents_ready()?;
    let said = lossless(running)?;
    let extra = world.pods("after-kill", &node_names(), 3)?;
    world.base_on("n1")?.reach(&extra[2])?;
    drop(extra);
    world.remove("after-kill")?;
    Ok(said)
}

/// Kills the agent of a node and waits until its container has been started again.
pub(in crate::kube) fn kill_agent(world: &World, node: &str) -> Result<()> {
    let pid = agent_pid(world, node)?;
    world.cluster.exec(node, &["kill", "-9", &pid])?;
    world.until(&format!("another agent on {node}"), || {
        let other = agent_pid(world, node)?;
        ensure!(other != pid, "process {pid} is there");
        Ok(())
    })
}

/// The agent's process, as numbered by its node.
fn agent_pid(world: &World, node: &str) -> Result<String> {
    let said = world.cluster.exec(node, &["pidof", AGENT])?;
    let pid = said.split_whitespace().next().context("no agent runs")?;
    Ok(pid.to_owned())
}

pub(super) fn containerd(world: &mut World) -> Result<String> {
    world.base()?;
    let running = flows(world.made_base()?)?;
    world.cluster.stop("n2", "containerd", "TERM")?;
    world.cluster.start("n2", "containerd")?;
    let extra = world.pods("after-runtime", &["n2"], 2)?;
    extra[0].reach(&extra[1])?;
    drop(extra);
    let said = lossless(running)?;
    world.remove("after-runtime")?;
    world.nothing_is_left("n2")?;
    Ok(said)
}

pub(super) fn reboot(world: &mut World) -> Result<String> {
    world.base()?;
    let node = &NODES[1];
    world.cluster.reboot(node)?;
    world.renew_base()?;
    world.agents_ready()?;
    world.base_is_connected()?;
    let links = world.nothing_is_left(node.name)?;
    Ok(format!("{links} pods of {} are back", node.name))
}

/// What the DaemonSet is given so that a departed node's blocks are free after a minute, and not
/// after the quarter of an hour that is the default.
const SOON: &str = r#"[
    {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--node-grace=60"},
    {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--ipam-interval=10"}
]"#;
/// A neighbour keeps the routes of a node that lost its power for the hold time and the time that a
/// restart may take; then the grace time begins.
const DEPARTURE: Duration = Duration::from_secs(600);

pub(super) fn node_deleted(world: &mut World) -> Result<String> {
    world.base()?;
    let set = format!("daemonset/{AGENT}");
    world.kubectl(&["-n", SYSTEM, "patch", &set, "--type=json", "-p", SOON])?;
    world.agents_ready()?;
    let outcome = departs_and_returns(world, &NODES[2]);
    world.kubectl(&["-n", SYSTEM, "rollout", "undo", &set])?;
    let said = outcome?;
    world.agents_ready()?;
    Ok(said)
}

/// A node loses its power and its object, and is powered on after its blocks were given back.
fn departs_and_returns(world: &mut World, node: &Host) -> Result<String> {
    let held = blocks(world, node.name)?;
    ensure!(!held.is_empty(), "{} has no blocks", node.name);
    world.cluster.halt(node.name)?;
    world.kubectl(&["delete", "node", node.name])?;
    let given_back =
        world
            .cluster
            .wait_until("the blocks of the node to be given back", DEPARTURE, || {
                let left = blocks(world, node.name)?;
                ensure!(left.is_empty(), "{left:?} left");
                Ok(())
            });
    world.cluster.reboot(node)?;
    given_back?;
    world.until("the node to be back", || {
        world.kubectl(&["get", "node", node.name]).map(drop)
    })?;
    world.agents_ready()?;
    // The pods that were bound to the node go with it.
    for index in (0..6).filter(|index| NODES[index % 3].name == node.name) {
        let name = format!("base-{index}");
        let arguments = ["-n", "base", "delete", "pod", &name, "--ignore-not-found"];
        world.kubectl(&[&arguments[..], &["--force"]].concat())?;
        world.cluster.apply(&pod("base", &name, node.name, "web"))?;
    }
    world.renew_base()?;
    world.base_is_connected()?;
    world.nothing_is_left(node.name)?;
    let again = blocks(world, node.name)?;
    ensure!(!again.is_empty(), "{} has no blocks again", node.name);
    Ok(format!(
        "{} blocks given back, {} again",
        held.len(),
        again.len()
    ))
}

/// The blocks that a node holds.
fn blocks(world: &World, node: &str) -> Result<BTreeSet<String>> {
    let blocks = world
        .cluster
        .kubectl_json(&["get", "ipamblocks.projectcalico.org"])?;
    let affinity = format!("host:{node}");
    Ok(items(&blocks)
        .filter(|block| text(block, "/spec/affinity") == affinity)
        .map(|block| text(block, "/spec/cidr").to_owned())
        .collect())
}
