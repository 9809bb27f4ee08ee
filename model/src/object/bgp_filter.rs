//! Calico `BGPFilter`: which routes a peer may send and is sent.

use super::Community;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A filter that peers name. In each list the first rule that matches decides; a route that no
/// rule matches goes on to the peer's next filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpFilter {
    /// Its name.
    pub name: String,
    /// For IPv4 routes that are announced.
    pub export_v4: Vec<BgpFilterRule>,
    /// For IPv4 routes that are received.
    pub import_v4: Vec<BgpFilterRule>,
    /// For IPv6 routes that are announced.
    pub export_v6: Vec<BgpFilterRule>,
    /// For IPv6 routes that are received.
    pub import_v6: Vec<BgpFilterRule>,
}

/// One rule: everything that it states must match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpFilterRule {
    /// What is done.
    pub action: BgpFilterAction,
    /// Only these prefixes.
    pub prefix: Option<PrefixMatch>,
    /// `source: RemotePeers`: only routes that were learnt from a peer.
    pub from_peers_only: bool,
    /// Only routes out of this interface; `*` stands for any characters.
    pub interface: Option<String>,
    /// Only towards or from peers of this type.
    pub peer_type: Option<BgpPeerType>,
    /// Only routes that carry this community.
    pub community: Option<Community>,
    /// Only routes whose AS path begins so; empty matches all.
    pub as_path_prefix: Vec<u32>,
    /// Only routes of this priority (kernel metric), 1 to 2147483646.
    pub priority: Option<u32>,
    /// Changes to what is accepted, in this order.
    pub operations: Vec<BgpFilterOperation>,
}

impl BgpFilterRule {
    /// A rule that matches every route.
    pub fn every_route(action: BgpFilterAction) -> Self {
        Self {
            action,
            prefix: None,
            from_peers_only: false,
            interface: None,
            peer_type: None,
            community: None,
            as_path_prefix: Vec::new(),
            priority: None,
            operations: Vec::new(),
        }
    }
}

/// What a rule does with a route that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum BgpFilterAction {
    Accept,
    Reject,
}

/// `cidr`, `matchOperator` and `prefixLength`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PrefixMatch {
    /// The prefix; host bits are zero.
    pub cidr: IpNet,
    /// How a route's prefix compares to it.
    pub operator: MatchOperator,
    /// Shortest length that `In` and `NotIn` speak of (that of `cidr`).
    pub min_length: u8,
    /// Longest length that `In` and `NotIn` speak of (32 or 128).
    pub max_length: u8,
}

/// `matchOperator`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum MatchOperator {
    Equal,
    NotEqual,
    In,
    NotIn,
}

/// Type of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BgpPeerType {
    /// In another AS: `eBGP`, `External`.
    External,
    /// In our AS: `iBGP`, `Internal`.
    Internal,
}

/// One change to a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BgpFilterOperation {
    /// Adds a community.
    AddCommunity(Community),
    /// Removes a community, which need not be there (ours).
    RemoveCommunity(Community),
    /// Puts AS numbers in front of the path: it then begins with the first of them.
    PrependAsPath(Vec<u32>),
    /// Sets the priority (kernel metric), 1 to 2147483646.
    SetPriority(u32),
    /// Sets LOCAL_PREF (ours).
    SetLocalPreference(u32),
    /// Sets MULTI_EXIT_DISC (ours).
    SetMed(u32),
}
