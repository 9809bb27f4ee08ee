//! Pods and workload endpoints -> what the policy compiler sees.

use crate::objects::Objects;
use ipnet::IpNet;
use model::{Pod, Text, WorkloadEndpoint};
use policy::{Endpoint, EndpointId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

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
            container_id: endpoint.container_id.to_string(),
            ifname: endpoint.endpoint.to_string(),
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
    EndpointId(format!("{}/{}", endpoint.namespace, endpoint.name).into())
}

/// What the compiler sees of an endpoint: labels and ports of the Pod object where there is one,
/// those given to CNI otherwise. None for pods that are no subject of policy and no peer: those
/// in the host's network, and finished ones, whose addresses may be somebody else's.
pub(crate) fn seen(
    endpoint: &WorkloadEndpoint,
    local: Option<u32>,
    objects: &Objects,
) -> Option<Endpoint> {
    let pod = own_object(endpoint, objects);
    if pod.is_some_and(|pod| pod.host_network || (pod.finished && local.is_none())) {
        return None;
    }
    let labels_known = !awaits_labels(endpoint, local.is_some(), objects);
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

/// The Pod object of an endpoint: a pod that was made again under the same name is another pod.
fn own_object<'a>(endpoint: &WorkloadEndpoint, objects: &'a Objects) -> Option<&'a Pod> {
    let named = objects.pod(&endpoint.namespace, &endpoint.pod);
    named.filter(|pod| match (&pod.uid, &endpoint.pod_uid) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    })
}

/// Whether an endpoint's own Pod object is still to come, and CNI gave no labels instead. An object
/// comes of a pod whose name has one, and of a pod of this node that the runtime named by UID.
pub fn awaits_labels(endpoint: &WorkloadEndpoint, local: bool, objects: &Objects) -> bool {
    let named = objects.pod(&endpoint.namespace, &endpoint.pod).is_some();
    let expected = named || (local && endpoint.pod_uid.is_some());
    expected && endpoint.labels.is_empty() && own_object(endpoint, objects).is_none()
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

fn service_account(pod: Option<&Pod>) -> Text {
    pod.and_then(|pod| pod.service_account.clone())
        .unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.into())
}

/// What a pod runs as that names no service account.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// The profiles that Calico gives to every pod of Kubernetes: of its namespace, and of its service
/// account.
fn profiles(namespace: &str, service_account: &str) -> Arc<[Text]> {
    [
        format!("kns.{namespace}").into(),
        format!("ksa.{namespace}.{service_account}").into(),
    ]
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{HostPort, Labels, Protocol};

    fn pod(sequence: u64, ips: &[&str], host_ports: Vec<HostPort>) -> LocalEndpoint {
        let endpoint = WorkloadEndpoint {
            namespace: "shop".into(),
            name: format!("n1-k8s-web{sequence}-eth0").into(),
            node: "n1".into(),
            pod: "web".into(),
            pod_uid: None,
            container_id: format!("sandbox{sequence}").into(),
            endpoint: "eth0".into(),
            interface_name: format!("oci{sequence}").into(),
            mac: [2, 0, 0, 0, 0, 1],
            ip_networks: ips.iter().map(|ip| IpNet::from(address(ip))).collect(),
            labels: Labels::new(),
            ports: vec![].into(),
            host_ports,
        };
        LocalEndpoint {
            endpoint,
            ifindex: 7,
            mtu: 1500,
            sequence,
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn port(host_ip: Option<&str>, host_port: u16) -> HostPort {
        HostPort {
            host_ip: host_ip.map(address),
            host_port,
            protocol: Protocol::Tcp,
            port: 80,
        }
    }

    fn shown(pods: &[LocalEndpoint]) -> Vec<String> {
        let ports = host_ports(pods.iter());
        let show = |(key, to): (&policy::HostPort, &SocketAddr)| {
            format!("{} {} {} -> {to}", key.address, key.protocol, key.port)
        };
        ports.iter().map(show).collect()
    }

    #[test]
    fn a_port_leads_to_the_pods_address_of_its_family() {
        let both = ["10.244.0.5", "fd00::5"];
        assert_eq!(
            shown(&[pod(1, &both, vec![port(None, 8080)])]),
            [
                "0.0.0.0 6 8080 -> 10.244.0.5:80",
                ":: 6 8080 -> [fd00::5]:80"
            ]
        );
        assert_eq!(
            shown(&[pod(1, &both, vec![port(Some("10.0.0.1"), 8080)])]),
            ["10.0.0.1 6 8080 -> 10.244.0.5:80"]
        );
        let no_address = shown(&[pod(1, &both[..1], vec![port(Some("fd00::1"), 8080)])]);
        assert!(no_address.is_empty(), "{no_address:?}");
    }

    #[test]
    fn of_two_sandboxes_of_a_pod_the_later_has_the_port() {
        let wanted = || vec![port(None, 8080)];
        let pods = [
            pod(1, &["10.244.0.5"], wanted()),
            pod(2, &["10.244.0.6"], wanted()),
        ];
        assert_eq!(shown(&pods), ["0.0.0.0 6 8080 -> 10.244.0.6:80"]);
    }
}
