//! What others do to what is ours is put right, and what is theirs is left alone.

use crate::node::{LIMIT, Node, policy};
use anyhow::{Context, Result};
use integration::lab::link::End;
use integration::lab::probe::Protocol;
use integration::lab::router::{Neighbor, RouterConfig};
use integration::lab::{Frr, Probe, Watch, agent, wait};
use model::names::ROUTE_METRIC;
use std::process::Command;
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
    let node = Node::prepared()?;
    let _frr = router(&node)?;
    let mut node = node;
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

/// A router on the node's wire that announces a network of each family.
fn router(node: &Node) -> Result<Frr> {
    node.host.ip([
        "link add lan0 type veth peer name lan1",
        "link set lan0 up",
        "link set lan1 up",
        "address add 198.51.100.1/24 dev lan0",
        "address add fd00:51::1/64 dev lan0 nodad",
    ])?;
    node.store.write(
        "peer.yaml",
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: rack1}\n\
         spec: {peerIP: 10.1.0.1, asNumber: 65001}\n",
    )?;
    Frr::start(
        &node.lab,
        &node.host,
        &RouterConfig {
            asn: 65001,
            router_id: [10, 1, 0, 1].into(),
            neighbors: vec![Neighbor {
                name: "n1".to_owned(),
                address: [10, 1, 0, 11].into(),
                asn: model::names::DEFAULT_AS,
                local_address: [10, 1, 0, 1].into(),
                local_ipv6: "fd00:1::1".parse()?,
            }],
        },
    )
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
fn a_link_whose_making_was_interrupted_is_removed_and_no_obstacle() -> Result<()> {
    let mut node = Node::started()?;
    let pod = node.pod("a", "web")?;
    let interface = pod.host_interface()?;
    pod.delete()?;
    // What a process leaves that dies before the alias is set, which the kernel takes only later.
    let interrupted = |node: &Node| {
        node.netns.ip([format!(
            "link add {interface} address ee:ee:ee:ee:ee:ee type veth peer name half"
        )])
    };
    let gone = |node: &Node| {
        wait::until(LIMIT, "no link", || match node.links() {
            Ok(links) if links.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        })
    };
    gone(&node)?;
    interrupted(&node)?;
    node.pod("a", "web")?.delete()?;
    gone(&node)?;
    node.agent.kill()?;
    interrupted(&node)?;
    node.start()?;
    gone(&node)
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

/// Everything of the node's that a plan could change.
fn dump(node: &Node) -> Result<String> {
    let mut all = String::new();
    for args in [
        &["nft", "-s", "list", "ruleset"][..],
        &["ip", "route", "show", "table", "all"],
        &["ip", "-6", "route", "show", "table", "all"],
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
