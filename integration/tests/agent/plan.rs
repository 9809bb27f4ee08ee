//! Plans print and change nothing.

use crate::node::{LIMIT, Node, policy};
use anyhow::Result;
use integration::lab::{agent, wait};
use std::process::Command;

/// Everything of the node's that a plan could change.
fn dump(node: &Node) -> Result<String> {
    let mut all = String::new();
    for args in [
        &["nft", "-s", "list", "ruleset"][..],
        &["ip", "route", "show"],
        &["ip", "-6", "route", "show"],
        &["ip", "-br", "link"],
        &["ip", "-br", "address"],
        &["ip", "neigh", "show", "nud", "permanent"],
        &[
            "sysctl",
            "net.ipv4.ip_forward",
            "net.ipv6.conf.all.forwarding",
        ],
    ] {
        all += &node.netns.run(args)?;
    }
    for folder in [
        node.agent.state_dir(),
        node.agent.run_dir(),
        node.store.path().to_owned(),
    ] {
        let listing = Command::new("ls")
            .args(["-lR", "--time-style=full-iso"])
            .arg(folder)
            .output()?;
        all += &String::from_utf8_lossy(&listing.stdout);
    }
    Ok(all)
}

fn plan(node: &Node) -> Result<String> {
    let binary = agent::binary("OCICAT_NODE_BIN", "ocicat-node")?;
    let paths = [
        node.store.path().to_owned(),
        node.agent.run_dir(),
        node.agent.state_dir(),
    ];
    let [store, run, state] = paths.map(|path| path.display().to_string());
    node.netns.run(&[
        &binary.display().to_string(),
        "--node-name",
        "n1",
        "--plan",
        "--datastore",
        &store,
        "--run-dir",
        &run,
        "--state-dir",
        &state,
    ])
}

#[test]
fn a_plan_prints_the_steps_and_changes_nothing() -> Result<()> {
    let mut node = Node::started()?;
    let pod = node.pod("a", "web")?;
    node.stop()?;
    let ip = pod.ipv4()?;
    node.netns.ip([format!("route del {ip}")])?;
    node.netns
        .run(&["nft", "delete", "table", "inet", "ocicat"])?;
    node.netns.set_sysctl("net.ipv4.ip_forward", "0")?;
    let before = dump(&node)?;
    let steps = plan(&node)?;
    assert_eq!(dump(&node)?, before);
    assert!(steps.contains(&ip.to_string()), "{steps}");
    assert!(steps.contains("table"), "{steps}");

    node.start()?;
    pod.check()?;
    node.stop()?;
    let before = dump(&node)?;
    let steps = plan(&node)?;
    assert_eq!(dump(&node)?, before);
    assert!(!steps.contains(&ip.to_string()), "{steps}");
    Ok(())
}

#[test]
fn a_plan_on_a_host_that_never_had_an_agent_leaves_no_trace() -> Result<()> {
    let node = Node::prepared()?;
    let before = dump(&node)?;
    plan(&node)?;
    assert_eq!(dump(&node)?, before);
    Ok(())
}

#[test]
fn the_plan_of_a_running_agent_is_empty_when_it_has_converged() -> Result<()> {
    let node = Node::started()?;
    let _pods = (node.pod("a", "web")?, node.pod("b", "client")?);
    node.store.write(
        "policy.yaml",
        &policy("web", "web", "[{from: [{podSelector: {}}]}]"),
    )?;
    wait::until(LIMIT, "an empty plan", || {
        let plan = node
            .agent
            .ctl(&["plan"])
            .map_err(|error| format!("{error:#}"))?;
        if plan.trim().is_empty() || plan.contains("nothing") {
            Ok(())
        } else {
            Err(plan)
        }
    })
}
