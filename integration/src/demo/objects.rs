//! The manifests of the demo.

/// A node in a rack.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeSpec {
    pub(super) name: &'static str,
    pub(super) rack: u8,
    pub(super) host: u8,
}

pub(super) const NODES: [NodeSpec; 3] = [
    NodeSpec {
        name: "n1",
        rack: 1,
        host: 11,
    },
    NodeSpec {
        name: "n2",
        rack: 1,
        host: 12,
    },
    NodeSpec {
        name: "n3",
        rack: 2,
        host: 13,
    },
];

impl NodeSpec {
    pub(super) fn ipv4(self) -> String {
        format!("10.10.{}.{}", self.rack, self.host)
    }

    pub(super) fn ipv6(self) -> String {
        format!("fd00:10:{}::{}", self.rack, self.host)
    }
}

/// AS number of the top-of-rack router.
pub(super) fn rack_as(rack: u8) -> u32 {
    65000 + u32::from(rack)
}

/// The Kubernetes namespace of all pods.
pub(super) const NAMESPACE: &str = "demo";

pub(super) fn nodes() -> String {
    let documents = NODES.map(|node| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata:\n  name: {}\n  labels:\n    rack: \"{}\"\n\
             spec:\n  bgp:\n    ipv4Address: {}/24\n    ipv6Address: {}/64\n",
            node.name,
            node.rack,
            node.ipv4(),
            node.ipv6()
        )
    });
    documents.join("---\n")
}

pub(super) fn namespace() -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n")
}

pub(super) fn bgp_configuration() -> &'static str {
    "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata:\n  name: default\n\
     spec:\n  asNumber: 64512\n  nodeToNodeMeshEnabled: true\n"
}

pub(super) fn bgp_peer(rack: u8, asn: u32) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata:\n  name: rack{rack}\n\
         spec:\n  peerIP: 10.10.{rack}.1\n  asNumber: {asn}\n  nodeSelector: rack == '{rack}'\n"
    )
}

pub(super) fn pool_v4(ipip_mode: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: pods-v4\n\
         spec:\n  cidr: 10.244.0.0/16\n  blockSize: 26\n  ipipMode: {ipip_mode}\n  natOutgoing: false\n"
    )
}

pub(super) fn pool_v6() -> &'static str {
    "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: pods-v6\n\
     spec:\n  cidr: fd00:10:244::/56\n  blockSize: 122\n  natOutgoing: false\n"
}

pub(super) fn default_deny() -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: default-deny\n  \
         namespace: {NAMESPACE}\nspec:\n  podSelector: {{}}\n  policyTypes: [Ingress]\n"
    )
}

/// Pods labelled `app: client` may reach port 8080 of those labelled `app: web`.
pub(super) fn allow_client_to_web() -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: client-to-web\n  \
         namespace: {NAMESPACE}\nspec:\n  podSelector:\n    matchLabels:\n      app: web\n  \
         policyTypes: [Ingress]\n  ingress:\n  - from:\n    - podSelector:\n        matchLabels:\n          \
         app: client\n    ports:\n    - protocol: TCP\n      port: 8080\n"
    )
}
