//! Namespaces, pods and workload endpoints.

use super::Protocol;
use crate::{Labels, Text};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// The annotations of a pod or a namespace whose keys start with
/// [`names::ANNOTATION_PREFIX`](crate::names::ANNOTATION_PREFIX); others are not kept.
pub type Annotations = Labels;

/// Kubernetes `v1/Namespace`. `labels` always hold `kubernetes.io/metadata.name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// What it asks of address assignment for its pods.
    #[serde(default)]
    pub annotations: Annotations,
}

/// Kubernetes `v1/Pod`: what selectors and named ports need. Its addresses come from the
/// [`WorkloadEndpoint`], which the node's agent writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: Text,
    /// Its name.
    pub name: Text,
    /// Its UID, if known.
    pub uid: Option<Text>,
    /// Its labels; they replace those of the workload endpoint.
    pub labels: Labels,
    /// `spec.serviceAccountName`, if known.
    pub service_account: Option<Text>,
    /// What it asks of address assignment.
    #[serde(default)]
    pub annotations: Annotations,
    /// Named container ports.
    #[serde(with = "shared_list")]
    pub ports: Arc<[NamedPort]>,
    /// `spec.hostNetwork`: never a subject of policy nor a selector peer.
    pub host_network: bool,
    /// `status.phase` Succeeded or Failed: its addresses may be somebody else's already.
    pub finished: bool,
    /// Its condition `Ready` is True. Of a pod of another node this is not read.
    #[serde(default)]
    pub ready: bool,
}

/// A shared list reads and writes as any list does.
mod shared_list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        list: &Arc<[T]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter())
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<[T]>, D::Error> {
        Vec::deserialize(deserializer).map(Into::into)
    }
}

/// A container port with a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number, 1 to 65535.
    pub port: u16,
}

/// A port of the node that leads to a container port (`hostPort`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// The node's address; none is any of the node's addresses, of both families.
    #[serde(default)]
    pub host_ip: Option<IpAddr>,
    /// The node's port, 1 to 65535.
    pub host_port: u16,
    /// Protocol of both.
    pub protocol: Protocol,
    /// The pod's port, 1 to 65535.
    pub port: u16,
}

/// Calico `WorkloadEndpoint`: one interface of one pod, written by the agent of the pod's node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadEndpoint {
    /// The pod's namespace.
    pub namespace: Text,
    /// `<node>-k8s-<pod>-<interface>` with dashes doubled inside the parts, as Calico names it.
    pub name: Text,
    /// The node that the pod runs on.
    pub node: Text,
    /// The pod's name.
    pub pod: Text,
    /// The pod's UID, if the runtime told it.
    pub pod_uid: Option<Text>,
    /// The runtime's container (sandbox) id.
    pub container_id: Text,
    /// The interface inside the pod, such as `eth0`.
    pub endpoint: Text,
    /// The host end of the veth.
    pub interface_name: Text,
    /// MAC of the pod's end.
    pub mac: [u8; 6],
    /// The pod's addresses, each /32 or /128.
    pub ip_networks: Vec<IpNet>,
    /// Labels given to CNI; those of the [`Pod`] object replace them where there is one.
    pub labels: Labels,
    /// Named ports given to CNI; those of the [`Pod`] object replace them where there is one.
    #[serde(with = "shared_list")]
    pub ports: Arc<[NamedPort]>,
    /// Ports of the node that lead to it.
    #[serde(default)]
    pub host_ports: Vec<HostPort>,
}

impl WorkloadEndpoint {
    /// The name of the endpoint of a pod's interface, as Calico builds it: dashes inside the parts
    /// are doubled.
    pub fn name_of(node: &str, pod: &str, interface: &str) -> String {
        let doubled = |part: &str| part.replace('-', "--");
        format!(
            "{}-k8s-{}-{}",
            doubled(node),
            doubled(pod),
            doubled(interface)
        )
    }
}
