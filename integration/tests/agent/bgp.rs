//! BGP objects through the agent to FRR: passwords, Services, what operators ask and do, and bad
//! configuration, which leaves other sessions alone.

use crate::node::{LIMIT, Node, ROUTER};
use anyhow::{Context, Result};
use integration::lab::{Frr, wait};
use serde_json::Value;

const GUARDED: &str = "apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: rack1}
spec: {peerIP: 10.1.0.1, asNumber: 65001, password: {secretKeyRef: {name: bgp, key: rack1}}}
";
const SERVICES: &str = "apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec:
  serviceClusterIPs: [{cidr: 10.96.0.0/16}]
  serviceExternalIPs: [{cidr: 192.0.2.0/24}]
  communities: [{name: services, value: '64512:77'}]
  prefixAdvertisements: [{cidr: 10.96.0.0/16, communities: [services]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  clusterIPs: [10.96.0.7]
  externalIPs: [192.0.2.7, 203.0.113.7]
  ports: [{port: 80}]
";

fn secret(password: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: bgp, namespace: kube-system}}\n\
         stringData: {{rack1: {password}}}\n"
    )
}

fn slice(node: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\n\
         endpoints: [{{addresses: [10.244.0.9], nodeName: {node}, conditions: {{ready: true}}}}]\n"
    )
}

fn wait_session(frr: &Frr, up: bool) -> Result<()> {
    wait::until(LIMIT, &format!("the session, up: {up}"), || {
        let state = frr.session("10.1.0.11").map_err(|e| format!("{e:#}"))?;
        if (state == "Established") == up {
            Ok(())
        } else {
            Err(state)
        }
    })
}

