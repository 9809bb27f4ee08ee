//! From outside the cluster.

use crate::demo::cluster::Cluster;
use crate::demo::scene::saw;
use crate::lab::probe::Protocol;
use crate::lab::wait;
use crate::prober::PORTS;
use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use std::net::IpAddr;
use std::time::Duration;

pub(super) fn play(cluster: &mut Cluster) -> Result<String> {
    cluster.ensure_pods()?;
    let a1: IpAddr = cluster.member("a1")?.pod.ipv4()?;
    let block = wait::until(
        cluster.patience,
        "FRR to know the block of a1 by n1",
        || block_from_n1(cluster, a1).map_err(|error| format!("{error:#}")),
    )?;
    saw(
        "vtysh -c 'show bgp ipv4 unicast'   (tor1)",
        &cluster.frr.vtysh("show bgp ipv4 unicast")?,
    );
    let prefixes = cluster.frr.prefixes("ipv4")?;
    let hosts: Vec<&String> = prefixes
        .iter()
        .filter(|prefix| prefix.ends_with("/32"))
        .collect();
    ensure!(hosts.is_empty(), "FRR's table has single pods: {hosts:?}");
    let mut reached = 0;
    for name in ["a1", "b1", "c1"] {
        for address in cluster.member(name)?.pod.addresses() {
            let who = wait::until(
                cluster.patience,
                &format!("the outside host to reach {name} at {address}"),
                || {
                    let limit = Duration::from_secs(10);
                    cluster
                        .outside
                        .reach(Protocol::Tcp, address, PORTS[0], limit)
                        .map_err(|error| format!("{error:#}"))
                },
            )?;
            ensure!(who == name, "{address} of {name} was answered by {who}");
            reached += 1;
        }
    }
    let a1 = cluster.member("a1")?;
    let who = a1.probe.reach(
        Protocol::Tcp,
        "192.0.2.10".parse()?,
        PORTS[0],
        Duration::from_secs(20),
    )?;
    ensure!(who == "outside", "192.0.2.10 was answered by {who}");
    Ok(format!(
        "{reached} pod addresses reached; FRR has {block} by 10.10.1.11 and no /32"
    ))
}

/// The block in FRR's table that holds the address, if its next hop is n1 itself.
fn block_from_n1(cluster: &Cluster, address: IpAddr) -> Result<IpNet> {
    let table = cluster.frr.json("show bgp ipv4 unicast json")?;
    let routes = table["routes"].as_object().context("no routes")?;
    let holds = |prefix: &str| {
        prefix
            .parse::<IpNet>()
            .is_ok_and(|net| net.contains(&address))
    };
    let (prefix, paths) = routes
        .iter()
        .find(|(prefix, _)| *prefix != "0.0.0.0/0" && holds(prefix))
        .with_context(|| format!("no block of {address} in FRR's table"))?;
    let best = paths
        .as_array()
        .into_iter()
        .flatten()
        .find(|path| path["bestpath"] == true);
    let next_hop = best.and_then(|path| path["nexthops"][0]["ip"].as_str());
    ensure!(next_hop == Some("10.10.1.11"), "{prefix} by {next_hop:?}");
    prefix.parse().context("prefix")
}
