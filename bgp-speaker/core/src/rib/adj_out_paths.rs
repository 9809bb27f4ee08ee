//! Adj-RIB-Out of peers that are told several paths to a prefix (ADD-PATH, RFC 7911).
//!
//! Every path that may be used has an identifier of its own for as long as the group lasts. What a
//! member has still to be told is a set of identified prefixes and never messages: such peers are
//! few, and their state of the moment is what they are told.

use super::attributes::PathAttributes;
use super::export::ExportPolicy;
use super::table::SlotId;
use super::{Rib, Source};
use crate::speaker::PeerId;
use crate::wire::{Family, Nlri, SessionParams, UpdateEncoder};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Paths that a member is told at a time.
const CATCH_UP: usize = 4096;

/// An update group of which some families are told several paths.
#[derive(Debug)]
pub(crate) struct AdjRibOutPaths {
    policy: ExportPolicy,
    params: SessionParams,
    table: BTreeMap<Nlri, Entry>,
    members: BTreeMap<PeerId, Member>,
    /// Identifiers of paths by whom they are from and what that peer calls them.
    identifiers: BTreeMap<(Source, u32), u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    source: Source,
    attributes: PathAttributes,
}

#[derive(Debug, Default)]
pub(crate) struct Member {
    behind: BTreeSet<Nlri>,
    /// To be sent as soon as the member is not behind.
    end_of_rib: Vec<Family>,
}

impl AdjRibOutPaths {
    /// A group without members, filled from the Loc-RIB.
    pub(crate) fn new(policy: ExportPolicy, rib: &Rib) -> Self {
        let mut group = Self {
            params: policy.session_params(),
            policy,
            table: BTreeMap::new(),
            members: BTreeMap::new(),
            identifiers: BTreeMap::new(),
        };
        group.update(&rib.slots().collect::<Vec<_>>(), rib);
        group
    }

    /// A session has come up: the peer is told everything.
    pub(crate) fn join(&mut self, peer: PeerId) {
        let behind = self.table.keys().copied().collect();
        let member = Member {
            behind,
            end_of_rib: Vec::new(),
        };
        self.members.insert(peer, member);
    }

    /// A member of another group comes along and is told what differs. Identifiers of paths are
    /// those of the other group from now on, so that the member can tell them apart.
    pub(crate) fn take_over(&mut self, other: &mut Self, peer: PeerId, rib: &Rib) {
        if self.members.is_empty() {
            self.identifiers.clone_from(&other.identifiers);
            self.table.clear();
            self.update(&rib.slots().collect::<Vec<_>>(), rib);
        }
        let Some(mut member) = other.leave(peer) else {
            return;
        };
        let nlri = self.table.keys().chain(other.table.keys());
        let differs = nlri.filter(|nlri| self.table.get(nlri) != other.table.get(nlri));
        member.behind.extend(differs);
        self.members.insert(peer, member);
    }

