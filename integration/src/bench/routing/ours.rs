//! Two nodes with agents, and pods made by CNI.

use super::Way;
use super::pair::Pair;
use crate::lab::link::End;
use crate::lab::pod::{Plugin, PodSpec};
use crate::lab::{Agent, Lab, Netns, Pod, Store};
use anyhow::Result;
use std::fmt::Write;
use std::time::Duration;

/// Until an agent is ready: it has policies to read first, in an emulated guest for minutes.
const LIMIT: Duration = Duration::from_secs(300);
/// Policies on the servers.
const POLICIES: usize = 1000;

/// Agents and their pods.
pub(super) struct Cluster {
    pub(super) one_node: Pair,
    pub(super) two_nodes: Pair,
    _pods: Vec<Pod>,
    _agents: Vec<Agent>,
}

impl Cluster {
    pub(super) fn start(lab: &Lab, way: Way) -> Result<Self> {
        let prefix = format!("{way:?}").to_lowercase();
        let nodes = [
            lab.netns(&format!("{prefix}1"))?,
            lab.netns(&format!("{prefix}2"))?,
        ];
        join(lab, &nodes)?;
        let store = Store::new(lab.dir().join(format!("store-{prefix}")))?;
        for (number, node) in (1..).zip(&nodes) {
            let object = format!(
                "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: {}}}\n\
                 spec: {{bgp: {{ipv4Address: 10.1.0.1{number}/24}}}}\n",
                node.name()
            );
            store.write(&format!("node{number}.yaml"), &object)?;
        }
        let mode = match way {
            Way::Native => "ipipMode: Never",
            Way::Ipip => "ipipMode: Always",
            Way::Vxlan => "vxlanMode: Always",
        };
        let pool = format!(
            "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: v4}}\n\
             spec: {{cidr: 10.244.0.0/16, {mode}}}\n"
        );
        store.write("pool.yaml", &pool)?;
        store.write("policies.yaml", &policies())?;
        let mut agents = Vec::new();
        for node in &nodes {
            let mut agent = Agent::new(lab, node, node.name(), &store)?;
            agent.start()?;
            agents.push(agent);
        }
        let mut pods = Vec::new();
        for (node, name, app) in [
            (0, "client", "client"),
            (0, "near", "server"),
            (1, "far", "server"),
        ] {
            agents[node].wait_ready(LIMIT)?;
            let plugin = Plugin::ocicat(&agents[node])?;
            let spec = PodSpec {
                namespace: "default".to_owned(),
                name: format!("{prefix}-{name}"),
                labels: [("app".to_owned(), app.to_owned())].into(),
            };
            pods.push(Pod::add(lab, &plugin, spec)?);
        }
        let pair = |server: &Pod| Pair::new(pods[0].netns(), server.netns(), server.ipv4()?);
        Ok(Self {
            one_node: pair(&pods[1])?,
            two_nodes: pair(&pods[2])?,
            _pods: pods,
            _agents: agents,
        })
    }
}

/// Policies that admit nobody, and one that admits the client.
fn policies() -> String {
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n".to_owned();
    for number in 0..POLICIES {
        let app = match number {
            0 => "client".to_owned(),
            _ => format!("nobody-{number}"),
        };
        let _ = write!(
            text,
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: p{number}, namespace: default}}\n\
             spec: {{podSelector: {{matchLabels: {{app: server}}}}, ingress: \
             [{{from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]}}]}}\n"
        );
    }
    text
}

/// A wire between two nodes.
pub(super) fn join(lab: &Lab, nodes: &[Netns; 2]) -> Result<()> {
    lab.wire(
        &End {
            netns: &nodes[0],
            interface: "eth0",
            addresses: &["10.1.0.11/24"],
        },
        &End {
            netns: &nodes[1],
            interface: "eth0",
            addresses: &["10.1.0.12/24"],
        },
    )
}
