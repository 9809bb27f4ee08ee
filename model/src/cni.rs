//! The messages between the CNI plugin and the agent.
//!
//! One connection carries one request and one reply. Each is a 4-byte big-endian length and that
//! many bytes of JSON. With ADD and CHECK, two descriptors ride on the request's first byte
//! (SCM_RIGHTS): the pod's network namespace, and a NETLINK_ROUTE socket opened inside it.

use crate::{HostPort, Labels, NamedPort};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Version of these messages. The agent answers any version up to its own.
pub const PROTOCOL_VERSION: u32 = 1;
/// A longer frame is refused.
pub const MAX_FRAME: usize = 1 << 20;

/// What the runtime asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // as in the CNI specification
pub enum Command {
    Add,
    Del,
    Check,
    Status,
    Gc,
}

/// A request of the plugin. Fields that a command does not use are empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
    /// What to do.
    pub command: Command,
    /// `CNI_CONTAINERID`.
    #[serde(default)]
    pub container_id: String,
    /// `CNI_IFNAME`.
    #[serde(default)]
    pub ifname: String,
    /// `CNI_NETNS`, for messages only: the agent resolves no host path.
    #[serde(default)]
    pub netns: String,
    /// The network's `name` in the configuration.
    #[serde(default)]
    pub network: String,
    /// `K8S_POD_NAMESPACE`, or `default`.
    #[serde(default)]
    pub namespace: String,
    /// `K8S_POD_NAME`, or the container id.
    #[serde(default)]
    pub pod: String,
    /// `K8S_POD_UID`.
    #[serde(default)]
    pub pod_uid: Option<String>,
    /// `args.cni.labels` of the configuration.
    #[serde(default)]
    pub labels: Labels,
    /// Named ports (`args.cni.ports`, ours).
    #[serde(default)]
    pub ports: Vec<NamedPort>,
    /// Ports of the node that are to lead to the pod (`runtimeConfig.portMappings`).
    #[serde(default)]
    pub host_ports: Vec<HostPort>,
    /// Addresses asked for (`runtimeConfig.ips`, `args.cni.ips`).
    #[serde(default)]
    pub ips: Vec<IpAddr>,
    /// Pools asked for (`ipam.ipv4_pools`, `ipam.ipv6_pools`): names or CIDRs.
    #[serde(default)]
    pub pools: Vec<String>,
    /// Whether an address of each family is wanted (`ipam.assign_ipv4`, `ipam.assign_ipv6`); none
    /// where that follows from the pools.
    #[serde(default)]
    pub assign_ipv4: Option<bool>,
    #[serde(default)]
    #[allow(missing_docs)] // as above
    pub assign_ipv6: Option<bool>,
    /// MAC asked for (`runtimeConfig.mac`).
    #[serde(default)]
    pub mac: Option<[u8; 6]>,
    /// MTU asked for; none lets the agent choose.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Queues of each end (`num_queues`); none is one.
    #[serde(default)]
    pub queues: Option<u32>,
    /// `cni.dev/valid-attachments` of GC: (container id, interface).
    #[serde(default)]
    pub valid_attachments: Vec<(String, String)>,
    /// Addresses in CHECK's `prevResult`.
    #[serde(default)]
    pub prev_ips: Vec<IpNet>,
    /// Where the time went before this was sent; with ADD, of a plugin that says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<PluginTimes>,
}

/// What the plugin's process has cost when it sends its request, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginTimes {
    /// Since it was forked: on a processor, or ready and without one, or in its own code.
    pub age: u64,
    /// Of these, ready and without a processor (`/proc/PID/schedstat`); 0 where the kernel does
    /// not count it.
    pub runqueue: u64,
    /// `CLOCK_MONOTONIC` when it sends.
    pub sent: u64,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// ADD: the endpoint is programmed, policy included.
    Added(Added),
    /// DEL, CHECK, STATUS and GC: done, healthy, ready.
    Done,
    /// It could not be done.
    Failed(Failure),
}

/// The result of ADD.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Added {
    /// Host end of the veth.
    pub host_interface: String,
    /// MAC of the host end.
    pub host_mac: [u8; 6],
    /// MAC of the pod end.
    pub pod_mac: [u8; 6],
    /// MTU of both ends.
    pub mtu: u32,
    /// The pod's addresses.
    pub ips: Vec<IpNet>,
}

/// An error in the terms of the CNI specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Code of the specification (1 to 99) or ours (100 and up).
    pub code: u32,
    /// What failed, naming the object and the field.
    pub msg: String,
    /// What to do about it, or more of the cause.
    #[serde(default)]
    pub details: String,
}
