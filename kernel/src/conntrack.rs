//! Tracked connections: which there are, marking and forgetting them
//! (`linux/netfilter/nfnetlink_conntrack.h`).

use crate::kernel::{OpenError, open};
use crate::netlink::{Attributes, Encoder, Flags, Frame, NetlinkError, Protocol, Socket, be_u16};
use std::net::IpAddr;

/// `NFNL_SUBSYS_CTNETLINK << 8` with `IPCTNL_MSG_CT_NEW`, `_GET`, `_DELETE`.
const NEW: u16 = 1 << 8;
const GET: u16 = NEW | 1;
const DELETE: u16 = NEW | 2;

/// `enum ctattr_type`.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const MARK: u16 = 8;
const ID: u16 = 12;
const ZONE: u16 = 18;
const MARK_MASK: u16 = 21;
/// `enum ctattr_tuple`, `ctattr_ip`, `ctattr_l4proto`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const V4_SOURCE: u16 = 1;
const V4_DESTINATION: u16 = 2;
const V6_SOURCE: u16 = 3;
const V6_DESTINATION: u16 = 4;
const PROTO_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
const ICMP_TYPE: u16 = 5;
const ICMP_CODE: u16 = 6;
const ICMPV6_TYPE: u16 = 8;
const ICMPV6_CODE: u16 = 9;
/// `IPS_EXPECTED`
const EXPECTED: u32 = 1;

/// Connection tracking of one network namespace, on a socket of its own: reading a large table
/// takes a while and may be done on another thread than [`crate::Kernel`] is used on.
pub struct Conntrack {
    socket: Socket,
}

/// A tracked connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// As its first packet was before any translation.
    pub original: Tuple,
    /// As an answer is: from the destination after translation, to the source after translation.
    pub reply: Tuple,
    /// Its mark.
    pub mark: u32,
    /// What names it to the kernel.
    handle: Handle,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Handle {
    /// `AF_*`
    family: u8,
    original: Box<[u8]>,
    id: Option<[u8; 4]>,
    zone: Option<[u8; 2]>,
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// L4 protocol (`IPPROTO_*`).
    pub protocol: u8,
    /// Where its packets come from.
    pub source: IpAddr,
    /// Where they go to.
    pub destination: IpAddr,
    /// Source and destination port, of protocols that have ports.
    pub ports: Option<(u16, u16)>,
    /// Type and code, of ICMP and ICMPv6.
    pub icmp: Option<(u8, u8)>,
}

/// Connection tracking could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConntrackError {
    /// The table could not be read.
    #[error("tracked connections cannot be read: {0}")]
    Read(NetlinkError),
    /// A connection could not be marked or deleted.
    #[error("the connection {source_address} -> {destination} (protocol {protocol}): {cause}")]
    Write {
        /// Original source.
        source_address: IpAddr,
        /// Original destination.
        destination: IpAddr,
        /// L4 protocol.
        protocol: u8,
        /// What the kernel said.
        cause: NetlinkError,
    },
}

impl Conntrack {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, OpenError> {
        Ok(Self {
            socket: open(Protocol::Netfilter)?,
        })
    }