    /// The session has ended or the peer moves on.
    pub(crate) fn leave(&mut self, peer: PeerId) -> Option<Member> {
        self.members.remove(&peer)
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
            let of_family = |nlri: &&Nlri| Family::of(&nlri.prefix) == family;
            member.behind.extend(self.table.keys().filter(of_family));
        }
    }

    /// Whether there is something to send to the peer.
    pub(crate) fn wants_to_send(&self, peer: PeerId) -> bool {
        let member = self.members.get(&peer);
        member.is_some_and(|member| !(member.behind.is_empty() && member.end_of_rib.is_empty()))
    }

    /// What the peer has been told or is about to be.
    pub(crate) fn advertised(&self, peer: PeerId) -> impl Iterator<Item = (Nlri, &PathAttributes)> {
        let entries = self.table.iter();
        entries
            .filter(move |(_, entry)| entry.source != Source::Peer(peer))
            .map(|(nlri, entry)| (*nlri, &entry.attributes))
    }

    /// The paths to these prefixes may have changed. Returns who has something to send.
    pub(crate) fn update(&mut self, slots: &[SlotId], rib: &Rib) -> Vec<PeerId> {
        for slot in slots {
            let wanted = self.wanted(*slot, rib);
            let present = self
                .table
                .range(all_of(*rib.prefix(*slot)))
                .map(|(nlri, _)| *nlri);
            let gone: Vec<Nlri> = present.filter(|nlri| !wanted.contains_key(nlri)).collect();
            for nlri in gone {
                self.table.remove(&nlri);
                self.changed(nlri);
            }
            for (nlri, entry) in wanted {
                if self.table.get(&nlri) != Some(&entry) {
                    self.table.insert(nlri, entry);
                    self.changed(nlri);
                }
            }
        }
        let peers = self.members.keys().copied();
        peers.filter(|peer| self.wants_to_send(*peer)).collect()
    }

    fn changed(&mut self, nlri: Nlri) {
        for member in self.members.values_mut() {
            member.behind.insert(nlri);
        }
    }

    /// The paths that the group is to be told, the best ones first. Those of a family without
    /// ADD-PATH have identifier 0, and there is one at most.
    fn wanted(&mut self, slot: SlotId, rib: &Rib) -> BTreeMap<Nlri, Entry> {
        let prefix = *rib.prefix(slot);
        let several = self.policy.add_path.contains(&Family::of(&prefix));
        let limit = if several { self.policy.path_limit } else { 1 };
        let mut wanted = BTreeMap::new();
        for (_, path_id, path) in rib.usable(slot).take(limit.into()) {
            let path_id = if several {
                self.identifier(path.source, path_id)
            } else {
                0
            };
            let facts = match path.source {
                Source::Local => None,
                Source::Peer(peer) => rib.peer(peer),
            };
            let rule = self.policy.rule(&prefix, &path).map(|(_, rule)| rule);
            if let Some((attributes, next_hop)) = self.policy.apply(&prefix, &path, facts, rule) {
                let entry = Entry {
                    source: path.source,
                    attributes: PathAttributes::new(attributes, next_hop),
                };
                wanted.insert(Nlri { prefix, path_id }, entry);
            }
        }
        wanted
    }

    fn identifier(&mut self, source: Source, path_id: u32) -> u32 {
        let next = u32::try_from(self.identifiers.len()).unwrap_or(u32::MAX);
        let identifiers = self.identifiers.entry((source, path_id));
        *identifiers.or_insert(next.saturating_add(1))
    }

    /// Messages for the peer, about `limit` octets of them; empty if there is nothing to send.
    pub(crate) fn take(&mut self, peer: PeerId, limit: usize) -> Vec<Arc<[u8]>> {
        let mut taken: Vec<Arc<[u8]>> = Vec::new();
        let mut octets = 0;
        let Some(member) = self.members.get_mut(&peer) else {
            return taken;
        };
        while octets < limit {
            let run = if member.behind.is_empty() {
                member.markers(&self.params)
            } else {
                member.catch_up(peer, &self.table, &self.params)
            };
            if run.is_empty() {
                if member.behind.is_empty() {
                    break;
                }
                continue;
            }
            octets += run.len();
            taken.push(run.into());
        }
        taken
    }
}

/// Every identifier of a prefix.
fn all_of(prefix: IpNet) -> RangeInclusive<Nlri> {
    let of = |path_id| Nlri { prefix, path_id };
    of(0)..=of(u32::MAX)
}

impl Member {
    fn markers(&mut self, params: &SessionParams) -> Vec<u8> {
        let mut out = Vec::new();
        for family in std::mem::take(&mut self.end_of_rib) {
            UpdateEncoder::new(params).end_of_rib(family, &mut out);
        }
        out
    }

    /// Turns some of what the member is behind with into messages.
    fn catch_up(
        &mut self,
        peer: PeerId,
        table: &BTreeMap<Nlri, Entry>,
        params: &SessionParams,
    ) -> Vec<u8> {
        let mut withdrawn = Vec::new();
        let mut announced: BTreeMap<&PathAttributes, Vec<Nlri>> = BTreeMap::new();
        for _ in 0..CATCH_UP {
            let Some(nlri) = self.behind.pop_first() else {
                break;
            };
            match table.get(&nlri) {
                Some(entry) if entry.source != Source::Peer(peer) => {
                    announced.entry(&entry.attributes).or_default().push(nlri);
                }
                Some(_) | None => withdrawn.push(nlri),
            }
        }
        let mut out = Vec::new();
        encode_withdrawn(params, &withdrawn, &mut out);
        for (attributes, nlri) in announced {
            encode_announced(params, attributes, &nlri, &mut out);
        }
        out
    }
}

fn encode_withdrawn(params: &SessionParams, nlri: &[Nlri], out: &mut Vec<u8>) {
    for family in [Family::IPV4, Family::IPV6] {
        let of_family = nlri
            .iter()
            .filter(|nlri| Family::of(&nlri.prefix) == family);
        // A prefix without attributes fits any message.
        let _ = UpdateEncoder::new(params).withdraw(family, of_family.copied(), out);
    }
}

