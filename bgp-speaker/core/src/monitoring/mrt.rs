//! Records of MRT files (RFC 6396, RFC 8050): messages and changes of state as they come, and the
//! table at a moment.

use super::{Monitored, MonitoredEvent, MonitoredPeer, messages};
use crate::wire::{Attributes, NextHop, SessionParams, encode_attributes};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const TABLE_DUMP_V2: u16 = 13;
const BGP4MP_ET: u16 = 17;
/// States of RFC 6396 section 4.4.1.
const IDLE: u16 = 1;
const OPEN_CONFIRM: u16 = 5;
const ESTABLISHED: u16 = 6;

/// What happened at `time` since 1970, as one or several BGP4MP_ET records, appended to `out`.
pub fn encode(monitored: &Monitored, time: Duration, out: &mut Vec<u8>) {
    let peer = &monitored.peer;
    match &monitored.event {
        MonitoredEvent::Up { .. } => state_change(peer, time, [OPEN_CONFIRM, ESTABLISHED], out),
        MonitoredEvent::Down(_) => state_change(peer, time, [ESTABLISHED, IDLE], out),
        MonitoredEvent::Updates(updates) => {
            let subtype = match (peer.four_octet_as, peer.add_path) {
                (true, false) => 4,
                (true, true) => 9,
                (false, false) => 1,
                (false, true) => 8,
            };
            for update in messages(updates) {
                extended(subtype, time, out, |out| {
                    peers(peer, peer.four_octet_as, out);
                    out.extend_from_slice(update);
                });
            }
        }
    }
}

/// Writes the records of a table, one after another.
#[derive(Debug)]
pub struct TableWriter {
    time: Duration,
    sequence: u32,
    octets: Vec<u8>,
}

/// A peer that has routes in the table. Index 0 of the records means the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TablePeer {
    /// Its address; unspecified for our own routes.
    pub address: IpAddr,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Its AS number.
    pub remote_as: u32,
}

/// A path of a peer in the table.
#[derive(Debug, Clone, Copy)]
pub struct TablePath<'a> {
    /// Place of the peer in the list of them.
    pub peer: u16,
    /// Path identifier (RFC 7911); 0 without.
    pub path_id: u32,
    /// Attributes without next hop.
    pub attributes: &'a Attributes,
    /// The next hop; none for our own routes.
    pub next_hop: Option<NextHop>,
}

impl TableWriter {
    /// Begins a table as it is at `time` since 1970, with the peers in it (section 4.3.1). Peers
    /// beyond 65535 are left out.
    pub fn new(collector: Ipv4Addr, table_peers: &[TablePeer], time: Duration) -> Self {
        const PEER_INDEX_TABLE: u16 = 1;
        const IPV6: u8 = 1;
        const FOUR_OCTET_AS: u8 = 2;
        let count = u16::try_from(table_peers.len()).unwrap_or(u16::MAX);
        let mut octets = Vec::new();
        record(TABLE_DUMP_V2, PEER_INDEX_TABLE, time, &mut octets, |out| {
            out.extend(collector.octets());
            // No view name.
            out.extend(0_u16.to_be_bytes());
            out.extend(count.to_be_bytes());
            for peer in table_peers.iter().take(count.into()) {
                let version = if peer.address.is_ipv6() { IPV6 } else { 0 };
                out.push(FOUR_OCTET_AS | version);
                out.extend(peer.router_id.octets());
                super::address(peer.address, out);
                out.extend(peer.remote_as.to_be_bytes());
            }
        });
        Self {
            time,
            sequence: 0,
            octets,
        }
    }

