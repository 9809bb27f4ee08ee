//! Fields of BGPPeer and BGPConfiguration that change how a session is made, with FRR at the other
//! end.

use crate::node::{LIMIT, Node, ROUTER};
use anyhow::{Context, Result, ensure};
use integration::lab::link::End;
use integration::lab::router::{Neighbor, RouterConfig};
use integration::lab::{Frr, wait};
use serde_json::Value;

fn configuration(spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {{name: default}}\n\
         spec: {{{spec}}}\n"
    )
}

fn wait_session(frr: &Frr, address: &str, up: bool) -> Result<()> {
    wait::until(2 * LIMIT, &format!("the session, up: {up}"), || {
        let state = frr.session(address).map_err(|e| format!("{e:#}"))?;
        if (state == "Established") == up {
            Ok(())
        } else {
            Err(state)
        }
    })
}

/// Waits until the node's routes have this, or have it no more.
fn wait_route(node: &Node, words: &str, wanted: bool) -> Result<()> {
    wait::until(2 * LIMIT, &format!("{words}: {wanted}"), || {
        let routes = node.routes().map_err(|e| format!("{e:#}"))?;
        if routes.contains(words) == wanted {
            Ok(())
        } else {
            Err(routes)
        }
    })
}

/// The one session, as the agent sees it.
fn neighbour(node: &Node, peer: &str) -> Result<Value> {
    let all = node.ctl(&["bgp", "neighbors", peer])?;
    all.get(0).cloned().context("a neighbour")
}

/// Next hop of a prefix at a router.
fn next_hop(frr: &Frr, prefix: &str) -> Result<String, String> {
    let route = frr.json(&format!("show bgp ipv4 unicast {prefix} json"));
    let route = route.map_err(|e| format!("{e:#}"))?;
    let hop = route["paths"][0]["nexthops"][0]["ip"].as_str();
    hop.map(str::to_owned).ok_or_else(|| route.to_string())
}

/// FRR with our AS number on a link of its own, 10.2.0.0/24.
fn inner(node: &Node) -> Result<Frr> {
    let netns = node.lab.netns("inner")?;
    node.lab.wire(
        &End {
            netns: &node.netns,
            interface: "eth1",
            addresses: &["10.2.0.11/24"],
        },
        &End {
            netns: &netns,
            interface: "eth0",
            addresses: &["10.2.0.1/24"],
        },
    )?;
    let n1 = Neighbor {
        name: "n1".to_owned(),
        address: [10, 2, 0, 11].into(),
        asn: model::names::DEFAULT_AS,
        local_address: [10, 2, 0, 1].into(),
        local_ipv6: "fd00:2::1".parse()?,
    };
    let config = RouterConfig {
        asn: model::names::DEFAULT_AS,
        router_id: [10, 2, 0, 1].into(),
        neighbors: vec![n1],
    };
    Frr::start(&node.lab, &netns, &config)
}

const PASS_ON: &str = "apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: pass-on}
spec: {exportV4: [{action: Accept, matchOperator: In, cidr: 198.51.100.0/24}]}
";

#[test]
fn an_internal_peer_is_told_the_next_hop_that_its_object_says() -> Result<()> {
    let node = Node::started()?;
    let outer = node.router()?;
    let inner = inner(&node)?;
    node.store.write("peer.yaml", ROUTER)?;
    node.store.write("filter.yaml", PASS_ON)?;
    let peer = |mode: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: inner}}\n\
             spec: {{peerIP: 10.2.0.1, asNumber: 64512, sourceAddress: None, \
             filters: [pass-on], nextHopMode: {mode}}}\n"
        )
    };
    wait_session(&outer, "10.1.0.11", true)?;
    let mut before = None;
    for (mode, expected) in [
        ("Auto", "10.1.0.1"),
        ("Self", "10.1.0.11"),
        ("Keep", "10.1.0.1"),
    ] {
        node.store.write("inner.yaml", &peer(mode))?;
        wait::until(
            2 * LIMIT,
            &format!("{expected} by {mode}"),
            || match next_hop(&inner, "198.51.100.0/24")? {
                hop if hop == expected => Ok(()),
                other => Err(other),
            },
        )?;
        // Another mode is told in the session that is there.
        let count = neighbour(&node, "inner")?["established_count"].clone();
        assert_eq!(*before.get_or_insert(count.clone()), count);
    }
    Ok(())
}

