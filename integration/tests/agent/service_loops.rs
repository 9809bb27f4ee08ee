//! Addresses of Services that are announced and that nobody has.

use crate::node::{LIMIT, Member, Node};
use anyhow::{Context, Result, ensure};
use integration::lab::probe::Protocol;
use integration::lab::{Watch, wait};
use std::net::IpAddr;
use std::time::Duration;

const ANNOUNCED: &str = "apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {serviceClusterIPs: [{cidr: 10.96.0.0/16}, {cidr: 'fd00:10:96::/112'}]}
";
/// How long a connection is tried, and for how long nothing may follow.
const SHORT: Duration = Duration::from_millis(800);

fn prevention(how: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: default}}\n\
         spec: {{serviceLoopPrevention: {how}}}\n"
    )
}

#[test]
fn a_packet_for_an_address_that_no_service_has_is_not_sent_to_the_router() -> Result<()> {
    let node = Node::started()?;
    node.netns.ip([
        "route add default via 10.1.0.1",
        "route add default via fd00:1::1",
    ])?;
    let pod = node.member("a", "web")?;
    for (unused, set) in [
        ([10, 96, 0, 99].into(), "@services4_"),
        ("fd00:10:96::99".parse()?, "@services6_"),
    ] {
        stays_here(&node, &pod, unused, set).with_context(|| set.to_owned())?;
        node.store.remove("bgp.yaml")?;
        node.store.remove("felix.yaml")?;
    }
    Ok(())
}

/// Packets of a pod to this address, in the set of its family's announced ranges.
fn stays_here(node: &Node, pod: &Member, unused: IpAddr, set: &str) -> Result<()> {
    let uplink = Watch::packets(&node.lab, &node.netns, &format!("dst host {unused}"))?;
    let tried = |limit| {
        let answer = pod.probe.reach(Protocol::Tcp, unused, 8080, limit);
        answer
            .err()
            .map(|error| format!("{error:#}"))
            .context("an answer")
    };
    let forwarded = || {
        wait::until(LIMIT, "the packet at the uplink", || {
            let why = tried(SHORT).map_err(|error| format!("{error:#}"))?;
            if uplink.events().is_empty() {
                return Err(why);
            }
            Ok(())
        })
    };
    let kept = |limit| {
        uplink.clear();
        let why = tried(limit)?;
        uplink.wait_quiet(SHORT);
        let seen = uplink.events();
        ensure!(seen.is_empty(), "{seen:?}");
        Ok(why)
    };
    let table = |verdict: Option<&str>| {
        wait::until(LIMIT, &format!("{verdict:?} for unused addresses"), || {
            let rules = node.rules();
            let mut lines = rules.lines().filter(|line| line.contains(set));
            let done = match verdict {
                Some(verdict) => lines.any(|line| line.contains(verdict)),
                None => lines.next().is_none(),
            };
            if done { Ok(()) } else { Err(rules) }
        })
    };
    forwarded()?;
    node.store.write("bgp.yaml", ANNOUNCED)?;
    table(Some("drop"))?;
    let why = kept(SHORT)?;
    ensure!(why.contains("timed out"), "{why}");
    node.store.write("felix.yaml", &prevention("Reject"))?;
    table(Some("reject"))?;
    // A refusal that comes while the caller still holds the socket counts with the second SYN only.
    let why = kept(LIMIT)?;
    ensure!(why.contains("refused"), "{why}");
    node.store.write("felix.yaml", &prevention("Disabled"))?;
    table(None)?;
    forwarded()
}
