//! Routers on a link, found by router advertisements (RFC 4861): peers without addresses of their
//! own to configure. We advertise ourselves on the same links, for they look for us as well.

use crate::runtime::Event;
use crate::sys;
use bgp_core::SpeakerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// RFC 4861 section 6.1: whoever is not on the link can't send this.
const ON_LINK: u8 = 255;
/// Between advertisements.
const INTERVAL: Duration = Duration::from_secs(10);
/// What we advertise as Router Lifetime, in seconds: three intervals, as routers that peer so do.
const LIFETIME: u16 = 30;
/// Between attempts, while the interface is not there or has no address.
const RETRY: Duration = Duration::from_secs(1);

/// The links on which routers are looked for.
#[derive(Debug)]
pub(crate) struct Discovery {
    events: mpsc::Sender<Event>,
    links: BTreeMap<String, AbortHandle>,
}

impl Discovery {
    /// On no link.
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            events,
            links: BTreeMap::new(),
        }
    }

    /// On the links that the configuration names.
    pub(crate) fn set(&mut self, config: &SpeakerConfig) {
        let wanted = &config.interface_peers;
        self.links.retain(|interface, task| {
            let stays = wanted.contains_key(interface);
            if !stays {
                task.abort();
            }
            stays
        });
        for interface in wanted.keys() {
            self.links.entry(interface.clone()).or_insert_with(|| {
                tokio::spawn(watch(interface.clone(), self.events.clone())).abort_handle()
            });
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.links.values().for_each(AbortHandle::abort);
    }
}

/// What is known on a link.
struct Link {
    interface: String,
    events: mpsc::Sender<Event>,
    /// The router, and until when it is one.
    found: Option<((Ipv6Addr, u32), Instant)>,
}

async fn watch(interface: String, events: mpsc::Sender<Event>) {
    let mut link = Link {
        interface,
        events,
        found: None,
    };
    // Said once, not at every attempt.
    let mut said = String::new();
    loop {
        let words = match open(&link.interface) {
            Ok(socket) => match link.listen(&socket).await {
                Ok(()) => return,
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        if said != words {
            tracing::warn!("cannot look for routers on {}: {words}", link.interface);
            said = words;
        }
        if link.expire(Instant::now()).await.is_err() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Nobody listens to events any more.
struct Gone;

impl Link {
    /// Until the interface is gone, or the speaker (`Ok`).
    async fn listen(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let mut advertise_at = Instant::now();
        loop {
            let now = Instant::now();
            if now >= advertise_at {
                // Not yet with an address: soon again.
                let sent = send(socket, &advertisement(), ALL_NODES);
                let _ = send(socket, &solicitation(), ALL_ROUTERS);
                advertise_at = now + if sent.is_ok() { INTERVAL } else { RETRY };
            }
            if self.expire(now).await.is_err() {
                return Ok(());
            }
            let until = self
                .found
                .map_or(advertise_at, |(_, until)| until.min(advertise_at));
            let received = socket.async_io(Interest::READABLE, || {
                let mut buffer = [0; 1500];
                let datagram = sys::receive(socket, &mut buffer)?;
                Ok((datagram, buffer))
            });
            let (datagram, buffer) = match tokio::time::timeout_at(until.into(), received).await {
                Ok(received) => received?,
                Err(_) => continue,
            };
            let octets = buffer.get(..datagram.length).unwrap_or_default();
            if datagram.ttl != Some(ON_LINK) {
                continue;
            }
            let told = match parse(octets) {
                Some(Heard::Solicitation) => {
                    // If it gets lost, the next one is due soon.
                    let _ = send(socket, &advertisement(), ALL_NODES);
                    Ok(())
                }
                Some(Heard::Advertisement { lifetime }) => {
                    self.found(datagram.from, lifetime).await
                }
                None => Ok(()),
            };
            if told.is_err() {
                return Ok(());
            }
        }
    }

    async fn found(&mut self, from: SocketAddr, lifetime: Duration) -> Result<(), Gone> {
        let SocketAddr::V6(from) = from else {
            return Ok(());
        };
        if !from.ip().is_unicast_link_local() {
            return Ok(());
        }
        let router = (*from.ip(), from.scope_id());
        let before = self.found.map(|(router, _)| router);
        // Another one on the same link is not heard before the first is gone.
        if before.is_some_and(|before| before != router) {
            return Ok(());
        }
        self.found = Some((router, Instant::now() + lifetime));
        if before.is_none() && !lifetime.is_zero() {
            self.tell().await?;
        }
        Ok(())
    }

    async fn expire(&mut self, now: Instant) -> Result<(), Gone> {
        if self.found.is_some_and(|(_, until)| until <= now) {
            self.found = None;
            self.tell().await?;
        }
        Ok(())
    }

    async fn tell(&self) -> Result<(), Gone> {
        let router = self.found.map(|(router, _)| router);
        let event = Event::Neighbour(self.interface.clone(), router);
        self.events.send(event).await.map_err(|_| Gone)
    }
}

/// A message that matters here.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Solicitation,
    Advertisement { lifetime: Duration },
}

/// RFC 4861 sections 4.1, 4.2 and 6.1.
fn parse(octets: &[u8]) -> Option<Heard> {
    match *octets {
        [ROUTER_SOLICITATION, 0, _, _, _, _, _, _, ..] => Some(Heard::Solicitation),
        [ROUTER_ADVERTISEMENT, 0, _, _, _, _, high, low, ..] if octets.len() >= 16 => {
            let seconds = u16::from_be_bytes([high, low]);
            Some(Heard::Advertisement {
                lifetime: Duration::from_secs(seconds.into()),
            })
        }
        _ => None,
    }
}

/// The kernel fills in the checksum.
fn advertisement() -> [u8; 16] {
    let mut octets = [0; 16];
    octets[0] = ROUTER_ADVERTISEMENT;
    octets[6..8].copy_from_slice(&LIFETIME.to_be_bytes());
    octets
}

fn solicitation() -> [u8; 8] {
    [ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]
}

fn send(socket: &UdpSocket, octets: &[u8], to: Ipv6Addr) -> io::Result<()> {
    let to = SocketAddrV6::new(to, 0, 0, 0);
    socket.try_send_to(octets, to.into()).map(drop)
}

/// A datagram socket to the runtime, whatever the protocol.
fn open(interface: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    let scope = rustix::net::netdevice::name_to_index(&socket, interface)?;
    socket.join_multicast_v6(&ALL_ROUTERS, scope)?;
    socket.set_multicast_if_v6(scope)?;
    socket.set_multicast_hops_v6(ON_LINK.into())?;
    socket.set_multicast_loop_v6(false)?;
    sys::set_icmpv6_filter(&socket, &[ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT])?;
    sys::set_receive_ttl(&socket, false)?;
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_messages_are_heard() {
        let heard = parse(&advertisement());
        let lifetime = Duration::from_secs(LIFETIME.into());
        assert_eq!(heard, Some(Heard::Advertisement { lifetime }));
        assert_eq!(parse(&solicitation()), Some(Heard::Solicitation));
        assert_eq!(parse(&advertisement()[..15]), None);
        assert_eq!(parse(&solicitation()[..7]), None);
        let mut coded = advertisement();
        coded[1] = 1;
        assert_eq!(parse(&coded), None);
    }
}
