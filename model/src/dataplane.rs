//! Routes, links and neighbours as the kernel has them. `felix-core` wants them, `kernel` applies
//! and reports them.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A route of ours in the main table; its protocol is [`names::RT_PROTOCOL`](crate::names::RT_PROTOCOL).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Route {
    /// Destination; host bits are zero.
    pub dest: IpNet,
    /// Where it leads.
    pub kind: RouteKind,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RouteKind {
    /// Straight out of an interface, scope link: a pod.
    Device {
        /// Interface index.
        ifindex: u32,
    },
    /// Through one or more gateways of equal cost (ECMP), ordered.
    Via(Vec<NextHop>),
    /// Drops silently: the node's own blocks, so that unused addresses do not loop.
    Blackhole,
}

/// A gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NextHop {
    /// Its address, of the route's family (or IPv6 for an IPv4 route, RFC 8950).
    pub gateway: IpAddr,
    /// The interface; none lets the kernel choose by its own routes.
    pub ifindex: Option<u32>,
    /// The gateway is on the link whatever the routes say (`RTNH_F_ONLINK`): tunnels.
    pub onlink: bool,
    /// Its share of the traffic in proportion to those of the others, from 1; 1 where it is alone.
    pub weight: u8,
}

/// A link as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// `IFLA_IFALIAS`.
    pub alias: Option<String>,
    /// `IFLA_INFO_KIND`, such as `veth` or `ipip`.
    pub kind: Option<String>,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Hardware address of Ethernet links.
    pub mac: Option<[u8; 6]>,
}

/// An address of the node itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Interface index.
    pub ifindex: u32,
    /// Address with prefix length, host bits kept.
    pub address: IpNet,
}

/// Both ends of one pod's veth. The host end is named, numbered and aliased by us; the pod end is
/// born inside the pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodLink {
    /// Name of the host end.
    pub host_name: String,
    /// Index asked for the host end.
    pub host_ifindex: u32,
    /// `IFLA_IFALIAS` of the host end.
    pub alias: String,
    /// Name of the pod end, such as `eth0`.
    pub pod_name: String,
    /// MAC of the pod end.
    pub pod_mac: [u8; 6],
    /// MTU of both ends.
    pub mtu: u32,
    /// Transmit and receive queues of each end, from 1.
    pub queues: u32,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// The node's loopback addresses speak to the pod (`route_localnet`): it has host ports.
    pub loopback: bool,
}

/// A neighbour entry that never expires (`NUD_PERMANENT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// Interface index.
    pub ifindex: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: [u8; 6],
}

/// The tunnel device for protocol 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpipDevice {
    /// Its name.
    pub name: String,
    /// Outer source address.
    pub local: std::net::Ipv4Addr,
    /// MTU in bytes.
    pub mtu: u32,
    /// Address on the device: inner source of traffic of the node itself.
    pub address: Option<std::net::Ipv4Addr>,
}

/// The tunnel device for IP in IPv6 (RFC 2473), for packets of both families.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip6Device {
    /// Its name.
    pub name: String,
    /// Outer source address.
    pub local: std::net::Ipv6Addr,
    /// MTU in bytes.
    pub mtu: u32,
    /// Address on the device: inner source of IPv4 traffic of the node itself.
    pub address: Option<std::net::Ipv4Addr>,
}

/// The tunnel device for VXLAN (RFC 7348), one for each family of outer addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanDevice {
    /// Its name.
    pub name: String,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// UDP port of the outer header.
    pub port: u16,
    /// Outer source address.
    pub local: IpAddr,
    /// MTU in bytes.
    pub mtu: u32,
    /// MAC of the device: the inner destination of what is for this node.
    pub mac: [u8; 6],
    /// Address on the device: inner source of IPv4 traffic of the node itself.
    pub address: Option<std::net::Ipv4Addr>,
}

/// A tunnel device, and all that it needs to reach the other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tunnel {
    /// Protocol 4. The gateway of a route is the outer destination.
    Ipip(IpipDevice),
    /// IP in IPv6. The gateway of a route is the outer destination, a node's IPv6 address.
    Ip6(Ip6Device),
    /// VXLAN. The gateway of a route names one of the ends.
    Vxlan {
        /// The device.
        device: VxlanDevice,
        /// The other nodes' ends.
        ends: std::collections::BTreeSet<Vtep>,
    },
}

impl Tunnel {
    /// Name of the device.
    pub fn name(&self) -> &str {
        match self {
            Self::Ipip(device) => &device.name,
            Self::Ip6(device) => &device.name,
            Self::Vxlan { device, .. } => &device.name,
        }
    }

    /// Address on the device: inner source of IPv4 traffic of the node itself.
    pub fn address(&self) -> Option<std::net::Ipv4Addr> {
        match self {
            Self::Ipip(device) => device.address,
            Self::Ip6(device) => device.address,
            Self::Vxlan { device, .. } => device.address,
        }
    }

    /// MTU of the device in bytes.
    pub fn mtu(&self) -> u32 {
        match self {
            Self::Ipip(device) => device.mtu,
            Self::Ip6(device) => device.mtu,
            Self::Vxlan { device, .. } => device.mtu,
        }
    }
}

/// Another node's end of a VXLAN.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vtep {
    /// Outer destination.
    pub underlay: IpAddr,
    /// MAC of its device.
    pub mac: [u8; 6],
    /// Addresses by which routes name it as their gateway.
    pub gateways: std::collections::BTreeSet<IpAddr>,
}

/// The MAC of a node's VXLAN device: a function of its outer address, so that nobody has to be
/// asked. Locally administered.
pub fn vtep_mac(underlay: IpAddr) -> [u8; 6] {
    match underlay {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [0x02, 0x4f, a, b, c, d]
        }
        IpAddr::V6(address) => {
            // FNV-1a, 64 bits: the interface identifier alone is often the same on every subnet.
            let hash = address
                .octets()
                .iter()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                    (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
                });
            let [_, _, a, b, c, d, e, f] = hash.to_be_bytes();
            [(a & 0xfc) | 0x02, b, c, d, e, f]
        }
    }
}

/// The IPv6 gateway that stands for a VXLAN end in routes: link-local, because the kernel refuses a
/// gateway that another interface leads to, on-link or not.
pub fn vtep_gateway(mac: [u8; 6]) -> std::net::Ipv6Addr {
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[10..].copy_from_slice(&mac);
    octets.into()
}
