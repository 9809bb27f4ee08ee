//! What a node holds on behalf of its pods, to be compared before and after.

use super::world::{AGENT, World, items, text};
use anyhow::{Context, Result, ensure};
use ipam::journal::{State, replay};
use model::names;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

/// Of each kind of thing, all that there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holdings(BTreeMap<&'static str, BTreeSet<String>>);

impl Holdings {
    /// Of a node, now.
    pub(super) fn of(world: &World, node: &str) -> Result<Self> {
        let mut all = Self::default();
        let netns = world.cluster.netns(node);
        let mut lines = |kind, command: &[&str]| -> Result<()> {
            let said = netns.run(command)?;
            all.0
                .insert(kind, said.lines().map(str::to_owned).collect());
            Ok(())
        };
        lines(
            "IPv4 routes",
            &["ip", "-4", "route", "show", "table", "all"],
        )?;
        lines(
            "IPv6 routes",
            &["ip", "-6", "route", "show", "table", "all"],
        )?;
        lines(
            "neighbours",
            &["ip", "neighbour", "show", "nud", "permanent"],
        )?;
        let links = netns.run(&["ip", "-o", "link"])?;
        let name = |line: &str| Some(line.split(": ").nth(1)?.to_owned());
        all.0
            .insert("interfaces", links.lines().filter_map(name).collect());
        let table = netns.run(&["nft", "-j", "list", "table", "inet", names::NFT_TABLE])?;
        all.0.insert("table", table_of(&table)?);
        all.0.insert("journal", journal(world, node)?);
        all.0.insert("blocks", blocks(world, node)?);
        all.0
            .insert("network namespaces", entries(world, node, "/run/netns")?);
        Ok(all)
    }

    /// What has come and what has gone since, in words; nothing if all is as it was.
    pub(super) fn differences(&self, now: &Self) -> Vec<String> {
        let mut said = Vec::new();
        for (kind, before) in &self.0 {
            let Some(now) = now.0.get(kind) else { continue };
            let one = |what: &str, mut left: Vec<&String>| {
                let count = left.len();
                left.truncate(3);
                (count > 0).then(|| format!("{count} {kind} {what}, such as {left:?}"))
            };
            said.extend(one("more", now.difference(before).collect()));
            said.extend(one("missing", before.difference(now).collect()));
        }
        said
    }

    /// How many things of each kind there are.
    pub(super) fn counts(&self) -> String {
        let all = self.0.iter();
        let all = all.map(|(kind, things)| format!("{} {kind}", things.len()));
        all.collect::<Vec<_>>().join(", ")
    }
}

/// What the process of a node's agent has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    /// Resident memory, in KiB.
    pub(super) memory: u64,
    pub(super) files: usize,
    pub(super) threads: usize,
}

impl Process {
    /// Of a node's agent, now.
    pub(super) fn of(world: &World, node: &str) -> Result<Self> {
        let pid = pid(world, node)?;
        let status = read(world, node, &format!("/proc/{pid}/status"))?;
        let status = String::from_utf8_lossy(&status).into_owned();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(Self {
            memory: kib.context("VmRSS")?.parse().context("VmRSS")?,
            files: entries(world, node, &format!("/proc/{pid}/fd"))?.len(),
            threads: entries(world, node, &format!("/proc/{pid}/task"))?.len(),
        })
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            memory,
            files,
            threads,
        } = self;
        write!(f, "{memory} KiB, {files} open files, {threads} threads")
    }
}

/// Chains, sets with their elements, and named counters of the table that nft says.
fn table_of(json: &str) -> Result<BTreeSet<String>> {
    let said: Value = serde_json::from_str(json).context("nft's JSON")?;
    let mut all = BTreeSet::new();
    for object in said["nftables"].as_array().into_iter().flatten() {
        for kind in ["chain", "set", "map", "counter"] {
            let Some(object) = object.get(kind) else {
                continue;
            };
            let name = text(object, "/name");
            all.insert(format!("{kind} {name}"));
            for element in object["elem"].as_array().into_iter().flatten() {
                // What an element counts is no part of it.
                let element = element.pointer("/elem/val").unwrap_or(element);
                all.insert(format!("{name}: {element}"));
            }
        }
    }
    Ok(all)
}

