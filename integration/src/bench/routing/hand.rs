//! The same by hand, as any administrator would.

use super::Way;
use super::ours::join;
use super::pair::Pair;
use crate::lab::link::End;
use crate::lab::{Lab, Netns};
use anyhow::Result;

/// What is between two pods of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Between {
    Routes,
    Bridge,
}

/// Two pods on one node.
pub(super) fn one_node(lab: &Lab, between: Between) -> Result<Pair> {
    let name = format!("{between:?}").to_lowercase();
    let node = node(lab, &name)?;
    if between == Between::Bridge {
        bridge(&node, "10.244.0.254/24")?;
    }
    let mut pods = Vec::new();
    for number in [1, 2] {
        let (end, address) = (format!("v{number}"), format!("10.244.0.{number}"));
        match between {
            Between::Routes => pods.push(routed(lab, &node, &name, &end, &address)?),
            Between::Bridge => pods.push(bridged(lab, &node, &name, &end, &address)?),
        }
    }
    Pair::new(&pods[0], &pods[1], [10, 244, 0, 2].into())
}

/// A pod on each of two nodes; what is between each pod and its node's way to the other.
pub(super) fn two_nodes(lab: &Lab, way: Way, between: Between) -> Result<Pair> {
    let name = format!("hand-{way:?}-{between:?}").to_lowercase();
    let nodes = [
        node(lab, &format!("{name}1"))?,
        node(lab, &format!("{name}2"))?,
    ];
    join(lab, &nodes)?;
    let mut pods = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let (near, far) = (at + 1, 2 - at);
        let address = format!("10.244.{near}.1");
        let end = format!("v{near}");
        pods.push(match between {
            Between::Routes => routed(lab, node, &name, &end, &address)?,
            Between::Bridge => {
                bridge(node, &format!("10.244.{near}.254/24"))?;
                let pod = bridged(lab, node, &name, &end, &address)?;
                pod.ip([format!("route add default via 10.244.{near}.254")])?;
                pod
            }
        });
        let (to, via) = (format!("10.244.{far}.0/24"), format!("10.1.0.1{far}"));
        match way {
            Way::Native => node.ip([format!("route add {to} via {via}")])?,
            Way::Ipip => node.ip([
                format!("link add ip0 type ipip local 10.1.0.1{near} ttl inherit"),
                "link set ip0 mtu 1480 up".to_owned(),
                format!("route add {to} via {via} dev ip0 onlink"),
            ])?,
            Way::Vxlan => {
                node.ip([
                    format!(
                        "link add vx0 address 02:00:00:00:00:0{near} type vxlan id 7 dstport 4789 \
                         local 10.1.0.1{near} nolearning"
                    ),
                    "link set vx0 mtu 1450 up".to_owned(),
                    format!("neigh add {via} lladdr 02:00:00:00:00:0{far} dev vx0 nud permanent"),
                    format!("route add {to} via {via} dev vx0 onlink"),
                ])?;
                let entry = format!("bridge fdb append 02:00:00:00:00:0{far} dev vx0 dst {via}");
                node.run(&entry.split(' ').collect::<Vec<_>>())?;
            }
        }
        let mtu = match way {
            Way::Native => 1500,
            Way::Ipip => 1480,
            Way::Vxlan => 1450,
        };
        pods[at].ip([format!("link set eth0 mtu {mtu}")])?;
    }
    Pair::new(&pods[0], &pods[1], [10, 244, 2, 1].into())
}

/// A namespace that forwards and tracks connections.
fn node(lab: &Lab, name: &str) -> Result<Netns> {
    let node = lab.netns(name)?;
    node.set_sysctl("net.ipv4.ip_forward", "1")?;
    node.run(&[
        "nft",
        "add table ip track; add chain ip track f { type filter hook forward priority 0; }; \
         add rule ip track f ct state established,related accept",
    ])?;
    Ok(node)
}

/// A pod on a wire of its own, with the node as its gateway.
fn routed(lab: &Lab, node: &Netns, stage: &str, end: &str, address: &str) -> Result<Netns> {
    let pod = lab.netns(&format!("{stage}-{end}"))?;
    wire(lab, &pod, node, end, &format!("{address}/32"))?;
    pod.ip([
        "route add 169.254.1.1 dev eth0",
        "route add default via 169.254.1.1 dev eth0",
    ])?;
    node.ip([
        format!("address add 169.254.1.1/32 dev {end}"),
        format!("route add {address}/32 dev {end}"),
    ])?;
    Ok(pod)
}

/// A bridge with the address that is its pods' gateway.
fn bridge(node: &Netns, address: &str) -> Result<()> {
    node.ip([
        "link add br0 type bridge".to_owned(),
        "link set br0 up".to_owned(),
        format!("addr add {address} dev br0"),
    ])
}

/// A pod on the node's bridge.
fn bridged(lab: &Lab, node: &Netns, stage: &str, end: &str, address: &str) -> Result<Netns> {
    let pod = lab.netns(&format!("{stage}-{end}"))?;
    wire(lab, &pod, node, end, &format!("{address}/24"))?;
    node.ip([format!("link set {end} master br0")])?;
    Ok(pod)
}

fn wire(lab: &Lab, pod: &Netns, node: &Netns, end: &str, address: &str) -> Result<()> {
    lab.wire(
        &End {
            netns: pod,
            interface: "eth0",
            addresses: &[address],
        },
        &End {
            netns: node,
            interface: end,
            addresses: &[],
        },
    )
}
