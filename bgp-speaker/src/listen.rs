//! Listening sockets: one for each IP version, or for each address.

use crate::passwords::Passwords;
use crate::runtime::Event;
use crate::sys;
use bgp_core::SpeakerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

const BACKLOG: i32 = 128;
/// Linux: the kernel has no IPv6.
const EAFNOSUPPORT: i32 = 97;
/// Between attempts to listen.
const RETRY: Duration = Duration::from_secs(1);
/// After an error of accept(2) that is likely to come again, such as too many open files. Short,
/// since peers wait as well.
const PAUSE: Duration = Duration::from_millis(100);

/// The listening sockets of a port.
#[derive(Debug)]
pub(crate) struct Listeners {
    addresses: BTreeSet<SocketAddr>,
    events: mpsc::Sender<Event>,
    passwords: watch::Sender<Passwords>,
    tasks: Vec<AbortHandle>,
}

impl Listeners {
    /// Listens nowhere.
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            addresses: BTreeSet::new(),
            events,
            passwords: watch::Sender::default(),
            tasks: Vec::new(),
        }
    }

    /// Expects the signatures that the configuration asks for, on open sockets too.
    pub(crate) fn set_passwords(&self, config: &SpeakerConfig) {
        let passwords = Passwords::of(config);
        self.passwords.send_if_modified(|current| {
            let differs = *current != passwords;
            if differs {
                *current = passwords;
            }
            differs
        });
    }

    /// Listens at other addresses; whether that is a change.
    pub(crate) fn set(&mut self, addresses: BTreeSet<SocketAddr>) -> bool {
        if self.addresses == addresses {
            return false;
        }
        self.stop();
        for address in &addresses {
            let passwords = self.passwords.subscribe();
            let task = tokio::spawn(listen(*address, passwords, self.events.clone()));
            self.tasks.push(task.abort_handle());
        }
        self.addresses = addresses;
        true
    }

    /// Listens nowhere.
    pub(crate) fn stop(&mut self) {
        self.addresses.clear();
        self.tasks.drain(..).for_each(|task| task.abort());
    }
}

/// Where a configuration wants us to listen.
pub(crate) fn addresses(config: &SpeakerConfig) -> BTreeSet<SocketAddr> {
    let port = config.listen_port;
    let all = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    let addresses = match (port, config.listen_addresses.is_empty()) {
        (0, _) => BTreeSet::new(),
        (_, true) => all.into(),
        (_, false) => config.listen_addresses.clone(),
    };
    let at = |address| SocketAddr::new(address, port);
    addresses.into_iter().map(at).collect()
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn listen(
    address: SocketAddr,
    mut passwords: watch::Receiver<Passwords>,
    events: mpsc::Sender<Event>,
) {
    loop {
        match bind(address) {
            Ok(listener) => return serve(address, &listener, &mut passwords, &events).await,
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

/// Accepts for ever, with the passwords of the moment.
async fn serve(
    address: SocketAddr,
    listener: &TcpListener,
    passwords: &mut watch::Receiver<Passwords>,
    events: &mpsc::Sender<Event>,
) {
    let mut in_force = Passwords::default();
    loop {
        let wanted = passwords.borrow_and_update().clone();
        let failures = wanted.apply(listener, address.is_ipv4(), &in_force);
        in_force = wanted;
        let result = match failures.first() {
            None => Ok(()),
            Some((peer, error)) => Err(format!(
                "cannot have connections of {peer} signed (TCP MD5): {error}"
            )),
        };
        if events
            .send(Event::Listening(address, result))
            .await
            .is_err()
        {
            return;
        }
        tokio::select! {
            () = accept(listener, events) => return,
            changed = passwords.changed() => if changed.is_err() { return },
        }
    }
}

async fn accept(listener: &TcpListener, events: &mpsc::Sender<Event>) {
    // Said once, not at every attempt.
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                failing = false;
                if events
                    .send(Event::Accepted { stream, remote })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!("cannot accept a BGP connection: {error}");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// accept(2) also reports what became of a connection that has just been taken off the queue, and
/// whoever connects and resets at once must not keep the next one waiting.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
    )
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    sys::keep_first_headers(&socket)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_addresses_all_are_listened_on_and_without_a_port_none() {
        let own: IpAddr = [192, 0, 2, 1].into();
        let at = |port, listen_addresses: BTreeSet<IpAddr>| {
            let config = SpeakerConfig {
                listen_port: port,
                listen_addresses,
                ..SpeakerConfig::new(64512, Ipv4Addr::LOCALHOST)
            };
            let addresses = addresses(&config).into_iter();
            addresses
                .map(|address| address.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(at(179, BTreeSet::new()), ["0.0.0.0:179", "[::]:179"]);
        assert_eq!(at(1179, [own].into()), ["192.0.2.1:1179"]);
        assert!(at(0, [own].into()).is_empty());
    }

    #[test]
    fn only_errors_that_would_come_again_pause_accepting() {
        let (aborted, unreachable) = (103, 113);
        for number in [aborted, unreachable] {
            let error = io::Error::from_raw_os_error(number);
            assert!(is_of_one_connection(&error), "{error}");
        }
        let (out_of_memory, files_of_system, files_of_process, invalid) = (12, 23, 24, 22);
        for number in [out_of_memory, files_of_system, files_of_process, invalid] {
            let error = io::Error::from_raw_os_error(number);
            assert!(!is_of_one_connection(&error), "{error}");
        }
    }
}
