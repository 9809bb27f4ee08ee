//! An apply fails, and every operation of its repair in turn, while a denied flow runs: it never
//! passes, and the table becomes what it has to be.

use crate::node::{LIMIT, NAMESPACE, Node, nothing, policy, spec};
use crate::policy::{count_flow, counted, last_addresses, previous};
use crate::scenario::table_plan;
use anyhow::{Context, Result};
use integration::lab::fault::{FAULTS, Injection, Walk, has_strace};
use integration::lab::{Probe, wait};
use serde_json::json;

const RATE: u32 = 500;

fn wait_converged(node: &Node) -> Result<()> {
    wait::until(LIMIT, "the table to be as it has to be", || {
        let plan = table_plan(node).map_err(|error| format!("{error:#}"))?;
        if plan.is_empty() {
            Ok(())
        } else {
            Err(plan.join("\n"))
        }
    })
}

/// Rules that admit everybody but `app: other`, each time others.
fn version(number: usize) -> String {
    let port = 9000 + number;
    format!(
        "[{{from: [{{podSelector: {{matchLabels: {{app: client}}}}}}], ports: [{{port: {port}}}]}}, \
          {{from: [{{ipBlock: {{cidr: 192.0.{number}.0/24}}}}], ports: [{{protocol: UDP, port: {port}}}]}}]"
    )
}

#[test]
fn whichever_operation_of_an_apply_fails_a_denied_flow_never_passes() -> Result<()> {
    if !has_strace() {
        return Ok(());
    }
    let node = Node::started()?;
    let (web, other) = (node.member("web", "web")?, node.member("other", "other")?);
    node.store
        .write("web.yaml", &policy("web", "web", &version(0)))?;
    other.wait_denied(&web)?;
    wait_converged(&node)?;
    let denied =
        [web.pod.ipv4()?, web.pod.ipv6()?].map(|to| other.probe.flow(&web.probe, to, RATE));
    let denied: Vec<_> = denied.into_iter().collect::<Result<_>>()?;
    let fault = FAULTS[0];
    // An apply is one call; what follows on its failure are many.
    let mut walk = Walk::from(2);
    for round in 1.. {
        let nth = walk.nth;
        let at = move || format!("{} number 1 and {nth}", fault.call);
        let before = node.rules();
        let injection = Injection::attach_twice(&node.lab, &node.agent, fault, nth)?;
        // A chain and its sets are made anew, another pod's dispatch and sets come and go.
        node.store
            .write("web.yaml", &policy("web", "web", &version(round)))?;
        let name = format!("more{round}");
        node.store
            .write("more.yaml", &policy(&name, "other", &version(round)))?;
        wait_converged(&node).with_context(at)?;
        assert_ne!(node.rules(), before, "{}", at());
        let injected = injection.detach()?;
        wait_converged(&node).with_context(at)?;
        if !walk.goes_on(injected).with_context(at)? {
            break;
        }
    }
    assert!(walk.nth > 20, "no repair failed after {}", walk.nth);
    for flow in denied {
        let report = flow.stop()?;
        assert!(report.sent.count > 0);
        assert_eq!(report.received.count, 0, "{report}");
    }
    Ok(())
}

#[test]
fn whichever_operation_of_an_add_fails_an_isolated_pod_never_gets_a_packet() -> Result<()> {
    if !has_strace() {
        return Ok(());
    }
    let node = Node::started()?;
    node.store
        .write("closed.yaml", &policy("closed", "closed", "[]"))?;
    node.wait_snapshot("NetworkPolicy")?;
    let ips = last_addresses(&node)?;
    let host = Probe::start(&node.host, "host")?;
    let fault = FAULTS[0];
    let mut ips = ips;
    let mut walk = Walk::from(1);
    for round in 1.. {
        let nth = walk.nth;
        let at = || format!("{} number {nth}", fault.call);
        ips = ips.into_iter().map(previous).collect();
        let flows = ips.iter().map(|ip| host.flow(&host, *ip, RATE));
        let _flows: Vec<_> = flows.collect::<Result<_>>()?;
        let netns = node.lab.netns(&format!("c{round}"))?;
        count_flow(&netns)?;
        let extra = json!({"runtimeConfig": {"ips": ips}, "capabilities": {"ips": true}});
        let spec = spec(&format!("c{round}"), "closed");
        let add = || node.plugin.call("ADD", &spec, &netns, &extra);
        let injection = Injection::attach(&node.lab, &node.agent, fault, nth)?;
        let first = add();
        let injected = injection.detach()?;
        if first.is_err() {
            node.plugin
                .call("DEL", &spec, &netns, &nothing())
                .with_context(at)?;
            add().with_context(at)?;
        }
        let near = Probe::start(&node.netns, "node")?;
        let inside = Probe::start(&netns, "inside")?;
        for ip in &ips {
            // So the pod is up, and the flows run.
            let name = near.reach(integration::lab::probe::Protocol::Tcp, *ip, 8080, LIMIT)?;
            assert_eq!(name, inside.name(), "{}", at());
        }
        assert_eq!(counted(&netns)?, 0, "{} in {NAMESPACE}", at());
        node.plugin
            .call("DEL", &spec, &netns, &nothing())
            .with_context(at)?;
        netns.delete()?;
        if !walk.goes_on(injected).with_context(at)? {
            break;
        }
    }
    assert!(walk.nth > 2, "{}: nothing failed", fault.call);
    Ok(())
}
