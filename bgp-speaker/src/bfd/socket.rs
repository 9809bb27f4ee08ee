//! Sockets of BFD (RFC 5881 section 4, RFC 5883 section 5).

use crate::sys;
use bgp_core::WatchedPath;
use bgp_core::bfd::{FIRST_SOURCE_PORT, MULTIHOP_PORT, SINGLE_HOP_PORT, SINGLE_HOP_TTL};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// DSCP CS6, network control (RFC 4594 section 3.1).
const TRAFFIC_CLASS: u32 = 48 << 2;
/// Linux: somebody else has the port.
const EADDRINUSE: i32 = libc::EADDRINUSE;

/// What a receiving socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub(super) ipv4: bool,
    pub(super) multihop: bool,
}

impl Kind {
    pub(super) fn of(path: &WatchedPath) -> Self {
        Self {
            ipv4: path.remote.is_ipv4(),
            multihop: path.multihop,
        }
    }

    fn port(self) -> u16 {
        if self.multihop {
            MULTIHOP_PORT
        } else {
            SINGLE_HOP_PORT
        }
    }
}

/// A socket that takes the packets of all sessions of a kind.
///
/// # Errors
/// Those of bind(2): another BFD speaker has the port.
pub(super) fn receiver(kind: Kind) -> io::Result<Socket> {
    let any = if kind.ipv4 {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let socket = udp(any)?;
    sys::set_receive_ttl(&socket, kind.ipv4)?;
    socket.bind(&SocketAddr::new(any, kind.port()).into())?;
    Ok(socket)
}

/// The socket that sends the packets of one session: from its address, and from a port that no
/// other session uses; and where they go.
///
/// # Errors
/// Those of bind(2): the address is not on this node.
pub(super) fn transmitter(path: &WatchedPath, seed: u16) -> io::Result<(Socket, SockAddr)> {
    let socket = udp(path.local)?;
    let target = with_scope(path.remote, Kind::of(path).port(), path.scope);
    let ports = u16::MAX - FIRST_SOURCE_PORT;
    if let Some(device) = &path.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if path.local.is_ipv4() {
        socket.set_ttl_v4(SINGLE_HOP_TTL.into())?;
        socket.set_tos_v4(TRAFFIC_CLASS)?;
    } else {
        socket.set_unicast_hops_v6(SINGLE_HOP_TTL.into())?;
        socket.set_tclass_v6(TRAFFIC_CLASS)?;
    }
    let mut taken = io::Error::from_raw_os_error(EADDRINUSE);
    for offset in 0..=ports {
        let port = FIRST_SOURCE_PORT + (seed % ports).wrapping_add(offset) % ports;
        let address = with_scope(path.local, port, path.scope);
        match socket.bind(&address.into()) {
            Ok(()) => return Ok((socket, target.into())),
            Err(error) if error.raw_os_error() == Some(EADDRINUSE) => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

fn with_scope(address: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match address {
        IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, scope).into(),
        IpAddr::V4(address) => SocketAddrV4::new(address, port).into(),
    }
}

fn udp(address: IpAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(address, 0));
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}
