//! The speaker: all sessions and RIBs behind one value without IO.
//!
//! ```text
//! set_config, set_local_routes ─┐                       ┌─> poll: Connect, Close, Transmit
//! accept, connected, received ──┼─> Session ──> Rib ────┼─> poll: Converged, More, Notice
//! tick ─────────────────────────┘       │    └> AdjRibOut ─> transmit
//!                                       └> poll_fib
//! ```
//! The caller performs what [`Speaker::poll`] says until it says nothing more, fetches octets
//! with [`Speaker::transmit`] whenever a connection can take some and forwarding changes with
//! [`Speaker::poll_fib`] whenever it can apply some, and calls [`Speaker::tick`] at
//! [`Speaker::next_deadline`].

mod configure;
mod convergence;
mod leaving;
mod liveness;
mod monitor;
mod neighbours;
mod operate;
mod peer;
mod report;
mod restart;
mod sessions;
mod status;

pub use liveness::WatchedPath;
pub use operate::{Operation, OperationError};
pub use status::{AdvertisedStatus, BfdStatus, PathStatus, PeerStatus, RouteStatus, SpeakerStatus};

use crate::config::{
    BGP_PORT, FibChange, LocalRoute, Password, PeerKey, Restart, SpeakerConfig, Stop,
};
use crate::monitoring::Monitored;
use crate::rib::Rib;
use crate::rib::export::ExportPolicy;
use crate::rib::update_group::UpdateGroup;
use crate::session::connection::Event;
use crate::wire::{ErrorCode, Notification, encode_notification};
use convergence::Convergence;
use ipnet::IpNet;
use leaving::Leaving;
use peer::Peer;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// Prefixes decided about at once: a few milliseconds, so that nothing waits for long.
const ROUND: usize = 16 * 1024;

/// A peer for as long as it is configured; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub(crate) u32);

/// A TCP connection, open or being opened; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    pub(crate) peer: PeerId,
    pub(crate) serial: u32,
}

/// What has to be done, or is worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open a TCP connection, then call [`Speaker::connected`] or [`Speaker::connect_failed`].
    Connect {
        /// Its name from now on.
        connection: ConnectionId,
        /// Where to.
        target: SocketAddr,
        /// How.
        options: SocketOptions,
    },
    /// [`Speaker::transmit`] has something for this connection.
    Transmit(ConnectionId),
    /// Send `last`, then close the connection, or give up opening it.
    Close {
        /// Which.
        connection: ConnectionId,
        /// A last message; may be empty.
        last: Vec<u8>,
    },
    /// Sign the segments of this connection with another password.
    Rekey {
        /// Which.
        connection: ConnectionId,
        /// With whom.
        peer: IpAddr,
        /// The password.
        password: Password,
    },
    /// Have BFD watch the path to a peer, or no longer, and tell [`Speaker::path_changed`].
    Watch {
        /// Whose.
        peer: PeerId,
        /// The path, in place of an earlier one; `None` ends it, saying AdminDown.
        path: Option<Box<WatchedPath>>,
    },
    /// The way to this address is known to be broken: whoever forwards there should stop at once.
    /// Changes of the forwarding table follow.
    PathDown {
        /// Address of the peer.
        address: IpAddr,
        /// Index of the interface that a link-local address is on; 0 for others.
        scope: u32,
    },
    /// The initial exchange is over: what [`Speaker::poll_fib`] still says is the last of it.
    Converged,
    /// Something for those who watch, if somebody does ([`Speaker::set_monitored`]).
    Monitored(Box<Monitored>),
    /// There is more to decide than was done at once: call [`Speaker::poll`] again soon, after
    /// whatever else is due.
    More,
    /// Something for the log.
    Notice(Notice),
}

/// How a TCP connection with a peer is to be set up, whoever opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOptions {
    /// Address to connect from.
    pub source: Option<IpAddr>,
    /// Network device to bind to.
    pub device: Option<String>,
    /// TTL or hop limit to send with.
    pub ttl: u8,
    /// Least TTL or hop limit of received packets (RFC 5082); 0 takes all.
    pub min_ttl: u8,
    /// Password of TCP MD5 signatures.
    pub password: Option<Password>,
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Name of what asked for the session, such as `BGPPeer/rack1`.
    pub peer: String,
    /// Whether somebody has to do something about it.
    pub severity: Severity,
    /// What happened.
    pub text: String,
}

/// How bad a [`Notice`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A change for the better, or an expected one.
    Info,
    /// Something does not work as configured.
    Warning,
}

/// Nobody has configured a peer with that address, or it must not connect now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// What to send before closing; nothing where that has been said lately.
    pub last: Vec<u8>,
    /// Why.
    pub text: String,
}

