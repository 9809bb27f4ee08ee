//! BGP configuration and peers.

use crate::Selector;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Calico `BGPConfiguration`, the object named `default`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Calico `BGPPeer`: a session of the nodes that it selects with one address, or with the nodes
/// that `peer_selector` selects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpPeer {
    /// Its name.
    pub name: String,
    /// The one node that it is for; excludes `node_selector`.
    pub node: Option<String>,
    /// The nodes that it is for.
    pub node_selector: Selector,
    /// The peer's address; excludes `peer_selector`.
    pub peer_ip: Option<IpAddr>,
    /// The peer's TCP port (179).
    pub peer_port: u16,
    /// The peer's AS number, 1 to 4294967295; required with `peer_ip`.
    pub as_number: Option<u32>,
    /// Nodes to peer with.
    pub peer_selector: Option<Selector>,
    /// Our AS number towards this peer, if other than the node's.
    pub local_as_number: Option<u32>,
    /// Advertise routes of others with their own next hop (`keepOriginalNextHop`, `nextHopMode: Keep`).
    pub keep_original_next_hop: bool,
    /// Restart time that we announce, in seconds.
    pub max_restart_time: Option<u16>,
    /// Keepalive interval in seconds; the hold time is three times it.
    pub keepalive_time: Option<u16>,
    /// How often our own AS may stand in a received path (0).
    pub num_allowed_local_as_numbers: u8,
    /// GTSM (RFC 5082): the greatest number of hops to the peer.
    pub ttl_security: Option<u8>,
}
