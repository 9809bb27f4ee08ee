//! What is judged: a new connection between two parties.

use crate::endpoint::EndpointId;
use std::net::{IpAddr, SocketAddr};

/// A new connection, as it is after destination NAT and before source NAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Who opens it.
    pub source: Party,
    /// Who accepts it.
    pub destination: Party,
    /// L4 protocol number.
    pub protocol: u8,
    /// Source port, of protocols that have ports.
    pub source_port: Option<u16>,
    /// Destination port, of protocols that have ports.
    pub destination_port: Option<u16>,
    /// Type and code, of ICMP and ICMPv6.
    pub icmp: Option<(u8, u8)>,
    /// Where it went before destination NAT, for policies that look there (`preDNAT`); none where
    /// nothing was translated.
    pub original_destination: Option<SocketAddr>,
}

impl Flow {
    /// A connection without source port, ICMP type and translation.
    pub fn new(
        source: Party,
        destination: Party,
        protocol: u8,
        destination_port: Option<u16>,
    ) -> Self {
        Self {
            source,
            destination,
            protocol,
            source_port: None,
            destination_port,
            icmp: None,
            original_destination: None,
        }
    }
}

/// One end of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Party {
    /// A pod by its name, with one of its addresses.
    Pod(EndpointId, IpAddr),
    /// An address: of whichever pods hold it, of a host endpoint, or of something else.
    Address(IpAddr),
    /// The node that the pod at the other end runs on, with one of its addresses.
    OwnNode(IpAddr),
}

impl Party {
    /// Its address.
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Pod(_, address) | Self::Address(address) | Self::OwnNode(address) => *address,
        }
    }
}

/// Which policies of an endpoint are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Those for what it sends.
    Egress,
    /// Those for what it receives.
    Ingress,
}

/// What a flow is to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPath {
    /// It begins or ends there.
    Local,
    /// The host forwards it.
    Forward,
}
