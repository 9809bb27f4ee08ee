//! The one socket type.

use super::attributes::{Attributes, text};
use super::encoder::Encoder;
use super::error::{Errno, NetlinkError};
use crate::raw;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rustix::net::sockopt;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

/// Read at once; the kernel never makes a dump's datagram larger than 32 KiB, and other messages
/// are smaller than what we send.
const READ_SIZE: usize = 256 << 10;
/// Buffer for answers to a batch and for events.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Messages of a batch in one datagram; more gains nothing.
const BATCH: usize = 512;
/// A transaction is one datagram, whatever its size.
const SEND_BUFFER: usize = 512 << 20;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const HEADER: usize = 16;

/// Which part of the kernel a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nf_tables.
    Netfilter,
}

/// A netlink socket in the namespace it was opened in.
pub(crate) struct Socket {
    inner: netlink_sys::Socket,
    buffer: Vec<u8>,
    next_sequence: u32,
}

/// What the kernel answered to the messages of a datagram: the refused ones by sequence number.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// Refused messages.
    pub(crate) refused: BTreeMap<u32, NetlinkError>,
    /// Messages that were acknowledged.
    pub(crate) accepted: Vec<u32>,
}

/// An answer that is being read.
#[derive(Debug)]
pub(crate) struct Dump {
    sequence: u32,
    consistent: bool,
    single: bool,
}

impl Dump {
    fn ended(&self) -> Progress {
        match self.consistent {
            true => Progress::Whole,
            false => Progress::Torn,
        }
    }
}

/// How far an answer has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is more of it.
    More,
    /// That was all.
    Whole,
    /// That was all, but something changed meanwhile.
    Torn,
}

/// One message as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// `nlmsg_flags`.
    pub(crate) flags: u16,
    /// `nlmsg_seq`.
    pub(crate) sequence: u32,
    /// `nlmsg_pid`: whose request caused it, in notifications.
    pub(crate) port: u32,
    /// Header and payload.
    pub(crate) whole: &'a [u8],
}

