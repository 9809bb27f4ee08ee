//! Peers that are told the same, with one path to each prefix or with several.

use super::Rib;
use super::adj_out::AdjRibOut;
use super::adj_out_paths::AdjRibOutPaths;
use super::attributes::PathAttributes;
use super::export::ExportPolicy;
use crate::speaker::PeerId;
use crate::wire::{Family, Nlri};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An update group: an Adj-RIB-Out and its members.
#[derive(Debug)]
pub(crate) enum UpdateGroup {
    /// The best path to each prefix.
    Best(Box<AdjRibOut>),
    /// Several paths (RFC 7911).
    Several(Box<AdjRibOutPaths>),
}

/// What a peer that leaves a group has been told, and End-of-RIB markers that it still waits for.
#[derive(Debug)]
pub(crate) struct Left {
    told: Told,
    end_of_rib: Vec<Family>,
}

#[derive(Debug)]
enum Told {
    /// This, and nothing waits to be sent.
    Exactly(BTreeMap<Nlri, Arc<PathAttributes>>),
    /// Something of each of these.
    Perhaps(BTreeSet<Nlri>),
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
    pub(crate) fn move_in(&mut self, peer: PeerId, left: Left) {
        let wanted: BTreeMap<_, _> = self.advertised(peer).into_iter().collect();
        let behind: BTreeSet<Nlri> = match left.told {
            Told::Perhaps(mut told) => {
                told.extend(wanted.keys());
                told
            }
            Told::Exactly(told) => {
                let changed = wanted
                    .iter()
                    .filter(|(nlri, path)| told.get(nlri) != Some(path));
                let gone = told.keys().filter(|nlri| !wanted.contains_key(nlri));
                changed.map(|(nlri, _)| nlri).chain(gone).copied().collect()
            }
        };
        match self {
            Self::Best(group) => {
                let prefixes = behind.iter().map(|nlri| nlri.prefix).collect();
                group.move_in(peer, prefixes, left.end_of_rib);
            }
            Self::Several(group) => group.move_in(peer, behind, left.end_of_rib),
        }
    }

    pub(crate) fn leave(&mut self, peer: PeerId) -> Left {
        let settled = !self.wants_to_send(peer);
        let exactly = settled.then(|| self.advertised(peer).into_iter().collect());
        let (told, end_of_rib) = match self {
            Self::Best(group) => {
                let (told, end_of_rib) = group.leave(peer);
                let nlri = |prefix| Nlri { prefix, path_id: 0 };
                (told.into_iter().map(nlri).collect(), end_of_rib)
            }
            Self::Several(group) => group.leave(peer),
        };
        Left {
            told: exactly.map_or(Told::Perhaps(told), Told::Exactly),
            end_of_rib,
        }
    }

    /// The session has ended.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        match self {
            Self::Best(group) => drop(group.leave(peer)),
            Self::Several(group) => drop(group.leave(peer)),
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

    pub(crate) fn update(&mut self, prefixes: &BTreeSet<IpNet>, rib: &Rib) {
        match self {
            Self::Best(group) => group.update(prefixes, rib),
            Self::Several(group) => group.update(prefixes, rib),
        }
    }

    pub(crate) fn take(&mut self, peer: PeerId, limit: usize) -> Vec<Arc<[u8]>> {
        match self {
            Self::Best(group) => group.take(peer, limit),
            Self::Several(group) => group.take(peer, limit),
        }
    }

    /// What the peer has been told or is about to be.
    pub(crate) fn advertised(&self, peer: PeerId) -> Vec<(Nlri, Arc<PathAttributes>)> {
        match self {
            Self::Best(group) => {
                let all = group.advertised(peer);
                all.map(|(prefix, attributes)| {
                    let nlri = Nlri {
                        prefix: *prefix,
                        path_id: 0,
                    };
                    (nlri, Arc::clone(attributes))
                })
                .collect()
            }
            Self::Several(group) => {
                let all = group.advertised(peer);
                all.map(|(nlri, attributes)| (nlri, Arc::clone(attributes)))
                    .collect()
            }
        }
    }

    /// How many paths that are.
    pub(crate) fn advertised_count(&self, peer: PeerId) -> usize {
        match self {
            Self::Best(group) => group.advertised(peer).count(),
            Self::Several(group) => group.advertised(peer).count(),
        }
    }
}
