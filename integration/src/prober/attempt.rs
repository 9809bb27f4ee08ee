//! Attempts to reach somebody.

use super::Outcome;
use anyhow::{Context, Result, bail};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// Pause before a datagram is sent again.
const RESEND: Duration = Duration::from_millis(200);

pub(super) fn tcp(to: SocketAddr, limit: Duration) -> Result<Outcome> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut name = String::new();
    stream
        .read_to_string(&mut name)
        .context("connected, but no greeting")?;
    Ok(answered(name.trim(), start))
}

pub(super) fn udp(to: SocketAddr, limit: Duration) -> Result<Outcome> {
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(RESEND))?;
    let start = Instant::now();
    let mut buffer = [0; 256];
    let mut last = None;
    while start.elapsed() < limit {
        let answer = socket.send(b"who?").and_then(|_| socket.recv(&mut buffer));
        match answer {
            Ok(length) => return Ok(answered(&String::from_utf8_lossy(&buffer[..length]), start)),
            Err(error) => last = Some(error),
        }
    }
    bail!(
        "no answer ({})",
        last.map_or_else(String::new, |error| error.to_string())
    )
}

fn answered(name: &str, start: Instant) -> Outcome {
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    Outcome::Answered {
        name: name.to_owned(),
        micros,
    }
}
