//! Routing information bases (RFC 4271 section 3.2).
//!
//! Adj-RIB-In and Loc-RIB are one table: per prefix every path as it was received, before policy,
//! with the [`Verdict`] of the last decision. So a change of policy needs no refresh from peers,
//! and why a path is not in use is there to be read. The Adj-RIB-Outs are in [`adj_out`].

mod adj_in;
pub(crate) mod adj_out;
mod adj_out_paths;
pub(crate) mod attributes;
pub(crate) mod decision;
pub(crate) mod export;
mod forwarding;
mod import;
mod learned;
mod own;
mod pool;
pub(crate) mod slots;
pub(crate) mod table;
pub(crate) mod update_group;

use crate::config::{Decision, FibChange, Import, Role};
use crate::filter::Filter;
use crate::speaker::PeerId;
use crate::wire::Family;
use attributes::PathAttributes;
use decision::Verdict;
use forwarding::Forwarding;
use ipnet::IpNet;
use own::OwnPrefixes;
use pool::{Pool, PoolId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use table::{SlotId, StoredPath, Table};

/// Changes that room is kept for when there are none.
const QUEUE: usize = 16 * 1024;

/// LOCAL_PREF of a path that has none.
pub(crate) const DEFAULT_LOCAL_PREF: u32 = crate::wire::DEFAULT_LOCAL_PREF;

/// Who a path is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    Local,
    Peer(PeerId),
}

/// A path to a prefix, as received.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    pub(crate) source: Source,
    pub(crate) attributes: Arc<PathAttributes>,
    /// Kept from a session that has ended (RFC 4724).
    pub(crate) stale: bool,
    pub(crate) verdict: Verdict,
    stored: StoredPath,
}

/// What the decision needs to know about a peer; of the last session if there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerFacts {
    pub(crate) address: IpAddr,
    /// Index of the interface that its link-local address is on; 0 otherwise.
    pub(crate) scope: u32,
    /// Name of that interface.
    pub(crate) interface: Option<Arc<str>>,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) local_as: u32,
    pub(crate) remote_as: u32,
    pub(crate) ibgp: bool,
    pub(crate) client: bool,
    /// The client's cluster.
    pub(crate) cluster_id: Ipv4Addr,
    pub(crate) allow_own_as: u8,
    pub(crate) import: Import,
    pub(crate) import_filter: Arc<Filter>,
    pub(crate) role: Option<Role>,
    /// Families whose stale paths are a last resort (RFC 9494).
    pub(crate) long_lived: Vec<Family>,
    /// Our address of the session.
    pub(crate) local_address: Option<IpAddr>,
}

/// Who we are, as far as routes can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) local_as: u32,
    pub(crate) router_id: Ipv4Addr,
    /// Every cluster that we reflect for.
    pub(crate) cluster_ids: BTreeSet<Ipv4Addr>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) decision: Decision,
    /// Metric of routes in the kernel of which nobody has said another.
    pub(crate) metric: Option<u32>,
}

/// How many prefixes a peer has announced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) received: usize,
    /// Those of `received` that are IPv6.
    pub(crate) received_v6: usize,
    pub(crate) stale: usize,
}

impl Count {
    fn add(&mut self, prefix: &IpNet) {
        self.received += 1;
        self.received_v6 += usize::from(prefix.addr().is_ipv6());
    }

    fn remove(&mut self, prefix: &IpNet) {
        self.received -= 1;
        self.received_v6 -= usize::from(prefix.addr().is_ipv6());
    }

    /// By family.
    pub(crate) fn received_by_family(&self) -> [(Family, usize); 2] {
        [
            (Family::IPV4, self.received - self.received_v6),
            (Family::IPV6, self.received_v6),
        ]
    }
}

/// Somebody's path, without the prefix: many prefixes share one.
#[derive(Debug)]
pub(crate) struct Announcement {
    source: Source,
    attributes: Arc<PathAttributes>,
}

/// A path after import policy, as export policy sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Learned<'a> {
    pub(crate) source: Source,
    pub(crate) attributes: &'a Arc<PathAttributes>,
    pub(crate) interface: Option<&'a str>,
    /// Its metric in the kernel, where routes are written there.
    pub(crate) priority: Option<u32>,
}

/// What import policy has made of a path, for the few paths that it changes.
#[derive(Debug)]
struct Overlay {
    source: Source,
    path_id: u32,
    announcement: PoolId<Announcement>,
    priority: Option<u32>,
}

/// Interface and metric of a route of this node.
type LocalMark = (Option<String>, Option<u32>);

