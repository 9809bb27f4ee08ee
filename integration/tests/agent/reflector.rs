//! From the mesh to a route reflector and back, on real kernels with FRR as the reflector: no node
//! is without a route in between, and FRR sees none withdrawn.

use crate::cluster::second;
use crate::node::{LIMIT, Node};
use anyhow::{Result, ensure};
use integration::lab::router::{Neighbor, RouterConfig};
use integration::lab::{Agent, Frr, Netns, Watch, wait};

const REFLECTED: &str = "apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: reflector}
spec: {peerIP: 10.1.0.1, asNumber: 64512}
";
const FILTERED: &str = "---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: marked}
spec:
  exportV4:
  - {action: Accept, operations: [{addCommunity: {value: '64512:99'}}]}
";

fn reflector(node: &Node) -> Result<Frr> {
    let clients = [("n1", 11), ("n2", 12)].map(|(name, number)| Neighbor {
        name: name.to_owned(),
        address: [10, 1, 0, number].into(),
        asn: model::names::DEFAULT_AS,
        local_address: [10, 1, 0, 1].into(),
        local_ipv6: [0xfd00, 1, 0, 0, 0, 0, 0, 1].into(),
    });
    let config = RouterConfig {
        asn: model::names::DEFAULT_AS,
        router_id: [10, 1, 0, 1].into(),
        neighbors: clients.into(),
    };
    let frr = Frr::start(&node.lab, &node.host, &config)?;
    let client = |number| format!("neighbor 10.1.0.{number} route-reflector-client");
    for family in ["ipv4", "ipv6"] {
        frr.configure(&[
            "router bgp 64512",
            &format!("address-family {family} unicast"),
            "no redistribute connected",
            &client(11),
            &client(12),
        ])?;
    }
    Ok(frr)
}

/// Waits until an agent has exactly these sessions, all of them up.
fn wait_sessions(agent: &Agent, expected: &[&str]) -> Result<()> {
    wait::until(
        4 * LIMIT,
        &format!("{expected:?} of {}", agent.node()),
        || {
            let look = || -> Result<serde_json::Value> {
                let said = agent.ctl(&["bgp", "neighbors", "-o", "json"])?;
                Ok(serde_json::from_str(&said)?)
            };
            let all = look().map_err(|error| format!("{error:#}"))?;
            let peers = all.as_array().into_iter().flatten();
            let up = peers.clone().filter(|peer| peer["state"] == "Established");
            let names: Vec<_> = up.filter_map(|peer| peer["name"].as_str()).collect();
            if names == expected && peers.count() == expected.len() {
                Ok(())
            } else {
                Err(all.to_string())
            }
        },
    )
}

/// How often the session with each client has been established, as FRR counts.
fn established(frr: &Frr) -> Result<[serde_json::Value; 2]> {
    let all = frr.json("show bgp neighbors json")?;
    Ok(["10.1.0.11", "10.1.0.12"].map(|client| all[client]["connectionsEstablished"].clone()))
}

/// What has been removed of the other node's blocks.
fn removed(watch: &Watch) -> Vec<String> {
    let events = watch.events().into_iter().map(|event| event.line);
    let of_blocks = |line: &String| line.contains("10.244.") || line.contains("fd00:10:244:");
    events
        .filter(|line| line.starts_with("Deleted"))
        .filter(of_blocks)
        .collect()
}

fn wait_blocks(netns: &Netns) -> Result<()> {
    wait::until(2 * LIMIT, "the other node's blocks", || {
        let look = |family| netns.run(&["ip", family, "route", "show", "proto", "122"]);
        let all = look("-4").and_then(|v4| Ok(v4 + &look("-6")?));
        let all = all.map_err(|error| format!("{error:#}"))?;
        if all.matches(" via ").count() >= 2 {
            Ok(())
        } else {
            Err(all)
        }
    })
}

#[test]
fn from_the_mesh_to_a_reflector_and_back_no_route_is_missing() -> Result<()> {
    let mut node = Node::prepared()?;
    let mut other = second(&node)?;
    node.start()?;
    other.start()?;
    other.wait_ready(LIMIT)?;
    let netns = [node.netns.clone(), other.netns().clone()];
    netns.iter().try_for_each(wait_blocks)?;
    let frr = reflector(&node)?;
    let watches = [
        Watch::routes(&node.lab, &netns[0])?,
        Watch::routes(&node.lab, &netns[1])?,
    ];
    let nothing_went = |when: &str| -> Result<()> {
        for watch in &watches {
            let removed = removed(watch);
            ensure!(removed.is_empty(), "{when}: {removed:?}");
        }
        Ok(())
    };

    node.store.write("bgp.yaml", REFLECTED)?;
    for agent in [&node.agent, &other] {
        wait_sessions(agent, &["BGPPeer/reflector"])?;
    }
    netns.iter().try_for_each(wait_blocks)?;
    nothing_went("to the reflector")?;

    // Another filter is no reset and withdraws nothing. FRR that has connected to us as we to it
    // may have taken the end of the one connection for that of the other, and established two.
    let before = established(&frr)?;
    let filtered = REFLECTED.replace("asNumber: 64512}", "asNumber: 64512, filters: [marked]}");
    node.store.write("bgp.yaml", &(filtered + FILTERED))?;
    wait::until(2 * LIMIT, "the community at FRR", || {
        let all = frr.vtysh("show bgp ipv4 unicast community 64512:99");
        let all = all.map_err(|error| format!("{error:#}"))?;
        if all.contains("10.244.") {
            Ok(())
        } else {
            Err(all)
        }
    })?;
    ensure!(before == established(&frr)?, "a session was reset");
    let withdrawn = |line: &&str| line.contains("withdrawn") && line.contains("10.244.");
    let log = frr.log();
    let withdrawn: Vec<_> = log.lines().filter(withdrawn).collect();
    ensure!(withdrawn.is_empty(), "{withdrawn:?}");

    node.store.write("bgp.yaml", "# the mesh again\n")?;
    wait_sessions(&node.agent, &["Node/n2"])?;
    wait_sessions(&other, &["Node/n1"])?;
    netns.iter().try_for_each(wait_blocks)?;
    nothing_went("back to the mesh")
}
