//! Nodes that are upgraded and taken back, one by one, with their pods running.

use crate::cluster::second;
use crate::node::{LIMIT, Member, Node, policy, reaches, spec, wait_reaches};
use anyhow::Result;
use integration::lab::pod::Plugin;
use integration::lab::{Pod, Probe, Watch, previous};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Programs of one version.
#[derive(Clone)]
struct Version {
    agent: PathBuf,
    plugin: PathBuf,
}

/// The version before, and this one.
fn versions(node: &Node) -> Result<[Version; 2]> {
    let before = previous::programs()?;
    let before = Version {
        agent: before.agent,
        plugin: before.plugin,
    };
    let this = Version {
        agent: node.agent.program().to_owned(),
        plugin: node.plugin.binary.clone(),
    };
    Ok([before, this])
}

fn is_denied_and_served(other: &Member, web: &Member) -> Result<()> {
    other.wait_denied(web)?;
    web.wait_reaches(other)
}

#[test]
fn a_node_goes_to_this_version_and_back_and_its_pods_notice_nothing() -> Result<()> {
    let mut node = Node::prepared()?;
    let [before, this] = versions(&node)?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    node.agent.set_binary(before.agent.clone());
    node.plugin.binary = before.plugin.clone();
    node.start()?;
    let (web, other) = (node.member("web", "web")?, node.member("other", "other")?);
    is_denied_and_served(&other, &web)?;
    let flow = web.probe.flow(&other.probe, other.pod.ipv4()?, 200)?;
    let mut addresses: BTreeSet<_> = web.pod.addresses().into_iter().collect();
    addresses.extend(other.pod.addresses());
    let steps = [(&this, &before), (&before, &this), (&this, &this)];
    let mut late = vec![];
    for (number, (agent, plugin)) in steps.into_iter().enumerate() {
        node.wait_written(2 + late.len())?;
        let routes = Watch::routes(&node.lab, &node.netns)?;
        node.stop()?;
        node.agent.set_binary(agent.agent.clone());
        node.start()?;
        let gone = routes.events().into_iter().map(|event| event.line);
        let gone: Vec<_> = gone
            .filter(|line| line.contains("Deleted") && line.contains("oci"))
            .collect();
        assert!(gone.is_empty(), "{gone:#?}");
        is_denied_and_served(&other, &web)?;
        // A runtime may still have the other version's plugin.
        node.plugin.binary = plugin.plugin.clone();
        let pod = node.member(&format!("late{number}"), "web")?;
        for address in pod.pod.addresses() {
            assert!(addresses.insert(address), "{address} was given out twice");
        }
        is_denied_and_served(&other, &pod)?;
        late.push(pod);
        web.pod.check()?;
    }
    let report = flow.stop()?;
    assert_eq!(report.lost(), 0, "{report}");
    for pod in [web, other].into_iter().chain(late) {
        node.plugin.call(
            "DEL",
            pod.pod.spec(),
            pod.pod.netns(),
            &crate::node::nothing(),
        )?;
    }
    node.wait_written(0)
}

#[test]
fn a_node_starts_from_the_other_versions_view_while_the_datastore_is_away() -> Result<()> {
    let mut node = Node::prepared()?;
    let [before, this] = versions(&node)?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    node.agent.set_binary(before.agent.clone());
    node.start()?;
    let (web, other) = (node.member("web", "web")?, node.member("other", "other")?);
    is_denied_and_served(&other, &web)?;
    for version in [&this, &before] {
        node.wait_snapshot("NetworkPolicy")?;
        node.wait_written(2)?;
        node.agent.kill()?;
        node.hide_store()?;
        node.agent.set_binary(version.agent.clone());
        node.agent.start()?;
        node.agent.wait_ready(LIMIT)?;
        is_denied_and_served(&other, &web)?;
        node.show_store()?;
    }
    Ok(())
}

#[test]
fn nodes_of_both_versions_have_one_cluster() -> Result<()> {
    let mut node = Node::prepared()?;
    let [before, this] = versions(&node)?;
    let mut second = second(&node)?;
    node.agent.set_binary(before.agent.clone());
    second.set_binary(this.agent.clone());
    node.start()?;
    second.start()?;
    second.wait_ready(LIMIT)?;
    let web = node.member("web", "web")?;
    let plugin = Plugin::ocicat(&second)?;
    let remote = |name: &str| -> Result<(Pod, Probe)> {
        let pod = Pod::add(&node.lab, &plugin, spec(name, name))?;
        let probe = Probe::start(pod.netns(), name)?;
        Ok((pod, probe))
    };
    let (client, other) = (remote("client")?, remote("other")?);
    wait_reaches(&client.1, &web)?;
    let rule = "[{from: [{podSelector: {matchLabels: {app: client}}}]}]";
    node.store
        .write("policy.yaml", &policy("web", "web", rule))?;
    crate::node::wait_denied(&other.1, &web)?;
    reaches(&client.1, &web)?;
    // Node by node: the second goes back, the first forward.
    let flow = client.1.flow(&web.probe, web.pod.ipv4()?, 500)?;
    second.stop(LIMIT)?;
    second.set_binary(before.agent);
    second.start()?;
    second.wait_ready(LIMIT)?;
    node.stop()?;
    node.agent.set_binary(this.agent);
    node.start()?;
    let report = flow.stop()?;
    assert_eq!(report.lost(), 0, "{report}");
    crate::node::wait_denied(&other.1, &web)?;
    reaches(&client.1, &web)
}
