//! How much gets through, and how long a datagram may be.

use super::{Fragments, Outcome, SIZE_PORT};
use anyhow::{Context, Result, bail};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// Pause before a datagram is sent again.
const RESEND: Duration = Duration::from_millis(200);

pub(super) fn bulk(to: IpAddr, octets: usize, limit: Duration) -> Result<Outcome> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, SIZE_PORT), limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let piece = vec![0; 1 << 16];
    let mut left = octets;
    while left > 0 {
        let length = left.min(piece.len());
        stream
            .write_all(&piece[..length])
            .with_context(|| format!("stalled with {left} of {octets} octets left"))?;
        left -= length;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut count = String::new();
    stream.read_to_string(&mut count).context("no count")?;
    Ok(Outcome::Arrived(count.parse().context("a count")?))
}

pub(super) fn datagram(
    to: IpAddr,
    octets: usize,
    fragments: Fragments,
    limit: Duration,
) -> Result<Outcome> {
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((to, SIZE_PORT))?;
    socket.set_read_timeout(Some(RESEND))?;
    discover(&socket, to, fragments)?;
    let payload = vec![0; octets];
    let start = Instant::now();
    let mut buffer = [0; 16];
    let mut last = None;
    while start.elapsed() < limit {
        let answer = socket.send(&payload).and_then(|_| socket.recv(&mut buffer));
        match answer {
            Ok(length) => {
                let count = std::str::from_utf8(&buffer[..length]).context("a length")?;
                return Ok(Outcome::Arrived(count.parse().context("a length")?));
            }
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) =>
            {
                let mtu = match to {
                    IpAddr::V4(_) => sockopt::ip_mtu(&socket)?,
                    IpAddr::V6(_) => sockopt::ipv6_mtu(&socket)?,
                };
                if fragments == Fragments::Never {
                    return Ok(Outcome::TooLong { mtu });
                }
                last = Some(error);
            }
            Err(error) => last = Some(error),
        }
    }
    bail!("{octets} octets to {to}: no answer ({last:?})")
}

fn discover(socket: &UdpSocket, to: IpAddr, fragments: Fragments) -> Result<()> {
    match (to, fragments) {
        (IpAddr::V4(_), Fragments::AsKnown) => {
            sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::WANT)?;
        }
        (IpAddr::V4(_), Fragments::Never) => {
            sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DO)?;
        }
        (IpAddr::V6(_), Fragments::AsKnown) => {
            sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::WANT)?;
        }
        (IpAddr::V6(_), Fragments::Never) => {
            sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DO)?;
        }
    }
    Ok(())
}
