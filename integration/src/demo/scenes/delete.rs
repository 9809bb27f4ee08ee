//! The end of a pod.

use crate::demo::cluster::{Cluster, pod_spec};
use crate::demo::scene::{saw, say};
use crate::lab::pod::Pod;
use crate::lab::probe::Protocol;
use crate::lab::{Netns, wait};
use crate::prober::PORTS;
use anyhow::{Result, ensure};
use model::names::NFT_TABLE;
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;

pub(super) fn play(cluster: &mut Cluster) -> Result<String> {
    cluster.ensure_pods()?;
    cluster.serial += 1;
    let name = format!("gone{}", cluster.serial);
    let plugin = cluster.plugins[0].clone();
    let n1 = plugin.node.clone();
    let pod = Pod::add(&cluster.lab, &plugin, pod_spec(&name, "other"))?;
    let (addresses, host) = (pod.addresses(), pod.host_interface()?);
    say(&format!("{name}: {addresses:?} on {host}"));
    for address in &addresses {
        ensure!(
            !route(&n1, *address)?.is_empty(),
            "no route to {address} after ADD"
        );
    }
    wait::until(cluster.patience, "the endpoint in the directory", || {
        present(cluster, &name, true)
    })?;
    pod.del()?;
    pod.del()?; // the specification wants DEL to succeed when there is nothing left
    wait::until(cluster.patience, "nothing to be left on n1", || {
        leftovers(&n1, &host, &addresses)
    })?;
    wait::until(
        cluster.patience,
        "the endpoint to leave the directory",
        || present(cluster, &name, false),
    )?;
    saw("ip -br link   (n1)", &n1.run(&["ip", "-br", "link"])?);
    pod.delete()?;

    let again = format!("again{}", cluster.serial);
    let wanted = json!({ "runtimeConfig": { "ips": addresses.iter().map(with_length).collect::<Vec<_>>() } });
    let pod = Pod::add_with(&cluster.lab, &plugin, pod_spec(&again, "other"), &wanted)?;
    ensure!(
        pod.addresses() == addresses,
        "{addresses:?} wanted, {:?} given",
        pod.addresses()
    );
    let a1 = cluster.member("a1")?;
    let answered = a1.probe.reach(
        Protocol::Icmp,
        addresses[0],
        PORTS[0],
        Duration::from_secs(20),
    );
    pod.delete()?;
    answered?;
    Ok(format!(
        "{addresses:?} freed and given to the next pod; no interface, route, rule or endpoint left"
    ))
}

fn with_length(address: &IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

fn route(n1: &Netns, address: IpAddr) -> Result<String> {
    let family = if address.is_ipv4() { "-4" } else { "-6" };
    n1.run(&["ip", family, "route", "show", &address.to_string()])
}

/// Interfaces, routes, neighbours and table entries that still name the pod.
fn leftovers(n1: &Netns, host: &str, addresses: &[IpAddr]) -> Result<(), String> {
    let look = || -> Result<String> {
        let mut found = String::new();
        let mut search = |what: &str, text: &str, needle: &str| {
            let hit = text
                .split([' ', '\n', '\t', ',', '"', '@', ':'])
                .any(|word| word == needle);
            if hit {
                found.push_str(&format!("{needle} in {what}; "));
            }
        };
        let rules = n1.run(&["nft", "list", "table", "inet", NFT_TABLE])?;
        search("links", &n1.run(&["ip", "-o", "link"])?, host);
        search("the table", &rules, host);
        for address in addresses {
            let family = if address.is_ipv4() { "-4" } else { "-6" };
            for object in ["route", "neigh"] {
                let text = n1.run(&["ip", family, object, "show"])?;
                let lines = text
                    .lines()
                    .filter(|line| line.split(' ').next() == Some(&address.to_string()));
                found.extend(lines.map(|line| format!("{object} {line}; ")));
            }
            if rules.contains(&format!("{address} ")) {
                found.push_str(&format!("{address} in the table; "));
            }
        }
        Ok(found)
    };
    match look() {
        Ok(found) if found.is_empty() => Ok(()),
        Ok(found) => Err(found),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Whether the directory has a workload endpoint of the pod.
fn present(cluster: &Cluster, pod: &str, wanted: bool) -> Result<(), String> {
    let found = find(cluster.store.path(), pod);
    if found.is_some() == wanted {
        Ok(())
    } else {
        Err(format!("{found:?}"))
    }
}

fn find(dir: &std::path::Path, pod: &str) -> Option<std::path::PathBuf> {
    std::fs::read_dir(dir)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find_map(|path| {
            if path.is_dir() {
                return find(&path, pod);
            }
            let text = std::fs::read_to_string(&path).ok()?;
            let ours = text.contains("WorkloadEndpoint") && text.contains(pod);
            ours.then_some(path)
        })
}
