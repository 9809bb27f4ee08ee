//! Messages as values.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// AFI and SAFI (RFC 4760).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family {
    /// Address family identifier.
    pub afi: u16,
    /// Subsequent address family identifier.
    pub safi: u8,
}

impl Family {
    /// IPv4 unicast.
    pub const IPV4: Self = Self { afi: 1, safi: 1 };
    /// IPv6 unicast.
    pub const IPV6: Self = Self { afi: 2, safi: 1 };

    /// The unicast family of a prefix.
    pub fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::IPV4,
            IpNet::V6(_) => Self::IPV6,
        }
    }
}

/// What a session has agreed on; decoding and encoding depend on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionParams {
    /// Both sides have announced 4-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// Our AS equals theirs: LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST are meant for us.
    pub ibgp: bool,
    /// Families that both sides announced. Others are ignored on receipt.
    pub families: Vec<Family>,
    /// Families whose NLRI carry path identifiers on receipt (RFC 7911).
    pub add_path_receive: Vec<Family>,
    /// Families whose NLRI carry path identifiers when sent.
    pub add_path_send: Vec<Family>,
    /// IPv4 NLRI may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// Messages up to 65535 bytes (RFC 8654) rather than 4096.
    pub extended_message: bool,
}

/// A decoded message.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // named after the RFC
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, and most are the largest"
)]
pub enum Message {
    Open(Open),
    Update(Update),
    Notification(Notification),
    Keepalive,
    RouteRefresh(RouteRefresh),
}

/// OPEN (RFC 4271 section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// AS number, from the 4-octet capability where there is one.
    pub as_number: u32,
    /// Proposed hold time in seconds: 0 or at least 3.
    pub hold_time: u16,
    /// BGP identifier.
    pub router_id: Ipv4Addr,
    /// Capabilities in the order received.
    pub capabilities: Vec<Capability>,
}

/// A capability (RFC 5492).
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // named after their RFCs
pub enum Capability {
    /// Code 1, RFC 4760.
    MultiProtocol(Family),
    /// Code 2, RFC 2918.
    RouteRefresh,
    /// Code 5, RFC 8950: NLRI family and the AFI of its next hops.
    ExtendedNextHop(Vec<(Family, u16)>),
    /// Code 6, RFC 8654.
    ExtendedMessage,
    /// Code 9, RFC 9234.
    Role(u8),
    /// Code 64, RFC 4724 and RFC 8538.
    GracefulRestart(GracefulRestart),
    /// Code 65, RFC 6793.
    FourOctetAs(u32),
    /// Code 69, RFC 7911: 1 receive, 2 send, 3 both.
    AddPath(Vec<(Family, u8)>),
    /// Code 70, RFC 7313.
    EnhancedRouteRefresh,
    /// Code 71, RFC 9494: family, F bit, stale time in seconds.
    LongLivedGracefulRestart(Vec<(Family, bool, u32)>),
    /// Code 73.
    Fqdn { host: String, domain: String },
    /// Any other, or one of the above whose value could not be read.
    Unknown { code: u8, value: Vec<u8> },
}

/// Graceful restart capability.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: the speaker has restarted.
    pub restarting: bool,
    /// N: NOTIFICATIONs too keep routes (RFC 8538).
    pub notification: bool,
    /// Restart time in seconds, 0 to 4095.
    pub restart_time: u16,
    /// Families, and whether forwarding state was preserved (F).
    pub families: Vec<(Family, bool)>,
}

/// A prefix, with its path identifier where ADD-PATH is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// The prefix; host bits are zero.
    pub prefix: IpNet,
    /// Path identifier (RFC 7911), 0 without.
    pub path_id: u32,
}

/// UPDATE (RFC 4271 section 4.3), with multiprotocol attributes unfolded and RFC 7606 applied.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// Prefixes withdrawn, of any family; includes those treated as withdrawn.
    pub withdrawn: Vec<Nlri>,
    /// Prefixes announced, of any family.
    pub announced: Vec<Announced>,
    /// Path attributes of all that is announced, without next hops and NLRI.
    pub attributes: Attributes,
    /// End-of-RIB marker (RFC 4724 section 2).
    pub end_of_rib: Option<Family>,
    /// What was wrong with it and did not end the session, for counters and the log.
    pub faults: Vec<AttributeFault>,
}

/// Prefixes of one family with their next hop.
#[derive(Debug, Clone, PartialEq)]
pub struct Announced {
    /// The next hop.
    pub next_hop: NextHop,
    /// The prefixes.
    pub nlri: Vec<Nlri>,
}

/// A next hop; IPv6 ones may carry a link-local address too (RFC 2545).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The global address (or the link-local one where it is the only one).
    pub address: IpAddr,
    /// The link-local address of a 32-byte next hop.
    pub link_local: Option<Ipv6Addr>,
}

/// ORIGIN.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // as in the RFC
pub enum Origin {
    #[default]
    Igp,
    Egp,
    Incomplete,
}

/// AS_PATH: segments in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath(pub Vec<AsSegment>);

/// A segment of an AS_PATH. Sets are accepted from the wire only to be refused (RFC 9774).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // as in the RFC
pub enum AsSegment {
    Sequence(Vec<u32>),
    Set(Vec<u32>),
}

/// Path attributes, without MP_REACH_NLRI, MP_UNREACH_NLRI and NEXT_HOP.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attributes {
    /// Type 1.
    pub origin: Origin,
    /// Type 2, AS4_PATH merged in.
    pub as_path: AsPath,
    /// Type 4.
    pub med: Option<u32>,
    /// Type 5; only from iBGP peers.
    pub local_pref: Option<u32>,
    /// Type 6.
    pub atomic_aggregate: bool,
    /// Type 7: AS number and address.
    pub aggregator: Option<(u32, Ipv4Addr)>,
    /// Type 8 (RFC 1997), in the order received.
    pub communities: Vec<u32>,
    /// Type 9 (RFC 4456); only from iBGP peers.
    pub originator_id: Option<Ipv4Addr>,
    /// Type 10.
    pub cluster_list: Vec<Ipv4Addr>,
    /// Type 16 (RFC 4360).
    pub extended_communities: Vec<[u8; 8]>,
    /// Type 32 (RFC 8092).
    pub large_communities: Vec<[u32; 3]>,
    /// Type 35 (RFC 9234).
    pub otc: Option<u32>,
    /// Unknown transitive attributes, passed on byte for byte with the Partial bit set.
    pub unknown: Vec<UnknownAttribute>,
}

/// An attribute that we do not interpret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownAttribute {
    /// Optional, Transitive and Partial as received; the other bits say nothing about the value.
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// Value as received.
    pub value: Vec<u8>,
}

/// NOTIFICATION (RFC 4271 section 4.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// Data; the text of RFC 9003 for Cease 2 and 4.
    pub data: Vec<u8>,
}

/// ROUTE-REFRESH (RFC 2918, RFC 7313).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Which family.
    pub family: Family,
    /// 0 request, 1 begin, 2 end.
    pub subtype: u8,
}

/// What RFC 7606 wants done about a malformed attribute that does not end the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The attribute was left out, the routes kept.
    AttributeDiscard,
    /// The routes were withdrawn.
    TreatAsWithdraw,
}

/// A malformed attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeFault {
    /// Its type code; 0 where none could be read.
    pub code: u8,
    /// What was done.
    pub disposition: Disposition,
    /// What was wrong, in words.
    pub reason: &'static str,
}
