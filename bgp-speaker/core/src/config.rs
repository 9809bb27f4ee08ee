//! What a speaker is told to do. A new value replaces the old one; only what differs is touched.

use crate::bfd;
use crate::filter::Filter;
use crate::wire::Family;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

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

/// The AS number that a peer must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteAs {
    /// This one.
    Number(u32),
    /// Ours.
    Internal,
    /// Any but ours.
    External,
    /// Any.
    Auto,
}

impl From<u32> for RemoteAs {
    fn from(number: u32) -> Self {
        Self::Number(number)
    }
}

impl fmt::Display for RemoteAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Internal => f.write_str("internal"),
            Self::External => f.write_str("external"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// What a BGP session is between (RFC 9234 section 3): our own place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// We give the peer transit.
    Provider,
    /// We are a route server.
    RouteServer,
    /// We are a client of a route server.
    RouteServerClient,
    /// The peer gives us transit.
    Customer,
    /// Neither gives the other transit.
    Peer,
}

/// ADD-PATH (RFC 7911): several paths to one prefix in one session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddPath {
    /// Take several paths to a prefix from the peer.
    pub receive: bool,
    /// Tell the peer up to so many paths to a prefix; 0: only the best one.
    pub send: u8,
}

/// The next hop of routes of others that a peer is told. Our own routes have our address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum NextHopMode {
    /// As RFC 4271 section 5.1.3 has it: that of the route towards internal peers, ours towards
    /// external ones.
    #[default]
    Auto,
    /// Our address, towards internal peers too.
    Own,
    /// That of the route, towards external peers too.
    Keep,
}

/// How many prefixes of a family a peer may announce, and what follows if there are more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixLimit {
    /// The greatest number of prefixes of one family.
    pub maximum: u32,
    /// A notice is given at this share of the maximum, in per cent; over 100 there is none.
    pub warn_at: u8,
    /// What follows.
    pub excess: Excess,
}

impl PrefixLimit {
    /// The session is ended and tried again after a minute.
    pub fn new(maximum: u32) -> Self {
        Self {
            maximum,
            warn_at: 75,
            excess: Excess::Restart(Duration::from_secs(60)),
        }
    }
}

/// What follows from too many prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// A notice, nothing else.
    Warn,
    /// The session is ended (Cease, RFC 4486 subcode 1), and started again after this time.
    Restart(Duration),
    /// The session is ended until its configuration changes or it is reset by hand.
    Idle,
}

/// Configuration of a session with one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// What asked for the session, such as `Node/n2` or `BGPPeer/rack1`; in every message about it.
    pub name: String,
    /// The AS number that the peer must have.
    pub remote_as: RemoteAs,
    /// Our AS number towards this peer, if not the speaker's.
    pub local_as: Option<u32>,
    /// Never connect, only accept.
    pub passive: bool,
    /// Down for as long as there is a text here, which the peer is told (RFC 9003); it may be empty.
    pub shutdown: Option<String>,
    /// Hold time that we propose, in seconds: 0 (none) or at least 3.
    pub hold_time: u16,
    /// Greatest interval between attempts to connect.
    pub connect_retry: Duration,
    /// How long we wait for the peer's OPEN before we send ours (RFC 4271 section 8.1.1,
    /// DelayOpen); zero sends it at once.
    pub delay_open: Duration,
    /// Restart time that we announce (RFC 4724), in seconds, 0 to 4095; 0 announces no graceful restart.
    pub restart_time: u16,
    /// How long routes of a peer that does not come back are kept as a last resort, and ours are to
    /// be (RFC 9494), in seconds, up to 16777215; 0 announces no long-lived graceful restart.
    pub long_lived_stale_time: u32,
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
    /// Cluster that the client belongs to, if not the speaker's.
    pub cluster_id: Option<Ipv4Addr>,
    /// The next hop of what the peer is told.
    pub next_hop: NextHopMode,
    /// IPv4 routes may have IPv6 next hops, both ways (RFC 8950).
    pub extended_next_hop: bool,
    /// Several paths to one prefix.
    pub add_path: AddPath,
    /// Our place towards the peer; leaked routes are found by it (RFC 9234).
    pub role: Option<Role>,
    /// The peer must say its own place too.
    pub strict_role: bool,
    /// Everything we tell the peer is about to go away (RFC 8326): it is to prefer other paths.
    pub graceful_shutdown: bool,
    /// How many prefixes of each family the peer may announce.
    pub prefix_limit: Option<PrefixLimit>,
    /// Address families to exchange.
    pub families: Vec<Family>,
    /// What the peer is told.
    pub export: Export,
    /// Looked at before `export`: what it accepts is told, what it rejects is not.
    pub export_filter: Arc<Filter>,
    /// What is taken from the peer.
    pub import: Import,
    /// Looked at before `import`: what it accepts is taken, what it rejects is not.
    pub import_filter: Arc<Filter>,
}

