//! What others do to what is ours is put right, and what is theirs is left alone.

use crate::node::{LIMIT, Node, ROUTER, policy};
use anyhow::{Context, Result};
use integration::lab::{Probe, Watch, wait};
use model::names::ROUTE_METRIC;
use rustix::process::Signal;
use std::time::Duration;

const SILENCE: Duration = Duration::from_millis(800);

#[test]
fn deleted_routes_of_both_families_come_back() -> Result<()> {
    let node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    let before = node.routes()?;
    for ip in a.pod.addresses() {
        node.netns.ip([format!("route del {ip}")])?;
        node.wait_route(ip, true)?;
    }
    let blackhole = before.lines().find(|line| line.starts_with("blackhole"));
    let prefix = blackhole
        .and_then(|line| line.split(' ').nth(1))
        .context("a blackhole")?;
    node.netns.ip([format!("route del blackhole {prefix}")])?;
    wait::until(LIMIT, "all routes to be back", || match node.routes() {
        Ok(now) if now == before => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    b.wait_reaches(&a)?;
    let repairs = node.ctl(&["status"])?["repairs"]
        .as_u64()
        .unwrap_or_default();
    assert!(repairs >= 3, "{repairs}");
    node.wait_logged("our route was removed by somebody else")
        .map(drop)
}

#[test]
fn a_route_that_was_pointed_elsewhere_is_pointed_back() -> Result<()> {
    let node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    let ip = a.pod.ipv4()?;
    node.netns.ip([format!(
        "route replace {ip} dev {} proto 122 metric {ROUTE_METRIC}",
        b.pod.host_interface()?
    )])?;
    wait::until(LIMIT, "the route", || {
        let route = node.netns.run(&["ip", "route", "get", &ip.to_string()]);
        let route = route.map_err(|error| format!("{error:#}"))?;
        let interface = a
            .pod
            .host_interface()
            .map_err(|error| format!("{error:#}"))?;
        if route.contains(&interface) {
            Ok(())
        } else {
            Err(route)
        }
    })?;
    b.wait_reaches(&a)
}

#[test]
fn routes_that_the_kernel_drops_with_an_interface_come_back_with_it() -> Result<()> {
    let mut node = Node::prepared()?;
    let _frr = node.router()?;
    node.store.write("peer.yaml", ROUTER)?;
    node.start()?;
    let learned = |node: &Node| {
        wait::until(LIMIT, "the router's networks", || match node.routes() {
            Ok(routes)
                if routes.contains("198.51.100.0/24 via 10.1.0.1")
                    && routes.contains("fd00:51::/64 via fd00:1::1") =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        })
    };
    learned(&node)?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    let before = node.routes()?;
    for interface in [a.pod.host_interface()?, "eth0".to_owned()] {
        node.netns.ip([format!("link set {interface} down")])?;
        node.netns.ip([
            format!("link set {interface} up"),
            // IPv6 addresses go with an interface that goes down.
            format!("address replace fd00:1::11/64 dev {interface} nodad"),
        ]
        .into_iter()
        .take(if interface == "eth0" { 2 } else { 1 }))?;
        wait::until(
            LIMIT,
            &format!("all routes after {interface}"),
            || match node.routes() {
                Ok(now) if now == before => Ok(()),
                other => Err(format!("{other:?}\ninstead of\n{before}")),
            },
        )?;
        b.wait_reaches(&a)?;
    }
    learned(&node)
}

#[test]
fn a_pods_routes_come_back_when_its_link_was_down_unseen() -> Result<()> {
    let node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    b.wait_reaches(&a)?;
    let before = node.routes()?;
    let interface = a.pod.host_interface()?;
    // The link is up again before the agent hears that it was down.
    node.agent.signal(Signal::STOP)?;
    node.netns.ip([format!("link set {interface} down")])?;
    node.netns.ip([format!("link set {interface} up")])?;
    let without = node.routes()?;
    node.agent.signal(Signal::CONT)?;
    assert_ne!(without, before);
    wait::until(LIMIT, "all routes", || match node.routes() {
        Ok(now) if now == before => Ok(()),
        other => Err(format!("{other:?}\ninstead of\n{before}")),
    })?;
    b.wait_reaches(&a)
}

#[test]
fn neighbour_entries_that_went_while_the_agent_was_away_come_back() -> Result<()> {
    let mut node = Node::started()?;
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    let interface = a.pod.host_interface()?;
    let permanent = |node: &Node| {
        node.netns
            .run(&["ip", "neigh", "show", "nud", "permanent", "dev", &interface])
    };
    let before = permanent(&node)?;
    assert_eq!(before.lines().count(), 2, "{before}");
    node.agent.kill()?;
    node.netns
        .ip([format!("neigh flush dev {interface} nud permanent")])?;
    assert_eq!(permanent(&node)?, "");
    node.start()?;
    wait::until(LIMIT, "the entries", || match permanent(&node) {
        Ok(now) if now == before => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    b.wait_reaches(&a)
}

/// Each of these is refused by the kernel where the table is owned, and repaired elsewhere.
#[test]
fn whatever_is_done_to_our_table_policy_is_enforced() -> Result<()> {
    let node = Node::started()?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    let web = node.member("web", "web")?;
    let other = node.member("other", "other")?;
    other.wait_denied(&web)?;
    let before = node.rules();
    let set = before
        .lines()
        .find_map(|line| line.trim().strip_prefix("set ")?.strip_suffix(" {"))
        .context("a set")?
        .to_owned();
    for words in [
        "delete table inet ocicat".to_owned(),
        "flush table inet ocicat".to_owned(),
        "flush chain inet ocicat forward".to_owned(),
        format!("flush set inet ocicat {set}"),
        "insert rule inet ocicat forward accept".to_owned(),
        "add chain inet ocicat stranger".to_owned(),
    ] {
        // Refused or repaired: what counts is what is in force.
        let refused = node.netns.run(&["nft", &words]).is_err();
        wait::until(LIMIT, &words, || {
            let now = node.rules();
            if now == before {
                Ok(())
            } else {
                Err(format!("refused: {refused}; {now}"))
            }
        })?;
        other.wait_denied(&web)?;
        web.reaches(&other)?;
    }
    Ok(())
}

#[test]
fn a_table_that_was_emptied_while_the_agent_was_away_is_rebuilt() -> Result<()> {
    let mut node = Node::started()?;
    node.store
        .write("policy.yaml", &policy("web", "web", "[]"))?;
    let web = node.member("web", "web")?;
    let other = node.member("other", "other")?;
    other.wait_denied(&web)?;
    let before = node.rules();
    for words in [
        "flush chain inet ocicat forward",
        "delete table inet ocicat",
        "delete table inet ocicat; add table inet ocicat; add chain inet ocicat stranger { type filter hook forward priority 0; policy drop; }; \
         add map inet ocicat m { type ipv4_addr : verdict; }; add rule inet ocicat stranger ip saddr vmap @m",
    ] {
        node.agent.kill()?;
        node.netns.run(&["nft", words])?;
        node.start()?;
        assert_eq!(node.rules(), before, "{words}");
        other.wait_denied(&web)?;
        web.wait_reaches(&other)?;
    }
    Ok(())
}

#[test]
fn forwarding_is_switched_on_and_a_default_route_by_router_advertisement_stays() -> Result<()> {
    let mut node = Node::prepared()?;
    for sysctl in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        node.netns.set_sysctl(sysctl, "0")?;
    }
    node.netns.set_sysctl("net.ipv6.conf.eth0.accept_ra", "1")?;
    node.netns.run(&[
        "ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0", "proto", "ra",
        "expires", "1800",
    ])?;
    let routes = Watch::routes(&node.lab, &node.netns)?;
    node.start()?;
    for (sysctl, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv6.conf.eth0.accept_ra", "2"),
    ] {
        assert_eq!(node.netns.sysctl(sysctl)?, value, "{sysctl}");
    }
    let default = node.netns.run(&["ip", "-6", "route", "show", "default"])?;
    assert!(default.contains("proto ra"), "{default}");
    routes.wait_quiet(SILENCE);
    let deleted: Vec<_> = routes
        .events()
        .into_iter()
        .filter(|event| event.line.contains("Deleted default"))
        .collect();
    assert!(deleted.is_empty(), "{deleted:?}");
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    a.wait_reaches(&b)?;
    crate::node::reaches(&Probe::start(&node.host, "host")?, &a)
}
