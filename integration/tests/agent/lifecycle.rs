//! Nodes that go, come back or get another name, and disks and clocks that fail them.

use crate::addresses::{QUICK, block_files, quick, wait_in_step};
use crate::node::{LIMIT, Node, cni_error, spec};
use anyhow::{Context, Result};
use integration::lab::link::End;
use integration::lab::pod::Plugin;
use integration::lab::{Agent, Pod, wait};
use std::path::{Path, PathBuf};
use std::process::Command;

const SECOND: &str = "apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n2}
spec: {bgp: {ipv4Address: 10.2.0.12/24, ipv6Address: 'fd00:2::12/64'}}
";

/// A second node that shares the datastore and has no way to the first.
fn second(node: &Node) -> Result<Agent> {
    let (netns, spare) = (node.lab.netns("n2")?, node.lab.netns("spare")?);
    let end = |netns, addresses| End {
        netns,
        interface: "eth0",
        addresses,
    };
    node.lab.wire(
        &end(&netns, &["10.2.0.12/24", "fd00:2::12/64"]),
        &end(&spare, &[]),
    )?;
    node.store.write("node2.yaml", SECOND)?;
    let mut second = Agent::new(&node.lab, &netns, "n2", &node.store)?;
    second.set_flags(QUICK);
    second.start()?;
    second.wait_ready(LIMIT)?;
    Ok(second)
}

fn blocks_of(node: &Node, owner: &str) -> usize {
    let files = block_files(node);
    let owner = format!("host:{owner}");
    files
        .iter()
        .filter(|(_, text)| text.contains(&owner))
        .count()
}

fn wait_blocks(node: &Node, owner: &str, count: usize) -> Result<()> {
    wait::until(LIMIT, &format!("{count} blocks of {owner}"), || {
        if blocks_of(node, owner) == count {
            return Ok(());
        }
        Err(format!("{:?}", block_files(node)))
    })
}

