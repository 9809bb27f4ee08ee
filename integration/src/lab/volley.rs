//! Many first packets at once, through raw sockets: which of them arrive. Nobody answers them and
//! nobody waits for those that do not come: what the kernel does to a packet is done when the
//! system calls are over that [`Volley::fire`] makes.

use super::{Lab, Netns, wait};
use crate::lab::link::End;
use crate::packet::{First, GRE, ICMP, ICMPV6, SCTP, TCP, UDP, number_of};
use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RawProtocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto,
    recv, sendto, socket_with, sockopt,
};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Room for what arrives between two looks.
const QUEUE: usize = 8 << 20;
/// Packets between two looks: far fewer than a CPU's queue of received packets has room for.
const BURST: usize = 200;
/// Hops of a packet on its way, each of which puts it at the end of that queue.
const HOPS: usize = 2;

/// Namespaces that send and receive.
#[derive(Debug)]
pub struct Volley {
    ends: Vec<Raw>,
    /// A wire of its own, and what runs through it.
    marker: (UdpSocket, UdpSocket),
}

/// The raw sockets of one namespace.
#[derive(Debug)]
struct Raw {
    send: [OwnedFd; 2],
    receive: Vec<(u8, bool, OwnedFd)>,
}

impl Volley {
    /// Opens sockets in `netns`, which have to be at most two hops from each other, and keeps the
    /// calling thread on one CPU: what it sends is received in order.
    ///
    /// # Errors
    /// No raw sockets, or no wire for the marker.
    pub fn new(lab: &Lab, netns: &[&Netns]) -> Result<Self> {
        let mut one = CpuSet::new();
        one.set(sched_getcpu());
        sched_setaffinity(None, &one)?;
        let ends = netns.iter().map(|netns| netns.within(Raw::open)?);
        Ok(Self {
            ends: ends.collect::<Result<_>>()?,
            marker: marker(lab)?,
        })
    }

    /// Sends each packet from the namespace beside it, and tells of each in which one it arrived.
    /// They are numbered here.
    ///
    /// # Errors
    /// A packet could not be sent.
    pub fn fire(&self, shots: &[(usize, First)]) -> Result<Vec<Option<usize>>> {
        let mut arrived = vec![None; shots.len()];
        for (start, burst) in shots.chunks(BURST).enumerate() {
            for (place, (from, first)) in burst.iter().enumerate() {
                let number = start * BURST + place;
                let first = First {
                    number: u32::try_from(number)? + 1,
                    ..*first
                };
                self.ends[*from]
                    .send(&first)
                    .with_context(|| format!("{first:?}"))?;
            }
            self.settle()?;
            for (place, end) in self.ends.iter().enumerate() {
                end.collect(|number| {
                    let number = usize::try_from(number).ok()?.checked_sub(1)?;
                    *arrived.get_mut(number)? = Some(place);
                    Some(())
                })?;
            }
        }
        Ok(arrived)
    }

    /// A datagram stands behind everything in the queue of the CPU; after as many as there are
    /// hops, nothing that was sent before is on its way.
    fn settle(&self) -> Result<()> {
        for _ in 0..=HOPS {
            self.marker.0.send(b"marker")?;
            wait::uninterrupted(|| self.marker.1.recv(&mut [0; 16])).context("the marker")?;
        }
        Ok(())
    }
}

impl Raw {
    fn open() -> Result<Self> {
        let mut receive = Vec::new();
        for (family, ipv6) in [(AddressFamily::INET, false), (AddressFamily::INET6, true)] {
            let icmp = if ipv6 { ICMPV6 } else { ICMP };
            for protocol in [icmp, TCP, UDP, GRE, SCTP] {
                let wanted = RawProtocol::new(protocol.into()).map(Protocol::from_raw);
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = socket_with(family, SocketType::RAW, flags, wanted)?;
                sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE)?;
                receive.push((protocol, ipv6, socket));
            }
        }
        let send = |family| {
            let flags = SocketFlags::CLOEXEC;
            socket_with(family, SocketType::RAW, flags, Some(ipproto::RAW))
        };
        Ok(Self {
            send: [send(AddressFamily::INET)?, send(AddressFamily::INET6)?],
            receive,
        })
    }

    fn send(&self, first: &First) -> Result<()> {
        let socket = &self.send[usize::from(first.destination.is_ipv6())];
        let to = SocketAddr::new(first.destination, 0);
        match sendto(socket, &first.with_ip_header(), SendFlags::empty(), &to) {
            // A rule of this namespace's own dropped it.
            Err(Errno::PERM) => Ok(()),
            other => other.map(drop).map_err(Into::into),
        }
    }

    fn collect(&self, mut arrived: impl FnMut(u32) -> Option<()>) -> Result<()> {
        let mut buffer = [0; 256];
        for (protocol, ipv6, socket) in &self.receive {
            loop {
                let length = match recv(socket, &mut buffer, RecvFlags::empty()) {
                    Ok((length, _)) => length,
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                };
                let bytes = &buffer[..length.min(buffer.len())];
                // IPv4 raw sockets give the IP header too.
                let header = match ipv6 {
                    true => 0,
                    false => usize::from(bytes.first().copied().unwrap_or_default() & 0xf) * 4,
                };
                let number = bytes.get(header..).and_then(|l4| number_of(*protocol, l4));
                // What others send, and answers, have no number of ours.
                let _ = number.and_then(&mut arrived);
            }
        }
        Ok(())
    }
}

fn marker(lab: &Lab) -> Result<(UdpSocket, UdpSocket)> {
    const ENDS: [(&str, &str); 2] = [("mark0", "198.18.0.1"), ("mark1", "198.18.0.2")];
    let spaces = [lab.netns(ENDS[0].0)?, lab.netns(ENDS[1].0)?];
    let addresses = ENDS.map(|(_, address)| format!("{address}/30"));
    lab.wire(
        &End {
            netns: &spaces[0],
            interface: "eth0",
            addresses: &[&addresses[0]],
        },
        &End {
            netns: &spaces[1],
            interface: "eth0",
            addresses: &[&addresses[1]],
        },
    )?;
    let open = |at: usize| -> Result<UdpSocket> {
        let address: IpAddr = ENDS[at].1.parse()?;
        let socket = spaces[at].within(|| UdpSocket::bind((address, 9)))??;
        socket.connect((ENDS[1 - at].1.parse::<IpAddr>()?, 9))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(socket)
    };
    Ok((open(0)?, open(1)?))
}
