//! Pods and workload endpoints -> what the policy compiler sees.

use crate::objects::Objects;
use ipnet::IpNet;
use model::{Pod, WorkloadEndpoint};
use policy::{Endpoint, EndpointId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Identity of an interface of a pod on this node, as the runtime names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointKey {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl EndpointKey {
    /// The key of a workload endpoint.
    pub fn of(endpoint: &WorkloadEndpoint) -> Self {
        Self {
            container_id: endpoint.container_id.clone(),
            ifname: endpoint.endpoint.clone(),
        }
    }
}

/// A pod of this node, from CNI or from the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// What is known about it.
    pub endpoint: WorkloadEndpoint,
    /// Interface index of its host end.
    pub ifindex: u32,
    /// MTU of its link.
    pub mtu: u32,
    /// Order of creation; larger is later.
    pub sequence: u64,
}

/// Ports of the node -> ports of pods, of pods in the order of their making: of two that claim one
/// port (sandboxes of one pod), the later has it.
pub(crate) fn host_ports<'a>(
    pods: impl Iterator<Item = &'a LocalEndpoint>,
) -> BTreeMap<policy::HostPort, SocketAddr> {
    let mut ports = BTreeMap::new();
    for WorkloadEndpoint {
        host_ports,
        ip_networks,
        ..
    } in pods.map(|pod| &pod.endpoint)
    {
        for port in host_ports {
            for ip in ip_networks.iter().map(IpNet::addr) {
                let any: IpAddr = match ip {
                    IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                let address = port.host_ip.unwrap_or(any);
                if address.is_ipv4() == ip.is_ipv4() {
                    let key = policy::HostPort {
                        address,
                        protocol: port.protocol.number(),
                        port: port.host_port,
                    };
                    ports.insert(key, SocketAddr::new(ip, port.port));
                }
            }
        }
    }
    ports
}

/// The compiler's id of a workload endpoint.
pub(crate) fn id(endpoint: &WorkloadEndpoint) -> EndpointId {
    EndpointId(format!("{}/{}", endpoint.namespace, endpoint.name))
}

/// What the compiler sees of an endpoint: labels and ports of the Pod object where there is one,
/// those given to CNI otherwise. None for pods that are no subject of policy and no peer: those
/// in the host's network, and finished ones, whose addresses may be somebody else's.
pub(crate) fn seen(
    endpoint: &WorkloadEndpoint,
    local: Option<u32>,
    objects: &Objects,
) -> Option<Endpoint> {
    let named = objects.pod(&endpoint.namespace, &endpoint.pod);
    // A pod that was made again under the same name is another pod.
    let pod = named.filter(|pod| match (&pod.uid, &endpoint.pod_uid) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    });
    if pod.is_some_and(|pod| pod.host_network || (pod.finished && local.is_none())) {
        return None;
    }
    // Its own object will come: until then its labels are unknown, unless CNI gave some.
    let labels_known = pod.is_some() || named.is_none() || !endpoint.labels.is_empty();
    let service_account = service_account(pod);
    Some(Endpoint {
        namespace: endpoint.namespace.clone(),
        pod: endpoint.pod.clone(),
        labels: pod.map_or_else(|| endpoint.labels.clone(), |pod| pod.labels.clone()),
        ports: pod.map_or_else(|| endpoint.ports.clone(), |pod| pod.ports.clone()),
        ips: endpoint
            .ip_networks
            .iter()
            .map(ipnet::IpNet::addr)
            .collect::<Vec<IpAddr>>(),
        local,
        labels_known,
        profiles: profiles(&endpoint.namespace, &service_account),
        service_account: Some(service_account),
    })
}

/// A pod that has no endpoint, as if it had this address.
pub(crate) fn standing_at(pod: &Pod, address: IpAddr) -> Endpoint {
    let service_account = service_account(Some(pod));
    Endpoint {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        labels: pod.labels.clone(),
        ports: pod.ports.clone(),
        ips: vec![address],
        local: None,
        labels_known: true,
        profiles: profiles(&pod.namespace, &service_account),
        service_account: Some(service_account),
    }
}

fn service_account(pod: Option<&Pod>) -> String {
    pod.and_then(|pod| pod.service_account.clone())
        .unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.to_owned())
}

/// What a pod runs as that names no service account.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// The profiles that Calico gives to every pod of Kubernetes: of its namespace, and of its service
/// account.
fn profiles(namespace: &str, service_account: &str) -> Vec<String> {
    vec![
        format!("kns.{namespace}"),
        format!("ksa.{namespace}.{service_account}"),
    ]
}
