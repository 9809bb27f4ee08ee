//! Many pods at once, and many one after the other.

use super::world::{World, items, node_names, pod, text};
use crate::kube::shape::NODES;
use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub(in crate::kube) fn burst(world: &mut World) -> Result<String> {
    const COUNT: usize = 100;
    world.base()?;
    let before = world.pod_links("n1")?;
    world.namespace("burst")?;
    let mut manifest = String::new();
    for index in 0..COUNT {
        manifest.push_str(&pod("burst", &format!("burst-{index}"), "n1", "burst"));
    }
    let start = Instant::now();
    world.cluster.apply(&manifest)?;
    world.ready("burst", COUNT)?;
    let took = start.elapsed();
    let pods = world
        .cluster
        .kubectl_json(&["-n", "burst", "get", "pods"])?;
    let addresses: BTreeSet<&str> = items(&pods).map(|pod| text(pod, "/status/podIP")).collect();
    ensure!(
        addresses.len() == COUNT,
        "{} different addresses",
        addresses.len()
    );
    let asked = world.base_on("n3")?;
    for address in &addresses {
        asked.probe.reach(
            crate::lab::probe::Protocol::Tcp,
            address.parse()?,
            super::world::SERVER,
            super::world::REACH,
        )?;
    }
    world.remove("burst")?;
    let left = world.nothing_is_left("n1")?;
    ensure!(left == before, "{left} links, {before} before");
    Ok(format!("Ready after {:.1} s", took.as_secs_f64()))
}

/// Ten pods a second at most; a machine that can't follow makes fewer, and the result says so.
pub(in crate::kube) fn churn(world: &mut World) -> Result<String> {
    const EACH: usize = 10;
    const LIFE: usize = 6;
    let (length, pause) = (Duration::from_secs(300), Duration::from_secs(1));
    world.namespace("churn")?;
    let memory = memory(world)?;
    let start = Instant::now();
    let mut round = 0;
    while start.elapsed() < length {
        let due = start + pause * u32::try_from(round)?;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let manifest: String = (0..EACH)
            .map(|index| {
                let node = node_names()[(round * EACH + index) % 3];
                let name = format!("churn-{round}-{index}");
                pod("churn", &name, node, &format!("round-{round}"))
            })
            .collect();
        world
            .cluster
            .kubectl_stdin(&["create", "-f", "-"], &manifest)?;
        if round >= LIFE {
            let old = format!("app=round-{}", round - LIFE);
            world.kubectl(&["-n", "churn", "delete", "pods", "-l", &old, "--wait=false"])?;
        }
        round += 1;
    }
    let made = round * EACH;
    let rate = made as f64 / start.elapsed().as_secs_f64();
    world.remove("churn")?;
    for node in &NODES {
        world.nothing_is_left(node.name)?;
    }
    let after = self::memory(world)?;
    ensure!(
        after < memory * 2 + 32 * 1024,
        "an agent had {memory} KiB before and {after} KiB after"
    );
    Ok(format!(
        "{made} pods, {rate:.1} a second; the largest agent {memory} KiB before, {after} KiB after"
    ))
}

/// Resident memory of the largest agent, in KiB.
pub(in crate::kube) fn memory(world: &World) -> Result<u64> {
    let mut largest = 0;
    for node in node_names() {
        let script = format!("cat /proc/$(pidof {})/status", super::world::AGENT);
        let status = world.cluster.exec(node, &["sh", "-c", &script])?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let words = line
            .and_then(|line| line.split_whitespace().next())
            .unwrap_or("0");
        largest = largest.max(words.parse()?);
    }
    ensure!(largest > 0, "no agent runs");
    Ok(largest)
}