#[test]
fn a_peer_is_reached_by_the_gateway_that_its_object_names() -> Result<()> {
    let node = Node::started()?;
    let frr = node.router()?;
    // The session is with an address of the router that only the gateway leads to.
    node.host.ip(["address add 192.0.2.1/32 dev lo"])?;
    frr.configure(&[
        "router bgp 65001",
        "neighbor 10.1.0.11 update-source 192.0.2.1",
        "neighbor 10.1.0.11 ebgp-multihop 2",
    ])?;
    let peer = |reachable: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: rack1}}\n\
             spec: {{peerIP: 192.0.2.1, asNumber: 65001{reachable}}}\n"
        )
    };
    node.store
        .write("peer.yaml", &peer(", reachableBy: 10.1.0.1"))?;
    wait_route(&node, "192.0.2.1 via 10.1.0.1", true)?;
    wait_session(&frr, "10.1.0.11", true)?;
    node.store.write("peer.yaml", &peer(""))?;
    wait_route(&node, "192.0.2.1 via 10.1.0.1", false)
}

#[test]
fn connections_are_taken_on_the_nodes_own_addresses_only_where_that_is_asked_for() -> Result<()> {
    let node = Node::started()?;
    let frr = node.router()?;
    node.store.write("peer.yaml", ROUTER)?;
    wait_session(&frr, "10.1.0.11", true)?;
    let before = neighbour(&node, "rack1")?["established_count"].clone();
    let listening = || node.netns.run(&["ss", "-Hltn", "sport", "=", ":179"]);
    let all = listening()?;
    ensure!(all.contains("0.0.0.0:179"), "{all}");
    node.store
        .write("configuration.yaml", &configuration("bindMode: NodeIP"))?;
    wait::until(LIMIT, "listeners on the node's own addresses", || {
        let all = listening().map_err(|e| format!("{e:#}"))?;
        let own = all.contains("10.1.0.11:179") && all.contains("[fd00:1::11]:179");
        if own && !all.contains("0.0.0.0:179") && !all.contains("[::]:179") {
            Ok(())
        } else {
            Err(all)
        }
    })?;
    // Sessions that are there stay, and the router may still be the one that connects.
    assert_eq!(neighbour(&node, "rack1")?["established_count"], before);
    node.store.write(
        "peer.yaml",
        &ROUTER.replace("65001}", "65001, ocicat: {passive: true}}"),
    )?;
    frr.vtysh("clear bgp 10.1.0.11")?;
    wait::until(2 * LIMIT, "a session that the router made", || {
        let peer = neighbour(&node, "rack1").map_err(|e| format!("{e:#}"))?;
        let again = peer["established_count"].as_u64() > before.as_u64();
        if again && peer["state"] == "Established" {
            Ok(())
        } else {
            Err(peer.to_string())
        }
    })
}

#[test]
fn a_link_that_is_ignored_leads_to_no_next_hop_until_it_is_ignored_no_more() -> Result<()> {
    let node = Node::started()?;
    let frr = node.router()?;
    node.store.write("peer.yaml", ROUTER)?;
    let learnt = "198.51.100.0/24 via 10.1.0.1";
    wait_route(&node, learnt, true)?;
    let before = neighbour(&node, "rack1")?["established_count"].clone();
    let ignored = configuration("ignoredInterfaces: ['eth0']");
    node.store.write("configuration.yaml", &ignored)?;
    wait_route(&node, learnt, false)?;
    node.store.write(
        "configuration.yaml",
        &configuration("ignoredInterfaces: ['eth1*']"),
    )?;
    wait_route(&node, learnt, true)?;
    wait_session(&frr, "10.1.0.11", true)?;
    assert_eq!(neighbour(&node, "rack1")?["established_count"], before);
    Ok(())
}

#[test]
fn a_peer_that_announces_too_much_of_one_family_loses_its_session_and_the_status_says_why()
-> Result<()> {
    let node = Node::started()?;
    let frr = node.router()?;
    // The router announces two networks of each family, and gives our own block back.
    let limited = ROUTER.replace("65001}", "65001, ocicat: {maxPrefixes: {limit: 5}}}");
    node.store.write("peer.yaml", &limited)?;
    wait_session(&frr, "10.1.0.11", true)?;
    let more = |family: &str, networks: &[&str]| -> Result<()> {
        let family = format!("address-family {family} unicast");
        let networks = networks.iter().map(|network| format!("network {network}"));
        let lines = [
            "router bgp 65001".to_owned(),
            "no bgp network import-check".to_owned(),
            family,
        ];
        let lines: Vec<String> = lines.into_iter().chain(networks).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        frr.configure(&lines)
    };
    // At least three of each family: more than five in all, and not of either.
    more("ipv6", &["fd00:52::/64"])?;
    more("ipv4", &["203.0.113.0/24"])?;
    wait_route(&node, "203.0.113.0/24", true)?;
    wait_route(&node, "fd00:52::/64", true)?;
    assert_eq!(frr.session("10.1.0.11")?, "Established");
    let four = [
        "fd00:53::/64",
        "fd00:54::/64",
        "fd00:55::/64",
        "fd00:56::/64",
    ];
    more("ipv6", &four)?;
    wait_session(&frr, "10.1.0.11", false)?;
    let why = neighbour(&node, "rack1")?.to_string();
    ensure!(why.contains("over the limit of 5"), "{why}");
    Ok(())
}
