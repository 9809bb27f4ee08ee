//! Calico `FelixConfiguration`: the settings that mean something here. Each is `None` where the
//! manifest does not have it, so that `node.<name>` overrides `default` field by field.

use super::Protocol;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Settings of all nodes (`default`) or of one (`node.<name>`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FelixConfiguration {
    /// Its name.
    pub name: String,
    /// Ports of the node that policy of host endpoints never closes to the outside.
    pub failsafe_inbound_host_ports: Option<Vec<FailsafePort>>,
    /// Ports elsewhere that policy of host endpoints never closes to the node.
    pub failsafe_outbound_host_ports: Option<Vec<FailsafePort>>,
    /// What happens to packets of pods to their own node after policy allowed them.
    pub default_endpoint_to_host_action: Option<EndpointToHostAction>,
    /// What happens to packets to Service addresses that no Service has.
    pub service_loop_prevention: Option<ServiceLoopPrevention>,
    /// Let pods send IPIP themselves.
    pub allow_ipip_packets_from_workloads: Option<bool>,
    /// Let pods send VXLAN themselves.
    pub allow_vxlan_packets_from_workloads: Option<bool>,
    /// Hosts outside of the cluster from which IPIP is taken.
    pub external_nodes: Option<Vec<IpNet>>,
    /// Source ports of masqueraded connections, first to last; 0 to 0 is the kernel's choice.
    pub nat_port_range: Option<(u16, u16)>,
    /// Source address of masqueraded connections.
    pub nat_outgoing_address: Option<Ipv4Addr>,
    /// Which destinations are not masqueraded.
    pub nat_outgoing_exclusions: Option<NatOutgoingExclusions>,
    /// MTU of the IPIP device and of its pods; 0 is found out.
    pub ipip_mtu: Option<u32>,
    /// MTU of the VXLAN device; 0 is found out.
    pub vxlan_mtu: Option<u32>,
    /// MTU of the IPv6 VXLAN device; 0 is found out.
    pub vxlan_mtu_v6: Option<u32>,
    /// UDP port of VXLAN (4789).
    pub vxlan_port: Option<u16>,
    /// Network identifier of VXLAN, 1 to 16777215 (4096).
    pub vxlan_vni: Option<u32>,
    /// Source address of routes to pods of this node.
    pub device_route_source_address: Option<Ipv4Addr>,
    /// Likewise for IPv6.
    pub device_route_source_address_ipv6: Option<Ipv6Addr>,
    /// Prefix of log lines of `Log` rules.
    pub log_prefix: Option<String>,
}

/// A port that stays open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FailsafePort {
    /// Its protocol (TCP).
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
    /// Only from or to here; none is anywhere.
    pub net: Option<IpNet>,
}

impl FelixConfiguration {
    /// Fields of `spec` that ask for encryption between nodes. There is none here: an object that
    /// asks for it is invalid, and a node that it is for is not ready.
    pub const ENCRYPTION_FIELDS: [&'static str; 4] = [
        "ipsecMode",
        "wireguardEnabled",
        "wireguardEnabledV6",
        "wireguardHostEncryptionEnabled",
    ];

    /// Whether an object of this name is for `node`.
    pub fn is_for(name: &str, node: &str) -> bool {
        name == "default" || name.strip_prefix("node.") == Some(node)
    }

    /// What stays open to the node where nothing is configured.
    pub fn default_failsafe_inbound() -> Vec<FailsafePort> {
        failsafe(&[68], &[22])
    }

    /// What stays open from the node where nothing is configured.
    pub fn default_failsafe_outbound() -> Vec<FailsafePort> {
        failsafe(&[53, 67], &[])
    }
}

/// BGP, etcd, Typha and the Kubernetes API, besides what is named.
fn failsafe(udp: &[u16], tcp: &[u16]) -> Vec<FailsafePort> {
    const CONTROL_PLANE: [u16; 7] = [179, 2379, 2380, 5473, 6443, 6666, 6667];
    let port = |protocol| {
        move |port: &u16| FailsafePort {
            protocol,
            port: *port,
            net: None,
        }
    };
    let tcp = tcp.iter().chain(&CONTROL_PLANE).map(port(Protocol::Tcp));
    udp.iter().map(port(Protocol::Udp)).chain(tcp).collect()
}

/// `defaultEndpointToHostAction`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EndpointToHostAction {
    /// Denied.
    Drop,
    /// Allowed, whatever the host's own firewall says.
    Accept,
    /// Left to the host's own firewall.
    Return,
}

/// `serviceLoopPrevention`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum ServiceLoopPrevention {
    Drop,
    Reject,
    Disabled,
}

/// `natOutgoingExclusions`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NatOutgoingExclusions {
    /// Those in a pool.
    IpPoolsOnly,
    /// Those in a pool, and nodes.
    IpPoolsAndHostIps,
}