impl<'a> Frame<'a> {
    /// What follows the netlink header.
    pub(crate) fn payload(&self) -> &'a [u8] {
        &self.whole[HEADER..]
    }

    /// The attributes after a fixed header of `fixed` bytes.
    pub(crate) fn attributes(&self, fixed: usize) -> Attributes<'a> {
        Attributes(self.payload().get(fixed..).unwrap_or(&[]))
    }

    /// Splits a datagram.
    pub(crate) fn split(mut bytes: &'a [u8]) -> impl Iterator<Item = Frame<'a>> {
        std::iter::from_fn(move || {
            let field = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
            let length = u32::from_ne_bytes(field(0)?) as usize;
            let kind_flags: [u8; 4] = field(4)?;
            let sequence = u32::from_ne_bytes(field(8)?);
            let port = u32::from_ne_bytes(field(12)?);
            if length < HEADER {
                return None;
            }
            let whole = bytes.get(..length)?;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            Some(Frame {
                kind: u16::from_ne_bytes([kind_flags[0], kind_flags[1]]),
                flags: u16::from_ne_bytes([kind_flags[2], kind_flags[3]]),
                sequence,
                port,
                whole,
            })
        })
    }

    /// The refusal that an `NLMSG_ERROR` carries; `None` is an acknowledgement.
    fn refusal(&self) -> Option<NetlinkError> {
        let payload = self.payload();
        let code = payload
            .get(..4)
            .and_then(|b| b.try_into().ok())
            .map_or(0, i32::from_ne_bytes);
        if code == 0 {
            return None;
        }
        let request = payload
            .get(4..8)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_ne_bytes);
        let tlvs = match self.flags {
            flags if flags & NLM_F_ACK_TLVS == 0 => payload.len(),
            flags if flags & NLM_F_CAPPED != 0 => 4 + HEADER,
            _ => 4 + (request as usize).next_multiple_of(4),
        };
        let text = Attributes(payload.get(tlvs..).unwrap_or(&[]))
            .find(NLMSGERR_ATTR_MSG)
            .and_then(text);
        Some(NetlinkError::Refused {
            errno: Errno(-code),
            text,
        })
    }
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(protocol: Protocol) -> Result<Self, Errno> {
        let number = match protocol {
            Protocol::Route => NETLINK_ROUTE,
            Protocol::Netfilter => NETLINK_NETFILTER,
        };
        let mut inner = netlink_sys::Socket::new(number)?;
        inner.bind_auto()?;
        Self::prepare(inner, protocol)
    }

    /// A socket that somebody else opened, perhaps in another namespace.
    pub(crate) fn adopt(descriptor: BorrowedFd<'_>, protocol: Protocol) -> Result<Self, Errno> {
        let owned = descriptor.try_clone_to_owned()?;
        Self::prepare(raw::netlink_socket(owned), protocol)
    }

    fn prepare(inner: netlink_sys::Socket, protocol: Protocol) -> Result<Self, Errno> {
        inner.set_cap_ack(true)?;
        inner.set_ext_ack(true)?;
        if protocol == Protocol::Route {
            inner.set_netlink_get_strict_chk(true)?;
        }
        // Without CAP_NET_ADMIN in the initial user namespace the limits of the system remain.
        let _ = sockopt::set_socket_recv_buffer_size_force(inner.as_fd(), RECEIVE_BUFFER);
        let _ = sockopt::set_socket_send_buffer_size_force(inner.as_fd(), SEND_BUFFER);
        Ok(Self {
            inner,
            buffer: Vec::with_capacity(READ_SIZE),
            next_sequence: 1,
        })
    }

    /// The port number that the kernel gave this socket.
    pub(crate) fn port(&self) -> Result<u32, Errno> {
        let mut address = SocketAddr::new(0, 0);
        self.inner.get_address(&mut address)?;
        Ok(address.port_number())
    }

    /// Joins a multicast group.
    pub(crate) fn join(&mut self, group: u32) -> Result<(), Errno> {
        Ok(self.inner.add_membership(group)?)
    }

    /// An encoder that continues this socket's sequence numbers.
    pub(crate) fn encoder(&self) -> Encoder {
        Encoder::new(self.next_sequence)
    }

    /// Sends a datagram and collects the answers to it.
    pub(crate) fn transact(&mut self, request: &Encoder) -> Result<Acks, NetlinkError> {
        self.send(request)?;
        let first = request.first_sequence();
        let mut acks = Acks::default();
        let mut lost = false;
        loop {
            match self.receive() {
                Ok(None) => break,
                Ok(Some(datagram)) => {
                    for frame in Frame::split(datagram) {
                        let ours = frame.sequence.wrapping_sub(first) < request.len() as u32;
                        if frame.kind != NLMSG_ERROR || !ours {
                            continue;
                        }
                        match frame.refusal() {
                            Some(error) => drop(acks.refused.insert(frame.sequence, error)),
                            None => acks.accepted.push(frame.sequence),
                        }
                    }
                }
                Err(Errno(libc::ENOBUFS)) => lost = true,
                Err(errno) => return Err(NetlinkError::Socket(errno)),
            }
        }
        if lost {
            Err(NetlinkError::AnswersLost)
        } else {
            Ok(acks)
        }
    }

    /// Sends one message per item, many to a datagram with one acknowledgement. Answers the indices
    /// of the items that failed. The failure of one does not stop the others.
    pub(crate) fn batch<T>(
        &mut self,
        items: &[T],
        mut encode: impl FnMut(&mut Encoder, &T),
    ) -> Vec<(usize, NetlinkError)> {
        let mut failed = Vec::new();
        for (chunk_index, chunk) in items.chunks(BATCH).enumerate() {
            let mut request = self.encoder();
            for item in chunk {
                encode(&mut request, item);
            }
            debug_assert_eq!(request.len(), chunk.len());
            request.acknowledge(chunk.len() - 1);
            let first = request.first_sequence();
            let index = |sequence: u32| chunk_index * BATCH + sequence.wrapping_sub(first) as usize;
            match self.transact(&request) {
                Ok(acks) if acks.refused.is_empty() && acks.accepted.is_empty() => {
                    failed.push((index(first), NetlinkError::NoAnswer));
                }
                Ok(acks) => failed.extend(acks.refused.into_iter().map(|(seq, e)| (index(seq), e))),
                Err(error) => {
                    let all = (0..chunk.len()).map(|i| (chunk_index * BATCH + i, error.clone()));
                    failed.extend(all);
                }
            }
        }
        failed
    }

    /// Sends one message, which must be acknowledged.
    pub(crate) fn request(&mut self, mut request: Encoder) -> Result<(), NetlinkError> {
        request.acknowledge(request.len() - 1);
        let acks = self.transact(&request)?;
        match acks.refused.into_values().next() {
            Some(error) => Err(error),
            None if acks.accepted.is_empty() => Err(NetlinkError::NoAnswer),
            None => Ok(()),
        }
    }

    /// Sends a dump request (or a GET of one object) and hands every message of the answer to
    /// `each`. A dump during which something changed is repeated: `start` is called before each.
    pub(crate) fn dump<T>(
        &mut self,
        encode: impl Fn(&mut Encoder),
        start: impl Fn() -> T,
        mut each: impl FnMut(&mut T, Frame<'_>),
    ) -> Result<T, NetlinkError> {
        for _ in 0..10 {
            let mut dump = self.begin_dump(&encode)?;
            let mut into = start();
            loop {
                match self.continue_dump(&mut dump, &mut |frame| each(&mut into, frame))? {
                    Progress::More => {}
                    Progress::Whole => return Ok(into),
                    Progress::Torn => break,
                }
            }
        }
        Err(NetlinkError::Unstable)
    }

    /// Sends a dump request (or a GET of one object). Its answer has to be read to the end before
    /// the next.
    pub(crate) fn begin_dump(
        &mut self,
        encode: impl Fn(&mut Encoder),
    ) -> Result<Dump, NetlinkError> {
        let mut request = self.encoder();
        encode(&mut request);
        self.send(&request)?;
        Ok(Dump {
            sequence: request.first_sequence(),
            consistent: true,
            single: false,
        })
    }

    /// Reads one datagram of an answer.
    pub(crate) fn continue_dump(
        &mut self,
        dump: &mut Dump,
        each: &mut impl FnMut(Frame<'_>),
    ) -> Result<Progress, NetlinkError> {
        let datagram = match self.receive() {
            Ok(Some(datagram)) => datagram,
            Ok(None) if dump.single => return Ok(dump.ended()),
            Ok(None) => return Err(NetlinkError::NoAnswer),
            Err(Errno(libc::ENOBUFS)) => return Err(NetlinkError::AnswersLost),
            Err(errno) => return Err(NetlinkError::Socket(errno)),
        };
        for frame in Frame::split(datagram) {
            if frame.sequence != dump.sequence {
                continue;
            }
            dump.consistent &= frame.flags & NLM_F_DUMP_INTR == 0;
            match frame.kind {
                NLMSG_DONE | NLMSG_ERROR => {
                    return match frame.refusal() {
                        Some(error) => Err(error),
                        None => Ok(dump.ended()),
                    };
                }
                _ => {
                    dump.single |= frame.flags & 2 == 0;
                    each(frame);
                }
            }
        }
        Ok(Progress::More)
    }

    /// The next datagram, if one is queued.
    pub(crate) fn receive(&mut self) -> Result<Option<&[u8]>, Errno> {
        self.buffer.clear();
        loop {
            match self.inner.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => return Ok(Some(&self.buffer)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send(&mut self, request: &Encoder) -> Result<(), NetlinkError> {
        self.next_sequence = request.first_sequence().wrapping_add(request.len() as u32);
        let kernel = SocketAddr::new(0, 0);
        loop {
            match self.inner.send_to(request.bytes(), &kernel, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::Socket(error.into())),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_split_into_frames_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            length in 0..200_u32,
        ) {
            let mut datagram = length.to_ne_bytes().to_vec();
            datagram.extend(bytes);
            for frame in Frame::split(&datagram) {
                let _ = frame.refusal();
                prop_assert!(frame.attributes(4).count() <= datagram.len());
            }
        }
    }
}
