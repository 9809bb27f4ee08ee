//! Pods whose labels are not known: a runtime names a pod by its UID, and the Pod object with that
//! UID is late, or can't come since the datastore is away.

use crate::node::{LIMIT, Member, NAMESPACE, Node, SHORT, reaches, wait_reaches};
use anyhow::{Context, Result};
use integration::lab::probe::Protocol;
use integration::lab::{Netns, Probe, wait};
use serde_json::{Value, json};
use std::net::IpAddr;

/// A pod that was added as a kubelet does it.
struct Late {
    name: &'static str,
    addresses: Vec<IpAddr>,
    probe: Probe,
    _netns: Netns,
}

fn late(node: &Node, name: &'static str, uid: &str) -> Result<Late> {
    let netns = node.lab.netns(&format!("{name}-{uid}"))?;
    let result = node.call_of_kubelet("ADD", name, uid, &netns)?;
    let ips = result["ips"].as_array().context("addresses")?;
    let address = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
    Ok(Late {
        name,
        addresses: ips.iter().filter_map(address).collect(),
        probe: Probe::start(&netns, name)?,
        _netns: netns,
    })
}

impl Late {
    /// Denied in both directions, and reached by its own node at once.
    fn is_closed(&self, node: &Node, other: &Member, near: &Probe) -> Result<()> {
        for ip in &self.addresses {
            assert!(other.probe.reach(Protocol::Tcp, *ip, 8080, SHORT).is_err());
            assert_eq!(near.reach(Protocol::Tcp, *ip, 8080, LIMIT)?, self.name);
        }
        for ip in other.pod.addresses() {
            assert!(self.probe.reach(Protocol::Tcp, ip, 8080, SHORT).is_err());
        }
        node.wait_said(&format!(
            "pod {NAMESPACE}/{} is closed until its Pod object comes",
            self.name
        ))?;
        let (_, metrics) = node.agent.health("/metrics")?;
        let line = "ocicat_endpoints_without_labels 1";
        assert!(metrics.lines().any(|one| one == line), "{metrics}");
        Ok(())
    }

    fn wait_open(&self, other: &Member) -> Result<()> {
        wait::until(LIMIT, "both directions to be open", || {
            let all = || -> Result<()> {
                for ip in &self.addresses {
                    other.probe.reach(Protocol::Tcp, *ip, 8080, SHORT)?;
                }
                wait_reaches(&self.probe, other)
            };
            all().map_err(|error| format!("{error:#}"))
        })
    }
}

fn object(name: &str, uid: &str, app: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": NAMESPACE, "name": name, "uid": uid, "labels": {"app": app}},
        "spec": {"nodeName": "n1", "containers": []}})
    .to_string()
}

/// Pods labelled `app: db` are isolated both ways; any other is not.
fn isolate_db(node: &Node) -> Result<()> {
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": NAMESPACE, "name": "db"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"]}});
    node.store.write("policy.yaml", &policy.to_string())?;
    node.wait_snapshot("NetworkPolicy")
}

#[test]
fn a_pod_made_again_under_its_name_is_closed_until_its_own_object_comes() -> Result<()> {
    let node = Node::started()?;
    let other = node.member("other", "other")?;
    let near = Probe::start(&node.netns, "node")?;
    isolate_db(&node)?;
    // What an earlier pod of the name was allowed is not its successor's.
    node.store
        .write("pod.yaml", &object("db-0", "first", "web"))?;
    node.wait_snapshot("first")?;
    let again = late(&node, "db-0", "second")?;
    again.is_closed(&node, &other, &near)?;
    node.store
        .write("pod.yaml", &object("db-0", "second", "web"))?;
    again.wait_open(&other)
}

#[test]
fn a_pod_that_nobody_told_of_is_closed_whatever_its_labels_will_be() -> Result<()> {
    let node = Node::started()?;
    let other = node.member("other", "other")?;
    let near = Probe::start(&node.netns, "node")?;
    isolate_db(&node)?;
    let db = late(&node, "db-0", "first")?;
    db.is_closed(&node, &other, &near)?;
    node.store
        .write("pod.yaml", &object("db-0", "first", "db"))?;
    wait::until(LIMIT, "the pod to be known", || {
        match node.agent.health("/readyz") {
            Ok((200, body)) if !body.contains("is closed until") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    for ip in &db.addresses {
        assert!(other.probe.reach(Protocol::Tcp, *ip, 8080, SHORT).is_err());
    }
    node.store
        .write("pod.yaml", &object("db-0", "first", "web"))?;
    db.wait_open(&other)
}

#[test]
fn without_the_datastore_a_pod_is_added_closed_and_opens_when_its_object_comes() -> Result<()> {
    let mut node = Node::started()?;
    let other = node.member("other", "other")?;
    let near = Probe::start(&node.netns, "node")?;
    isolate_db(&node)?;
    node.store
        .write("pod.yaml", &object("db-0", "first", "web"))?;
    node.wait_snapshot("first")?;
    node.hide_store()?;
    node.wait_said("datastore lost")?;
    let again = late(&node, "db-0", "second")?;
    again.is_closed(&node, &other, &near)?;
    // Neither a restart nor the datastore's return without the object opens it.
    node.agent.kill()?;
    node.agent.start()?;
    node.wait_said("working from the last view")?;
    again.is_closed(&node, &other, &near)?;
    node.show_store()?;
    node.agent.wait_ready(LIMIT)?;
    again.is_closed(&node, &other, &near)?;
    reaches(&near, &other)?;
    node.store
        .write("pod.yaml", &object("db-0", "second", "web"))?;
    again.wait_open(&other)
}