/// Adj-RIBs-In and Loc-RIB.
#[derive(Debug)]
pub(crate) struct Rib {
    identity: Identity,
    peers: BTreeMap<PeerId, PeerFacts>,
    counts: BTreeMap<PeerId, Count>,
    table: Table,
    announcements: Pool<Announcement>,
    forwarding: Pool<Forwarding>,
    overlays: BTreeMap<IpNet, Vec<Overlay>>,
    /// Marks of routes of this node that have any.
    local_marks: BTreeMap<IpNet, LocalMark>,
    own: OwnPrefixes,
    /// Prefixes with a route of this node.
    local: BTreeSet<IpNet>,
    dirty: VecDeque<SlotId>,
    fib_dirty: VecDeque<SlotId>,
    /// Nobody forwards by this table.
    no_fib: bool,
    vacant: Vec<SlotId>,
    /// How many of `vacant` somebody needed when they were last looked at.
    needed: usize,
}

/// All that is known about a prefix, to be worked on.
#[derive(Debug, Default)]
pub(crate) struct Destination {
    paths: Vec<Path>,
}

impl Path {
    /// The peer's path identifier (RFC 7911); 0 without.
    pub(crate) fn path_id(&self) -> u32 {
        self.stored.path_id
    }
}

impl Destination {
    /// All paths, the best one first if there is one.
    pub(crate) fn paths(&self) -> &[Path] {
        &self.paths
    }
}

