//! Answers requests, each with as many octets as it asks for.

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// Octets of a request; the first four say how long the answer is, in network order.
pub(super) const REQUEST: usize = 64;
/// The longest answer.
const LONGEST: usize = 1 << 16;

/// What has come of a request that is not whole yet.
struct Connection {
    stream: TcpStream,
    rest: Vec<u8>,
}

/// Serves until all connections have ended. One thread, as a client is one: more would compete for
/// the processors with what is measured.
pub(super) fn serve(connections: Vec<TcpStream>) -> Result<()> {
    let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut connections: Vec<Connection> = connections
        .into_iter()
        .map(|stream| Connection {
            stream,
            rest: Vec::new(),
        })
        .collect();
    for (number, connection) in (0..).zip(&connections) {
        let data = epoll::EventData::new_u64(number);
        epoll::add(&ready, &connection.stream, data, epoll::EventFlags::IN)?;
    }
    let mut open = connections.len();
    let mut events = Vec::with_capacity(open);
    while open > 0 {
        match epoll::wait(&ready, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("epoll"),
        }
        for event in events.drain(..) {
            let number = usize::try_from(event.data.u64())?;
            let connection = &mut connections[number];
            if !connection.answer().context("an answer")? {
                epoll::delete(&ready, &connection.stream)?;
                open -= 1;
            }
        }
    }
    Ok(())
}

impl Connection {
    /// Answers what has come; false at the end.
    fn answer(&mut self) -> Result<bool> {
        let mut buffer = [0; 64 * REQUEST];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
            Ok(length) => self.rest.extend_from_slice(&buffer[..length]),
            Err(error) => return Err(error.into()),
        }
        let (requests, rest) = self.rest.as_chunks::<REQUEST>();
        for [a, b, c, d, ..] in requests {
            let length = u32::from_be_bytes([*a, *b, *c, *d]);
            let length = usize::try_from(length)?.min(LONGEST);
            self.stream.write_all(&[0; LONGEST][..length])?;
        }
        self.rest = rest.to_vec();
        Ok(true)
    }
}
