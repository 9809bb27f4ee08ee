//! Adj-RIB-In: what peers announce and withdraw, and the routes of this node beside it.

use super::attributes::PathAttributes;
use super::pool::PoolId;
use super::table::{SlotId, StoredPath};
use super::{Announcement, LocalMark, Rib, Source};
use crate::config::LocalRoute;
use crate::speaker::PeerId;
use crate::wire::{AsPath, Attributes, Family, NextHop, Nlri};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

impl Rib {
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
                Put::Added => count.add(&nlri.prefix),
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
                count.remove(&nlri.prefix);
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

    pub(super) fn intern(
        &mut self,
        source: Source,
        attributes: PathAttributes,
    ) -> PoolId<Announcement> {
        let key = (source, attributes);
        let is = |known: &Announcement| known.source == key.0 && *known.attributes == key.1;
        // Cloned only if it is kept, which is once for many prefixes.
        self.announcements.intern(&key, is, || Announcement {
            source: key.0,
            attributes: Arc::new(key.1.clone()),
        })
    }

    pub(super) fn source(&self, path: &StoredPath) -> Source {
        let announcement = self.announcements.get(path.announcement);
        announcement.map_or(Source::Local, |announcement| announcement.source)
    }

    /// Where among a prefix's paths that of a source is.
    pub(super) fn position(&self, slot: SlotId, path_id: u32, source: Source) -> Option<usize> {
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

    pub(super) fn remove_paths(
        &mut self,
        peer: PeerId,
        remove: impl Fn(&IpNet, &StoredPath) -> bool,
    ) {
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
                count.remove(self.table[slot].prefix());
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
