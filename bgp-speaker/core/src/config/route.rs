//! Routes of this node, and what the kernel is to forward by.

use ipnet::IpNet;
use std::net::IpAddr;

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
        /// Its metric: what an import filter has set, or that of all ([`SpeakerConfig::metric`]).
        ///
        /// [`SpeakerConfig::metric`]: super::SpeakerConfig::metric
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
