//! What the routers of a lab are configured with, whichever daemon they run.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A BGP router.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// Its AS number.
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Its sessions.
    pub neighbors: Vec<Neighbor>,
}

/// One session, carrying IPv4 and IPv6 unicast.
#[derive(Debug, Clone)]
pub struct Neighbor {
    /// A name of letters, digits and underscores.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its AS number.
    pub asn: u32,
    /// Our IPv4 address on the common subnet.
    pub local_address: Ipv4Addr,
    /// Our IPv6 address there: the next hop of what we advertise.
    pub local_ipv6: Ipv6Addr,
}
