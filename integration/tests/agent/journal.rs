//! What the agent keeps on disk and in the datastore, lost or damaged.

use crate::node::{LIMIT, Node, cni_error, spec};
use anyhow::{Context, Result};
use integration::lab::link::End;
use integration::lab::pod::Plugin;
use integration::lab::{Agent, Pod};
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn a_lost_journal_is_made_up_for_by_the_datastore() -> Result<()> {
    let mut node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    node.wait_written(2)?;
    node.agent.kill()?;
    std::fs::remove_file(node.agent.state_dir().join("journal"))?;
    node.start()?;
    taken_back(&node, &[&a.pod, &b.pod])?;
    a.wait_reaches(&b)
}

#[test]
fn a_journal_with_a_flipped_byte_or_a_torn_end_is_used_kept_aside_and_completed() -> Result<()> {
    let mut node = Node::started()?;
    let (a, b) = (node.pod("a", "web")?, node.pod("b", "web")?);
    node.wait_written(2)?;
    let path = node.agent.state_dir().join("journal");
    for flip in [true, false] {
        node.agent.kill()?;
        let mut bytes = std::fs::read(&path)?;
        if flip {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
        } else {
            bytes.truncate(bytes.len() - 7);
        }
        std::fs::write(&path, &bytes)?;
        node.start()?;
        taken_back(&node, &[&a, &b]).with_context(|| format!("flip: {flip}"))?;
        if flip {
            node.wait_logged("journal damaged")?;
            assert_eq!(std::fs::read(path.with_extension("damaged"))?, bytes);
        }
    }
    Ok(())
}

#[test]
fn a_journal_of_noise_is_survived() -> Result<()> {
    let mut node = Node::started()?;
    let pod = node.pod("a", "web")?;
    node.wait_written(1)?;
    node.agent.kill()?;
    let noise: Vec<u8> = (0..60_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(node.agent.state_dir().join("journal"), noise)?;
    node.start()?;
    taken_back(&node, &[&pod])
}

#[test]
fn a_corrupted_snapshot_is_named_and_the_datastore_is_waited_for() -> Result<()> {
    let mut node = Node::started()?;
    let pod = node.pod("a", "web")?;
    node.wait_snapshot("IpPool")?;
    let before = (node.rules(), node.routes()?);
    node.agent.kill()?;
    let path = node.agent.state_dir().join("snapshot.json");
    let bytes = std::fs::read(&path)?;
    std::fs::write(&path, &bytes[..bytes.len() / 2])?;
    node.hide_store()?;
    node.agent.start()?;
    node.wait_logged("not a snapshot")?;
    node.wait_said("nothing is known of the cluster")?;
    let (code, message) = cni_error(node.pod("b", "web"))?;
    assert_eq!(code, 11, "{message}");
    assert_eq!(before, (node.rules(), node.routes()?));
    node.show_store()?;
    node.agent.wait_ready(LIMIT)?;
    pod.check()
}

#[test]
fn a_block_that_the_datastore_gives_to_another_node_gives_no_more_addresses() -> Result<()> {
    let mut node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    node.wait_written(2)?;
    node.agent.kill()?;
    let folder = node.store.path().join("state/ipamblocks");
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        std::fs::write(
            &path,
            text.replace("host:n1", "host:n2").replace("n1", "n2"),
        )?;
    }
    let blocks = |node: &Node| -> Result<Vec<IpNet>> {
        let status = node.ctl(&["status"])?;
        let blocks = status["blocks"].as_array().context("blocks")?.iter();
        let parse = |block: &Value| block.as_str()?.parse().ok();
        blocks
            .map(|block| parse(block).context("a block"))
            .collect()
    };
    node.start()?;
    a.wait_reaches(&b)?;
    a.pod.check()?;
    let late = node.member("late", "web")?;
    let own = blocks(&node)?;
    for ip in late.pod.addresses() {
        assert!(own.iter().any(|block| block.contains(&ip)), "{ip}, {own:?}");
    }
    for ip in a.pod.addresses() {
        assert!(
            !own.iter().any(|block| block.contains(&ip)),
            "{ip}, {own:?}"
        );
    }
    late.wait_reaches(&a)
}

#[test]
fn the_block_that_another_node_claimed_first_is_left_to_it() -> Result<()> {
    let mut node = Node::started()?;
    node.store.write(
        "node2.yaml",
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n2}\n\
         spec: {bgp: {ipv4Address: 10.1.0.12/24, ipv6Address: 'fd00:1::12/64'}}\n",
    )?;
    node.store.write(
        "pool-v4.yaml",
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: tiny}\n\
         spec: {cidr: 10.244.9.0/29, blockSize: 30, ipipMode: Never}\n",
    )?;
    node.crash_and_start()?;
    let netns = node.lab.netns("n2")?;
    let spare = node.lab.netns("spare")?;
    node.lab.wire(
        &End {
            netns: &netns,
            interface: "eth0",
            addresses: &["10.1.0.12/24", "fd00:1::12/64"],
        },
        &End {
            netns: &spare,
            interface: "eth0",
            addresses: &[],
        },
    )?;
    let mut second = Agent::new(&node.lab, &netns, "n2", &node.store)?;
    second.start()?;
    second.wait_ready(LIMIT)?;
    let plugins = [node.plugin.clone(), Plugin::ocicat(&second)?];
    let mut seen = BTreeSet::new();
    let mut pods = Vec::new();
    for number in 0..4 {
        for (plugin, letter) in plugins.iter().zip(["a", "b"]) {
            let added = Pod::add(&node.lab, plugin, spec(&format!("{letter}{number}"), "web"));
            match added {
                Ok(pod) => {
                    assert!(seen.insert(pod.ipv4()?), "{} twice", pod.ipv4()?);
                    pods.push(pod);
                }
                Err(error) => {
                    let (code, message) = cni_error::<()>(Err(error))?;
                    assert_eq!(code, 100, "{message}");
                }
            }
        }
    }
    assert!(seen.len() >= 4, "{seen:?}");
    second.stop(LIMIT)
}

/// All pods are as they were, and their addresses are not given out again.
fn taken_back(node: &Node, pods: &[&Pod]) -> Result<()> {
    for pod in pods {
        pod.check()?;
    }
    let mut seen: BTreeSet<_> = pods.iter().flat_map(|pod| pod.addresses()).collect();
    for number in 0..3 {
        let pod = node.pod(&format!("new{number}"), "web")?;
        for address in pod.addresses() {
            assert!(seen.insert(address), "{address} was given out twice");
        }
        pod.delete()?;
    }
    Ok(())
}
