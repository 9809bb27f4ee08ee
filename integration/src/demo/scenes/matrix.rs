//! Everybody reaches everybody.

use crate::demo::cluster::Cluster;
use crate::demo::scene::{grid, saw, say};
use crate::lab::probe::{Cell, Protocol};
use crate::lab::{Netns, wait};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];

pub(super) fn play(cluster: &mut Cluster) -> Result<String> {
    let start = Instant::now();
    cluster.ensure_pods()?;
    say(&format!("six pods by CNI ADD in {:.0?}", start.elapsed()));
    for member in &cluster.members {
        member.pod.check()?;
        say(&format!(
            "{}: {:?}",
            member.pod.name(),
            member.pod.addresses()
        ));
    }
    let cells = until_all_reached(cluster)?;
    say("tcp, udp and icmp, IPv4 and IPv6: attempts that the right pod answered");
    saw("lab matrix", &grid(&cells));
    let (n1, a1) = (
        cluster.agents[0].netns().clone(),
        cluster.member("a1")?.pod.netns().clone(),
    );
    saw("ip route   (n1)", &n1.run(&["ip", "route"])?);
    saw(
        "ip route; ip neigh   (a1)",
        &(a1.run(&["ip", "route"])? + &a1.run(&["ip", "neigh"])?),
    );
    let nodes = cluster.agents.iter().map(|agent| agent.netns());
    let pods = cluster.members.iter().map(|member| member.pod.netns());
    nodes.chain(pods).try_for_each(no_bridge)?;
    Ok(format!(
        "{} of {0} attempts answered, no bridge on nodes and pods",
        cells.len()
    ))
}

fn until_all_reached(cluster: &Cluster) -> Result<Vec<Cell>> {
    wait::until(cluster.patience, "everybody to reach everybody", || {
        let cells = cluster.matrix(&PROTOCOLS, Duration::from_secs(15));
        let cells = cells.map_err(|error| format!("{error:#}"))?;
        let failed: Vec<&Cell> = cells.iter().filter(|cell| cell.outcome.is_err()).collect();
        match failed.first() {
            None => Ok(cells),
            Some(Cell {
                from,
                to,
                address,
                protocol,
                outcome,
            }) => Err(format!(
                "{} of {} failed, such as {from} to {to} ({address}, {protocol}): {outcome:?}",
                failed.len(),
                cells.len()
            )),
        }
    })
}

fn no_bridge(netns: &Netns) -> Result<()> {
    let bridges = netns.run(&["ip", "-o", "link", "show", "type", "bridge"])?;
    if !bridges.trim().is_empty() {
        bail!("a bridge on {}: {bridges}", netns.name());
    }
    Ok(())
}
