//! A pod that is a router: BIRD in its namespace peers with the node, and what is behind it is
//! reached from outside.

use crate::node::{LIMIT, Node, SHORT};
use anyhow::Result;
use integration::lab::probe::Protocol;
use integration::lab::{Bird, Probe, wait};

const CONFIGURATION: &str = "apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {localWorkloadPeeringIPV4: 169.254.0.179}
";
const PEER: &str = "apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: inner}
spec:
  localWorkloadSelector: app == 'router' && projectcalico.org/namespace == 'shop'
  asNumber: 65010
  filters: [inner]
";
const FILTER: &str = "apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: inner}
spec:
  importV4: [{action: Accept, matchOperator: In, cidr: 10.123.0.0/16}]
  exportV4: [{action: Reject}]
";
/// What the pod announces: one network that the filter takes, and one that it does not.
const INSIDE: &str = "10.123.0.9";

fn bird(own: &str) -> String {
    format!(
        "log stderr all;\nrouter id {own};\nprotocol device {{ scan time 60; }}\n\
         protocol static {{ ipv4; route 10.123.0.0/24 blackhole; \
         route 198.51.100.0/24 blackhole; }}\n\
         protocol bgp node {{\n local {own} as 65010;\n neighbor 169.254.0.179 as 64512;\n \
         multihop 2;\n connect delay time 1;\n connect retry time 1;\n \
         error wait time 1, 2;\n ipv4 {{ import all; export all; next hop self; }};\n}}\n"
    )
}

/// Waits until the node routes the network behind the pod, or does not.
fn wait_routed(node: &Node, wanted: bool) -> Result<String> {
    wait::until(LIMIT, &format!("a route into the pod: {wanted}"), || {
        let routes = node.routes().map_err(|error| format!("{error:#}"))?;
        if routes.contains("10.123.0.0/24") == wanted {
            Ok(routes)
        } else {
            Err(routes)
        }
    })
}

#[test]
fn a_pod_peers_with_its_node_and_what_is_behind_it_is_reached_until_it_is_selected_no_more()
-> Result<()> {
    let node = Node::started()?;
    node.host.ip(["route add 10.123.0.0/16 via 10.1.0.11"])?;
    node.store.write("configuration.yaml", CONFIGURATION)?;
    node.store.write("filter.yaml", FILTER)?;
    node.store.write("peer.yaml", PEER)?;
    let router = node.member("router", "router")?;
    let other = node.member("other", "web")?;
    let own = router.pod.ipv4()?;
    router
        .pod
        .netns()
        .ip([format!("address add {INSIDE}/32 dev lo")])?;
    let bird = Bird::start_with(&node.lab, router.pod.netns(), &bird(&own.to_string()))?;
    let routes = wait_routed(&node, true)?;
    assert!(
        routes.contains(&format!("10.123.0.0/24 via {own} dev oci")),
        "{routes}"
    );
    assert!(
        !routes.contains("198.51.100"),
        "the filter takes the one network only: {routes}"
    );
    assert_eq!(bird.session("node")?, "Established");
    let told = bird.birdc("show route protocol node")?;
    assert!(
        !told.contains("10.244"),
        "the pod has a default route: {told}"
    );

    let host = Probe::start(&node.host, "host")?;
    wait::until(LIMIT, "a connection to what is behind the pod", || {
        let answer = host.reach(
            Protocol::Tcp,
            INSIDE.parse().expect("an address"),
            8080,
            SHORT,
        );
        answer.map_err(|error| format!("{error:#}"))
    })?;
    // Nobody else may speak for that network.
    other
        .pod
        .netns()
        .ip(["address add 10.123.0.10/32 dev lo"])?;
    let spoofed = other
        .pod
        .netns()
        .run(&["ping", "-c1", "-W1", "-I", "10.123.0.10", "10.1.0.1"]);
    assert!(spoofed.is_err(), "{spoofed:?}");
    let allowed = router
        .pod
        .netns()
        .run(&["ping", "-c1", "-W2", "-I", INSIDE, "10.1.0.1"]);
    allowed?;

    node.store
        .write("peer.yaml", &PEER.replace("'router'", "'nobody'"))?;
    wait_routed(&node, false)?;
    wait::until(LIMIT, "no address for peers", || {
        let all = node.netns.run(&["ip", "address", "show"]);
        let all = all.map_err(|error| format!("{error:#}"))?;
        if all.contains("169.254.0.179") {
            Err(all)
        } else {
            Ok(())
        }
    })
}
