//! What goes through raw sockets: SCTP without the kernel's (an INIT, and an INIT ACK that carries a
//! name), and ICMP echoes.

use super::Outcome;
use crate::packet::{
    self, First, SCTP_INIT, SCTP_INIT_ACK, number_of, sctp as sctp_packet, sctp_init,
};
use anyhow::{Result, bail};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recvfrom,
    sendto, socket_with, sockopt,
};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Numbers the attempts of this process: each has a source port and a tag of its own.
static ATTEMPTS: AtomicU32 = AtomicU32::new(1);
/// Pause before a packet is sent again.
const RESEND: Duration = Duration::from_millis(200);

/// Answers every INIT to one of `ports`, of both families.
pub(super) fn serve_sctp(name: &str, ports: &'static [u16]) -> io::Result<()> {
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        let socket = raw(family, ipproto::SCTP)?;
        let name = name.to_owned();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((from, bytes)) = receive(&socket, &mut buffer) {
                let Some(init) = sctp_init(bytes) else {
                    continue;
                };
                if init.chunk != SCTP_INIT || !ports.contains(&init.ports.1) {
                    continue;
                }
                let back = (init.ports.1, init.ports.0);
                let tag = init.initiate_tag;
                let answer = sctp_packet(back, tag, SCTP_INIT_ACK, tag, name.as_bytes());
                // Who asked may be gone.
                let _ = sendto(
                    &socket,
                    &answer,
                    SendFlags::empty(),
                    &SocketAddr::new(from, 0),
                );
            }
        });
    }
    Ok(())
}

pub(super) fn sctp(to: SocketAddr, limit: Duration) -> Result<Outcome> {
    let number = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
    let ports = (20_000 + (number % 40_000) as u16, to.port());
    let init = sctp_packet(ports, 0, SCTP_INIT, number, &[]);
    exchange(to.ip(), ipproto::SCTP, &init, limit, |bytes| {
        let answer = sctp_init(bytes)?;
        let ours = answer.chunk == SCTP_INIT_ACK && answer.verification_tag == number;
        ours.then(|| String::from_utf8_lossy(answer.cookie).into_owned())
    })
}

pub(super) fn ping(to: IpAddr, limit: Duration) -> Result<Outcome> {
    // The identifier is what makes a connection of an echo; the sequence number tells the answers
    // to several probers of a namespace apart.
    let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
    let number = (attempt << 16) | (std::process::id() & 0xffff);
    let (protocol, of_packet, echo, reply) = match to {
        IpAddr::V4(_) => (ipproto::ICMP, packet::ICMP, 8, 0),
        IpAddr::V6(_) => (ipproto::ICMPV6, packet::ICMPV6, 128, 129),
    };
    let request = First {
        source: to,
        destination: to,
        protocol: of_packet,
        ports: (0, 0),
        icmp: (echo, 0),
        number,
    };
    exchange(to, protocol, &request.bytes(), limit, |bytes| {
        let ours = bytes.first() == Some(&reply) && number_of(of_packet, bytes) == Some(number);
        ours.then(String::new)
    })
}

/// Sends until there is an answer; `named` tells who gave it.
fn exchange(
    to: IpAddr,
    protocol: Protocol,
    request: &[u8],
    limit: Duration,
    named: impl Fn(&[u8]) -> Option<String>,
) -> Result<Outcome> {
    let family = match to {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = raw(family, protocol)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(RESEND))?;
    let start = Instant::now();
    let mut buffer = [0; 512];
    while start.elapsed() < limit {
        let sent = sendto(
            &socket,
            request,
            SendFlags::empty(),
            &SocketAddr::new(to, 0),
        );
        if let Err(error) = sent {
            bail!("{error}");
        }
        let sent = Instant::now();
        // The socket sees everybody's packets.
        while sent.elapsed() < RESEND {
            let bytes = match receive(&socket, &mut buffer) {
                Ok((_, bytes)) => bytes,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            };
            if let Some(name) = named(bytes) {
                let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                return Ok(Outcome::Answered { name, micros });
            }
        }
    }
    bail!("no answer")
}

fn raw(family: AddressFamily, protocol: Protocol) -> rustix::io::Result<OwnedFd> {
    socket_with(
        family,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(protocol),
    )
}

/// One packet from its L4 header on, and who sent it. IPv4 raw sockets give the IP header too.
fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> rustix::io::Result<(IpAddr, &'a [u8])> {
    let (length, _, from) = recvfrom(socket, &mut *buffer, RecvFlags::empty())?;
    let from = SocketAddr::try_from(from.ok_or(Errno::INVAL)?)?.ip();
    let bytes = &buffer[..length];
    let header = match from {
        IpAddr::V4(_) => usize::from(bytes.first().copied().unwrap_or_default() & 0xf) * 4,
        IpAddr::V6(_) => 0,
    };
    Ok((from, bytes.get(header..).unwrap_or_default()))
}
