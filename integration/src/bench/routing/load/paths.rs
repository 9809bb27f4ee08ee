//! The ways from a client to a server on another node that are loaded.

use super::client::Line;
use crate::bench::routing::Way;
use crate::bench::routing::hand::{self, Between};
use crate::bench::routing::ours::{Cluster, join};
use crate::bench::routing::pair::Pair;
use crate::lab::{Lab, Netns};
use crate::vm::kernel_has_ipip;
use anyhow::Result;

/// One of them.
pub(super) struct Path {
    pub(super) name: &'static str,
    pub(super) line: Line,
    _cluster: Option<Cluster>,
}

impl Path {
    fn by_hand(name: &'static str, pair: &Pair) -> Result<Self> {
        Ok(Self {
            name,
            line: Line::open(pair)?,
            _cluster: None,
        })
    }

    fn ours(lab: &Lab, name: &'static str, way: Way) -> Result<Self> {
        let cluster = Cluster::start(lab, way)?;
        Ok(Self {
            name,
            line: Line::open(&cluster.two_nodes)?,
            _cluster: Some(cluster),
        })
    }
}

/// All that this kernel can have; it says which it can't. The first is from node to node, without
/// pods, tables and tracking: what the others are compared with.
pub(super) fn build(lab: &Lab) -> Result<Vec<Path>> {
    let mut paths = vec![
        Path::by_hand("host", &host(lab)?)?,
        Path::ours(lab, "native", Way::Native)?,
    ];
    match kernel_has_ipip()? {
        true => paths.push(Path::ours(lab, "ipip", Way::Ipip)?),
        false => missing("ipip"),
    }
    paths.push(Path::ours(lab, "vxlan", Way::Vxlan)?);
    let flannel = hand::two_nodes(lab, Way::Vxlan, Between::Bridge)?;
    paths.push(Path::by_hand("bridge_vxlan", &flannel)?);
    match ipvlan(lab)? {
        Some(pair) => paths.push(Path::by_hand("ipvlan", &pair)?),
        None => missing("ipvlan"),
    }
    Ok(paths)
}

fn missing(name: &str) {
    println!("load_{name}: not in this kernel");
}

fn nodes(lab: &Lab, name: &str) -> Result<[Netns; 2]> {
    let nodes = [
        lab.netns(&format!("{name}1"))?,
        lab.netns(&format!("{name}2"))?,
    ];
    join(lab, &nodes)?;
    Ok(nodes)
}

fn host(lab: &Lab) -> Result<Pair> {
    let [client, server] = nodes(lab, "host")?;
    Pair::new(&client, &server, [10, 1, 0, 12].into())
}

/// A pod on each of two nodes that shares its node's interface (`ipvlan`, mode L3); none where the
/// kernel lacks it.
fn ipvlan(lab: &Lab) -> Result<Option<Pair>> {
    let nodes = nodes(lab, "ipvlan")?;
    let mut pods = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let (near, far) = (at + 1, 2 - at);
        let pod = lab.netns(&format!("ipvlan-pod{near}"))?;
        let made = node.ip([format!(
            "link add ip0 link eth0 netns {} type ipvlan mode l3",
            pod.full_name()
        )]);
        match made {
            Ok(()) => {}
            Err(error) if format!("{error:#}").contains("Unknown device type") => return Ok(None),
            Err(error) => return Err(error),
        }
        pod.ip([
            "link set ip0 up".to_owned(),
            format!("addr add 10.244.{near}.1/32 dev ip0"),
            "route add default dev ip0".to_owned(),
        ])?;
        node.ip([format!("route add 10.244.{far}.0/24 via 10.1.0.1{far}")])?;
        pods.push(pod);
    }
    Pair::new(&pods[0], &pods[1], [10, 244, 2, 1].into()).map(Some)
}
