//! Who reaches whom.

use super::world::{REACH, World, node_names};
use crate::kube::shape::OUTSIDE;
use crate::lab::probe::{self, Protocol, Target};
use crate::prober::PORTS;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;

/// Thousands of attempts at once on a small machine.
const MATRIX_LIMIT: Duration = Duration::from_secs(20);

pub(super) fn matrix(world: &mut World) -> Result<String> {
    let members = world.pods("matrix", &node_names(), 30)?;
    for member in &members {
        ensure!(
            member.addresses.len() == 2,
            "{} has {:?}",
            member.name,
            member.addresses
        );
    }
    let targets: Vec<Target<'_>> = members.iter().map(|member| member.target()).collect();
    let cells = probe::matrix(&targets, &[Protocol::Tcp, Protocol::Udp], MATRIX_LIMIT)?;
    let mut wrong = cells.iter().filter(|cell| cell.outcome.is_err());
    if let Some(cell) = wrong.next() {
        anyhow::bail!(
            "{} of {} failed; {} to {} ({} {}): {:?}",
            wrong.count() + 1,
            cells.len(),
            cell.from,
            cell.to,
            cell.protocol,
            cell.address,
            cell.outcome
        );
    }
    let attempts = cells.len();
    drop(members);
    world.remove("matrix")?;
    Ok(format!("{attempts} attempts"))
}

pub(super) fn outside(world: &mut World) -> Result<String> {
    world.outside()?;
    world.base()?;
    let (base, outside) = world.base_and_outside()?;
    let mut reached = 0;
    for member in base {
        for address in &member.addresses {
            let who = world.until(
                &format!("{address} of {} from outside", member.name),
                || outside.reach(Protocol::Tcp, *address, PORTS[0], REACH),
            )?;
            ensure!(who == member.name, "{address} was answered by {who}");
            reached += 1;
        }
        for address in [OUTSIDE.ipv4, OUTSIDE.ipv6] {
            let who = member
                .probe
                .reach(Protocol::Tcp, address.parse()?, PORTS[0], REACH)?;
            ensure!(who == OUTSIDE.name, "{address} was answered by {who}");
            reached += 1;
        }
    }
    let mut blocks = 0;
    for family in ["ipv4", "ipv6"] {
        let said = world
            .cluster
            .vtysh("tor2", &format!("show bgp {family} unicast json"))?;
        let table: Value = serde_json::from_str(&said).context("vtysh")?;
        let routes = table["routes"].as_object().context("routes")?;
        let single = routes
            .keys()
            .find(|net| net.ends_with("/32") || net.ends_with("/128"));
        ensure!(single.is_none(), "the router has {single:?}");
        blocks += routes
            .keys()
            .filter(|net| net.ends_with("/26") || net.ends_with("/122"))
            .count();
    }
    ensure!(blocks > 0, "the router has no block");
    Ok(format!(
        "{reached} addresses reached; the far router has {blocks} blocks"
    ))
}

pub(super) fn vxlan(world: &mut World) -> Result<String> {
    world.base()?;
    let pools = world
        .cluster
        .kubectl_json(&["get", "ippools.projectcalico.org"])?;
    let pools: Vec<String> = super::world::items(&pools)
        .filter(|pool| {
            let uses = pool.pointer("/spec/allowedUses").and_then(Value::as_array);
            uses.is_none_or(|uses| uses.iter().any(|word| word == "Workload"))
        })
        .map(|pool| super::world::text(pool, "/metadata/name").to_owned())
        .collect();
    ensure!(!pools.is_empty(), "no pool of pods");
    let original = world
        .cluster
        .kubectl_json(&["get", "ippools.projectcalico.org", &pools[0]])?;
    let mode = super::world::text(&original, "/spec/vxlanMode").to_owned();
    let mut lost = 0;
    let (near, far) = (world.base_on("n1")?, world.base_on("n3")?);
    for (mode, device) in [
        ("CrossSubnet", model::names::VXLAN_DEVICE),
        ("Never", "eth0"),
    ] {
        let flow = near.probe.flow(&far.probe, far.addresses[0], 200)?;
        for pool in &pools {
            set_vxlan(world, pool, mode)?;
        }
        let route = |address: &IpAddr| {
            world
                .cluster
                .netns("n1")
                .run(&["ip", "-o", "route", "get", &address.to_string()])
        };
        world.until(&format!("n1 to reach n3 by {device}"), || {
            let said = route(&far.addresses[0])?;
            ensure!(said.contains(&format!("dev {device} ")), "{said}");
            Ok(())
        })?;
        let neighbour = world.base_on("n2")?;
        let said = route(&neighbour.addresses[0])?;
        ensure!(said.contains("dev eth0 "), "within the rack: {said}");
        world.until("the pods to reach each other", || {
            near.reach(far).and(far.reach(near))
        })?;
        lost += flow.stop()?.lost();
    }
    for pool in &pools {
        let mode = if mode.is_empty() { "Never" } else { &mode };
        set_vxlan(world, pool, mode)?;
    }
    Ok(format!(
        "between racks only; {lost} datagrams of a 200 Hz flow lost over both changes"
    ))
}

fn set_vxlan(world: &World, pool: &str, mode: &str) -> Result<()> {
    let patch = format!(r#"{{"spec":{{"vxlanMode":"{mode}","ipipMode":"Never"}}}}"#);
    world
        .kubectl(&[
            "patch",
            "ippools.projectcalico.org",
            pool,
            "--type=merge",
            "-p",
            &patch,
        ])
        .map(drop)
}
