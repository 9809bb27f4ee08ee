//! The loop of the thread: commands, packets, timers.

use super::socket::{self, Kind};
use super::{Change, Command};
use crate::sys;
use bgp_core::bfd::{Packet, Report, SINGLE_HOP_TTL, Session, Transition};
use bgp_core::{PeerId, WatchedPath};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockAddr, Socket};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Between attempts to open a socket.
const RETRY: Duration = Duration::from_secs(1);
/// Between repetitions of AdminDown.
const REPEAT: Duration = Duration::from_millis(50);
/// How long peers have to hear it.
const FAREWELL: Duration = Duration::from_millis(300);
/// Packets taken from a socket before timers are looked at.
const BATCH: usize = 256;
/// A control packet with the longest authentication section (RFC 5880 section 4.4).
const LONGEST_PACKET: usize = 64;

pub(super) struct Engine {
    commands: Receiver<Command>,
    wake: Arc<OwnedFd>,
    changes: mpsc::UnboundedSender<Change>,
    watches: BTreeMap<PeerId, Watch>,
    by_discriminator: HashMap<NonZeroU32, PeerId>,
    /// By address, scope and whether multihop.
    by_remote: HashMap<(IpAddr, u32, bool), PeerId>,
    due: BTreeSet<(Instant, PeerId)>,
    receivers: BTreeMap<Kind, Socket>,
    /// When to try again to open a receiver, and what was wrong.
    retry_at: Option<Instant>,
    said: Option<String>,
    farewell: Option<Farewell>,
    random: RandomState,
    serial: u64,
}

struct Watch {
    path: Box<WatchedPath>,
    session: Session,
    transmitter: Option<(Socket, SockAddr)>,
    reported: Option<Report>,
    due: Option<Instant>,
}

struct Farewell {
    done: oneshot::Sender<()>,
    until: Instant,
    repeat_at: Instant,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Next {
    Continue,
    End,
}

impl Engine {
    pub(super) fn new(
        commands: Receiver<Command>,
        wake: Arc<OwnedFd>,
        changes: mpsc::UnboundedSender<Change>,
    ) -> Self {
        Self {
            commands,
            wake,
            changes,
            watches: BTreeMap::new(),
            by_discriminator: HashMap::new(),
            by_remote: HashMap::new(),
            due: BTreeSet::new(),
            receivers: BTreeMap::new(),
            retry_at: None,
            said: None,
            farewell: None,
            random: RandomState::new(),
            serial: 0,
        }
    }

    pub(super) fn run(mut self) {
        if let Err(error) = sys::set_real_time() {
            tracing::info!("BFD runs without real-time scheduling: {error}");
        }
        while self.take_commands() == Next::Continue {
            self.receive();
            self.serve(Instant::now());
            if self.farewell(Instant::now()) == Next::End {
                break;
            }
            self.wait();
        }
    }

    fn take_commands(&mut self) -> Next {
        loop {
            let now = Instant::now();
            match self.commands.try_recv() {
                Ok(Command::Watch(peer, path)) => self.watch(peer, path, now),
                Ok(Command::Forget(peer)) => self.forget(peer, now),
                Ok(Command::Stop(done)) => {
                    self.farewell = Some(Farewell {
                        done,
                        until: now + FAREWELL,
                        repeat_at: now,
                    });
                }
                Err(TryRecvError::Empty) => return Next::Continue,
                Err(TryRecvError::Disconnected) if self.farewell.is_some() => {
                    return Next::Continue;
                }
                Err(TryRecvError::Disconnected) => return Next::End,
            }
        }
    }

    fn watch(&mut self, peer: PeerId, path: Box<WatchedPath>, now: Instant) {
        if let Some(watch) = self.watches.get_mut(&peer) {
            let same = WatchedPath {
                profile: watch.path.profile,
                ..(*path).clone()
            };
            if same == *watch.path {
                watch.session.configure(path.profile, now);
                watch.path = path;
                return self.attend(peer, now);
            }
            self.forget(peer, now);
        }
        let kind = Kind::of(&path);
        self.open(kind, now);
        let discriminator = self.new_discriminator();
        let seed = self.number();
        self.by_discriminator.insert(discriminator, peer);
        self.by_remote.insert(remote(&path), peer);
        let watch = Watch {
            session: Session::new(path.profile, discriminator, seed, now),
            path,
            transmitter: None,
            reported: None,
            due: None,
        };
        self.watches.insert(peer, watch);
        self.attend(peer, now);
    }

    fn forget(&mut self, peer: PeerId, now: Instant) {
        let Some(watch) = self.watches.get_mut(&peer) else {
            return;
        };
        watch.session.stop(now);
        let seed = self.random.hash_one(peer) as u16;
        watch.transmit(seed, now);
        if let Some(watch) = self.watches.remove(&peer) {
            self.by_discriminator.remove(&watch.session.discriminator());
            self.by_remote.remove(&remote(&watch.path));
            if let Some(due) = watch.due {
                self.due.remove(&(due, peer));
            }
        }
        let wanted: BTreeSet<_> = self
            .watches
            .values()
            .map(|watch| Kind::of(&watch.path))
            .collect();
        self.receivers.retain(|kind, _| wanted.contains(kind));
    }

