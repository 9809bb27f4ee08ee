//! Two nodes in two subnets behind a router, and what their pods send each other on the wire.

use crate::node::{LIMIT, Node, POOL_V4, POOL_V6, SHORT, reaches, spec, wait_reaches};
use anyhow::{Context, Result};
use integration::lab::link::End;
use integration::lab::pod::Plugin;
use integration::lab::probe::Protocol;
use integration::lab::{Agent, Netns, Pod, Probe, Watch, wait};
use serde_json::{Value, json};
use std::net::IpAddr;

const SECOND: &str = "apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n2}
spec: {bgp: {ipv4Address: 10.2.0.12/24, ipv6Address: 'fd00:2::12/64'}}
";

/// The second node behind the host, which is the router between the two subnets.
fn far(node: &Node) -> Result<(Netns, Agent)> {
    let netns = node.lab.netns("n2")?;
    node.lab.wire(
        &End {
            netns: &netns,
            interface: "eth0",
            addresses: &["10.2.0.12/24", "fd00:2::12/64"],
        },
        &End {
            netns: &node.host,
            interface: "eth1",
            addresses: &["10.2.0.1/24", "fd00:2::1/64"],
        },
    )?;
    // The router forwards, and knows no pod: native packets between the racks go nowhere.
    node.host.run(&["sysctl", "-q", "net.ipv4.ip_forward=1"])?;
    node.host
        .run(&["sysctl", "-q", "net.ipv6.conf.all.forwarding=1"])?;
    node.host.ip([
        "route del 10.244.0.0/16 via 10.1.0.11",
        "route del fd00:10:244::/56 via fd00:1::11",
    ])?;
    netns.ip([
        "route add default via 10.2.0.1",
        "route add default via fd00:2::1",
    ])?;
    node.netns.ip([
        "route add default via 10.1.0.1",
        "route add default via fd00:1::1",
    ])?;
    node.store.write("node2.yaml", SECOND)?;
    let agent = Agent::new(&node.lab, &netns, "n2", &node.store)?;
    Ok((netns, agent))
}

fn vxlan(pool: &str, mode: &str) -> String {
    let pool = pool.replace("ipipMode: Never", &format!("vxlanMode: {mode}"));
    match pool.contains("vxlanMode") {
        true => pool,
        false => pool.replace("/56'", &format!("/56', vxlanMode: {mode}")),
    }
}

#[test]
fn pods_of_two_subnets_reach_each_other_through_vxlan_in_both_families() -> Result<()> {
    let mut node = Node::prepared()?;
    let (netns, mut second) = far(&node)?;
    node.store
        .write("pool-v4.yaml", &vxlan(POOL_V4, "CrossSubnet"))?;
    node.store
        .write("pool-v6.yaml", &vxlan(POOL_V6, "CrossSubnet"))?;
    node.start()?;
    second.start()?;
    second.wait_ready(LIMIT)?;
    let web = node.member("web", "web")?;
    let plugin = Plugin::ocicat(&second)?;
    let pod = Pod::add(&node.lab, &plugin, spec("far", "far"))?;
    let probe = Probe::start(pod.netns(), "far")?;
    wait_reaches(&probe, &web)?;
    for device in ["vxlan.ocicat", "vxlan6.ocicat"] {
        let text = netns.run(&["ip", "-j", "-s", "link", "show", device])?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        let packets = links[0]["stats64"]["rx"]["packets"].as_u64();
        assert!(
            packets.is_some_and(|packets| packets > 0),
            "{device}: {text}"
        );
    }

    // Somebody deletes a device under load: it is back, and so are its routes.
    netns.ip(["link delete vxlan.ocicat"])?;
    wait_reaches(&probe, &web)?;
    reaches(&probe, &web)?;

    // Without a pool that wants it, the devices go.
    node.store.write("pool-v4.yaml", POOL_V4)?;
    node.store.write("pool-v6.yaml", POOL_V6)?;
    wait::until(LIMIT, "no tunnel device", || {
        let links = netns
            .run(&["ip", "-br", "link"])
            .map_err(|e| format!("{e:#}"))?;
        if links.contains("vxlan") {
            Err(links)
        } else {
            Ok(())
        }
    })
}

#[test]
fn a_node_speaks_through_the_tunnel_with_an_address_of_its_own_block_the_same_after_a_restart()
-> Result<()> {
    let mut node = Node::prepared()?;
    let (netns, mut second) = far(&node)?;
    // As in a cloud: what comes from a pod's address and is not encapsulated goes nowhere.
    node.host.run(&[
        "nft",
        "add table ip cloud; add chain ip cloud out { type filter hook forward priority 0; }; \
         add rule ip cloud out ip saddr 10.244.0.0/16 drop",
    ])?;
    node.store
        .write("pool-v4.yaml", &vxlan(POOL_V4, "CrossSubnet"))?;
    node.start()?;
    second.start()?;
    second.wait_ready(LIMIT)?;
    let web = node.member("web", "web")?;
    let near = Probe::start(&netns, "n2-itself")?;
    let address = web.pod.ipv4()?;
    let answered = || {
        wait::until(LIMIT, "an answer", || {
            let said = near.reach(Protocol::Tcp, address, 8080, SHORT);
            said.map_err(|error| format!("{error:#}"))
        })
    };
    assert_eq!(answered()?, "web");
    let source = |netns: &Netns| -> Result<IpAddr> {
        let route = netns.run(&["ip", "route", "get", &address.to_string()])?;
        let word = route
            .split_whitespace()
            .skip_while(|word| *word != "src")
            .nth(1);
        Ok(word.context("a source")?.parse()?)
    };
    let tunnel = source(&netns)?;
    let shown: Value = serde_json::from_str(&second.ctl(&["ipam", "show", "-o", "json"])?)?;
    assert_eq!(shown["tunnels"]["tunnel"], json!(tunnel));
    let plugin = Plugin::ocicat(&second)?;
    let pod = Pod::add(&node.lab, &plugin, spec("far", "far"))?;
    assert_ne!(pod.ipv4()?, tunnel);

    let routes = Watch::routes(&node.lab, &netns)?;
    second.kill()?;
    second.start()?;
    second.wait_ready(LIMIT)?;
    assert_eq!(answered()?, "web");
    assert_eq!(source(&netns)?, tunnel);
    let written = routes.events().into_iter().map(|event| event.line);
    let written: Vec<_> = written.filter(|line| line.contains("proto 122")).collect();
    assert!(written.is_empty(), "{written:#?}");

    // A journal that was lost: the device still knows.
    second.kill()?;
    std::fs::remove_file(second.state_dir().join("journal"))?;
    second.start()?;
    second.wait_ready(LIMIT)?;
    assert_eq!(answered()?, "web");
    assert_eq!(source(&netns)?, tunnel);

    // Without a tunnel it is an address like any other.
    node.host.run(&["nft", "delete table ip cloud"])?;
    node.store.write("pool-v4.yaml", POOL_V4)?;
    wait::until(LIMIT, "no address for the tunnel", || {
        let shown = second.ctl(&["ipam", "show", "-o", "json"]);
        match shown.map(|text| serde_json::from_str::<Value>(&text)) {
            Ok(Ok(shown)) if shown["tunnels"] == json!({}) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}
