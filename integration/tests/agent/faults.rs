//! Every operation on the kernel fails in turn: nothing is left, the error says which it was, and
//! the next attempt succeeds. The failures are strace's, so that the agent is the one that a user
//! installs. Without strace there is nothing to test.

use crate::node::{LIMIT, NAMESPACE, Node, cni_error, nothing, spec};
use anyhow::{Context, Result};
use integration::lab::fault::{FAULTS, Injection, Walk, has_strace};
use integration::lab::{Netns, Pod, wait};
use serde_json::{Value, json};

/// What a node has because of its pods.
fn left(node: &Node) -> Result<(String, String, Vec<String>, Value, String)> {
    let neighbours = node
        .netns
        .run(&["ip", "neigh", "show", "nud", "permanent"])?;
    let endpoints = node.ctl(&["endpoints"])?;
    // Blocks come as addresses cool down; they are no pod's.
    let routes = node.routes()?;
    let of_pods = routes.lines().filter(|line| !line.contains("blackhole"));
    Ok((
        node.rules(),
        of_pods.collect::<Vec<_>>().join("\n"),
        node.links()?,
        endpoints,
        neighbours,
    ))
}

fn wait_as_before(
    node: &Node,
    before: &(String, String, Vec<String>, Value, String),
) -> Result<()> {
    wait::until(LIMIT, "nothing to be left", || match left(node) {
        Ok(now) if now == *before => Ok(()),
        other => Err(format!("{other:?}\ninstead of {before:?}")),
    })
}

/// The pod's mappings, so that every part of ADD is walked through.
fn with_port() -> Value {
    let mapping = json!({ "hostPort": 30080, "containerPort": 8080, "protocol": "udp" });
    json!({ "runtimeConfig": { "portMappings": [mapping] } })
}

fn check(node: &Node, netns: &Netns, result: &Value) -> Result<()> {
    let extra = json!({ "prevResult": result });
    node.plugin
        .call("CHECK", &spec(netns.name(), "web"), netns, &extra)
        .map(drop)
}

#[test]
fn every_operation_of_add_that_fails_leaves_nothing_and_is_named() -> Result<()> {
    if !has_strace() {
        return Ok(());
    }
    let node = Node::started()?;
    let before = left(&node)?;
    let netns = node.lab.netns("a")?;
    let add = || {
        node.plugin
            .call("ADD", &spec("a", "web"), &netns, &with_port())
    };
    let del = || {
        node.plugin
            .call("DEL", &spec("a", "web"), &netns, &nothing())
    };
    for fault in FAULTS {
        let mut failures = 0;
        let mut walk = Walk::from(1);
        loop {
            let nth = walk.nth;
            let injection = Injection::attach(&node.lab, &node.agent, fault, nth)?;
            let result = add();
            let injected = injection.detach()?;
            let at = || format!("{} number {nth}", fault.call);
            let answered =
                !matches!(&result, Err(error) if error.to_string().contains("\"code\":11,"));
            match result {
                Err(_) if !answered => {
                    // The answer itself was lost: a runtime takes such a pod down.
                }
                // Some failures are repaired, and some are of no consequence.
                Ok(result) => check(&node, &netns, &result).with_context(at)?,
                Err(error) => {
                    failures += 1;
                    let details = format!("{error:#}");
                    let (code, message) = cni_error::<()>(Err(error))?;
                    assert_eq!(code, 102, "{}: {message}", at());
                    let named = message.starts_with(&format!("pod {NAMESPACE}/a: "));
                    assert!(named, "{}: {message}", at());
                    assert!(details.contains(fault.words), "{}: {details}", at());
                    wait_as_before(&node, &before).with_context(at)?;
                    let again = add().with_context(at)?;
                    check(&node, &netns, &again).with_context(at)?;
                }
            }
            del().with_context(at)?;
            wait_as_before(&node, &before).with_context(at)?;
            if !walk.goes_on(injected).with_context(at)? {
                break;
            }
        }
        assert!(
            failures > 4,
            "only {failures} calls of {} failed",
            fault.call
        );
    }
    Ok(())
}

#[test]
fn every_operation_of_del_that_fails_is_made_good() -> Result<()> {
    if !has_strace() {
        return Ok(());
    }
    let node = Node::started()?;
    let before = left(&node)?;
    for fault in FAULTS {
        let mut walk = Walk::from(1);
        for round in 1.. {
            let nth = walk.nth;
            let name = format!("{}{round}", fault.call);
            let pod = Pod::add_with(&node.lab, &node.plugin, spec(&name, "web"), &with_port())?;
            let injection = Injection::attach(&node.lab, &node.agent, fault, nth)?;
            let result = pod.del();
            let injected = injection.detach()?;
            let at = || format!("{} number {nth}", fault.call);
            result.with_context(at)?;
            // The namespace survives: the link has to be deleted, and not to go with it.
            wait_as_before(&node, &before).with_context(at)?;
            pod.delete()?;
            if !walk.goes_on(injected).with_context(at)? {
                break;
            }
        }
        assert!(walk.nth > 1, "no call of {} failed", fault.call);
    }
    Ok(())
}