/// How often the lease of a node was renewed.
fn renewals(node: &Node, owner: &str) -> Result<u64> {
    let text = node
        .store
        .read(&format!("state/.leases/node-{owner}.yaml"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("renewals:"));
    line.context("renewals")?.trim().parse().context("renewals")
}

#[test]
fn blocks_of_a_deleted_node_are_freed_and_never_while_its_agent_has_pods() -> Result<()> {
    let node = quick()?;
    let mut second = second(&node)?;
    let plugin = Plugin::ocicat(&second)?;
    wait_blocks(&node, "n2", 2)?;
    let pod = Pod::add(&node.lab, &plugin, spec("far", "web"))?;
    node.wait_written(1)?;
    node.store.remove("node2.yaml")?;
    // Twice the grace period.
    wait::until(LIMIT, "ten renewals", || match renewals(&node, "n2") {
        Ok(count) if count >= 10 => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    assert_eq!(blocks_of(&node, "n2"), 2, "{:?}", block_files(&node));
    pod.check()?;
    let report = node.ctl(&["ipam", "check"])?;
    assert!(report["departed"]["n2"].is_u64(), "{report}");
    second.kill()?;
    wait_blocks(&node, "n2", 0)?;
    node.wait_written(0)?;
    node.wait_logged("its node is gone: the block is freed")?;
    assert_eq!(blocks_of(&node, "n1"), 2, "{:?}", block_files(&node));
    wait_in_step(&node)?;
    // It comes back, with its journal, and its pod is still there.
    node.store.write("node2.yaml", SECOND)?;
    second.start()?;
    second.wait_ready(LIMIT)?;
    node.wait_written(1)?;
    let late = Pod::add(&node.lab, &plugin, spec("late", "web"))?;
    assert_ne!(late.ipv4()?, pod.ipv4()?);
    pod.check()
}

#[test]
fn of_two_agents_one_frees_the_blocks() -> Result<()> {
    let node = quick()?;
    let _second = second(&node)?;
    for number in 0..4 {
        let start = number * 64;
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: IPAMBlock\n\
             metadata: {{name: 10-244-200-{start}-26}}\n\
             spec: {{cidr: 10.244.200.{start}/26, affinity: 'host:gone'}}\n"
        );
        let folder = node.store.path().join("state/ipamblocks");
        let staged = folder.join(".by-hand");
        std::fs::write(&staged, text)?;
        std::fs::rename(&staged, folder.join(format!("10-244-200-{start}-26.yaml")))?;
    }
    assert_eq!(blocks_of(&node, "gone"), 4);
    wait_blocks(&node, "gone", 0)?;
    let lease = node.store.read("state/.leases/controller.yaml")?;
    assert!(lease.contains("holder:"), "{lease}");
    Ok(())
}

#[test]
fn a_renamed_node_keeps_its_pods_and_takes_its_blocks_over_when_the_old_name_is_gone() -> Result<()>
{
    let mut node = quick()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    node.wait_written(2)?;
    node.agent.kill()?;
    let mut renamed = Agent::new(&node.lab, &node.netns, "renamed", &node.store)?;
    renamed.set_flags(QUICK);
    std::fs::rename(node.agent.state_dir(), renamed.state_dir())?;
    let text = crate::node::NODE.replace("{name: n1}", "{name: renamed}");
    node.store
        .write("renamed.yaml", &text.replace("10.1.0.11", "10.1.0.21"))?;
    node.agent = renamed;
    node.plugin = Plugin::ocicat(&node.agent)?;
    node.start()?;
    // The old name is still a node: its blocks are its own, and the conflict is named.
    node.wait_said("is claimed by nodes renamed and n1")?;
    a.reaches(&b)?;
    let other = node.pod("other", "web")?;
    assert_ne!(other.ipv4()?, a.pod.ipv4()?);
    assert_eq!(blocks_of(&node, "n1"), 2, "{:?}", block_files(&node));
    wait::until(LIMIT, "objects under the new name", || {
        let written = node.endpoints_written();
        let new = written.iter().filter(|name| name.contains("renamed-k8s"));
        if written.len() == 3 && new.count() == 3 {
            Ok(())
        } else {
            Err(format!("{written:?}"))
        }
    })?;
    node.store.remove("node.yaml")?;
    wait_blocks(&node, "n1", 0)?;
    assert!(blocks_of(&node, "renamed") >= 2, "{:?}", block_files(&node));
    a.reaches(&b)?;
    wait_in_step(&node)
}

/// A small file system in the place of a folder, for as long as it lives.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k,nr_inodes=64", "tmpfs"]);
        let status = mount.arg(folder).status()?;
        anyhow::ensure!(status.success(), "mount {}", folder.display());
        Ok(Self(folder.to_owned()))
    }

    /// Writes until nothing fits any more.
    fn fill(&self) -> Result<PathBuf> {
        use std::io::Write;
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path)?;
        while file.write_all(&[0; 512]).is_ok() {}
        Ok(path)
    }

    fn remount(&self, options: &str) -> Result<()> {
        let options = format!("remount,{options}");
        let mut mount = Command::new("mount");
        let status = mount.args(["-o", &options]).arg(&self.0).status()?;
        anyhow::ensure!(status.success(), "{options}");
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_no_pod_is_added_deletions_are_remembered_and_all_goes_on_when_there_is_room()
-> Result<()> {
    let mut node = Node::prepared()?;
    let disk = Disk::mount(&node.agent.state_dir())?;
    node.start()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    let mut gone = Vec::new();
    for number in 0..10 {
        gone.push(node.pod(&format!("gone{number}"), "web")?);
    }
    let filler = disk.fill()?;
    // The journal's last page has room for a few.
    let mut few = Vec::new();
    let (code, message) = loop {
        match node.pod(&format!("few{}", few.len()), "web") {
            Ok(pod) if few.len() < 40 => few.push(pod),
            other => break cni_error(other)?,
        }
    };
    assert_eq!(code, 5, "{message}");
    assert!(message.contains("journal"), "{message}");
    node.wait_said("pods can't be added: journal")?;
    a.reaches(&b)?;
    for pod in gone {
        let address = pod.ipv4()?;
        pod.delete()?;
        node.wait_route(address, false)?;
    }
    node.wait_logged("not journaled yet")?;
    assert_eq!(node.links()?.len(), 2 + few.len());
    std::fs::remove_file(filler)?;
    node.wait_logged("the journal can be written again")?;
    node.agent.wait_ready(LIMIT)?;
    let late = node.pod("late", "web")?;
    node.crash_and_start()?;
    late.check()?;
    a.reaches(&b)?;
    let endpoints = node.ctl(&["endpoints"])?;
    assert_eq!(endpoints.as_array().map(Vec::len), Some(3 + few.len()));
    wait_in_step(&node)?;
    node.agent.kill()
}

#[test]
fn on_a_read_only_file_system_the_agent_does_not_start_says_why_and_what_runs_stays() -> Result<()>
{
    let mut node = Node::prepared()?;
    let disk = Disk::mount(&node.agent.state_dir())?;
    node.start()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    let before = (node.rules(), node.routes()?, node.links()?);
    node.agent.kill()?;
    disk.remount("ro")?;
    node.agent.start()?;
    let ended = node.agent.wait_ready(LIMIT);
    assert!(ended.is_err());
    let state = node.agent.state_dir().display().to_string();
    let line = node.wait_logged("Read-only file system")?;
    assert!(line.contains(&state), "{line}");
    assert_eq!(before, (node.rules(), node.routes()?, node.links()?));
    a.reaches(&b)?;
    disk.remount("rw")?;
    let _ = node.agent.kill();
    node.start()?;
    a.pod.check()?;
    let late = node.pod("late", "web")?;
    assert!(![a.pod.ipv4()?, b.pod.ipv4()?].contains(&late.ipv4()?));
    node.agent.kill()
}

#[test]
fn a_journal_from_the_future_delays_no_pod_and_gives_no_address_twice() -> Result<()> {
    let mut node = Node::started()?;
    let (a, gone) = (node.pod("a", "web")?, node.pod("gone", "web")?);
    let released = gone.ipv4()?;
    gone.delete()?;
    node.agent.kill()?;
    // As after a clock that was a year ahead and was set right.
    let path = node.agent.state_dir().join("journal");
    let bytes = std::fs::read(&path)?;
    let mut state = ipam::journal::State::from_records(&ipam::journal::replay(&bytes).records);
    assert!(
        state.cooldowns.contains_key(&released),
        "{:?}",
        state.cooldowns
    );
    for at in state.cooldowns.values_mut() {
        *at += 365 * 24 * 3_600_000;
    }
    std::fs::write(&path, ipam::journal::compact(&state))?;
    node.start()?;
    a.check()?;
    let late = node.pod("late", "web")?;
    assert!(![a.ipv4()?, released].contains(&late.ipv4()?));
    let pools = node.ctl(&["ipam", "show"])?["pools"].clone();
    let v4 = pools
        .as_array()
        .context("pools")?
        .iter()
        .find(|p| p["pool"] == "v4");
    assert_eq!(v4.context("v4")?["cooling"], 1);
    wait_in_step(&node)
}