/// Paths of one family. What cannot be encoded is withdrawn: its attributes fill a message, so that
/// no peer of the group can be told.
fn encode_announced(
    params: &SessionParams,
    path: &PathAttributes,
    nlri: &[Nlri],
    out: &mut Vec<u8>,
) {
    let Some(first) = nlri.first() else {
        return;
    };
    let family = Family::of(&first.prefix);
    let encoder = UpdateEncoder::new(params);
    let all = || nlri.iter().copied();
    let announced = encoder.announce(family, &path.attributes, path.next_hop, all(), out);
    if announced.is_err() {
        encode_withdrawn(params, nlri, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rib::export::tests::policy;
    use crate::rib::tests::{announce_path, nlri, rib};
    use crate::wire::{Framer, Message, decode};

    fn several(limit: u8) -> ExportPolicy {
        ExportPolicy {
            add_path: vec![Family::IPV4],
            path_limit: limit,
            ..policy(false)
        }
    }

    /// What the peer holds after these messages.
    fn apply(held: &mut BTreeMap<Nlri, u32>, group: &AdjRibOutPaths, runs: &[Arc<[u8]>]) {
        let params = SessionParams {
            add_path_receive: group.params.add_path_send.clone(),
            ..group.params.clone()
        };
        let mut framer = Framer::new();
        for run in runs {
            framer.push(run);
            while let Some(frame) = framer.next_frame().expect("sound messages") {
                let Ok(Message::Update(update)) = decode(&frame, &params) else {
                    panic!("not an UPDATE");
                };
                for nlri in &update.withdrawn {
                    held.remove(nlri);
                }
                let announced = update
                    .announced
                    .iter()
                    .flat_map(|announced| &announced.nlri);
                let second = update.attributes.as_path.hops().nth(1);
                for nlri in announced {
                    held.insert(*nlri, second.unwrap_or_default());
                }
            }
        }
    }

    fn advertised(group: &AdjRibOutPaths, peer: PeerId) -> BTreeMap<Nlri, u32> {
        let all = group.advertised(peer);
        all.map(|(nlri, path)| {
            let hops = path.attributes.as_path.hops().nth(1);
            (nlri, hops.unwrap_or_default())
        })
        .collect()
    }

    #[test]
    fn a_peer_is_told_as_many_paths_as_it_is_to_be_and_hears_of_each_change() {
        let listener = PeerId(9);
        let mut rib = rib();
        // Peer 3 is internal: its path is the last to be told of.
        for peer in 0..4 {
            announce_path(&mut rib, peer, "10.1.0.0/24", &[65000 + peer, 65100]);
        }
        rib.resolve(usize::MAX);
        let mut group = AdjRibOutPaths::new(several(2), &rib);
        group.join(listener);
        let mut held = BTreeMap::new();
        let mut told = group.take(listener, usize::MAX);
        apply(&mut held, &group, &told);
        let neighbours: BTreeSet<u32> = held.values().copied().collect();
        assert_eq!(neighbours, BTreeSet::from([65000, 65001]));
        assert_eq!(held, advertised(&group, listener));

        rib.withdraw(PeerId(0), &[nlri("10.1.0.0/24".parse().unwrap())]);
        let changed = rib.resolve(usize::MAX);
        group.update(&changed, &rib);
        told = group.take(listener, usize::MAX);
        apply(&mut held, &group, &told);
        assert_eq!(held, advertised(&group, listener));
        let neighbours: BTreeSet<u32> = held.values().copied().collect();
        assert_eq!(neighbours, BTreeSet::from([65001, 65002]));
    }

    #[test]
    fn a_peer_is_not_told_its_own_path_but_those_of_others() {
        let source = PeerId(1);
        let mut rib = rib();
        announce_path(&mut rib, 0, "10.1.0.0/24", &[65000, 65100]);
        announce_path(&mut rib, 1, "10.1.0.0/24", &[65001, 65100]);
        rib.resolve(usize::MAX);
        let mut group = AdjRibOutPaths::new(several(8), &rib);
        group.join(source);
        let mut held = BTreeMap::new();
        let told = group.take(source, usize::MAX);
        apply(&mut held, &group, &told);
        assert_eq!(held.values().copied().collect::<Vec<_>>(), [65000]);
        assert!(!group.wants_to_send(source));
    }
}
