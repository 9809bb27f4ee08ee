//! A node that the agent leaves for good, and what a container runtime finds on one that it serves.

use crate::node::{LIMIT, Node, entries};
use anyhow::{Context, Result, ensure};
use integration::lab::agent::binary;
use integration::lab::wait;
use std::path::PathBuf;

/// What is not ours, in the way of cleaning up.
const OTHERS: [&str; 3] = [
    "link add ocidummy type bridge",
    "link set ocidummy up",
    "route add 198.51.100.0/24 dev ocidummy proto static metric 1022",
];

/// What a node has: rules, routes, links, permanent neighbours, next hops.
fn dump(node: &Node) -> Result<String> {
    let mut all = String::new();
    for command in [
        "nft list ruleset",
        "ip route show table main",
        "ip -6 route show table main",
        "ip rule show",
        "ip -o link show",
        "ip neigh show nud permanent",
        "ip nexthop show",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        all += &format!("== {command}\n{}\n", node.netns.run(&words)?);
    }
    Ok(all)
}

/// An agent that installs the plugin below these folders.
fn installing(node: &mut Node) -> Result<(PathBuf, PathBuf)> {
    let (bin, conf) = (node.lab.subdir("cni-bin")?, node.lab.subdir("cni-conf")?);
    let plugin = binary("OCICAT_CNI_BIN", "ocicat-cni")?;
    node.agent.set_flags(&[
        "--install-cni-bin",
        &bin.to_string_lossy(),
        "--cni-plugin",
        &plugin.to_string_lossy(),
        "--install-cni-conf",
        &conf.to_string_lossy(),
    ]);
    Ok((bin, conf))
}

fn cleanup(node: &Node, bin: &PathBuf, conf: &PathBuf) -> Result<String> {
    let program = binary("OCICAT_NODE_BIN", "ocicat-node")?;
    let folders = [&node.agent.run_dir(), &node.agent.state_dir(), bin, conf];
    let [run, state, bin, conf] = folders.map(|folder| folder.display().to_string());
    let words = [
        program.to_str().context("path")?,
        "cleanup",
        "--state",
        "--run-dir",
        &run,
        "--state-dir",
        &state,
        "--cni-bin",
        &bin,
        "--cni-conf",
        &conf,
    ];
    node.netns.run(&words)
}

#[test]
fn after_cleanup_a_node_is_as_it_was_before_the_agent_came() -> Result<()> {
    let mut node = Node::prepared()?;
    node.netns.ip(OTHERS)?;
    node.netns.run(&["nft", "add table inet other"])?;
    let before = dump(&node)?;
    let (bin, conf) = installing(&mut node)?;
    node.start()?;
    let pods = [node.member("a", "web")?, node.member("b", "web")?];
    pods[0].reaches(&pods[1])?;
    ensure!(dump(&node)? != before);
    ensure!(entries(&conf)? == ["10-ocicat.conflist"] && entries(&bin)? == ["ocicat"]);

    let refused = cleanup(&node, &bin, &conf).map(drop).unwrap_err();
    ensure!(
        format!("{refused:#}").contains("an agent is running"),
        "{refused:#}"
    );
    ensure!(entries(&conf)? == ["10-ocicat.conflist"]);

    node.stop()?;
    ensure!(
        entries(&conf)? == ["10-ocicat.conflist"],
        "a stopped agent leaves it"
    );
    let said = cleanup(&node, &bin, &conf)?;
    ensure!(dump(&node)? == before, "{said}\n{before}\n{}", dump(&node)?);
    ensure!(
        entries(&conf)?.is_empty() && entries(&bin)?.is_empty(),
        "{said}"
    );
    ensure!(!node.agent.state_dir().exists(), "{said}");
    ensure!(
        said.contains("left as they are: net.ipv4.ip_forward"),
        "{said}"
    );
    // Once more finds nothing, and is no failure.
    cleanup(&node, &bin, &conf)?;
    Ok(())
}

#[test]
fn a_configuration_of_another_network_that_comes_first_makes_the_node_not_ready() -> Result<()> {
    let mut node = Node::prepared()?;
    let (_, conf) = installing(&mut node)?;
    let other = conf.join("00-other.conflist");
    std::fs::write(&other, "{}")?;
    node.agent.start()?;
    node.wait_said("00-other.conflist comes before 10-ocicat.conflist")?;
    std::fs::remove_file(&other)?;
    node.agent.wait_ready(LIMIT)
}

#[test]
fn kube_proxy_in_ipvs_mode_is_named_by_readiness_until_its_device_is_gone() -> Result<()> {
    let mut node = Node::started()?;
    node.netns.ip(["link add kube-ipvs0 type bridge"])?;
    let said = node.wait_said("kube-ipvs0 is there: traffic of Services does not pass")?;
    ensure!(
        said.contains("run kube-proxy in nftables or iptables mode"),
        "{said}"
    );
    wait::until(LIMIT, "readiness to fail", || {
        match node.agent.health("/readyz") {
            Ok((503, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    node.netns.ip(["link del kube-ipvs0"])?;
    node.agent.wait_ready(LIMIT)
}
