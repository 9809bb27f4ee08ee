//! BGP configuration and peers.

use super::BgpPeerType;
use crate::{Selector, names};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Calico `BGPConfiguration`, the object named `default`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BgpConfiguration {
    /// Its name.
    pub name: String,
    /// AS number of nodes that name none (64512).
    pub as_number: u32,
    /// Whether every node peers with every other (true).
    pub node_to_node_mesh_enabled: bool,
    /// TCP port that every node listens on (179).
    pub listen_port: u16,
    /// Restart time that mesh peers announce, in seconds (120; RFC 4724 allows 0 to 4095).
    pub node_mesh_max_restart_time: u16,
    /// TCP MD5 password of the mesh's sessions.
    pub node_mesh_password: Option<SecretKeyRef>,
    /// Which addresses to listen on.
    pub bind_mode: BindMode,
    /// Interfaces whose addresses and routes are not announced; `*` stands for any characters.
    pub ignored_interfaces: Vec<String>,
    /// Ranges of ClusterIPs to announce.
    pub service_cluster_ips: Vec<IpNet>,
    /// Ranges of which Services' external IPs are announced.
    pub service_external_ips: Vec<IpNet>,
    /// Ranges of which Services' load balancer addresses are announced.
    pub service_load_balancer_ips: Vec<IpNet>,
    /// Announce each range of load balancer addresses as a whole (true), not address by address,
    /// for Services with `externalTrafficPolicy: Cluster`.
    pub service_load_balancer_aggregation: bool,
    /// What to attach to the routes in these prefixes, in the manifest's order.
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
    /// Address by which pods that are BGP peers reach their node.
    pub local_workload_peering_ipv4: Option<Ipv4Addr>,
    /// Likewise for IPv6.
    pub local_workload_peering_ipv6: Option<Ipv6Addr>,
    /// `ocicat.ebgpRequiresPolicy`: an eBGP peer without a filter sends and receives nothing
    /// (RFC 8212; false).
    pub ebgp_requires_policy: bool,
}

impl Default for BgpConfiguration {
    /// What is in force without an object: Calico's defaults.
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            as_number: names::DEFAULT_AS,
            node_to_node_mesh_enabled: true,
            listen_port: names::BGP_PORT,
            node_mesh_max_restart_time: 120,
            node_mesh_password: None,
            bind_mode: BindMode::None,
            ignored_interfaces: Vec::new(),
            service_cluster_ips: Vec::new(),
            service_external_ips: Vec::new(),
            service_load_balancer_ips: Vec::new(),
            service_load_balancer_aggregation: true,
            prefix_advertisements: Vec::new(),
            local_workload_peering_ipv4: None,
            local_workload_peering_ipv6: None,
            ebgp_requires_policy: false,
        }
    }
}

/// Where a node listens for BGP connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BindMode {
    /// On every address.
    None,
    /// On the node's own addresses only.
    NodeIp,
}

/// Properties of the routes that lie in a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixAdvertisement {
    /// The prefix; host bits are zero.
    pub cidr: IpNet,
    /// Communities to attach, names resolved.
    pub communities: Vec<Community>,
    /// LOCAL_PREF to announce to iBGP peers (RFC 4271 section 5.1.5).
    pub local_preference: Option<u32>,
}

/// A BGP community value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Community {
    /// `aa:nn` (RFC 1997).
    Standard(u16, u16),
    /// `aa:nn:mm` (RFC 8092).
    Large(u32, u32, u32),
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(a, b) => write!(f, "{a}:{b}"),
            Self::Large(a, b, c) => write!(f, "{a}:{b}:{c}"),
        }
    }
}

/// The text is not a community.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a community (aa:nn of 16 bits each, or aa:nn:mm of 32 bits each)")]
pub struct CommunityError;

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        fn number<T: FromStr>(part: &str) -> Result<T, CommunityError> {
            let digits = part.bytes().all(|b| b.is_ascii_digit());
            let number = digits.then(|| part.parse().ok()).flatten();
            number.ok_or(CommunityError)
        }
        let parts: Vec<&str> = text.splitn(4, ':').collect();
        match parts.as_slice() {
            [a, b] => Ok(Self::Standard(number(a)?, number(b)?)),
            [a, b, c] => Ok(Self::Large(number(a)?, number(b)?, number(c)?)),
            _ => Err(CommunityError),
        }
    }
}

/// Where a password is kept: a key of a Secret in the agent's namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretKeyRef {
    /// The Secret's name.
    pub name: String,
    /// The key in it.
    pub key: String,
    /// Whether to go on without a password where there is no such key.
    pub optional: bool,
}

