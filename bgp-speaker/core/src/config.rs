//! What a speaker is told to do. A new value replaces the old one; only what differs is touched.

use crate::bfd;
use crate::wire::Family;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// RFC 4271 section 3.
const BGP_PORT: u16 = 179;

/// Configuration of a speaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// Our AS number.
    pub local_as: u32,
    /// Our BGP identifier (RFC 4271 section 4.2).
    pub router_id: Ipv4Addr,
    /// TCP port to listen on; 0 means that nobody can connect to us.
    pub listen_port: u16,
    /// Our IPv4 address as a next hop. Without it the session's own address is used if it is IPv4.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Our IPv6 address as a next hop. Without it the session's own address is used if it is IPv6.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Cluster identifier for route reflection (RFC 4456); the router identifier without it.
    pub cluster_id: Option<Ipv4Addr>,
    /// The peers.
    pub peers: BTreeMap<PeerKey, PeerConfig>,
}

impl SpeakerConfig {
    /// The cluster identifier in force.
    pub fn cluster_id(&self) -> Ipv4Addr {
        self.cluster_id.unwrap_or(self.router_id)
    }
}

/// Identity of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerKey {
    /// Its address.
    pub address: IpAddr,
    /// The TCP port that it listens on.
    pub port: u16,
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port == BGP_PORT {
            return self.address.fmt(f);
        }
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// Configuration of a session with one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// What asked for the session, such as `Node/n2` or `BGPPeer/rack1`; in every message about it.
    pub name: String,
    /// The AS number that the peer must have.
    pub remote_as: u32,
    /// Our AS number towards this peer, if not the speaker's.
    pub local_as: Option<u32>,
    /// Never connect, only accept.
    pub passive: bool,
    /// Hold time that we propose, in seconds: 0 (none) or at least 3.
    pub hold_time: u16,
    /// Greatest interval between attempts to connect.
    pub connect_retry: Duration,
    /// Restart time that we announce (RFC 4724), in seconds, 0 to 4095; 0 announces no graceful restart.
    pub restart_time: u16,
    /// How often our own AS number may stand in a received AS_PATH.
    pub allow_own_as: u8,
    /// GTSM (RFC 5082): greatest number of hops to the peer. Packets are sent with TTL 255, and
    /// received ones with a TTL below 256 less this are dropped by the kernel.
    pub ttl_security: Option<u8>,
    /// The peer may be more than one hop away although its AS differs from ours.
    pub multihop: bool,
    /// Address to connect from.
    pub source_address: Option<IpAddr>,
    /// Network device that the session is bound to (`SO_BINDTODEVICE`), such as a VRF.
    pub bind_device: Option<String>,
    /// Password of TCP MD5 signatures (RFC 2385). Another one takes effect without a reset.
    pub password: Option<Password>,
    /// Whether and how BFD (RFC 5880) watches the path to the peer.
    pub bfd: Option<bfd::Profile>,
    /// The peer is a client of ours (RFC 4456).
    pub route_reflector_client: bool,
    /// Pass on routes of others with their own next hop to an eBGP peer too.
    pub keep_next_hop: bool,
    /// Prefixes over which the session is ended (RFC 4486 subcode 1).
    pub max_prefixes: Option<u32>,
    /// Address families to exchange.
    pub families: Vec<Family>,
    /// What the peer is told.
    pub export: Export,
    /// What is taken from the peer.
    pub import: Import,
}

impl PeerConfig {
    /// A peer with the usual values: both families, hold time 90 s, graceful restart 120 s,
    /// own routes out, everything in.
    pub fn new(name: impl Into<String>, remote_as: u32) -> Self {
        Self {
            name: name.into(),
            remote_as,
            local_as: None,
            passive: false,
            hold_time: 90,
            connect_retry: Duration::from_secs(5),
            restart_time: 120,
            allow_own_as: 0,
            ttl_security: None,
            multihop: false,
            source_address: None,
            bind_device: None,
            password: None,
            bfd: None,
            route_reflector_client: false,
            keep_next_hop: false,
            max_prefixes: None,
            families: vec![Family::IPV4, Family::IPV6],
            export: Export::OwnRoutes,
            import: Import::All,
        }
    }
}

/// A password for TCP MD5 signatures. It shows itself to nobody but [`Password::expose`]'s caller.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// Why a password cannot be one of TCP MD5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a TCP MD5 password has 1 to {} octets, not {octets}",
    Password::MAX_OCTETS
)]
pub struct PasswordError {
    /// Length of what was given.
    pub octets: usize,
}

impl Password {
    /// `TCP_MD5SIG_MAXKEYLEN` of linux/tcp.h.
    pub const MAX_OCTETS: usize = 80;

    /// # Errors
    /// [`PasswordError`] if it is empty or longer than the kernel takes.
    pub fn new(text: impl Into<String>) -> Result<Self, PasswordError> {
        let text = text.into();
        if (1..=Self::MAX_OCTETS).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(PasswordError { octets: text.len() })
        }
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What a peer is told (RFC 8212: always said, never a default).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Export {
    /// Only the local routes of this node.
    OwnRoutes,
    /// The best route to everything.
    All,
}

/// What is taken from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Import {
    /// Every valid route.
    All,
    /// Nothing: routes are kept for inspection but not used.
    None,
}

/// A route that this node originates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalRoute {
    /// Where to.
    pub prefix: IpNet,
    /// Communities (RFC 1997) to announce it with.
    pub communities: Vec<u32>,
}

impl From<IpNet> for LocalRoute {
    fn from(prefix: IpNet) -> Self {
        Self {
            prefix: prefix.trunc(),
            communities: Vec::new(),
        }
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

/// A change to the forwarding table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FibChange {
    /// Forward `prefix` to any of `next_hops`.
    Set {
        /// Where to.
        prefix: IpNet,
        /// Sorted, at least one.
        next_hops: Vec<IpAddr>,
    },
    /// Nobody announces `prefix` any more.
    Remove {
        /// Where to.
        prefix: IpNet,
    },
}

impl FibChange {
    /// The prefix that it is about.
    pub fn prefix(&self) -> IpNet {
        match self {
            Self::Set { prefix, .. } | Self::Remove { prefix } => *prefix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_has_a_length_that_the_kernel_takes_and_is_not_printed() {
        for (octets, valid) in [(0, false), (1, true), (80, true), (81, false)] {
            let password = Password::new("x".repeat(octets));
            assert_eq!(password.is_ok(), valid, "{octets}");
        }
        let mut peer = PeerConfig::new("tor", 65001);
        peer.password = Password::new("hunter2").ok();
        assert!(!format!("{peer:?}").contains("hunter2"));
    }
}
