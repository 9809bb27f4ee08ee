//! What belongs to others, and what only looks like ours.

use crate::node::{LIMIT, Node};
use anyhow::Result;
use integration::lab::link::End;
use integration::lab::probe::Protocol;
use integration::lab::{Probe, wait};
use std::time::Duration;

#[test]
fn tables_routes_and_links_of_others_are_left_alone() -> Result<()> {
    let mut node = Node::prepared()?;
    node.netns.run(&[
        "nft",
        "add table inet theirs; add set inet theirs s { type ipv4_addr; }; \
         add chain inet theirs forward { type filter hook forward priority 10; policy accept; }; \
         add rule inet theirs forward ip saddr @s counter drop; add table ip ocicat",
    ])?;
    node.netns.ip([
        "route add 198.51.100.0/24 via 10.1.0.1",
        "route add blackhole 10.244.200.0/26 proto static",
        "route add fd00:51::/64 via fd00:1::1",
        "link add theirs0 type veth peer name theirs1",
        "link add ocixyz type veth peer name ocixyz-peer",
    ])?;
    let theirs = |node: &Node| -> Result<String> {
        let mut all = node
            .netns
            .run(&["nft", "list", "table", "inet", "theirs"])?;
        all += &node.netns.run(&["nft", "list", "table", "ip", "ocicat"])?;
        for args in [
            &["ip", "route", "show", "198.51.100.0/24"][..],
            &["ip", "route", "show", "10.244.200.0/26"],
            &["ip", "-6", "route", "show", "fd00:51::/64"],
            &["ip", "-br", "link", "show", "theirs0"],
            &["ip", "-br", "link", "show", "ocixyz"],
        ] {
            all += &node.netns.run(args)?;
        }
        Ok(all)
    };
    let before = theirs(&node)?;
    node.start()?;
    let pod = node.pod("a", "web")?;
    node.crash_and_start()?;
    pod.delete()?;
    node.stop()?;
    assert_eq!(theirs(&node)?, before);
    Ok(())
}

#[test]
fn a_route_of_somebody_else_with_the_prefix_of_a_pod_is_neither_replaced_nor_removed() -> Result<()>
{
    let node = Node::started()?;
    let a = node.member("a", "web")?;
    let b = node.member("b", "web")?;
    let ip = a.pod.ipv4()?;
    let theirs = |metric: u32| format!("{ip} via 10.1.0.1 dev eth0 proto static metric {metric}");
    for metric in [500, 2000] {
        node.netns.ip([format!("route add {}", theirs(metric))])?;
    }
    node.netns.ip([format!("route del {ip} proto 122")])?;
    node.wait_route(ip, true)?;
    let routes = node.netns.run(&["ip", "route", "show", &ip.to_string()])?;
    assert!(
        routes.contains(&theirs(500)) && routes.contains(&theirs(2000)),
        "{routes}"
    );
    // The administrator's better metric wins for as long as it is there.
    node.netns.ip([format!("route del {}", theirs(500))])?;
    b.wait_reaches(&a)?;
    a.pod.del()?;
    node.wait_route(ip, false)?;
    let routes = node.netns.run(&["ip", "route", "show", &ip.to_string()])?;
    assert!(routes.contains(&theirs(2000)), "{routes}");
    Ok(())
}

#[test]
fn a_route_with_our_number_that_nobody_wants_is_removed() -> Result<()> {
    let mut node = Node::started()?;
    let pod = node.pod("a", "web")?;
    let before = node.routes()?;
    let stray = |node: &Node| {
        node.netns.ip([
            "route add 10.250.0.0/24 via 10.1.0.1 proto 122",
            "route add fd00:250::/64 via fd00:1::1 proto 122 metric 1022",
        ])
    };
    let gone = |node: &Node| {
        wait::until(LIMIT, "our routes alone", || match node.routes() {
            Ok(now) if now == before => Ok(()),
            other => Err(format!("{other:?}")),
        })
    };
    stray(&node)?;
    gone(&node)?;
    node.agent.kill()?;
    stray(&node)?;
    node.start()?;
    gone(&node)?;
    pod.check()
}

