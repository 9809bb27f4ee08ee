//! Adj-RIB-Out, one for all peers that are told the same (an update group).
//!
//! A change is encoded once and the messages are shared by all members. A member that cannot keep
//! up, or has just joined, is `behind`: it has a set of prefixes instead of messages, and is told
//! their state of the moment when it has room again. So memory is bounded by the table, and a
//! slow peer costs the others nothing.

use super::attributes::{Interner, PathAttributes};
use super::export::ExportPolicy;
use super::{Path, Rib, Source};
use crate::speaker::PeerId;
use crate::wire::{Family, Nlri, SessionParams, UpdateEncoder};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Octets of messages that may wait for a member before it counts as behind.
const QUEUE_LIMIT: usize = 1 << 20;
/// Prefixes that a member which is behind is told at a time.
const CATCH_UP: usize = 4096;

/// An update group.
#[derive(Debug)]
pub(crate) struct AdjRibOut {
    policy: ExportPolicy,
    params: SessionParams,
    table: BTreeMap<IpNet, Entry>,
    members: BTreeMap<PeerId, Member>,
    interner: Interner,
    /// The last path exported and what became of it: neighbours in the table often share it.
    last: Option<(Exported, Option<Arc<PathAttributes>>)>,
}

/// All that the result of an export depends on, besides policy and facts about peers.
#[derive(Debug, Clone)]
struct Exported {
    family: Family,
    source: Source,
    attributes: Arc<PathAttributes>,
    /// Place of the filter's rule that decides.
    rule: Option<usize>,
}

/// What the group is told about a prefix; the peer that it came from is not told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    source: Source,
    attributes: Arc<PathAttributes>,
}

#[derive(Debug, Default)]
struct Member {
    messages: VecDeque<Arc<[u8]>>,
    octets: usize,
    behind: BTreeSet<IpNet>,
    /// To be sent as soon as the member is not behind.
    end_of_rib: Vec<Family>,
}

/// Something to tell members, before encoding: withdrawals and, by attributes, announcements.
#[derive(Debug, Default)]
struct Batch {
    withdrawn: Vec<IpNet>,
    announced: BTreeMap<Arc<PathAttributes>, Vec<IpNet>>,
}

impl AdjRibOut {
    /// A group without members, filled from the Loc-RIB.
    pub(crate) fn new(policy: ExportPolicy, rib: &Rib) -> Self {
        let params = policy.session_params();
        let mut group = Self {
            policy,
            params,
            table: BTreeMap::new(),
            members: BTreeMap::new(),
            interner: Interner::default(),
            last: None,
        };
        for prefix in rib.table().keys() {
            if let Some(entry) = rib
                .best(prefix)
                .and_then(|path| group.export(prefix, path, rib))
            {
                group.table.insert(*prefix, entry);
            }
        }
        group
    }

    /// A session has come up: the peer is told everything.
    pub(crate) fn join(&mut self, peer: PeerId) {
        let behind = self.table.keys().copied().collect();
        self.members.insert(
            peer,
            Member {
                behind,
                ..Member::default()
            },
        );
    }

    /// A member that comes from another group and has been told everything but `behind` as this
    /// group tells it.
    pub(crate) fn move_in(
        &mut self,
        peer: PeerId,
        behind: BTreeSet<IpNet>,
        end_of_rib: Vec<Family>,
    ) {
        self.members.insert(
            peer,
            Member {
                behind,
                end_of_rib,
                ..Member::default()
            },
        );
    }