    /// The connections that `keep` wants. Those that another one announced, such as the data of
    /// FTP, belong to that one and are left out.
    pub fn connections(
        &mut self,
        keep: impl Fn(&Connection) -> bool,
    ) -> Result<Vec<Connection>, ConntrackError> {
        let encode = |encoder: &mut Encoder| {
            encoder.message(GET, Flags::DUMP, &[0; 4], |_| {});
        };
        let each = |found: &mut Vec<Connection>, frame: Frame<'_>| {
            if let Some(connection) = connection(frame)
                && keep(&connection)
            {
                found.push(connection);
            }
        };
        let found = self.socket.dump(encode, Vec::new, each);
        found.map_err(ConntrackError::Read)
    }

    /// Sets the bits of `mask` in the marks of `connections` to those of `bits` and leaves the
    /// others. A connection that has ended meanwhile is no failure.
    pub fn mark(
        &mut self,
        connections: &[Connection],
        bits: u32,
        mask: u32,
    ) -> Vec<ConntrackError> {
        let failed = self.socket.batch(connections, |encoder, connection| {
            let handle = &connection.handle;
            encoder.message(NEW, Flags::QUIET, &[handle.family, 0, 0, 0], |encoder| {
                handle.encode(encoder);
                encoder.be_u32(MARK, bits);
                encoder.be_u32(MARK_MASK, mask);
            });
        });
        failures(connections, failed)
    }

    /// Forgets `connections`: the next packet of each is that of a new one.
    pub fn delete(&mut self, connections: &[Connection]) -> Vec<ConntrackError> {
        let failed = self.socket.batch(connections, |encoder, connection| {
            let handle = &connection.handle;
            encoder.message(DELETE, Flags::QUIET, &[handle.family, 0, 0, 0], |encoder| {
                handle.encode(encoder);
                if let Some(id) = &handle.id {
                    encoder.attribute(ID, id);
                }
            });
        });
        failures(connections, failed)
    }
}

impl Handle {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.nested(TUPLE_ORIGINAL, |encoder| encoder.raw(&self.original));
        if let Some(zone) = &self.zone {
            encoder.attribute(ZONE, zone);
        }
    }
}

fn failures(connections: &[Connection], failed: Vec<(usize, NetlinkError)>) -> Vec<ConntrackError> {
    let failed = failed.into_iter();
    let failed = failed.filter(|(_, cause)| !cause.is(libc::ENOENT));
    failed
        .map(|(index, cause)| {
            let tuple = &connections[index].original;
            ConntrackError::Write {
                source_address: tuple.source,
                destination: tuple.destination,
                protocol: tuple.protocol,
                cause,
            }
        })
        .collect()
}

fn connection(frame: Frame<'_>) -> Option<Connection> {
    let family = *frame.payload().first()?;
    let attributes = frame.attributes(4);
    if attributes.be_u32(STATUS).unwrap_or(0) & EXPECTED != 0 {
        return None;
    }
    let original = attributes.find(TUPLE_ORIGINAL)?;
    Some(Connection {
        original: tuple(Attributes(original))?,
        reply: tuple(attributes.inside(TUPLE_REPLY))?,
        mark: attributes.be_u32(MARK).unwrap_or(0),
        handle: Handle {
            family,
            original: original.into(),
            id: attributes.find(ID).and_then(|id| id.try_into().ok()),
            zone: attributes.find(ZONE).and_then(|zone| zone.try_into().ok()),
        },
    })
}

fn tuple(attributes: Attributes<'_>) -> Option<Tuple> {
    let addresses = attributes.inside(TUPLE_IP);
    let address = |v4, v6| {
        let v4 = addresses.find(v4).and_then(|a| <[u8; 4]>::try_from(a).ok());
        let v6 = addresses
            .find(v6)
            .and_then(|a| <[u8; 16]>::try_from(a).ok());
        v4.map(IpAddr::from).or(v6.map(IpAddr::from))
    };
    let proto = attributes.inside(TUPLE_PROTO);
    let port = |kind| proto.find(kind).and_then(be_u16);
    let byte = |v4, v6| proto.find(v4).or_else(|| proto.find(v6))?.first().copied();
    Some(Tuple {
        protocol: *proto.find(PROTO_NUMBER)?.first()?,
        source: address(V4_SOURCE, V6_SOURCE)?,
        destination: address(V4_DESTINATION, V6_DESTINATION)?,
        ports: port(SOURCE_PORT).zip(port(DESTINATION_PORT)),
        icmp: byte(ICMP_TYPE, ICMPV6_TYPE).zip(byte(ICMP_CODE, ICMPV6_CODE)),
    })
}
