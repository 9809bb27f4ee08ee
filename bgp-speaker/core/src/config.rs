//! What a speaker is told to do. A new value replaces the old one; only what differs is touched.

mod password;
mod peer;
mod route;

pub use password::{Password, PasswordError};
pub use peer::{
    AddPath, Excess, Export, Import, NextHopMode, PeerConfig, PrefixLimit, RemoteAs, Role,
};
pub use route::{FibChange, FibNextHop, LocalRoute};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// RFC 4271 section 3.
pub(crate) const BGP_PORT: u16 = 179;

/// Configuration of a speaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// Our AS number.
    pub local_as: u32,
    /// Our BGP identifier (RFC 4271 section 4.2).
    pub router_id: Ipv4Addr,
    /// TCP port to listen on; 0 means that nobody can connect to us.
    pub listen_port: u16,
    /// Addresses of ours to listen on; none means all.
    pub listen_addresses: BTreeSet<IpAddr>,
    /// Our IPv4 address as a next hop. Without it the session's own address is used if it is IPv4.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Our IPv6 address as a next hop. Without it the session's own address is used if it is IPv6.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Cluster identifier for route reflection (RFC 4456); the router identifier without it.
    pub cluster_id: Option<Ipv4Addr>,
    /// How paths to one prefix compare.
    pub decision: Decision,
    /// The metric that routes have in the kernel unless an import filter sets another; none where
    /// none are written there.
    pub metric: Option<u32>,
    /// The peers with an address of their own.
    pub peers: BTreeMap<PeerKey, PeerConfig>,
    /// Who may connect without being listed. Where ranges overlap, the longest prefix counts.
    pub dynamic_peers: BTreeMap<IpNet, DynamicPeers>,
    /// Peers found by their link-local address, by name of the interface (unnumbered).
    pub interface_peers: BTreeMap<String, PeerConfig>,
}

impl SpeakerConfig {
    /// A speaker with the usual values, that listens on the port of RFC 4271 and has no peers.
    pub fn new(local_as: u32, router_id: Ipv4Addr) -> Self {
        Self {
            local_as,
            router_id,
            listen_port: BGP_PORT,
            listen_addresses: BTreeSet::new(),
            next_hop_v4: None,
            next_hop_v6: None,
            cluster_id: None,
            decision: Decision::default(),
            metric: None,
            peers: BTreeMap::new(),
            dynamic_peers: BTreeMap::new(),
            interface_peers: BTreeMap::new(),
        }
    }

    /// The cluster identifier in force.
    pub fn cluster_id(&self) -> Ipv4Addr {
        self.cluster_id.unwrap_or(self.router_id)
    }
}

/// How paths to one prefix compare (RFC 4271 section 9.1.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Compare MULTI_EXIT_DISC also between paths by way of different neighbouring ASes.
    pub always_compare_med: bool,
    /// Paths in use at a time; 1 means no multipath.
    pub maximum_paths: u16,
    /// Paths of equal length share traffic whatever ASes they lead through. Without it they share
    /// it only if their AS_PATHs are the same.
    pub as_path_relax: bool,
}

impl Default for Decision {
    /// As Calico has it: all equally good paths are used.
    fn default() -> Self {
        Self {
            always_compare_med: false,
            maximum_paths: 64,
            as_path_relax: true,
        }
    }
}

/// Peers that are told by where they connect from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicPeers {
    /// How many of them there may be at a time.
    pub limit: u32,
    /// What their sessions are like; they are passive.
    pub peer: PeerConfig,
}

/// Identity of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerKey {
    /// Its address.
    pub address: IpAddr,
    /// The TCP port that it listens on.
    pub port: u16,
    /// Index of the interface that a link-local address is on; 0 for any other address.
    #[serde(default)]
    pub scope: u32,
}

impl PeerKey {
    /// A peer with an address that needs no interface.
    pub fn new(address: IpAddr, port: u16) -> Self {
        Self {
            address,
            port,
            scope: 0,
        }
    }

    pub(crate) fn socket_address(&self) -> SocketAddr {
        match self.address {
            IpAddr::V4(address) => SocketAddrV4::new(address, self.port).into(),
            IpAddr::V6(address) => SocketAddrV6::new(address, self.port, 0, self.scope).into(),
        }
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port != BGP_PORT {
            return self.socket_address().fmt(f);
        }
        self.address.fmt(f)?;
        if self.scope != 0 {
            write!(f, "%{}", self.scope)?;
        }
        Ok(())
    }
}
/// What is known about the process before this one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restart {
    /// An earlier process was here, and peers may wait for our End-of-RIB (RFC 4724 section 4.1):
    /// set the R bit in OPENs until a peer's first session or the end of the initial exchange, and
    /// wait for each peer's session as long as its restart time, 30 s at least and 120 s at most.
    pub restarting: bool,
    /// Set the F bit: the kernel goes on forwarding while no speaker runs.
    pub forwarding_preserved: bool,
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A successor follows: connections are closed without a word, so that peers keep our routes.
    Planned,
    /// We leave: peers are told to forget our routes at once (Cease, RFC 4486; hard reset, RFC 8538).
    Drain,
}
