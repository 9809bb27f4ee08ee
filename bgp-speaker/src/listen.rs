//! Listening sockets, one for each IP version.

use crate::runtime::Event;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

const BACKLOG: i32 = 128;
/// Linux: the kernel has no IPv6.
const EAFNOSUPPORT: i32 = 97;
/// Between attempts to listen, and after an error of accept(2) such as too many open files.
const RETRY: Duration = Duration::from_secs(1);

/// The listening sockets of a port.
#[derive(Debug)]
pub(crate) struct Listeners {
    port: u16,
    events: mpsc::Sender<Event>,
    tasks: Vec<AbortHandle>,
}

impl Listeners {
    /// Listens nowhere.
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            port: 0,
            events,
            tasks: Vec::new(),
        }
    }

    /// Listens on another port, on none if it is 0; whether that is a change.
    pub(crate) fn set_port(&mut self, port: u16) -> bool {
        if self.port == port {
            return false;
        }
        self.port = port;
        self.tasks.drain(..).for_each(|task| task.abort());
        if port == 0 {
            return true;
        }
        for address in [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ] {
            let task = tokio::spawn(listen(SocketAddr::new(address, port), self.events.clone()));
            self.tasks.push(task.abort_handle());
        }
        true
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }
}

async fn listen(address: SocketAddr, events: mpsc::Sender<Event>) {
    loop {
        match bind(address) {
            Ok(listener) => {
                if events
                    .send(Event::Listening(address, Ok(())))
                    .await
                    .is_err()
                {
                    return;
                }
                return accept(&listener, &events).await;
            }
            // A node without IPv6 has no IPv6 peers.
            Err(error) if address.is_ipv6() && error.raw_os_error() == Some(EAFNOSUPPORT) => return,
            Err(error) => {
                let words = format!("cannot listen for BGP on {address}: {error}");
                if events
                    .send(Event::Listening(address, Err(words)))
                    .await
                    .is_err()
                {
                    return;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn accept(listener: &TcpListener, events: &mpsc::Sender<Event>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                if events
                    .send(Event::Accepted { stream, remote })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!("cannot accept a BGP connection: {error}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    // The greatest TTL, so that peers with GTSM (RFC 5082) take our first segment.
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_unicast_hops_v6(255)?;
    } else {
        socket.set_ttl_v4(255)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