    /// Adds a prefix with its paths (section 4.3.2; RFC 8050 if one has a path identifier). When a
    /// path was learned is not known; the time of the table stands for it.
    pub fn prefix(&mut self, prefix: IpNet, paths: &[TablePath<'_>]) {
        let add_path = paths.iter().any(|path| path.path_id != 0);
        let subtype = match (prefix, add_path) {
            (IpNet::V4(_), false) => 2,
            (IpNet::V6(_), false) => 4,
            (IpNet::V4(_), true) => 8,
            (IpNet::V6(_), true) => 10,
        };
        let (time, sequence) = (self.time, self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
        record(TABLE_DUMP_V2, subtype, time, &mut self.octets, |out| {
            out.extend(sequence.to_be_bytes());
            out.push(prefix.prefix_len());
            let start = out.len();
            super::address(prefix.network(), out);
            out.truncate(start + usize::from(prefix.prefix_len().div_ceil(8)));
            let count = u16::try_from(paths.len()).unwrap_or(u16::MAX);
            out.extend(count.to_be_bytes());
            for path in paths.iter().take(count.into()) {
                out.extend(path.peer.to_be_bytes());
                out.extend(seconds(time).to_be_bytes());
                if add_path {
                    out.extend(path.path_id.to_be_bytes());
                }
                let attributes = attributes(path);
                out.extend((attributes.len() as u16).to_be_bytes());
                out.extend(attributes);
            }
        });
    }

    /// The records.
    pub fn finish(self) -> Vec<u8> {
        self.octets
    }
}

/// AS numbers have four octets, and MP_REACH_NLRI is the next hop alone (section 4.3.4).
fn attributes(path: &TablePath<'_>) -> Vec<u8> {
    const OPTIONAL: u8 = 0x80;
    const MP_REACH_NLRI: u8 = 14;
    let params = SessionParams {
        four_octet_as: true,
        // LOCAL_PREF where there is one, and the attributes of reflection.
        ibgp: path.attributes.local_pref.is_some(),
        ..SessionParams::default()
    };
    let address = path.next_hop.map(|next_hop| next_hop.address);
    let classic = match address {
        Some(IpAddr::V4(address)) => Some(address),
        Some(IpAddr::V6(_)) | None => None,
    };
    let mut out = Vec::new();
    encode_attributes(path.attributes, classic, &params, &mut out);
    if let (Some(IpAddr::V6(address)), Some(next_hop)) = (address, path.next_hop) {
        let link_local = next_hop.link_local.map(|address| address.octets());
        let length = if link_local.is_some() { 32 } else { 16 };
        out.extend([OPTIONAL, MP_REACH_NLRI, length + 1, length]);
        out.extend(address.octets());
        out.extend(link_local.into_iter().flatten());
    }
    out
}

/// Section 4.4.4 (BGP4MP_STATE_CHANGE_AS4).
fn state_change(peer: &MonitoredPeer, time: Duration, states: [u16; 2], out: &mut Vec<u8>) {
    extended(5, time, out, |out| {
        peers(peer, true, out);
        out.extend(states.into_iter().flat_map(u16::to_be_bytes));
    });
}

/// Both ends of the session, as all subtypes of BGP4MP begin.
fn peers(peer: &MonitoredPeer, four_octet_as: bool, out: &mut Vec<u8>) {
    const AS_TRANS: u16 = 23456;
    const NO_INTERFACE: u16 = 0;
    for number in [peer.remote_as, peer.local_as] {
        if four_octet_as {
            out.extend(number.to_be_bytes());
        } else {
            out.extend(u16::try_from(number).unwrap_or(AS_TRANS).to_be_bytes());
        }
    }
    out.extend(NO_INTERFACE.to_be_bytes());
    let family: u16 = if peer.remote.is_ipv6() { 2 } else { 1 };
    out.extend(family.to_be_bytes());
    super::address(peer.remote.ip(), out);
    super::address(peer.local.ip(), out);
}

/// Section 3: the microseconds belong to the length.
fn extended(subtype: u16, time: Duration, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    record(BGP4MP_ET, subtype, time, out, |out| {
        out.extend(time.subsec_micros().to_be_bytes());
        body(out);
    });
}

/// Section 2.
fn record(
    kind: u16,
    subtype: u16,
    time: Duration,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>),
) {
    out.extend(seconds(time).to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(subtype.to_be_bytes());
    let place = out.len();
    out.extend([0; 4]);
    body(out);
    let length = u32::try_from(out.len() - place - 4).unwrap_or(u32::MAX);
    out[place..place + 4].copy_from_slice(&length.to_be_bytes());
}

/// Both formats have 32 bits for it.
pub(super) fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