    /// The session has ended or the peer moves on: what it may have been told, and which
    /// End-of-RIB markers it has not been sent.
    pub(crate) fn leave(&mut self, peer: PeerId) -> (BTreeSet<IpNet>, Vec<Family>) {
        let Some(member) = self.members.remove(&peer) else {
            return Default::default();
        };
        let mut told = member.behind;
        told.extend(self.table.keys());
        (told, member.end_of_rib)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The peer is to be sent End-of-RIB after what it has still to be told.
    pub(crate) fn end_of_rib(&mut self, peer: PeerId, families: &[Family]) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.end_of_rib.extend(families);
        }
    }

    /// Tells the peer everything of a family again (RFC 2918).
    pub(crate) fn refresh(&mut self, peer: PeerId, family: Family) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.behind.extend(
                self.table
                    .keys()
                    .filter(|prefix| Family::of(prefix) == family),
            );
        }
    }

    /// Whether there is something to send to the peer.
    pub(crate) fn wants_to_send(&self, peer: PeerId) -> bool {
        self.members.get(&peer).is_some_and(|member| {
            !(member.messages.is_empty()
                && member.behind.is_empty()
                && member.end_of_rib.is_empty())
        })
    }

    /// What the peer has been told or is about to be.
    pub(crate) fn advertised(
        &self,
        peer: PeerId,
    ) -> impl Iterator<Item = (&IpNet, &Arc<PathAttributes>)> {
        let entries = self.table.iter();
        entries
            .filter(move |(_, entry)| entry.source != Source::Peer(peer))
            .map(|(prefix, entry)| (prefix, &entry.attributes))
    }

    /// The best paths of these prefixes may have changed.
    pub(crate) fn update(&mut self, prefixes: &BTreeSet<IpNet>, rib: &Rib) {
        let mut common = Batch::default();
        let mut by_source: BTreeMap<PeerId, Batch> = BTreeMap::new();
        let mut changed = Vec::new();
        self.last = None;
        for prefix in prefixes {
            let entry = rib
                .best(prefix)
                .and_then(|path| self.export(prefix, path, rib));
            if self.table.get(prefix) == entry.as_ref() {
                continue;
            }
            changed.push(*prefix);
            match &entry {
                None => common.withdrawn.push(*prefix),
                Some(Entry {
                    source: Source::Peer(peer),
                    attributes,
                }) if self.members.contains_key(peer) => {
                    let batch = by_source.entry(*peer).or_default();
                    batch
                        .announced
                        .entry(Arc::clone(attributes))
                        .or_default()
                        .push(*prefix);
                }
                Some(entry) => {
                    let attributes = Arc::clone(&entry.attributes);
                    common
                        .announced
                        .entry(attributes)
                        .or_default()
                        .push(*prefix);
                }
            }
            match entry {
                Some(entry) => drop(self.table.insert(*prefix, entry)),
                None => drop(self.table.remove(prefix)),
            }
        }
        if changed.is_empty() || self.members.is_empty() {
            return;
        }
        self.distribute(&changed, &common, &by_source);
    }

    fn export(&mut self, prefix: &IpNet, path: &Path, rib: &Rib) -> Option<Entry> {
        let facts = match path.source {
            Source::Local => None,
            Source::Peer(peer) => Some(rib.peer(peer)?),
        };
        let path = rib.learned(prefix, path);
        let rule = self.policy.rule(prefix, &path);
        let key = Exported {
            family: Family::of(prefix),
            source: path.source,
            attributes: Arc::clone(path.attributes),
            rule: rule.map(|(place, _)| place),
        };
        let attributes = match &self.last {
            Some((last, attributes)) if last.is(&key) => attributes.clone(),
            Some(_) | None => {
                let rule = rule.map(|(_, rule)| rule);
                let exported = self.policy.apply(prefix, &path, facts, rule);
                let attributes = exported.map(|(attributes, next_hop)| {
                    self.interner
                        .intern(PathAttributes::new(attributes, next_hop))
                });
                self.last = Some((key, attributes.clone()));
                attributes
            }
        };
        Some(Entry {
            source: path.source,
            attributes: attributes?,
        })
    }

    /// Shares the encoded changes out. The source of a path gets a withdrawal instead, in case
    /// that it was told another path before.
    fn distribute(
        &mut self,
        changed: &[IpNet],
        common: &Batch,
        by_source: &BTreeMap<PeerId, Batch>,
    ) {
        let common = common.encode(&self.params);
        let by_source: BTreeMap<_, _> = by_source
            .iter()
            .map(|(source, batch)| {
                let withdrawn = batch.announced.values().flatten().copied().collect();
                let instead = Batch {
                    withdrawn,
                    ..Batch::default()
                };
                (
                    *source,
                    (batch.encode(&self.params), instead.encode(&self.params)),
                )
            })
            .collect();
        for (peer, member) in &mut self.members {
            if !member.behind.is_empty() || member.octets > QUEUE_LIMIT {
                member.behind.extend(changed);
                continue;
            }
            member.push(&common);
            for (source, (announced, instead)) in &by_source {
                member.push(if source == peer { instead } else { announced });
            }
        }
    }

    /// Messages for the peer, about `limit` octets of them; empty if there is nothing to send.
    pub(crate) fn take(&mut self, peer: PeerId, limit: usize) -> Vec<Arc<[u8]>> {
        let mut taken = Vec::new();
        let mut octets = 0;
        let Some(member) = self.members.get_mut(&peer) else {
            return taken;
        };
        while octets < limit {
            if member.messages.is_empty() {
                member.catch_up(peer, &self.table, &self.params);
            }
            let Some(message) = member.messages.pop_front() else {
                break;
            };
            member.octets -= message.len();
            octets += message.len();
            taken.push(message);
        }
        taken
    }
}

