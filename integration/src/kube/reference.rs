//! The network that Ocicat is compared with: the reference plugins `ptp` and `host-local`, and
//! static routes between the nodes.

use super::cluster::Cluster;
use super::shape::{NODES, ROUTERS};
use anyhow::{Context, Result};

const FORWARDING: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];

/// Gives every node a network of the reference plugins, and waits until all are Ready.
pub(super) fn install(cluster: &Cluster) -> Result<()> {
    for node in &NODES {
        for parameter in FORWARDING {
            cluster.netns(node.name).set_sysctl(parameter, "1")?;
        }
        let cidrs = cluster.kubectl(&[
            "get",
            "node",
            node.name,
            "-o",
            "jsonpath={.spec.podCIDRs[*]}",
        ])?;
        let mut ranges = Vec::new();
        for cidr in cidrs.split_whitespace() {
            ranges.push(format!(r#"[{{"subnet":"{cidr}"}}]"#));
            let gateway = if cidr.contains(':') {
                node.ipv6
            } else {
                node.ipv4
            };
            let route = format!("route replace {cidr} via {gateway}");
            cluster.netns(node.router).ip([&route])?;
            for other in NODES
                .iter()
                .filter(|o| o.router == node.router && o.name != node.name)
            {
                cluster.netns(other.name).ip([&route])?;
            }
            for router in ROUTERS.iter().filter(|router| router.name != node.router) {
                let near = ROUTERS.iter().find(|other| other.name == node.router);
                let near = near.context("invariant: every node has a router")?;
                let gateway = if cidr.contains(':') {
                    near.ipv6
                } else {
                    near.ipv4
                };
                cluster
                    .netns(router.name)
                    .ip([format!("route replace {cidr} via {gateway}")])?;
            }
        }
        let config = format!(
            r#"{{"cniVersion":"0.4.0","name":"reference","plugins":[{{"type":"ptp","mtu":1500,"ipMasq":false,
            "ipam":{{"type":"host-local","ranges":[{}],"routes":[{{"dst":"0.0.0.0/0"}},{{"dst":"::/0"}}]}}}}]}}"#,
            ranges.join(",")
        );
        // Written from inside: a file that appears below an overlay is seen by nobody.
        let write = format!("cat >/etc/cni/net.d/99-reference.conflist <<'END'\n{config}\nEND");
        cluster.exec(node.name, &["sh", "-c", &write])?;
    }
    cluster
        .kubectl(&[
            "wait",
            "--for=condition=Ready",
            "nodes",
            "--all",
            "--timeout=120s",
        ])
        .map(drop)
}

/// Takes the configuration away, so that the next one counts, and what this one needed.
pub(super) fn remove(cluster: &Cluster) -> Result<()> {
    for node in &NODES {
        for parameter in FORWARDING {
            cluster.netns(node.name).set_sysctl(parameter, "0")?;
        }
        cluster.exec(
            node.name,
            &["rm", "-f", "/etc/cni/net.d/99-reference.conflist"],
        )?;
    }
    Ok(())
}
