//! Peers that are told the same, with one path to each prefix or with several.

use super::Rib;
use super::adj_out::AdjRibOut;
use super::adj_out_paths::AdjRibOutPaths;
use super::attributes::PathAttributes;
use super::export::ExportPolicy;
use super::table::SlotId;
use crate::speaker::PeerId;
use crate::wire::{Family, Nlri};
use std::sync::Arc;

/// An update group: an Adj-RIB-Out and its members.
#[derive(Debug)]
pub(crate) enum UpdateGroup {
    /// The best path to each prefix.
    Best(Box<AdjRibOut>),
    /// Several paths (RFC 7911).
    Several(Box<AdjRibOutPaths>),
}

impl UpdateGroup {
    /// A group without members, filled from the Loc-RIB.
    pub(crate) fn new(policy: ExportPolicy, rib: &Rib) -> Self {
        if policy.add_path.is_empty() {
            Self::Best(Box::new(AdjRibOut::new(policy, rib)))
        } else {
            Self::Several(Box::new(AdjRibOutPaths::new(policy, rib)))
        }
    }

    pub(crate) fn join(&mut self, peer: PeerId) {
        match self {
            Self::Best(group) => group.join(peer),
            Self::Several(group) => group.join(peer),
        }
    }

    /// A member of another group comes along and is told what differs. Only a new session changes
    /// whether several paths are told, so that a member moves between groups of one kind.
    pub(crate) fn take_over(&mut self, other: &mut Self, peer: PeerId, rib: &Rib) {
        match (self, other) {
            (Self::Best(group), Self::Best(other)) => group.take_over(other, peer),
            (Self::Several(group), Self::Several(other)) => group.take_over(other, peer, rib),
            (group, other) => {
                other.forget(peer);
                group.join(peer);
            }
        }
    }

    /// The session has ended.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        match self {
            Self::Best(group) => group.leave(peer),
            Self::Several(group) => drop(group.leave(peer)),
        }
    }

    /// Whether a member has still to be told about any prefix by its number.
    pub(crate) fn is_behind(&self) -> bool {
        match self {
            Self::Best(group) => group.is_behind(),
            Self::Several(_) => false,
        }
    }

    /// Whether a member has still to be told about a prefix by its number.
    pub(crate) fn needs(&self, slot: SlotId) -> bool {
        match self {
            Self::Best(group) => group.needs(slot),
            Self::Several(_) => false,
        }
    }

    /// True once after a member needs fewer numbers than before.
    pub(crate) fn take_caught_up(&mut self) -> bool {
        match self {
            Self::Best(group) => group.take_caught_up(),
            Self::Several(_) => false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Best(group) => group.is_empty(),
            Self::Several(group) => group.is_empty(),
        }
    }

    pub(crate) fn end_of_rib(&mut self, peer: PeerId, families: &[Family]) {
        match self {
            Self::Best(group) => group.end_of_rib(peer, families),
            Self::Several(group) => group.end_of_rib(peer, families),
        }
    }

    pub(crate) fn refresh(&mut self, peer: PeerId, family: Family) {
        match self {
            Self::Best(group) => group.refresh(peer, family),
            Self::Several(group) => group.refresh(peer, family),
        }
    }

    pub(crate) fn wants_to_send(&self, peer: PeerId) -> bool {
        match self {
            Self::Best(group) => group.wants_to_send(peer),
            Self::Several(group) => group.wants_to_send(peer),
        }
    }

    /// Returns who has something to send.
    pub(crate) fn update(&mut self, slots: &[SlotId], rib: &Rib) -> Vec<PeerId> {
        match self {
            Self::Best(group) => group.update(slots, rib),
            Self::Several(group) => group.update(slots, rib),
        }
    }

    pub(crate) fn take(&mut self, peer: PeerId, rib: &Rib, limit: usize) -> Vec<Arc<[u8]>> {
        match self {
            Self::Best(group) => group.take(peer, rib, limit),
            Self::Several(group) => group.take(peer, limit),
        }
    }

    /// What the peer has been told or is about to be.
    pub(crate) fn advertised(&self, peer: PeerId, rib: &Rib) -> Vec<(Nlri, PathAttributes)> {
        match self {
            Self::Best(group) => {
                let all = group.advertised(peer, rib);
                all.map(|(prefix, path)| (Nlri { prefix, path_id: 0 }, path))
                    .collect()
            }
            Self::Several(group) => {
                let all = group.advertised(peer);
                all.map(|(nlri, path)| (nlri, path.clone())).collect()
            }
        }
    }

    /// How many paths that are.
    pub(crate) fn count(&self, peer: PeerId) -> usize {
        match self {
            Self::Best(group) => group.count(peer),
            Self::Several(group) => group.advertised(peer).count(),
        }
    }
}
