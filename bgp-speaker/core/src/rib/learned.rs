//! Paths as import policy has left them, which is how the rest sees them.

use super::decision::Verdict;
use super::table::{SlotId, StoredPath};
use super::{Announcement, Learned, Overlay, Path, Rib, Source};
use crate::speaker::PeerId;
use crate::wire::Attributes;
use ipnet::IpNet;
use std::collections::BTreeSet;

impl Rib {
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

    /// Those of these peers without whom some prefix would have no path that may be used.
    pub(crate) fn sole_sources(&self, peers: &BTreeSet<PeerId>) -> BTreeSet<PeerId> {
        let mut sole = BTreeSet::new();
        if peers.is_empty() {
            return sole;
        }
        for slot in self.table.slots() {
            let sources = || self.usable(slot).map(|(_, _, path)| path.source);
            let among = |source: &Source| match source {
                Source::Local => None,
                Source::Peer(peer) => peers.get(peer).copied(),
            };
            if sources().all(|source| among(&source).is_some()) {
                sole.extend(sources().filter_map(|source| among(&source)));
            }
        }
        sole
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
            priority: self.identity.metric,
        };
        if self.overlays.is_empty() && self.local_marks.is_empty() {
            return learned;
        }
        let prefix = self.prefix(slot);
        if learned.source == Source::Local {
            if let Some((interface, priority)) = self.local_marks.get(prefix) {
                learned.interface = interface.as_deref();
                learned.priority = priority.or(learned.priority);
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
            learned.priority = overlay.priority.or(learned.priority);
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

    pub(super) fn set_overlays(&mut self, prefix: &IpNet, overlays: Vec<Overlay>) {
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
}
