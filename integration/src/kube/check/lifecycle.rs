//! What comes and goes: agents, runtimes, nodes.

use super::world::{AGENT, Member, PATIENCE, SYSTEM, World, items, node_names, pod, text};
use crate::kube::shape::NODES;
use crate::lab::probe::Flow;
use anyhow::{Context, Result, ensure};
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
pub(super) fn kill_agent(world: &World, node: &str) -> Result<()> {
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

pub(super) fn node_deleted(world: &mut World) -> Result<String> {
    world.base()?;
    let node = &NODES[2];
    world.cluster.stop(node.name, "kubelet", "TERM")?;
    world.kubectl(&["delete", "node", node.name])?;
    let blocks = |world: &World| -> Result<usize> {
        let blocks = world
            .cluster
            .kubectl_json(&["get", "ipamblocks.projectcalico.org"])?;
        let affinity = format!("host:{}", node.name);
        Ok(items(&blocks)
            .filter(|block| text(block, "/spec/affinity") == affinity)
            .count())
    };
    ensure!(blocks(world)? > 0, "{} has no blocks", node.name);
    // A node is gone for good after the agents' grace time.
    let limit = Duration::from_secs(900) + PATIENCE * 3;
    world
        .cluster
        .wait_until("the blocks of the node to be given back", limit, || {
            let left = blocks(world)?;
            ensure!(left == 0, "{left} left");
            Ok(())
        })?;
    world.cluster.start(node.name, "kubelet")?;
    world.until("the node to be back", || {
        world.kubectl(&["get", "node", node.name]).map(drop)
    })?;
    world.agents_ready()?;
    // The pods that were bound to the node went with it.
    let missing: String = (0..6)
        .filter(|index| index % 3 == 2)
        .map(|index| pod("base", &format!("base-{index}"), node.name, "web"))
        .collect();
    world.cluster.apply(&missing)?;
    world.renew_base()?;
    world.base_is_connected()?;
    world.nothing_is_left(node.name)?;
    Ok(format!("{} blocks again", blocks(world)?))
}
