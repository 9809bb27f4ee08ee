//! Sessions, seen from both sides.

use crate::demo::cluster::Cluster;
use crate::demo::objects::NODES;
use crate::demo::scene::{saw, say};
use crate::lab::{Agent, wait};
use anyhow::{Result, ensure};
use serde_json::Value;

pub(super) fn play(cluster: &mut Cluster) -> Result<String> {
    cluster.wait_ready()?;
    say("all agents are ready");
    let mut sessions = 0;
    for (address, who) in [
        ("10.10.1.11", "n1"),
        ("10.10.1.12", "n2"),
        ("10.10.0.2", "tor2"),
    ] {
        wait::until(
            cluster.patience,
            &format!("FRR's session with {who}"),
            || established(cluster.frr.session(address)),
        )?;
    }
    for name in ["n3", "tor1"] {
        wait::until(
            cluster.patience,
            &format!("BIRD's session with {name}"),
            || established(cluster.bird.session(name)),
        )?;
    }
    for agent in &cluster.agents {
        let what = format!("the sessions of {}", agent.node());
        sessions += wait::until(cluster.patience, &what, || all_established(agent))?;
    }
    saw(
        "ip route show proto kernel   (n1)",
        &own_subnet(&cluster.agents[0])?,
    );
    saw(
        "vtysh -c 'show bgp ipv4 unicast summary'   (tor1)",
        &cluster.frr.vtysh("show bgp ipv4 unicast summary")?,
    );
    saw(
        "birdc show protocols   (tor2)",
        &cluster.bird.birdc("show protocols")?,
    );
    saw(
        "ocicat bgp summary   (n1)",
        &cluster.agents[0].ctl(&["bgp", "summary"])?,
    );
    Ok(format!(
        "{sessions} sessions of the agents Established; FRR and BIRD say so too"
    ))
}

/// The routers advertise the rack's own subnet to its nodes; the kernel's route to it must stay.
fn own_subnet(agent: &Agent) -> Result<String> {
    let routes = agent
        .netns()
        .run(&["ip", "-4", "route", "show", "proto", "kernel"])?;
    ensure!(
        !routes.trim().is_empty(),
        "{}: the kernel's own route is gone",
        agent.node()
    );
    Ok(routes)
}

fn established(state: Result<String>) -> Result<(), String> {
    match state {
        Ok(state) if state == "Established" => Ok(()),
        Ok(state) => Err(state),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// The agent's own view must hold both other nodes and the rack's router.
fn all_established(agent: &Agent) -> Result<usize, String> {
    let text = agent
        .ctl(&["bgp", "summary", "-o", "json"])
        .map_err(|error| format!("{error:#}"))?;
    let status: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let peers = status["peers"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let up = peers
        .iter()
        .filter(|peer| peer["state"] == "Established")
        .count();
    if up == NODES.len() && peers.len() == NODES.len() {
        Ok(up)
    } else {
        Err(text)
    }
}