/// Waits until the blocks in the API hold what the journal says, which is written there afterwards.
pub(super) fn until_told(world: &World, node: &str) -> Result<()> {
    world.until(&format!("the blocks of {node} to be told"), || {
        let state = state(world, node)?;
        let endpoints = state.endpoints.values();
        let addresses: usize = endpoints.map(|live| live.endpoint.ip_networks.len()).sum();
        let journaled = addresses + state.tunnels.len();
        let told: usize = held(world, node)?.iter().map(|(_, count)| count).sum();
        ensure!(
            told == journaled,
            "{told} addresses, {journaled} in the journal"
        );
        Ok(())
    })
}

/// Endpoints and blocks of the journal.
fn journal(world: &World, node: &str) -> Result<BTreeSet<String>> {
    let state = state(world, node)?;
    let pods = state.endpoints.values().map(|live| {
        let endpoint = &live.endpoint;
        let addresses = &endpoint.ip_networks;
        format!("{}/{} {addresses:?}", endpoint.namespace, endpoint.pod)
    });
    let blocks = state.blocks.keys().map(|block| format!("block {block}"));
    Ok(pods.chain(blocks).collect())
}

fn state(world: &World, node: &str) -> Result<State> {
    let bytes = read(world, node, &format!("{}/journal", names::STATE_DIR))?;
    Ok(State::from_records(&replay(&bytes).records))
}

/// The node's blocks as the API has them, with the number of addresses held in each.
fn blocks(world: &World, node: &str) -> Result<BTreeSet<String>> {
    let all = held(world, node)?.into_iter();
    Ok(all
        .map(|(cidr, count)| format!("{cidr} holds {count}"))
        .collect())
}

fn held(world: &World, node: &str) -> Result<Vec<(String, usize)>> {
    let resource = ["get", "ipamblocks.projectcalico.org"];
    let all = world.cluster.kubectl_json(&resource)?;
    let affinity = format!("host:{node}");
    let own = items(&all).filter(|block| text(block, "/spec/affinity") == affinity);
    let line = |block: &Value| {
        let slots = block.pointer("/spec/allocations").and_then(Value::as_array);
        let held = slots.into_iter().flatten().filter(|slot| !slot.is_null());
        (text(block, "/spec/cidr").to_owned(), held.count())
    };
    Ok(own.map(line).collect())
}

fn pid(world: &World, node: &str) -> Result<String> {
    let said = world.cluster.exec(node, &["pidof", AGENT])?;
    let pid = said.split_whitespace().next().context("no agent runs")?;
    Ok(pid.to_owned())
}

fn entries(world: &World, node: &str, folder: &str) -> Result<BTreeSet<String>> {
    let path: PathBuf = world.cluster.inside(node, folder)?;
    let listed = std::fs::read_dir(&path).with_context(|| path.display().to_string())?;
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        Ok(entry?.file_name().to_string_lossy().into_owned())
    };
    let names: std::io::Result<_> = listed.map(name).collect();
    names.with_context(|| path.display().to_string())
}

fn read(world: &World, node: &str, path: &str) -> Result<Vec<u8>> {
    let path = world.cluster.inside(node, path)?;
    std::fs::read(&path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn elements_are_compared_without_what_they_count() {
        let table = |count: u64, key: &str| {
            let json = json!({"nftables": [
                {"metainfo": {}},
                {"chain": {"name": "ing_if7"}},
                {"set": {"name": "s1", "elem": [{"elem": {"val": "10.0.0.1", "counter": {"packets": count}}}]}},
                {"map": {"name": "ing", "elem": [[key, {"jump": {"target": "ing_if7"}}]]}},
            ]});
            table_of(&json.to_string()).unwrap()
        };
        assert_eq!(table(1, "oc7"), table(2, "oc7"));
        assert_ne!(table(1, "oc7"), table(1, "oc8"));
        assert_eq!(table(1, "oc7").len(), 5);
    }

    #[test]
    fn a_difference_is_said_by_kind_with_examples() {
        let with = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Holdings([("interfaces", names)].into())
        };
        let (one, two) = (with(&["a"]), with(&["a", "b"]));
        assert!(one.differences(&one).is_empty());
        assert_eq!(
            one.differences(&two),
            ["1 interfaces more, such as [\"b\"]"]
        );
        assert_eq!(
            two.differences(&one),
            ["1 interfaces missing, such as [\"b\"]"]
        );
        assert_eq!(two.counts(), "2 interfaces");
    }
}
