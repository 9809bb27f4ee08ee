//! One ICMP echo.

use anyhow::{Context, Result, bail};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrV4, SocketFlags, SocketType, ipproto, recv,
    sendto, socket_with, sockopt,
};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// A packet that has not come back by then is lost.
const LIMIT: Duration = Duration::from_secs(2);
/// Type, code and checksum of an echo request without data.
const REQUEST: [u8; 8] = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];

/// Sends one echo request from the calling thread's namespace and waits for the reply.
pub(super) fn first(to: IpAddr) -> Result<Duration> {
    let IpAddr::V4(to) = to else {
        bail!("{to} is not an IPv4 address")
    };
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::ICMP),
    )
    .context("an ICMP socket")?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(LIMIT))?;
    let start = Instant::now();
    sendto(
        &socket,
        &REQUEST,
        SendFlags::empty(),
        &SocketAddrV4::new(to, 0),
    )?;
    let mut packet = [0; 128];
    while start.elapsed() < LIMIT {
        let Ok((length, _)) = recv(&socket, &mut packet, RecvFlags::empty()) else {
            break;
        };
        if is_reply(&packet[..length], to) {
            return Ok(start.elapsed());
        }
    }
    bail!("the first packet to {to} is lost")
}

/// Echo replies have type 0; the IPv4 header stands in front.
fn is_reply(packet: &[u8], from: Ipv4Addr) -> bool {
    packet.get(12..16) == Some(&from.octets()[..]) && packet.get(20) == Some(&0)
}