/// Waits until the router knows exactly these prefixes of ours outside our blocks.
fn wait_services(frr: &Frr, expected: &[&str]) -> Result<()> {
    wait::until(LIMIT, &format!("{expected:?}"), || {
        let all = frr.prefixes("ipv4").map_err(|e| format!("{e:#}"))?;
        let other = |prefix: &&String| {
            let connected = ["10.1.0.", "198.51.100.", "10.244."];
            !connected.iter().any(|own| prefix.starts_with(own))
        };
        let mut found: Vec<_> = all.iter().filter(other).map(String::as_str).collect();
        found.sort_unstable();
        if found == expected {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    })
}

/// The one session, as the agent sees it.
fn neighbour(node: &Node, peer: &str) -> Result<Value> {
    let all = node.ctl(&["bgp", "neighbors", peer])?;
    all.get(0).cloned().context("a neighbour")
}

#[test]
fn a_password_comes_from_a_secret_and_shows_nowhere() -> Result<()> {
    let node = Node::started()?;
    let frr = node.router()?;
    frr.configure(&["router bgp 65001", "neighbor 10.1.0.11 password hunter2"])?;
    node.store.write("peer.yaml", GUARDED)?;
    let missing = "spec.password.secretKeyRef: there is no Secret/kube-system/bgp";
    node.wait_status("BGPPeer_rack1", missing)?;
    node.wait_logged(missing)?;

    node.store.write("secret.yaml", &secret("hunter2"))?;
    wait_session(&frr, true)?;
    let established = neighbour(&node, "rack1")?["established_count"].clone();

    // FRR resets a session whose password it is told to change.
    node.store.write("secret.yaml", &secret("swordfish"))?;
    frr.configure(&["router bgp 65001", "neighbor 10.1.0.11 password swordfish"])?;
    wait::until(LIMIT, "a session with the other password", || {
        let now = neighbour(&node, "rack1").map_err(|e| format!("{e:#}"))?;
        let again = now["established_count"] != established;
        if again && now["state"] == "Established" {
            Ok(())
        } else {
            Err(now.to_string())
        }
    })?;

    node.store.write("secret.yaml", "# nothing\n")?;
    wait_session(&frr, false)?;
    node.wait_status("BGPPeer_rack1", missing)?;
    node.wait_snapshot("BgpPeer")?;
    let snapshot = std::fs::read_to_string(node.agent.state_dir().join("snapshot.json"))?;
    let status = node.store.read("state/status/n1/BGPPeer_rack1.yaml")?;
    for text in [snapshot, status, node.agent.log()] {
        assert!(!text.contains("hunter2") && !text.contains("swordfish"));
    }
    Ok(())
}

#[test]
fn services_are_announced_by_range_and_local_ones_by_address_where_an_endpoint_is_ready()
-> Result<()> {
    let node = Node::started()?;
    let frr = node.router()?;
    node.store.write("peer.yaml", ROUTER)?;
    node.store.write("services.yaml", SERVICES)?;
    wait_services(&frr, &["10.96.0.0/16", "192.0.2.0/24"])?;
    let route = frr.json("show bgp ipv4 unicast 10.96.0.0/16 json")?;
    assert_eq!(route["paths"][0]["community"]["string"], "64512:77");
    let route = frr.json("show bgp ipv4 unicast 192.0.2.0/24 json")?;
    assert_eq!(route["paths"][0]["community"], Value::Null);

    node.store.write("slice.yaml", &slice("n1"))?;
    let all = [
        "10.96.0.0/16",
        "10.96.0.7/32",
        "192.0.2.0/24",
        "192.0.2.7/32",
    ];
    wait_services(&frr, &all)?;
    node.store.write("slice.yaml", &slice("n2"))?;
    wait_services(&frr, &["10.96.0.0/16", "192.0.2.0/24"])?;

    let excluded = node.store.read("node.yaml")?.replace(
        "{name: n1}",
        "{name: n1, labels: {node.kubernetes.io/exclude-from-external-load-balancers: ''}}",
    );
    node.store.write("node.yaml", &excluded)?;
    wait_services(&frr, &[])?;
    let blocks = frr.prefixes("ipv4")?;
    assert!(blocks.iter().any(|prefix| prefix.starts_with("10.244.")));
    Ok(())
}

#[test]
fn operators_see_what_a_session_carries_and_end_it_with_words() -> Result<()> {
    let node = Node::started()?;
    let frr = node.router()?;
    frr.configure(&["router bgp 65001", "bgp log-neighbor-changes"])?;
    node.store.write("peer.yaml", ROUTER)?;
    wait_session(&frr, true)?;
    wait::until(LIMIT, "the router's network", || {
        let received = ["bgp", "routes", "198.51.100.9", "--received", "rack1"];
        let said = node.ctl(&received).map_err(|e| format!("{e:#}"))?;
        if said[0]["prefix"] == "198.51.100.0/24" && said[0]["paths"][0]["as_path"] == "65001" {
            Ok(())
        } else {
            Err(said.to_string())
        }
    })?;
    let before = neighbour(&node, "rack1")?["established_count"].clone();
    let told = node.ctl(&["bgp", "routes", "--advertised", "10.1.0.1"])?;
    let told = told.as_array().context("a list")?;
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0]["as_path"], "64512");
    for table in [
        &["bgp", "neighbors"][..],
        &["bgp", "summary"],
        &["bgp", "routes", "--why"],
        &["bgp", "summary", "-o", "yaml"],
    ] {
        let text = node.agent.ctl(table)?;
        assert!(text.contains("BGPPeer/rack1"), "{table:?}: {text}");
    }
    node.agent.ctl(&["bgp", "refresh", "rack1"])?;
    let unknown = node.agent.ctl(&["bgp", "refresh", "10.1.0.2"]);
    assert!(format!("{:#}", unknown.unwrap_err()).contains("10.1.0.2 is no peer"));
    assert_eq!(neighbour(&node, "rack1")?["established_count"], before);

    let words = ["bgp", "shutdown", "rack1", "--text", "swap of the switch"];
    node.agent.ctl(&words)?;
    wait::until(LIMIT, "the text at the peer", || {
        let log = frr.log();
        let said = log.contains("6/2 (Cease/Administrative Shutdown) \"swap of the switch\"");
        if said { Ok(()) } else { Err(log) }
    })?;
    wait_session(&frr, false)?;
    node.agent.ctl(&["bgp", "enable", "rack1"])?;
    wait_session(&frr, true)?;

    node.agent.ctl(&["bgp", "drain", "--wait", "0"])?;
    wait_session(&frr, false)?;
    // FRR clears a table after it has told that the session is down.
    wait::until(LIMIT, "no block of the node at FRR", || {
        let all = frr.prefixes("ipv4").map_err(|error| format!("{error:#}"))?;
        match all.iter().any(|prefix| prefix.starts_with("10.244.")) {
            true => Err(format!("{all:?} {}", frr.log())),
            false => Ok(()),
        }
    })?;
    node.agent.ctl(&["bgp", "drain", "--undo"])?;
    wait_session(&frr, true)
}

