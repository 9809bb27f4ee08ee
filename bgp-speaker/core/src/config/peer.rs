//! What a session with one peer is like.

use super::Password;
use crate::bfd;
use crate::filter::Filter;
use crate::wire::Family;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

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