impl Exported {
    fn is(&self, other: &Self) -> bool {
        self.family == other.family
            && self.source == other.source
            && self.rule == other.rule
            && Arc::ptr_eq(&self.attributes, &other.attributes)
    }
}

impl Member {
    fn push(&mut self, messages: &[Arc<[u8]>]) {
        for message in messages {
            self.octets += message.len();
            self.messages.push_back(Arc::clone(message));
        }
    }

    /// Turns some of what the member is behind with into messages.
    fn catch_up(&mut self, peer: PeerId, table: &BTreeMap<IpNet, Entry>, params: &SessionParams) {
        let mut batch = Batch::default();
        for _ in 0..CATCH_UP {
            let Some(prefix) = self.behind.pop_first() else {
                break;
            };
            match table.get(&prefix) {
                Some(entry) if entry.source != Source::Peer(peer) => {
                    let attributes = Arc::clone(&entry.attributes);
                    batch.announced.entry(attributes).or_default().push(prefix);
                }
                Some(_) | None => batch.withdrawn.push(prefix),
            }
        }
        self.push(&batch.encode(params));
        if self.behind.is_empty() {
            let encoder = UpdateEncoder::new(params);
            for family in std::mem::take(&mut self.end_of_rib) {
                let mut out = Vec::new();
                encoder.end_of_rib(family, &mut out);
                self.push(&[out.into()]);
            }
        }
    }
}

impl Batch {
    /// One buffer per run of messages. What cannot be encoded for this group is left out: its
    /// attributes fill a message, so no peer could be told.
    fn encode(&self, params: &SessionParams) -> Vec<Arc<[u8]>> {
        let encoder = UpdateEncoder::new(params);
        let mut runs = Vec::new();
        for family in [Family::IPV4, Family::IPV6] {
            let mut out = Vec::new();
            let of_family = |prefixes: &[IpNet]| -> Vec<Nlri> {
                let prefixes = prefixes
                    .iter()
                    .filter(|prefix| Family::of(prefix) == family);
                prefixes
                    .map(|prefix| Nlri {
                        prefix: *prefix,
                        path_id: 0,
                    })
                    .collect()
            };
            let _ = encoder.withdraw(family, of_family(&self.withdrawn), &mut out);
            for (attributes, prefixes) in &self.announced {
                let nlri = of_family(prefixes);
                if encoder
                    .announce(
                        family,
                        &attributes.attributes,
                        attributes.next_hop,
                        nlri.clone(),
                        &mut out,
                    )
                    .is_err()
                {
                    let _ = encoder.withdraw(family, nlri, &mut out);
                }
            }
            if !out.is_empty() {
                runs.push(out.into());
            }
        }
        runs
    }
}

#[cfg(test)]
#[path = "adj_out_tests.rs"]
mod tests;
