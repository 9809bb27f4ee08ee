//! `setPriority` and `priority` of a BGPFilter: the metric of the routes in the kernel, with FRR as
//! the neighbour.

use crate::node::{LIMIT, Node, ROUTER};
use anyhow::{Context, Result, ensure};
use integration::lab::{Watch, wait};
use model::names::ROUTE_METRIC;
use std::collections::BTreeSet;

const LEARNT: [(&str, &str); 2] = [("-4", "198.51.100.0/24"), ("-6", "fd00:51::/64")];

fn filter(metric: u32) -> String {
    let rule = format!("[{{action: Accept, operations: [{{setPriority: {{value: {metric}}}}}]}}]");
    format!(
        "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {{name: metric}}\n\
         spec: {{importV4: {rule}, importV6: {rule}}}\n"
    )
}

fn filtered() -> String {
    ROUTER.replace("65001}", "65001, filters: [metric]}")
}

/// What the kernel has of ours for what the router announces, one line for each route.
fn learnt(node: &Node) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (family, dest) in LEARNT {
        let show = ["ip", "-o", family, "route", "show", dest, "proto", "122"];
        let text = node.netns.run(&show)?;
        all.extend(text.lines().map(str::to_owned));
    }
    Ok(all)
}

/// Waits until there is one route of each family, with this metric.
fn wait_metric(node: &Node, metric: u32) -> Result<()> {
    let words = format!(" metric {metric} ");
    wait::until(2 * LIMIT, &format!("metric {metric}"), || {
        let all = learnt(node).map_err(|error| format!("{error:#}"))?;
        let right = |line: &String| format!("{line} ").contains(&words);
        if all.len() == LEARNT.len() && all.iter().all(right) {
            Ok(())
        } else {
            Err(all.join("\n"))
        }
    })
}

/// That each route came before the one in whose place it is went.
fn ensure_no_gap(watch: &Watch, first: u32) -> Result<()> {
    for (_, dest) in LEARNT {
        // The routes of ours that there are, by metric.
        let mut there = BTreeSet::from([first.to_string()]);
        for event in watch.events() {
            let line = event.line;
            if !(line.contains(dest) && line.contains("proto 122")) {
                continue;
            }
            let mut words = line.split_whitespace().skip_while(|word| *word != "metric");
            let metric = words.nth(1).context("a metric")?;
            if line.starts_with("Deleted") {
                there.remove(metric);
            } else {
                there.insert(metric.to_owned());
            }
            ensure!(!there.is_empty(), "no route to {dest}: {line}");
        }
    }
    Ok(())
}

#[test]
fn a_filter_sets_the_metric_of_what_is_imported_and_another_value_leaves_no_gap() -> Result<()> {
    let mut node = Node::started()?;
    let _frr = node.router()?;
    node.store.write("peer.yaml", ROUTER)?;
    wait_metric(&node, ROUTE_METRIC)?;
    let before = node.ctl(&["bgp", "neighbors", "rack1"])?;
    let watch = Watch::routes(&node.lab, &node.netns)?;
    node.store.write("filter.yaml", &filter(300))?;
    node.store.write("peer.yaml", &filtered())?;
    wait_metric(&node, 300)?;
    node.store.write("filter.yaml", &filter(2000))?;
    wait_metric(&node, 2000)?;
    ensure_no_gap(&watch, ROUTE_METRIC)?;
    let peer = node.ctl(&["bgp", "neighbors", "rack1"])?;
    assert_eq!(peer[0]["established_count"], before[0]["established_count"]);

    // A successor knows its predecessor's routes.
    node.agent.kill()?;
    node.start()?;
    wait::until(2 * LIMIT, "the session", || {
        let peer = node.ctl(&["bgp", "neighbors", "rack1"]);
        let peer = peer.map_err(|error| format!("{error:#}"))?;
        if peer[0]["state"] == "Established" {
            Ok(())
        } else {
            Err(peer.to_string())
        }
    })?;
    node.store.write("peer.yaml", ROUTER)?;
    wait_metric(&node, ROUTE_METRIC)?;
    ensure_no_gap(&watch, ROUTE_METRIC)
}

#[test]
fn a_route_of_somebody_else_with_the_metric_that_a_filter_sets_stays() -> Result<()> {
    let node = Node::started()?;
    let _frr = node.router()?;
    let theirs = "route add 198.51.100.0/24 via 10.1.0.1 metric 300 proto static";
    node.netns.ip([theirs])?;
    node.store.write("filter.yaml", &filter(300))?;
    node.store.write("peer.yaml", &filtered())?;
    wait::until(2 * LIMIT, "a note", || {
        node.wait_said("a BGPFilter sets metric 300")
            .map(|_| ())
            .map_err(|error| format!("{error:#}"))
    })?;
    let kept = ["ip", "route", "show", "198.51.100.0/24"];
    let kept = node.netns.run(&kept)?;
    ensure!(
        kept.contains("proto static") && !kept.contains("proto 122"),
        "{kept}"
    );
    node.netns.ip(["route del 198.51.100.0/24 metric 300"])?;
    wait_metric(&node, 300)
}

#[test]
fn what_is_announced_may_depend_on_the_metric_in_the_kernel() -> Result<()> {
    let node = Node::started()?;
    let frr = node.router()?;
    node.store.write("peer.yaml", ROUTER)?;
    let announced = |wanted: bool| {
        wait::until(2 * LIMIT, &format!("our blocks at FRR: {wanted}"), || {
            let all = frr.vtysh("show bgp ipv4 unicast");
            let all = all.map_err(|error| format!("{error:#}"))?;
            if all.contains("10.244.") == wanted {
                Ok(())
            } else {
                Err(all)
            }
        })
    };
    announced(true)?;
    let refused = |metric: u32| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {{name: metric}}\n\
             spec: {{exportV4: [{{action: Reject, priority: {metric}}}]}}\n"
        )
    };
    let usual = ROUTE_METRIC;
    node.store.write("filter.yaml", &refused(usual))?;
    node.store.write("peer.yaml", &filtered())?;
    announced(false)?;
    node.store.write("filter.yaml", &refused(usual + 1))?;
    announced(true)
}
