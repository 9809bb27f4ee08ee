//! Answers requests, each with as many octets as it asks for.

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventFlags};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// Octets of a request; the first four say how long the answer is, in network order.
pub(super) const REQUEST: usize = 64;
/// The longest answer.
const LONGEST: usize = 1 << 16;

struct Connection {
    stream: TcpStream,
    /// What has come of a request that is not whole yet.
    rest: Vec<u8>,
    /// Answers that the kernel did not take at once.
    unwritten: Vec<u8>,
}

/// Serves until all connections have ended. One thread, as a client is one: more would compete for
/// the processors with what is measured. It waits for no connection alone: one that has lost
/// packets holds up no other.
pub(super) fn serve(connections: Vec<TcpStream>) -> Result<()> {
    let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut connections: Vec<Connection> = connections
        .into_iter()
        .map(|stream| Connection {
            stream,
            rest: Vec::new(),
            unwritten: Vec::new(),
        })
        .collect();
    for (number, connection) in (0..).zip(&connections) {
        connection.stream.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(number);
        epoll::add(&ready, &connection.stream, data, EventFlags::IN)?;
    }
    let mut open = connections.len();
    let mut events = Vec::with_capacity(open);
    while open > 0 {
        match epoll::wait(&ready, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("epoll"),
        }
        for event in events.drain(..) {
            let connection = &mut connections[usize::try_from(event.data.u64())?];
            let before = connection.awaited();
            if !connection.answer().context("an answer")? {
                epoll::delete(&ready, &connection.stream)?;
                open -= 1;
            } else if connection.awaited() != before {
                let awaited = connection.awaited();
                epoll::modify(&ready, &connection.stream, event.data, awaited)?;
            }
        }
    }
    Ok(())
}

impl Connection {
    /// What it waits for: room for its answers, before more requests.
    fn awaited(&self) -> EventFlags {
        match self.unwritten.is_empty() {
            true => EventFlags::IN,
            false => EventFlags::OUT,
        }
    }

    /// Answers what has come, as far as there is room; false at the end.
    fn answer(&mut self) -> Result<bool> {
        if self.unwritten.is_empty() {
            let mut buffer = [0; 64 * REQUEST];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => self.rest.extend_from_slice(&buffer[..length]),
                Err(error) => return goes_on(error),
            }
            let (requests, rest) = self.rest.as_chunks::<REQUEST>();
            for [a, b, c, d, ..] in requests {
                let length = u32::from_be_bytes([*a, *b, *c, *d]);
                let length = usize::try_from(length)?.min(LONGEST);
                self.unwritten.resize(self.unwritten.len() + length, 0);
            }
            self.rest = rest.to_vec();
        }
        match self.stream.write(&self.unwritten) {
            Ok(length) => drop(self.unwritten.drain(..length)),
            Err(error) => return goes_on(error),
        }
        Ok(true)
    }
}

/// Whether a connection goes on: there was no room, or nothing to read, or the other end is gone.
fn goes_on(error: std::io::Error) -> Result<bool> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(true),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(false),
        _ => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Duration;

    #[test]
    fn a_client_that_reads_nothing_holds_up_no_other() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let pair = || -> Result<(TcpStream, TcpStream)> {
            let client = TcpStream::connect(listener.local_addr()?)?;
            Ok((client, listener.accept()?.0))
        };
        let ((mut deaf, first), (mut other, second)) = (pair()?, pair()?);
        let server = std::thread::spawn(move || serve(vec![first, second]));
        let mut request = [0; REQUEST];
        request[..4].copy_from_slice(&u32::try_from(LONGEST)?.to_be_bytes());
        // More than the kernel keeps for a connection.
        deaf.set_nonblocking(true)?;
        for _ in 0..1000 {
            match deaf.write(&request) {
                Ok(REQUEST) => {}
                _ => break,
            }
        }
        other.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut answer = vec![0; LONGEST];
        for _ in 0..3 {
            other.write_all(&request)?;
            other.read_exact(&mut answer)?;
        }
        drop((deaf, other));
        server.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        Ok(())
    }
}
