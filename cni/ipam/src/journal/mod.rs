//! The journal: what makes addresses and endpoints survive a crash of the agent.
//!
//! A file is [`HEADER`] and records. A record is three big-endian 32-bit words and a payload:
//! length of the payload, CRC-32C of the length's four bytes, CRC-32C of the payload; the payload
//! is JSON. The length has a checksum of its own, so that a flipped bit in it is told apart from
//! a record that a crash cut short.
//!
//! The caller appends [`encode`]d records, and writes [`compact`]'s bytes to a new file that
//! replaces the old one when it has grown. After a crash it cuts the file to
//! [`Replay::valid_len`] and goes on.

mod frame;
mod state;

pub use state::{Live, State, compact};

use crate::Owner;
use ipnet::IpNet;
use model::{IpamBlock, WorkloadEndpoint};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// First bytes of a journal: a name and the version of its format.
pub const HEADER: [u8; 8] = *b"OCIJRNL\x01";

/// No record is longer; a greater length is damage.
pub const MAX_RECORD: usize = 1 << 20;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // most records are endpoints
pub enum Record {
    /// A block was claimed.
    Block(IpamBlock),
    /// A block was given back, or lost to somebody else.
    BlockGone(IpNet),
    /// An endpoint was set up, or changed; written before ADD answers.
    Endpoint {
        /// The endpoint with its addresses.
        endpoint: WorkloadEndpoint,
        /// Index of the host end.
        ifindex: u32,
        /// MTU of both ends.
        mtu: u32,
        /// Tells this use of the addresses from earlier and later ones.
        sequence: u64,
        /// The CNI network that it was made for; empty where that is not known.
        #[serde(default)]
        network: String,
    },
    /// An endpoint was taken down. Without effect unless `sequence` is that of the live one.
    EndpointGone {
        /// The container.
        container_id: String,
        /// The interface inside the pod.
        ifname: String,
        /// The endpoint's sequence number.
        sequence: u64,
        /// When, in milliseconds: its addresses cool down from here.
        at_ms: u64,
    },
    /// This node's own address on a tunnel device: taken, replaced, or none any more.
    Tunnel {
        /// The device.
        device: String,
        /// The address.
        ip: Option<IpAddr>,
        /// When, in milliseconds: the one before cools down from here.
        at_ms: u64,
    },
    /// An address that cools down (from compaction).
    Cooldown {
        /// The address.
        ip: IpAddr,
        /// When it was released, in milliseconds.
        at_ms: u64,
    },
    /// The next sequence number is at least this (from compaction).
    NextSequence(u64),
}

impl Record {
    /// Whose addresses the record is about.
    pub fn owner(&self) -> Option<Owner> {
        match self {
            Self::Endpoint { endpoint, .. } => Some(Owner::from(endpoint)),
            Self::EndpointGone {
                container_id,
                ifname,
                ..
            } => Some(Owner {
                container_id: container_id.clone(),
                ifname: ifname.clone(),
            }),
            Self::Tunnel { device, .. } => Some(Owner::tunnel(device)),
            Self::Block(_) | Self::BlockGone(_) | Self::Cooldown { .. } | Self::NextSequence(_) => {
                None
            }
        }
    }
}

impl From<&WorkloadEndpoint> for Owner {
    fn from(endpoint: &WorkloadEndpoint) -> Self {
        Self {
            container_id: endpoint.container_id.to_string(),
            ifname: endpoint.endpoint.to_string(),
        }
    }
}

/// Bytes that cannot be what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("journal damaged at byte {offset}: {reason}")]
pub struct Corruption {
    /// Where the damaged record (or header) starts.
    pub offset: usize,
    /// What is wrong with it.
    pub reason: CorruptionReason,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorruptionReason {
    /// The first bytes are not [`HEADER`]: another file, or a version that is not known.
    #[error("it is not a journal of version {}", HEADER[7])]
    Header,
    /// The length's checksum is wrong, or the length greater than [`MAX_RECORD`].
    #[error("the length of the record is damaged")]
    Length,
    /// The payload's checksum is wrong.
    #[error("the checksum of the record is wrong")]
    Checksum,
    /// Intact, but not a record that is known.
    #[error("the record is not understood: {0}")]
    Unknown(String),
}

/// What a journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The intact records from the start.
    pub records: Vec<Record>,
    /// Length of these records and the header. What follows is cut off before writing on; 0 asks
    /// for [`HEADER`] first.
    pub valid_len: usize,
    /// Why it stops before the end, other than by a crash in the middle of the last write.
    pub corrupt: Option<Corruption>,
}

/// The bytes of one record.
pub fn encode(record: &Record) -> Vec<u8> {
    let payload =
        serde_json::to_vec(record).expect("invariant: a record has string keys and no floats");
    frame::wrap(&payload)
}

/// Reads a journal up to its end, the last complete record, or the first damage.
pub fn replay(bytes: &[u8]) -> Replay {
    let stop = |records, valid_len, corrupt| Replay {
        records,
        valid_len,
        corrupt,
    };
    let damage = |offset, reason| Some(Corruption { offset, reason });
    if bytes.len() < HEADER.len() && HEADER.starts_with(bytes) {
        return stop(Vec::new(), 0, None);
    }
    if !bytes.starts_with(&HEADER) {
        return stop(Vec::new(), 0, damage(0, CorruptionReason::Header));
    }
    let (mut records, mut offset) = (Vec::new(), HEADER.len());
    loop {
        let reason = match frame::unwrap(&bytes[offset..]) {
            Ok(None) => return stop(records, offset, None),
            Ok(Some(payload)) => match serde_json::from_slice(payload) {
                Ok(record) => {
                    records.push(record);
                    offset += frame::OVERHEAD + payload.len();
                    continue;
                }
                Err(error) => CorruptionReason::Unknown(error.to_string()),
            },
            Err(reason) => reason,
        };
        return stop(records, offset, damage(offset, reason));
    }
}

#[cfg(test)]
mod tests;