#[test]
fn what_is_wrong_in_bgp_objects_is_named_and_no_other_session_is_touched() -> Result<()> {
    let node = Node::started()?;
    let frr = node.router()?;
    node.store.write("peer.yaml", ROUTER)?;
    wait_session(&frr, true)?;
    let before = neighbour(&node, "rack1")?;
    let peer = |name: &str, spec: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: {name}}}\n\
             spec: {{{spec}}}\n---\n"
        )
    };
    let range = "asNumber: 65009, ocicat: {peerPrefix: 10.9.0.0/16}";
    let filter = "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: bad}\n\
                  spec: {importV4: [{action: Accept, asPathPrefix: ['6500[1']}]}\n";
    let bad = [
        peer("nobody", "asNumber: 65009"),
        peer(
            "unfiltered",
            "peerIP: 10.1.0.2, asNumber: 65009, filters: [gone]",
        ),
        peer(
            "unsigned",
            "peerIP: 10.1.0.3, asNumber: 65009, password: {secretKeyRef: {name: gone, key: a}}",
        ),
        peer("range-a", range),
        peer("range-b", range),
        peer("twin", "peerIP: 10.1.0.1, asNumber: 65009"),
        filter.to_owned(),
    ];
    node.store.write("bad.yaml", &bad.concat())?;
    let expected = [
        ("BGPPeer_nobody", "spec.peerIP"),
        ("BGPPeer_unfiltered", "there is no BGPFilter/gone"),
        ("BGPPeer_unsigned", "there is no Secret/kube-system/gone"),
        (
            "BGPPeer_range-b",
            "spec.ocicat.peerPrefix: 10.9.0.0/16 is the range of",
        ),
        (
            "BGPPeer_twin",
            "10.1.0.1 is the peer of BGPPeer/rack1 already",
        ),
        ("BGPFilter_bad", "spec.importV4[0].asPathPrefix"),
    ];
    for (file, words) in expected {
        node.wait_status(file, words)?;
    }
    let after = neighbour(&node, "rack1")?;
    assert_eq!(after["state"], "Established");
    assert_eq!(after["established_count"], before["established_count"]);
    let all = node.ctl(&["bgp", "neighbors"])?;
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    Ok(())
}

#[test]
fn the_router_on_a_link_is_a_peer_without_an_address_and_leads_to_its_networks() -> Result<()> {
    let node = Node::started()?;
    let frr = node.router()?;
    frr.configure(&[
        "router bgp 65001",
        "no neighbor 10.1.0.11",
        "neighbor eth0 interface remote-as 64512",
        "neighbor eth0 timers connect 1",
        "address-family ipv4 unicast",
        "neighbor eth0 activate",
    ])?;
    node.store.write(
        "peer.yaml",
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: rack1}\n\
         spec: {asNumber: 65001, ocicat: {peerInterface: eth0}}\n",
    )?;
    wait::until(2 * LIMIT, "a route by way of the link", || {
        let routes = node.routes().map_err(|e| format!("{e:#}"))?;
        let found = |line: &str| {
            line.starts_with("198.51.100.0/24 via inet6 fe80:") && line.contains("dev eth0")
        };
        if routes.lines().any(found) {
            Ok(())
        } else {
            Err(routes)
        }
    })?;
    wait::until(LIMIT, "our block at the router", || {
        let all = frr.prefixes("ipv4").map_err(|e| format!("{e:#}"))?;
        let ours = all.iter().any(|prefix| prefix.starts_with("10.244."));
        if ours {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    })
}

#[test]
fn whoever_connects_from_a_range_with_the_password_is_a_peer() -> Result<()> {
    let node = Node::started()?;
    let frr = node.router()?;
    node.store.write("secret.yaml", &secret("hunter2"))?;
    let range = GUARDED.replace("peerIP: 10.1.0.1,", "ocicat: {peerPrefix: 10.1.0.0/28},");
    node.store.write("peer.yaml", &range)?;
    frr.configure(&["router bgp 65001", "neighbor 10.1.0.11 password hunter2"])?;
    wait_session(&frr, true)?;
    let peer = neighbour(&node, "10.1.0.1")?;
    assert_eq!(peer["name"], "BGPPeer/rack1");
    Ok(())
}
