//! Two pods, of which one speaks to the other.

use crate::bench::policy_world::nanoseconds_of_one;
use crate::lab::{Netns, wait};
use anyhow::Result;
use rustix::net::sockopt;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Time of one measurement.
const TIME: Duration = Duration::from_millis(80);
const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;
/// Octets of a request, and of its answer.
const MESSAGE: usize = 64;

/// A client, and a server's socket.
pub(super) struct Pair {
    client: Netns,
    listener: TcpListener,
    address: SocketAddr,
}

impl Pair {
    /// Waits until the client reaches the server.
    pub(super) fn new(client: &Netns, server: &Netns, address: IpAddr) -> Result<Self> {
        let address = SocketAddr::new(address, PORT);
        let listener = server.within(|| TcpListener::bind(address))??;
        let pair = Self {
            client: client.clone(),
            listener,
            address,
        };
        let what = format!("{} to reach {address}", client.name());
        wait::until(LIMIT, &what, || {
            let limit = Duration::from_millis(300);
            let connected = client.within(|| TcpStream::connect_timeout(&address, limit));
            match connected {
                Ok(Ok(_)) => pair.listener.accept().map(drop).map_err(|e| e.to_string()),
                other => Err(format!("{other:?}")),
            }
        })?;
        // Attempts that were given up may have been accepted by the kernel.
        pair.listener.set_nonblocking(true)?;
        while pair.listener.accept().is_ok() {}
        pair.listener.set_nonblocking(false)?;
        Ok(pair)
    }

    /// Both ends of a connection.
    pub(super) fn connection(&self) -> Result<(TcpStream, TcpStream)> {
        let address = self.address;
        let client = self
            .client
            .within(|| TcpStream::connect_timeout(&address, LIMIT))??;
        let (accepted, _) = self.listener.accept()?;
        for end in [&client, &accepted] {
            // Ends with a reset, which leaves nothing behind.
            sockopt::set_socket_linger(end, Some(Duration::ZERO))?;
            end.set_nodelay(true)?;
        }
        Ok((client, accepted))
    }

    /// Connections opened, accepted and reset in a second, one after the other.
    pub(super) fn connects(&self) -> Result<f64> {
        let connect = || -> Result<()> {
            let client = TcpStream::connect(self.address)?;
            sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
            self.listener.accept()?;
            Ok(())
        };
        let one = self.client.within(|| nanoseconds_of_one(TIME, connect))??;
        Ok(1e9 / one)
    }

    /// Microseconds of a message there and back, one by one.
    pub(super) fn turns(&self) -> Result<Vec<f64>> {
        let (mut client, mut accepted) = self.connection()?;
        let mut message = [0; MESSAGE];
        let (start, mut taken) = (Instant::now(), Vec::new());
        while start.elapsed() < TIME {
            let one = Instant::now();
            client.write_all(&message)?;
            accepted.read_exact(&mut message)?;
            accepted.write_all(&message)?;
            client.read_exact(&mut message)?;
            taken.push(one.elapsed().as_secs_f64() * 1e6);
        }
        Ok(taken)
    }

    /// Megabytes a second through one connection, written and read by turns.
    pub(super) fn stream(&self) -> Result<f64> {
        let (mut client, mut accepted) = self.connection()?;
        let mut block = vec![0; 64 << 10];
        let (start, mut octets) = (Instant::now(), 0_usize);
        while start.elapsed() < 2 * TIME {
            client.write_all(&block)?;
            accepted.read_exact(&mut block)?;
            octets += block.len();
        }
        Ok(octets as f64 / 1e6 / start.elapsed().as_secs_f64())
    }
}