    /// Opens the receiver of a kind, or tries again later.
    fn open(&mut self, kind: Kind, now: Instant) {
        if self.receivers.contains_key(&kind) {
            return;
        }
        match socket::receiver(kind) {
            Ok(socket) => {
                self.receivers.insert(kind, socket);
                self.said = None;
            }
            Err(error) => {
                let words = format!("cannot receive BFD packets: {error}");
                if self.said.as_ref() != Some(&words) {
                    tracing::warn!("{words}");
                    self.said = Some(words);
                }
                self.retry_at = Some(now + RETRY);
            }
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; LONGEST_PACKET];
        let kinds: Vec<_> = self.receivers.keys().copied().collect();
        for kind in kinds {
            for _ in 0..BATCH {
                let Some(socket) = self.receivers.get(&kind) else {
                    break;
                };
                let Ok(datagram) = sys::receive(socket, &mut buffer) else {
                    break;
                };
                // RFC 5881 section 5: whoever is more than a hop away can't send 255.
                if !kind.multihop && datagram.ttl != Some(SINGLE_HOP_TTL) {
                    continue;
                }
                let octets = buffer.get(..datagram.length).unwrap_or_default();
                if let Ok(packet) = Packet::decode(octets) {
                    self.received(kind, datagram.from, &packet);
                }
            }
        }
    }

    /// RFC 5880 section 6.8.6: by our discriminator, or by address until the other end knows it;
    /// by both, for a stranger may guess.
    fn received(&mut self, kind: Kind, from: SocketAddr, packet: &Packet) {
        let scope = match from {
            SocketAddr::V6(from) => from.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let from_remote = (from.ip(), scope, kind.multihop);
        let peer = match packet.your_discriminator {
            Some(ours) => self.by_discriminator.get(&ours),
            None => self.by_remote.get(&from_remote),
        };
        let Some(peer) = peer.copied() else { return };
        let Some(watch) = self.watches.get_mut(&peer) else {
            return;
        };
        if remote(&watch.path) != from_remote {
            return;
        }
        let now = Instant::now();
        watch.session.receive(packet, now);
        self.attend(peer, now);
    }

    /// Sends what is due for a session, tells what has changed, and notes when it is due again.
    fn attend(&mut self, peer: PeerId, now: Instant) {
        let Some(watch) = self.watches.get_mut(&peer) else {
            return;
        };
        let seed = self.random.hash_one(peer) as u16;
        watch.transmit(seed, now);
        if let Some(change) = watch.change() {
            // The speaker has ended, and this thread is about to.
            let _ = self.changes.send((peer, change));
        }
        let due = watch.session.next_deadline();
        if watch.due != due {
            if let Some(earlier) = watch.due {
                self.due.remove(&(earlier, peer));
            }
            watch.due = due;
            self.due.extend(due.map(|at| (at, peer)));
        }
    }

    fn serve(&mut self, now: Instant) {
        while let Some((at, peer)) = self.due.first().copied()
            && at <= now
        {
            self.attend(peer, now);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            let kinds: BTreeSet<_> = self
                .watches
                .values()
                .map(|watch| Kind::of(&watch.path))
                .collect();
            for kind in kinds {
                self.open(kind, now);
            }
        }
    }

    fn farewell(&mut self, now: Instant) -> Next {
        let Some(farewell) = &mut self.farewell else {
            return Next::Continue;
        };
        if now >= farewell.repeat_at {
            farewell.repeat_at = now + REPEAT;
            let peers: Vec<_> = self.watches.keys().copied().collect();
            for peer in peers {
                if let Some(watch) = self.watches.get_mut(&peer) {
                    watch.session.stop(now);
                }
                self.attend(peer, now);
            }
        }
        let released = self
            .watches
            .values()
            .all(|watch| watch.session.is_released());
        let over = |farewell: &mut Farewell| released || now >= farewell.until;
        if let Some(farewell) = self.farewell.take_if(over) {
            // Nobody may be waiting any more.
            let _ = farewell.done.send(());
            return Next::End;
        }
        Next::Continue
    }

    fn wait(&self) {
        let repeat = self.farewell.as_ref().map(|farewell| farewell.repeat_at);
        let due = self.due.first().map(|(at, _)| *at);
        let next = due.into_iter().chain(self.retry_at).chain(repeat).min();
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut waiting = vec![PollFd::new(&*self.wake, PollFlags::IN)];
        let receivers = self.receivers.values();
        waiting.extend(receivers.map(|socket| PollFd::new(socket, PollFlags::IN)));
        // Interrupted or not: what there is to do is looked at next.
        let _ = poll(&mut waiting, timeout.as_ref());
        // Empty if something else has happened.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
    }

    /// Random, so that a peer does not take this process for the one before it, and not in use.
    fn new_discriminator(&mut self) -> NonZeroU32 {
        loop {
            let candidate = NonZeroU32::new(self.number() as u32);
            if let Some(number) = candidate.filter(|n| !self.by_discriminator.contains_key(n)) {
                return number;
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.serial += 1;
        self.random.hash_one(self.serial)
    }
}

/// Where its packets come from.
fn remote(path: &WatchedPath) -> (IpAddr, u32, bool) {
    (path.remote, path.scope, path.multihop)
}

impl Watch {
    fn transmit(&mut self, seed: u16, now: Instant) {
        while let Some(packet) = self.session.transmit(now) {
            if self.transmitter.is_none() {
                self.transmitter = socket::transmitter(&self.path, seed).ok();
            }
            // What is not sent is noticed by the other end; the next packet is due soon.
            if let Some((socket, target)) = &self.transmitter
                && socket.send_to(&packet.encode(), target).is_err()
            {
                self.transmitter = None;
            }
        }
    }

    fn change(&mut self) -> Option<Transition> {
        let report = self.session.report();
        let changed = self.reported != Some(report);
        self.reported = Some(report);
        let transition = self.session.transition();
        transition.or_else(|| {
            changed.then_some(Transition {
                from: report.state,
                remote_restarted: false,
                report,
            })
        })
    }
}