/// A BGP speaker.
#[derive(Debug)]
pub struct Speaker {
    restart: Restart,
    seed: u64,
    config: Option<SpeakerConfig>,
    local_routes: Option<BTreeMap<IpNet, LocalRoute>>,
    peers: BTreeMap<PeerId, Peer>,
    by_key: BTreeMap<PeerKey, PeerId>,
    /// Routers found on interfaces: link-local address and interface index.
    neighbours: BTreeMap<String, (Ipv6Addr, u32)>,
    next_peer: u32,
    rib: Rib,
    groups: BTreeMap<ExportPolicy, UpdateGroup>,
    convergence: Convergence,
    leaving: Leaving,
    outputs: VecDeque<Output>,
    /// Somebody watches.
    monitored: bool,
    draining: bool,
    stopped: bool,
}

impl Speaker {
    /// A speaker without peers. All of its randomness comes from `seed`.
    pub fn new(restart: Restart, seed: u64) -> Self {
        Self {
            restart,
            seed,
            config: None,
            local_routes: None,
            peers: BTreeMap::new(),
            by_key: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            next_peer: 0,
            rib: Rib::new(seed),
            groups: BTreeMap::new(),
            convergence: Convergence::default(),
            leaving: Leaving::default(),
            outputs: VecDeque::new(),
            monitored: false,
            draining: false,
            stopped: false,
        }
    }

    /// Replaces the routes of this node. No session starts before the first call: a restarted
    /// speaker must not send End-of-RIB for a table that it does not know yet.
    pub fn set_local_routes(&mut self, routes: BTreeSet<LocalRoute>, now: Instant) {
        let by_prefix = routes
            .into_iter()
            .map(|route| (route.prefix.trunc(), route))
            .collect();
        self.rib.set_local(&by_prefix);
        let first = self.local_routes.replace(by_prefix).is_none();
        if first {
            self.start_sessions(now);
        }
    }