impl Rib {
    /// Empty tables; nothing that can be seen depends on the seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            identity: Identity {
                local_as: 0,
                router_id: Ipv4Addr::UNSPECIFIED,
                cluster_ids: BTreeSet::new(),
                addresses: Vec::new(),
                decision: Decision::default(),
                metric: None,
            },
            peers: BTreeMap::new(),
            counts: BTreeMap::new(),
            table: Table::new(seed),
            announcements: Pool::default(),
            forwarding: Pool::default(),
            overlays: BTreeMap::new(),
            local_marks: BTreeMap::new(),
            own: OwnPrefixes::default(),
            local: BTreeSet::new(),
            dirty: VecDeque::new(),
            fib_dirty: VecDeque::new(),
            no_fib: false,
            vacant: Vec::new(),
            needed: 0,
        }
    }

    pub(crate) fn set_identity(&mut self, identity: Identity) {
        if self.identity != identity {
            self.identity = identity;
            self.mark_dirty_where(|_, _| true);
        }
    }

    /// Facts about a peer have to be there before its first path.
    pub(crate) fn set_peer(&mut self, peer: PeerId, facts: PeerFacts) {
        if self.peers.get(&peer) != Some(&facts) {
            self.peers.insert(peer, facts);
            if self.count(peer).received > 0 {
                self.mark_dirty_where(|rib, slot| rib.has_path_of(slot, Source::Peer(peer)));
            }
        }
    }

    pub(crate) fn peer(&self, peer: PeerId) -> Option<&PeerFacts> {
        self.peers.get(&peer)
    }

    /// Forgets a peer and all of its paths.
    pub(crate) fn remove_peer(&mut self, peer: PeerId) {
        self.remove_paths(peer, |_, _| true);
        self.peers.remove(&peer);
        self.counts.remove(&peer);
    }

    pub(crate) fn count(&self, peer: PeerId) -> Count {
        self.counts.get(&peer).copied().unwrap_or_default()
    }

    /// Number of prefixes.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// All prefixes, in order, with what is known about each.
    pub(crate) fn destinations(&self) -> impl Iterator<Item = (IpNet, Destination)> {
        let slots = self.table.sorted().into_iter();
        slots
            .filter(|slot| !self.table.paths(*slot).is_empty())
            .map(|slot| (*self.table[slot].prefix(), self.destination(slot)))
    }

    /// All prefixes by number; a number may be in use that has no path.
    pub(crate) fn slots(&self) -> impl Iterator<Item = SlotId> {
        self.table.slots()
    }

    /// The prefix with this number.
    pub(crate) fn prefix(&self, slot: SlotId) -> &IpNet {
        self.table[slot].prefix()
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Decides about some of what has changed. Returns the prefixes, whose [`Rib::best`] may be
    /// another one.
    pub(crate) fn resolve(&mut self, limit: usize) -> Vec<SlotId> {
        let dirty: Vec<SlotId> = self.dirty.drain(..self.dirty.len().min(limit)).collect();
        if self.dirty.is_empty() {
            self.dirty.shrink_to(QUEUE);
        }
        let mut destination = Destination::default();
        for slot in &dirty {
            self.table[*slot].dirty = false;
            self.load(*slot, &mut destination);
            if !destination.paths.is_empty() {
                let prefix = *self.table[*slot].prefix();
                self.decide(&prefix, &mut destination);
                self.store(*slot, &destination);
            } else if !self.overlays.is_empty() {
                let prefix = *self.table[*slot].prefix();
                self.set_overlays(&prefix, Vec::new());
            }
            if !self.no_fib {
                self.queue_fib(*slot);
            } else if destination.paths.is_empty() {
                self.vacate(*slot);
            }
        }
        dirty
    }

    /// Nobody asks for forwarding changes from now on.
    pub(crate) fn forget_fib(&mut self) {
        self.no_fib = true;
        for slot in std::mem::take(&mut self.fib_dirty) {
            self.table[slot].fib_dirty = false;
            if self.table.paths(slot).is_empty() {
                self.vacate(slot);
            }
        }
    }

    fn queue_fib(&mut self, slot: SlotId) {
        if !std::mem::replace(&mut self.table[slot].fib_dirty, true) {
            self.fib_dirty.push_back(slot);
        }
    }

    pub(crate) fn has_fib_changes(&self) -> bool {
        !self.fib_dirty.is_empty()
    }

    /// The next change of the forwarding table. What changes before it is asked for again is told
    /// once, as it is then.
    pub(crate) fn poll_fib(&mut self) -> Option<FibChange> {
        while let Some(slot) = self.fib_dirty.pop_front() {
            self.table[slot].fib_dirty = false;
            let change = self.fib_change(slot);
            if self.table.paths(slot).is_empty() {
                self.vacate(slot);
            }
            if change.is_some() {
                return change;
            }
        }
        self.fib_dirty.shrink_to(QUEUE);
        None
    }

    /// Gives back the slots of prefixes that are gone, unless somebody still `needs` one. That is
    /// done when there are twice as many as prefixes: one that comes again is there.
    pub(crate) fn reclaim(&mut self, needs: impl Fn(SlotId) -> bool) {
        let least = self.table.len().max(self.needed) * 2;
        if self.vacant.is_empty() || self.vacant.len() < least {
            return;
        }
        let mut needed = Vec::new();
        let mut unneeded = Vec::new();
        for slot in std::mem::take(&mut self.vacant) {
            let entry = &self.table[slot];
            if entry.dirty || entry.fib_dirty || !self.table.paths(slot).is_empty() {
                self.table[slot].vacant = false;
            } else if needs(slot) {
                needed.push(slot);
            } else {
                unneeded.push(slot);
            }
        }
        if !unneeded.is_empty() {
            self.table.remove(&unneeded);
        }
        self.needed = needed.len();
        self.vacant = needed;
    }

    /// Somebody needs fewer slots than before.
    pub(crate) fn reclaim_soon(&mut self) {
        self.needed = 0;
    }

    fn vacate(&mut self, slot: SlotId) {
        if !std::mem::replace(&mut self.table[slot].vacant, true) {
            self.vacant.push(slot);
        }
    }

    fn destination(&self, slot: SlotId) -> Destination {
        let mut destination = Destination::default();
        self.load(slot, &mut destination);
        destination
    }

    fn load(&self, slot: SlotId, destination: &mut Destination) {
        destination.paths.clear();
        for stored in self.table.paths(slot) {
            if let Some(announcement) = self.announcements.get(stored.announcement) {
                destination.paths.push(Path {
                    source: announcement.source,
                    attributes: Arc::clone(&announcement.attributes),
                    stale: stored.stale,
                    verdict: stored.verdict,
                    stored: *stored,
                });
            }
        }
    }

    /// Order and verdicts, which is what a decision changes.
    fn store(&mut self, slot: SlotId, destination: &Destination) {
        let stored = self.table.paths_mut(slot).iter_mut();
        for (stored, path) in stored.zip(&destination.paths) {
            *stored = StoredPath {
                verdict: path.verdict,
                ..path.stored
            };
        }
    }

    fn mark_dirty(&mut self, slot: SlotId) {
        if !std::mem::replace(&mut self.table[slot].dirty, true) {
            self.dirty.push_back(slot);
        }
    }

    fn mark_dirty_where(&mut self, marked: impl Fn(&Self, SlotId) -> bool) {
        let slots = self.table.slots().filter(|slot| marked(self, *slot));
        for slot in slots.collect::<Vec<_>>() {
            self.mark_dirty(slot);
        }
    }

    fn has_path_of(&self, slot: SlotId, source: Source) -> bool {
        let mut paths = self.table.paths(slot).iter();
        paths.any(|path| self.source(path) == source)
    }
}

#[cfg(test)]
mod tests;
