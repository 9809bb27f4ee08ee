//! The cables between machines.

use super::cluster::Cluster;
use super::shape::{self, Host, ROUTERS};
use crate::lab::{Netns, process};
use anyhow::Result;
use std::process::Command;

/// Namespaces of all machines, connected.
pub(super) fn make(cluster: &Cluster) -> Result<()> {
    for router in &ROUTERS {
        let netns = add(cluster, router.name)?;
        netns.set_sysctl("net.ipv4.ip_forward", "1")?;
        netns.set_sysctl("net.ipv6.conf.all.forwarding", "1")?;
    }
    let mut hosts: Vec<Host> = shape::hosts().collect();
    hosts.dedup_by_key(|host| host.lan);
    for host in &hosts {
        cluster.netns(host.router).ip([
            format!("link add {} type bridge", host.lan),
            format!("addr add {}/24 dev {}", host.gateway4, host.lan),
            format!("addr add {}/64 dev {} nodad", host.gateway6, host.lan),
            format!("link set {} up", host.lan),
        ])?;
    }
    let [one, two] = ROUTERS;
    cluster.netns(one.name).ip([format!(
        "link add {} type veth peer name {} netns {}",
        two.name,
        one.name,
        cluster.netns(two.name).full_name()
    )])?;
    for (router, device) in [(one, two.name), (two, one.name)] {
        cluster.netns(router.name).ip([
            format!("addr add {}/24 dev {device}", router.ipv4),
            format!("addr add {}/64 dev {device} nodad", router.ipv6),
            format!("link set {device} up"),
        ])?;
    }
    for host in shape::hosts() {
        plug(cluster, &host)?;
    }
    Ok(())
}

/// The namespace of a host and its cable. Nothing is forwarded: whoever needs that says so.
pub(super) fn plug(cluster: &Cluster, host: &Host) -> Result<()> {
    let netns = add(cluster, host.name)?;
    netns.set_sysctl("net.ipv4.ip_forward", "0")?;
    netns.set_sysctl("net.ipv6.conf.all.forwarding", "0")?;
    let router = cluster.netns(host.router);
    router.ip([
        format!(
            "link add {} type veth peer name eth0 netns {}",
            host.name,
            netns.full_name()
        ),
        format!("link set {} master {} up", host.name, host.lan),
    ])?;
    netns.ip([
        format!("addr add {}/24 dev eth0", host.ipv4),
        format!("addr add {}/64 dev eth0 nodad", host.ipv6),
        "link set eth0 up".to_owned(),
        format!("route add default via {}", host.gateway4),
        format!("route add default via {}", host.gateway6),
    ])
}

/// Removes a host's cable and its namespace. A cable that goes with a namespace goes some time
/// after it.
pub(super) fn unplug(cluster: &Cluster, host: &Host) -> Result<()> {
    let router = cluster.netns(host.router);
    router.ip([format!("link del {}", host.name)])?;
    cluster.netns(host.name).delete()
}

/// Removes all namespaces that are there. What still runs in them is ended.
pub(super) fn remove(cluster: &Cluster) -> Result<()> {
    let routers = ROUTERS.iter().map(|router| router.name);
    for name in shape::hosts().map(|host| host.name).chain(routers) {
        let netns = cluster.netns(name);
        if !netns.path().exists() {
            continue;
        }
        let pids = process::run(Command::new("ip").args(["netns", "pids", netns.full_name()]))?;
        for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
            // It may have ended in between.
            let _ = process::send(pid, rustix::process::Signal::KILL);
        }
        netns.delete()?;
    }
    Ok(())
}

fn add(cluster: &Cluster, name: &str) -> Result<Netns> {
    let netns = cluster.netns(name);
    process::run(Command::new("ip").args(["netns", "add", netns.full_name()]))?;
    netns.ip(["link set lo up"])?;
    Ok(netns)
}
