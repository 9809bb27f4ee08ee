//! Routing information bases (RFC 4271 section 3.2).
//!
//! Adj-RIB-In and Loc-RIB are one table: per prefix every path as it was received, before policy,
//! with the [`Verdict`] of the last decision. So a change of policy needs no refresh from peers,
//! and why a path is not in use is there to be read. The Adj-RIB-Outs are in [`adj_out`].

pub(crate) mod adj_out;
mod adj_out_paths;
pub(crate) mod attributes;
pub(crate) mod decision;
pub(crate) mod export;
mod forwarding;
mod import;
mod own;
mod pool;
pub(crate) mod slots;
pub(crate) mod table;
pub(crate) mod update_group;

use crate::config::{Decision, FibChange, Import, LocalRoute, Role};
use crate::filter::Filter;
use crate::speaker::PeerId;
use crate::wire::{AsPath, Attributes, Family, NextHop, Nlri};
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
}

/// How many prefixes a peer has announced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) received: usize,
    pub(crate) stale: usize,
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
    /// Its metric in the kernel, where somebody has said one.
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

    /// A peer announces prefixes with the same attributes.
    pub(crate) fn announce(
        &mut self,
        peer: PeerId,
        attributes: Attributes,
        next_hop: NextHop,
        prefixes: &[Nlri],
    ) {
        let attributes = PathAttributes::new(attributes, next_hop);
        let source = Source::Peer(peer);
        let announcement = self.intern(source, attributes);
        self.announcements.hold(announcement);
        let mut count = self.count(peer);
        let slots = self.find_all(prefixes);
        for (nlri, slot) in prefixes.iter().zip(slots) {
            let slot = slot.unwrap_or_else(|| self.table.find_or_insert(&nlri.prefix));
            match self.put(slot, nlri.path_id, source, announcement) {
                Put::Added => count.received += 1,
                Put::Replaced { stale } => count.stale -= usize::from(stale),
            }
        }
        self.counts.insert(peer, count);
        self.announcements.release(announcement);
    }

    /// A peer withdraws prefixes.
    pub(crate) fn withdraw(&mut self, peer: PeerId, prefixes: &[Nlri]) {
        let mut count = self.count(peer);
        let slots = self.find_all(prefixes);
        for (nlri, slot) in prefixes.iter().zip(slots) {
            let path = slot.and_then(|slot| self.take(slot, nlri.path_id, Source::Peer(peer)));
            if let Some(path) = path {
                count.received -= 1;
                count.stale -= usize::from(path.stale);
            }
        }
        self.counts.insert(peer, count);
    }

    /// One after the other in a loop of its own: the processor then waits for several cache lines
    /// at a time.
    fn find_all(&self, prefixes: &[Nlri]) -> Vec<Option<SlotId>> {
        let prefixes = prefixes.iter();
        prefixes.map(|nlri| self.table.find(&nlri.prefix)).collect()
    }

    fn intern(&mut self, source: Source, attributes: PathAttributes) -> PoolId<Announcement> {
        let key = (source, attributes);
        let is = |known: &Announcement| known.source == key.0 && *known.attributes == key.1;
        // Cloned only if it is kept, which is once for many prefixes.
        self.announcements.intern(&key, is, || Announcement {
            source: key.0,
            attributes: Arc::new(key.1.clone()),
        })
    }

    fn source(&self, path: &StoredPath) -> Source {
        let announcement = self.announcements.get(path.announcement);
        announcement.map_or(Source::Local, |announcement| announcement.source)
    }

    /// Where among a prefix's paths that of a source is.
    fn position(&self, slot: SlotId, path_id: u32, source: Source) -> Option<usize> {
        let mut paths = self.table.paths(slot).iter();
        paths.position(|path| path.path_id == path_id && self.source(path) == source)
    }

    fn put(
        &mut self,
        slot: SlotId,
        path_id: u32,
        source: Source,
        announcement: PoolId<Announcement>,
    ) -> Put {
        let Some(index) = self.position(slot, path_id, source) else {
            let path = StoredPath::new(announcement, path_id);
            self.table.add_path(slot, path);
            self.announcements.hold(announcement);
            self.mark_dirty(slot);
            return Put::Added;
        };
        let path = &mut self.table.paths_mut(slot)[index];
        let stale = std::mem::take(&mut path.stale);
        let before = std::mem::replace(&mut path.announcement, announcement);
        if before != announcement {
            self.announcements.hold(announcement);
            self.announcements.release(before);
            self.mark_dirty(slot);
        } else if stale && self.overlays.contains_key(self.table[slot].prefix()) {
            // Being stale may be what policy has changed it for.
            self.mark_dirty(slot);
        }
        Put::Replaced { stale }
    }

    fn take(&mut self, slot: SlotId, path_id: u32, source: Source) -> Option<StoredPath> {
        let index = self.position(slot, path_id, source)?;
        let path = self.table.remove_path(slot, index);
        self.announcements.release(path.announcement);
        self.mark_dirty(slot);
        Some(path)
    }

    /// The session has ended and the peer's paths of some families are kept for the time being.
    pub(crate) fn mark_stale(&mut self, peer: PeerId, families: &[Family]) {
        let mut count = self.count(peer);
        if count.received == 0 || families.is_empty() {
            return;
        }
        for slot in self.table.slots().collect::<Vec<_>>() {
            if !families.contains(&Family::of(self.table[slot].prefix())) {
                continue;
            }
            for index in 0..self.table.paths(slot).len() {
                if self.source(&self.table.paths(slot)[index]) == Source::Peer(peer) {
                    let path = &mut self.table.paths_mut(slot)[index];
                    count.stale += usize::from(!path.stale);
                    path.stale = true;
                }
            }
        }
        self.counts.insert(peer, count);
    }

    /// Forgets the paths of a family that have not been announced again.
    pub(crate) fn sweep(&mut self, peer: PeerId, family: Family) {
        if self.count(peer).stale > 0 {
            self.remove_paths(peer, |prefix, path| {
                path.stale && Family::of(prefix) == family
            });
        }
    }

    /// Forgets the paths of all families but these.
    pub(crate) fn retain_families(&mut self, peer: PeerId, families: &[Family]) {
        self.remove_paths(peer, |prefix, _| !families.contains(&Family::of(prefix)));
    }

    /// Replaces the routes of this node.
    pub(crate) fn set_local(&mut self, routes: &BTreeMap<IpNet, LocalRoute>) {
        let mut local = std::mem::take(&mut self.local);
        local.retain(|prefix| {
            let stays = routes.contains_key(prefix);
            if !stays {
                if let Some(slot) = self.table.find(prefix) {
                    self.take(slot, 0, Source::Local);
                }
                self.local_marks.remove(prefix);
            }
            stays
        });
        for (prefix, route) in routes {
            let attributes = PathAttributes::new(local_attributes(route), unspecified(prefix));
            let announcement = self.intern(Source::Local, attributes);
            self.announcements.hold(announcement);
            let slot = self.table.find_or_insert(prefix);
            self.put(slot, 0, Source::Local, announcement);
            self.announcements.release(announcement);
            self.mark_local(prefix, route);
            local.insert(*prefix);
        }
        self.local = local;
        let changed = self.own.replace(routes.keys());
        if !changed.is_empty() {
            self.mark_dirty_where(|rib, slot| changed.covers(rib.prefix(slot)));
        }
    }

    fn mark_local(&mut self, prefix: &IpNet, route: &LocalRoute) {
        let mark = (route.interface.clone(), route.priority);
        let changed = if mark == LocalMark::default() {
            self.local_marks.remove(prefix).is_some()
        } else {
            self.local_marks.insert(*prefix, mark.clone()) != Some(mark)
        };
        if let Some(slot) = self.table.find(prefix).filter(|_| changed) {
            self.mark_dirty(slot);
        }
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

    /// The best path to a prefix.
    pub(crate) fn best(&self, slot: SlotId) -> Option<Learned<'_>> {
        let path = self.table.paths(slot).first()?;
        let announcement = self.announcements.get(path.announcement)?;
        let learned = || self.learned(slot, path, announcement);
        (path.verdict == Verdict::Best).then(learned)
    }

    /// The paths to a prefix that may be used, the best one first.
    pub(crate) fn usable(&self, slot: SlotId) -> impl Iterator<Item = (Verdict, u32, Learned<'_>)> {
        let paths = self.table.paths(slot).iter();
        let usable = paths.filter(|path| !matches!(path.verdict, Verdict::Refused(_)));
        usable.filter_map(move |path| {
            let announcement = self.announcements.get(path.announcement)?;
            let learned = self.learned(slot, path, announcement);
            Some((path.verdict, path.path_id, learned))
        })
    }

    /// A path as import policy has left it.
    fn learned<'a>(
        &'a self,
        slot: SlotId,
        path: &StoredPath,
        announcement: &'a Announcement,
    ) -> Learned<'a> {
        let mut learned = Learned {
            source: announcement.source,
            attributes: &announcement.attributes,
            interface: None,
            priority: None,
        };
        if self.overlays.is_empty() && self.local_marks.is_empty() {
            return learned;
        }
        let prefix = self.prefix(slot);
        if learned.source == Source::Local {
            if let Some((interface, priority)) = self.local_marks.get(prefix) {
                (learned.interface, learned.priority) = (interface.as_deref(), *priority);
            }
            return learned;
        }
        let mut overlays = self.overlays.get(prefix).into_iter().flatten();
        let is =
            |other: &&Overlay| (other.source, other.path_id) == (announcement.source, path.path_id);
        if let Some(overlay) = overlays.find(is)
            && let Some(changed) = self.announcements.get(overlay.announcement)
        {
            learned.attributes = &changed.attributes;
            learned.priority = overlay.priority;
        }
        learned
    }

    /// Attributes of a path of a [`Destination`] as import policy has left them.
    pub(crate) fn attributes_in_use<'a>(
        &'a self,
        prefix: &IpNet,
        path: &'a Path,
    ) -> &'a Attributes {
        let overlays = self.overlays.get(prefix).into_iter().flatten();
        let mut changed = overlays
            .filter(|other| (other.source, other.path_id) == (path.source, path.path_id()))
            .filter_map(|overlay| self.announcements.get(overlay.announcement));
        let attributes = changed
            .next()
            .map_or(&path.attributes, |changed| &changed.attributes);
        &attributes.attributes
    }

    fn set_overlays(&mut self, prefix: &IpNet, overlays: Vec<Overlay>) {
        if overlays.is_empty() && self.overlays.is_empty() {
            return;
        }
        for overlay in &overlays {
            self.announcements.hold(overlay.announcement);
        }
        let before = if overlays.is_empty() {
            self.overlays.remove(prefix)
        } else {
            self.overlays.insert(*prefix, overlays)
        };
        for overlay in before.into_iter().flatten() {
            self.announcements.release(overlay.announcement);
        }
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

    fn remove_paths(&mut self, peer: PeerId, remove: impl Fn(&IpNet, &StoredPath) -> bool) {
        let mut count = self.count(peer);
        if count.received == 0 {
            return;
        }
        for slot in self.table.slots().collect::<Vec<_>>() {
            let mut index = 0;
            while let Some(path) = self.table.paths(slot).get(index) {
                let gone = self.source(path) == Source::Peer(peer)
                    && remove(self.table[slot].prefix(), path);
                if !gone {
                    index += 1;
                    continue;
                }
                let path = self.table.remove_path(slot, index);
                count.received -= 1;
                count.stale -= usize::from(path.stale);
                self.announcements.release(path.announcement);
                self.mark_dirty(slot);
            }
        }
        self.counts.insert(peer, count);
    }
}

/// What became of an announcement.
enum Put {
    Added,
    /// There was a path of that source before, and whether it was stale.
    Replaced {
        stale: bool,
    },
}

fn local_attributes(route: &LocalRoute) -> Attributes {
    Attributes {
        as_path: AsPath::default(),
        communities: route.communities.clone(),
        large_communities: route.large_communities.clone(),
        local_pref: route.local_pref,
        ..Attributes::default()
    }
}

fn unspecified(prefix: &IpNet) -> NextHop {
    let address = match prefix {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpNet::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    NextHop {
        address,
        link_local: None,
    }
}

#[cfg(test)]
mod tests;