impl PeerConfig {
    /// A peer with the usual values: both families, hold time 90 s, graceful restart 120 s,
    /// own routes out, everything in.
    pub fn new(name: impl Into<String>, remote_as: impl Into<RemoteAs>) -> Self {
        Self {
            name: name.into(),
            remote_as: remote_as.into(),
            local_as: None,
            passive: false,
            shutdown: None,
            hold_time: 90,
            connect_retry: Duration::from_secs(5),
            delay_open: Duration::ZERO,
            restart_time: 120,
            long_lived_stale_time: 0,
            allow_own_as: 0,
            ttl_security: None,
            multihop: false,
            source_address: None,
            bind_device: None,
            password: None,
            bfd: None,
            route_reflector_client: false,
            cluster_id: None,
            next_hop: NextHopMode::Auto,
            extended_next_hop: false,
            add_path: AddPath::default(),
            role: None,
            strict_role: false,
            graceful_shutdown: false,
            prefix_limit: None,
            families: vec![Family::IPV4, Family::IPV6],
            export: Export::OwnRoutes,
            export_filter: Arc::default(),
            import: Import::All,
            import_filter: Arc::default(),
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

/// What a peer is told of the routes that its filter leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Export {
    /// Nobody has said: an external peer is told nothing (RFC 8212), an internal one the local
    /// routes of this node.
    Unstated,
    /// Nothing.
    None,
    /// Only the local routes of this node.
    OwnRoutes,
    /// The best route to everything.
    All,
}

/// What is taken from a peer of the routes that its filter leaves open. What is not taken is kept
/// for inspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Import {
    /// Nobody has said: nothing of an external peer (RFC 8212), everything of an internal one.
    Unstated,
    /// Every valid route.
    All,
    /// Nothing.
    None,
}

/// A route that this node originates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalRoute {
    /// Where to.
    pub prefix: IpNet,
    /// Communities (RFC 1997) to announce it with.
    pub communities: Vec<u32>,
    /// Large communities (RFC 8092) to announce it with.
    pub large_communities: Vec<[u32; 3]>,
    /// LOCAL_PREF to announce it with to internal peers, if not 100.
    pub local_pref: Option<u32>,
    /// The interface that packets leave by, for filters.
    pub interface: Option<String>,
    /// Its metric in the kernel, for filters.
    pub priority: Option<u32>,
}

impl From<IpNet> for LocalRoute {
    fn from(prefix: IpNet) -> Self {
        Self {
            prefix: prefix.trunc(),
            communities: Vec::new(),
            large_communities: Vec::new(),
            local_pref: None,
            interface: None,
            priority: None,
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

/// A next hop as the forwarding table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FibNextHop {
    /// Its address; IPv6 for an IPv4 prefix where RFC 8950 is in use.
    pub address: IpAddr,
    /// Index of the interface that a link-local address is on; 0 for any other address.
    pub scope: u32,
    /// Its share of the traffic, 1 to 255, in proportion to those of the others.
    pub weight: u8,
}

impl From<IpAddr> for FibNextHop {
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            scope: 0,
            weight: 1,
        }
    }
}

/// A change to the forwarding table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FibChange {
    /// Forward `prefix` to any of `next_hops`.
    Set {
        /// Where to.
        prefix: IpNet,
        /// Sorted, at least one.
        next_hops: Vec<FibNextHop>,
        /// The metric that an import filter has set, if one has.
        priority: Option<u32>,
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
