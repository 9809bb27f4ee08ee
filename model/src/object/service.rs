//! Kubernetes `v1/Service`, as far as announcing and allocating its addresses needs it.

use super::Protocol;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `spec.type`
    pub service_type: ServiceType,
    /// `spec.clusterIPs`; empty for a headless Service.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip`
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerIP`: the one that is asked for.
    pub requested_load_balancer_ip: Option<IpAddr>,
    /// `spec.loadBalancerClass`: somebody else allocates its address.
    pub load_balancer_class: Option<String>,
    /// Which nodes take connections from outside.
    pub external_traffic_policy: ExternalTrafficPolicy,
    /// `spec.ipFamilies`, in order.
    pub ip_families: Vec<IpFamily>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Annotations below `projectcalico.org/`, such as `projectcalico.org/loadBalancerIPs`.
    pub annotations: BTreeMap<String, String>,
}

/// `spec.type`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum ServiceType {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

/// `spec.externalTrafficPolicy`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ExternalTrafficPolicy {
    /// Every node, to any endpoint.
    Cluster,
    /// Nodes that have a ready endpoint, to their own.
    Local,
}

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum IpFamily {
    Ipv4,
    Ipv6,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServicePort {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number on the Service's addresses.
    pub port: u16,
    /// Its number on every node's address.
    pub node_port: Option<u16>,
}