    /// A peer has connected to us from `remote`.
    ///
    /// # Errors
    /// If nobody configured the peer, or it must not connect now: send what the error has, close.
    pub fn accept(
        &mut self,
        remote: SocketAddr,
        local: SocketAddr,
        now: Instant,
    ) -> Result<(ConnectionId, SocketOptions), Rejected> {
        let key = PeerKey {
            address: remote.ip().to_canonical(),
            port: BGP_PORT,
            scope: scope(&remote),
        };
        let address = key.address;
        let candidates = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.key.address == address && peer.key.scope == key.scope);
        // Several peers may share an address: the first without a session is meant.
        let best = candidates.min_by_key(|(_, peer)| peer.session.is_established());
        let id = match best {
            Some((id, _)) => *id,
            None => self.admit(key, now)?,
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return Err(rejected(format!("connection from {address} refused")));
        };
        let Some(connection) = peer.session.accept(now) else {
            let name = &peer.config.name;
            if let Some(text) = &peer.config.shutdown {
                let cease = Notification::with_text(ErrorCode::CEASE_ADMIN_SHUTDOWN, text);
                let said = peer.refusals.may_say(now);
                return Err(Rejected {
                    last: if said {
                        encode_notification(&cease)
                    } else {
                        Vec::new()
                    },
                    text: format!("connection from {address} ({name}) refused: it is shut down"),
                });
            }
            return Err(rejected(format!(
                "connection from {address} ({name}) refused for now"
            )));
        };
        let options = peer.socket_options();
        peer.open_wire(connection, local, remote.port());
        self.drain_session(id, now);
        Ok((connection, options))
    }

    /// TCP has established a connection that [`Output::Connect`] asked for.
    pub fn connected(&mut self, connection: ConnectionId, local: SocketAddr, now: Instant) {
        let Some(peer) = self.peers.get_mut(&connection.peer) else {
            return;
        };
        peer.open_wire(connection, local, peer.key.port);
        peer.session.connected(connection, now);
        self.drain_session(connection.peer, now);
    }

    /// TCP could not establish a connection that [`Output::Connect`] asked for, and why.
    pub fn connect_failed(&mut self, connection: ConnectionId, words: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(&connection.peer) else {
            return;
        };
        peer.session
            .connect_failed(connection, words.to_owned(), now);
        self.drain_session(connection.peer, now);
    }

    /// Octets have arrived.
    pub fn received(&mut self, connection: ConnectionId, octets: &[u8], now: Instant) {
        self.read(connection, octets, now);
        self.forget_if_gone(connection.peer, now);
    }

    /// A connection is gone, and why.
    pub fn lost(&mut self, connection: ConnectionId, words: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(&connection.peer) else {
            return;
        };
        peer.session
            .handle(connection, Event::Lost(words.to_owned()), now);
        self.drain_session(connection.peer, now);
        self.forget_if_gone(connection.peer, now);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        let due: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.next_deadline().is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.session.tick(now);
                let unread = peer.send_hold_at().is_some_and(|at| at <= now);
                if let Some(connection) = peer.session.established().filter(|_| unread) {
                    peer.session.handle(connection, Event::SendHoldExpired, now);
                }
            }
            self.drain_session(id, now);
            self.sweep_overdue(id, now);
            self.forget_if_gone(id, now);
        }
        self.check_convergence(now);
        self.check_leaving(now);
    }

    /// When [`Speaker::tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let peers = self.peers.values().filter_map(Peer::next_deadline);
        let others = [
            self.convergence.next_deadline(),
            self.leaving.next_deadline(),
        ];
        peers.chain(others.into_iter().flatten()).min()
    }

    /// What has to be done next.
    pub fn poll(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.flush();
        }
        self.outputs.pop_front()
    }

    /// Nobody forwards by this speaker's routes: [`Speaker::poll_fib`] has nothing to say from now
    /// on.
    pub fn forget_fib(&mut self) {
        self.rib.forget_fib();
    }

    /// Whether [`Speaker::poll_fib`] may have something.
    pub fn has_fib_changes(&self) -> bool {
        self.rib.has_fib_changes()
    }

    /// The next forwarding change. Changes of a prefix that come before it is asked for are told
    /// as one.
    pub fn poll_fib(&mut self) -> Option<FibChange> {
        self.rib.poll_fib()
    }

    /// Messages for a connection, about `limit` octets of them; empty if there are none for now.
    pub fn transmit(&mut self, connection: ConnectionId, limit: usize) -> Vec<Arc<[u8]>> {
        let Some(peer) = self.peers.get_mut(&connection.peer) else {
            return Vec::new();
        };
        let mut messages = peer.take_control(connection);
        if let Some(group) = peer
            .group_of(connection)
            .and_then(|key| self.groups.get_mut(key))
        {
            messages.extend(group.take(connection.peer, &self.rib, limit));
            if group.take_caught_up() {
                self.rib.reclaim_soon();
            }
            if !group.wants_to_send(connection.peer) {
                messages.extend(peer.end_refreshes());
            }
        }
        if messages.is_empty() {
            peer.idle(connection);
        }
        messages
    }

    /// Ends all sessions. Nothing but [`Output::Close`] and notices follow.
    pub fn stop(&mut self, stop: Stop, now: Instant) {
        self.stopped = true;
        let cease = Notification::new(ErrorCode::CEASE_ADMIN_SHUTDOWN);
        let notification = match stop {
            Stop::Planned => None,
            Stop::Drain => Some(&cease),
        };
        for id in self.peer_ids() {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.session.stop(notification, "we are stopping", now);
            }
            self.drain_session(id, now);
        }
    }

    fn peer_ids(&self) -> Vec<PeerId> {
        self.peers.keys().copied().collect()
    }

    /// Decides about what has changed and passes it on to the forwarding table and to peers.
    fn flush(&mut self) {
        if self.stopped {
            return;
        }
        if self.rib.is_dirty() {
            let prefixes = self.rib.resolve(ROUND);
            let groups = self.groups.values_mut();
            let waiting: Vec<_> = groups
                .flat_map(|group| group.update(&prefixes, &self.rib))
                .collect();
            for id in waiting {
                self.wake(id);
            }
            if self.rib.is_dirty() {
                self.outputs.push_back(Output::More);
                return;
            }
        }
        let groups: Vec<&UpdateGroup> = self.groups.values().filter(|g| g.is_behind()).collect();
        self.rib
            .reclaim(|slot| groups.iter().any(|group| group.needs(slot)));
        if self.convergence.take_released() {
            self.release_end_of_rib();
        }
        if self.convergence.take_reached() {
            self.outputs.push_back(Output::Converged);
        }
    }

    /// Says once that there is something to transmit, if there is.
    fn announce_output(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if let Some((_, key)) = &peer.member
            && self
                .groups
                .get(key)
                .is_some_and(|group| group.wants_to_send(id))
        {
            self.wake(id);
        }
    }

    /// Says once that there is something to transmit.
    fn wake(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && let Some((connection, _)) = peer.member
            && peer.busy(connection)
        {
            self.outputs.push_back(Output::Transmit(connection));
        }
    }
}

/// The interface that an address needs: others are good on any.
fn scope(address: &SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(address) if address.ip().is_unicast_link_local() => address.scope_id(),
        SocketAddr::V4(_) | SocketAddr::V6(_) => 0,
    }
}

fn rejected(text: String) -> Rejected {
    let cease = Notification::new(ErrorCode::CEASE_CONNECTION_REJECTED);
    Rejected {
        last: encode_notification(&cease),
        text,
    }
}

#[cfg(test)]
mod tests;
