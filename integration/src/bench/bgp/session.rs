//! Sessions of the load generator, one thread each.

use super::wire::{self, KEEPALIVE, Messages, NOTIFICATION, OPEN};
use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// How long a daemon may take to be there and to accept us.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between attempts: a daemon that has just started refuses connections.
const RETRY: Duration = Duration::from_millis(100);
const PORT: u16 = 179;

/// An Established session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) writer: TcpStream,
    pub(super) reader: Messages<TcpStream>,
}

/// One end of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) address: Ipv4Addr,
    pub(super) asn: u32,
    /// In seconds.
    pub(super) hold_time: u16,
    /// Octets of the buffer to read into.
    pub(super) buffer: usize,
}

impl Session {
    /// Connects to the daemon until it agrees to a session. To be called in our namespace.
    pub(super) fn establish(end: &End, daemon: Ipv4Addr) -> Result<Self> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match Self::attempt(end, daemon) {
                Ok(session) => return Ok(session),
                Err(error) if Instant::now() > give_up => {
                    return Err(error).with_context(|| format!("session of {}", end.address));
                }
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    }

    fn attempt(end: &End, daemon: Ipv4Addr) -> Result<Self> {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        sockopt::set_socket_recv_buffer_size(&socket, end.buffer.max(1 << 16))?;
        bind(&socket, &SocketAddrV4::new(end.address, 0))?;
        connect(&socket, &SocketAddrV4::new(daemon, PORT))?;
        let mut writer = TcpStream::from(socket);
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(Duration::from_secs(10)))?;
        writer.write_all(&wire::open(end.asn, end.hold_time, end.address))?;
        let mut reader = Messages::new(writer.try_clone()?, end.buffer);
        loop {
            match reader.next()? {
                Some((OPEN, _)) => writer.write_all(&wire::keepalive())?,
                Some((KEEPALIVE, _)) => break,
                Some((NOTIFICATION, body)) => bail!("NOTIFICATION {body:02x?}"),
                Some((kind, _)) => bail!("a message of type {kind} instead of OPEN"),
                None => bail!("the connection was closed"),
            }
        }
        writer.set_read_timeout(None)?;
        Ok(Self { writer, reader })
    }
}
