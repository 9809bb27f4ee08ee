//! What a speaker tells those who watch it: the BGP Monitoring Protocol (RFC 7854) and MRT files
//! (RFC 6396). Values in, octets out; time is an argument.

pub mod bmp;
pub mod mrt;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// A peer whose session is, or was, Established.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitoredPeer {
    /// Its end of the connection.
    pub remote: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Its AS number.
    pub remote_as: u32,
    /// Our AS number towards it.
    pub local_as: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// AS_PATH in its messages has 4-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// NLRI in its messages have path identifiers (RFC 7911).
    pub add_path: bool,
}

/// Something that happened to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitored {
    /// To whom.
    pub peer: Arc<MonitoredPeer>,
    /// What.
    pub event: MonitoredEvent,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MonitoredEvent {
    /// The session is Established.
    Up {
        /// Our OPEN, whole.
        sent_open: Arc<[u8]>,
        /// Theirs.
        received_open: Arc<[u8]>,
    },
    /// What UPDATEs have changed in the Adj-RIB-In before import policy, as whole UPDATE messages
    /// one after another. What RFC 7606 takes for withdrawn is withdrawn here.
    Updates(Vec<u8>),
    /// The session has ended.
    Down(DownReason),
}

/// Why a session has ended (RFC 7854 section 4.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownReason {
    /// We sent this NOTIFICATION, whole.
    Sent(Vec<u8>),
    /// The peer sent this one.
    Received(Vec<u8>),
    /// The connection is gone without one.
    Lost,
    /// The peer is configured no more.
    Deconfigured,
}

/// The messages in a run of them.
pub(crate) fn messages(mut octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = octets.get(16..18)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let (message, rest) = octets.split_at_checked(length)?;
        octets = rest;
        Some(message)
    })
}

/// The address as 4 or 16 octets.
fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => out.extend(address.octets()),
        IpAddr::V6(address) => out.extend(address.octets()),
    }
}

#[cfg(test)]
mod tests;