/// Calico `BGPPeer`: sessions of the nodes that it selects with a peer, or with several. Exactly
/// one of `peer_ip`, `peer_selector`, `peer_interface`, `peer_prefix` and `local_workload_selector`
/// says with whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BgpPeer {
    /// Its name.
    pub name: String,
    /// The one node that it is for; excludes `node_selector`.
    pub node: Option<String>,
    /// The nodes that it is for.
    pub node_selector: Selector,
    /// The peer's address.
    pub peer_ip: Option<IpAddr>,
    /// The peer's TCP port (179).
    pub peer_port: u16,
    /// Nodes to peer with.
    pub peer_selector: Option<Selector>,
    /// `ocicat.peerInterface`: the router on this link, found by its router advertisements.
    pub peer_interface: Option<String>,
    /// `ocicat.peerPrefix`: whoever connects from here.
    pub peer_prefix: Option<DynamicPeers>,
    /// Pods of this node to peer with.
    pub local_workload_selector: Option<Selector>,
    /// The peer's AS number, 1 to 4294967295.
    pub as_number: Option<u32>,
    /// `ocicat.remoteAS`: which AS numbers to accept from a peer that `as_number` does not name.
    pub remote_as: RemoteAs,
    /// Our AS number towards this peer, if other than the node's.
    pub local_as_number: Option<u32>,
    /// The next hop of what we announce.
    pub next_hop_mode: NextHopMode,
    /// Names of the filters that routes pass, in this order.
    pub filters: Vec<String>,
    /// TCP MD5 password (RFC 2385).
    pub password: Option<SecretKeyRef>,
    /// `sourceAddress: UseNodeIP` (true), or whatever address routing chooses.
    pub use_node_ip: bool,
    /// `ocicat.bindInterface`: the device (or VRF) that the session is bound to.
    pub bind_interface: Option<String>,
    /// `ocicat.passive`: wait for the peer to connect.
    pub passive: bool,
    /// With `peer_selector`: whether selected nodes peer back without an object of their own (true).
    pub reverse_peering: bool,
    /// Restart time that we announce, in seconds (RFC 4724).
    pub max_restart_time: Option<u16>,
    /// `restartMode: LongLivedGracefulRestart`: how long stale routes are kept, in seconds (RFC 9494).
    pub long_lived_stale_time: Option<u32>,
    /// Keepalive interval in seconds; the hold time is three times it unless `hold_time` says other.
    pub keepalive_time: Option<u16>,
    /// `ocicat.holdTime` in seconds: 3 or more.
    pub hold_time: Option<u16>,
    /// How often our own AS may stand in a received path (0).
    pub num_allowed_local_as_numbers: u8,
    /// GTSM (RFC 5082): the greatest number of hops to the peer.
    pub ttl_security: Option<u8>,
    /// The gateway through which the peer is reached, of the peer's family.
    pub reachable_by: Option<IpAddr>,
    /// `failureDetectionMode: BFDIfDirectlyConnected` or `ocicat.bfd`.
    pub bfd: Option<BfdProfile>,
    /// `ocicat.maxPrefixes`: what a peer may send.
    pub max_prefixes: Option<MaxPrefixes>,
    /// `ocicat.role`: our role towards the peer (RFC 9234).
    pub role: Option<BgpRole>,
    /// `ocicat.addPath`: several paths for a prefix (RFC 7911).
    pub add_path: AddPath,
    /// `ocicat.gracefulShutdown`: announce and take routes as a last resort (RFC 8326).
    pub graceful_shutdown: bool,
    /// `ocicat.shutdown`: no session; the text is sent to the peer (RFC 9003).
    pub shutdown: Option<String>,
}

impl BgpPeer {
    /// A peer that selects all nodes and nobody to peer with, with Calico's defaults.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            node: None,
            node_selector: Selector::All,
            peer_ip: None,
            peer_port: names::BGP_PORT,
            peer_selector: None,
            peer_interface: None,
            peer_prefix: None,
            local_workload_selector: None,
            as_number: None,
            remote_as: RemoteAs::Auto,
            local_as_number: None,
            next_hop_mode: NextHopMode::Auto,
            filters: Vec::new(),
            password: None,
            use_node_ip: true,
            bind_interface: None,
            passive: false,
            reverse_peering: true,
            max_restart_time: None,
            long_lived_stale_time: None,
            keepalive_time: None,
            hold_time: None,
            num_allowed_local_as_numbers: 0,
            ttl_security: None,
            reachable_by: None,
            bfd: None,
            max_prefixes: None,
            role: None,
            add_path: AddPath::None,
            graceful_shutdown: false,
            shutdown: None,
        }
    }
}

impl Default for BgpPeer {
    fn default() -> Self {
        Self::new("")
    }
}

/// Peers that are known by where they connect from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DynamicPeers {
    /// Their addresses; host bits are zero.
    pub prefix: IpNet,
    /// How many at once (`ocicat.peerLimit`, 100).
    pub limit: u32,
}

/// Which AS numbers a peer may have that no number is configured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RemoteAs {
    /// Whatever it says in its OPEN.
    Auto,
    /// Of this type only.
    Type(BgpPeerType),
}

/// The next hop of announced routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NextHopMode {
    /// Ourselves for our own routes and to eBGP peers; as received for routes that are reflected.
    Auto,
    /// Ourselves, always.
    OwnAddress,
    /// As received, always (also `keepOriginalNextHop`).
    Keep,
}

/// Bidirectional forwarding detection (RFC 5880) beside a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BfdProfile {
    /// Desired minimum of both intervals, in milliseconds (300).
    pub min_interval_ms: u32,
    /// Detection time as a multiple of the interval (3).
    pub multiplier: u8,
    /// Wait for the peer to begin (section 6.1).
    pub passive: bool,
    /// Also where the peer is not on a link of ours (RFC 5883).
    pub multihop: bool,
}

impl Default for BfdProfile {
    fn default() -> Self {
        Self {
            min_interval_ms: 300,
            multiplier: 3,
            passive: false,
            multihop: false,
        }
    }
}

/// A bound on what a peer sends, for each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MaxPrefixes {
    /// More than this end the session (RFC 4486 subcode 1).
    pub limit: u32,
    /// A warning at this percentage of it (75).
    pub warn_percent: u8,
    /// Seconds until the session is tried again; none is by hand.
    pub restart_after: Option<u32>,
}

/// Our role towards the peer (RFC 9234 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BgpRole {
    /// Which.
    pub name: BgpRoleName,
    /// Refuse a peer that says none (`ocicat.roleStrict`).
    pub strict: bool,
}

/// RFC 9234 table 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum BgpRoleName {
    Provider,
    RouteServer,
    RouteServerClient,
    Customer,
    Peer,
}

/// Which directions carry several paths for a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum AddPath {
    None,
    Receive,
    Send,
    Both,
}