#[test]
fn a_link_of_ours_that_no_pod_has_is_removed_once_the_datastore_is_in_sync() -> Result<()> {
    let mut node = Node::started()?;
    let pod = node.pod("a", "web")?;
    node.wait_snapshot("IpPool")?;
    node.agent.kill()?;
    node.netns.ip([
        "link add ocistray type veth peer name stray-peer",
        "link set ocistray alias ocicat:shop/gone",
        "link set ocistray up",
    ])?;
    node.hide_store()?;
    node.agent.start()?;
    node.wait_said("working from the last view on disk")?;
    node.agent.wait_ready(LIMIT)?;
    assert_eq!(
        node.links()?.len(),
        2,
        "nothing is removed without the datastore"
    );
    node.show_store()?;
    wait::until(LIMIT, "the stray link to go", || match node.links() {
        Ok(links) if links.len() == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    pod.check()
}

#[test]
fn an_interface_with_our_prefix_and_no_endpoint_forwards_nothing() -> Result<()> {
    let node = Node::started()?;
    let web = node.member("web", "web")?;
    let stranger = node.lab.netns("stranger")?;
    node.lab.wire(
        &End {
            netns: &node.netns,
            interface: "ocistranger",
            addresses: &["10.66.0.1/24", "fd00:66::1/64"],
        },
        &End {
            netns: &stranger,
            interface: "eth0",
            addresses: &["10.66.0.2/24", "fd00:66::2/64"],
        },
    )?;
    stranger.ip([
        "route add default via 10.66.0.1",
        "route add default via fd00:66::1",
    ])?;
    node.host.ip([
        "route add 10.66.0.0/24 via 10.1.0.11",
        "route add fd00:66::/64 via fd00:1::11",
    ])?;
    // The same wire under another name does forward, so that the test can fail.
    let inside = Probe::start(&stranger, "stranger")?;
    let host = Probe::start(&node.host, "host")?;
    let reached = |limit: u64| -> Vec<bool> {
        let limit = Duration::from_millis(limit);
        let mut all = Vec::new();
        for (probe, to) in [
            (&inside, "10.1.0.1"),
            (&inside, "fd00:1::1"),
            (&host, "10.66.0.2"),
            (&host, "fd00:66::2"),
        ] {
            let to = to.parse().expect("an address");
            all.push(probe.reach(Protocol::Tcp, to, 8080, limit).is_ok());
        }
        for to in web.pod.addresses() {
            all.push(inside.reach(Protocol::Tcp, to, 8080, limit).is_ok());
            all.push(inside.reach(Protocol::Icmp, to, 0, limit).is_ok());
        }
        all
    };
    assert_eq!(reached(400), [false; 8]);
    node.netns.ip([
        "link set ocistranger down",
        "link set ocistranger name other0",
        "link set other0 up",
        "address replace fd00:66::1/64 dev other0 nodad",
    ])?;
    wait::until(LIMIT, "the same wire to forward under another name", || {
        let now = reached(1000);
        if now[..4] == [true; 4] {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    })
}

#[test]
fn interface_indexes_that_others_hold_are_passed_over() -> Result<()> {
    let node = Node::started()?;
    let first = model::names::FIRST_IFINDEX;
    for (number, index) in (first..first + 3).enumerate() {
        node.netns.ip([format!(
            "link add theirs{number} index {index} type veth peer name peer{number}"
        )])?;
    }
    let (a, b) = (node.member("a", "web")?, node.member("b", "web")?);
    a.wait_reaches(&b)?;
    let link = node.netns.run(&["ip", "link", "show", "theirs0"])?;
    assert!(link.starts_with(&format!("{first}:")), "{link}");
    Ok(())
}
