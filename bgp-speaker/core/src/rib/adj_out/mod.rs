//! Adj-RIB-Out, one for all peers that are told the same (an update group).
//!
//! Per prefix there is one number: the attributes that the group has been told, encoded once and
//! stored once. A change is encoded once and the messages are shared by all members. A member that
//! cannot keep up, or has just joined, is *behind*: it has a set of prefixes instead of messages,
//! and is told their state of the moment when it has room again. So memory is bounded by the table,
//! and a slow peer costs the others nothing.

mod batch;
mod member;

use super::attributes::PathAttributes;
use super::export::ExportPolicy;
use super::pool::{Pool, PoolId};
use super::slots::SlotSet;
use super::table::SlotId;
use super::{Learned, Rib, Source};
use crate::speaker::PeerId;
use crate::wire::{EncodedAttributes, Family, SessionParams, UpdateEncoder};
use batch::Batch;
use ipnet::IpNet;
use member::Member;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Prefixes that a member which is behind is told at a time.
const CATCH_UP: usize = 4096;

/// An update group.
#[derive(Debug)]
pub(crate) struct AdjRibOut {
    policy: ExportPolicy,
    params: SessionParams,
    /// What the group is told, by slot.
    told: Vec<OfferId>,
    offers: Pool<Offer>,
    members: BTreeMap<PeerId, Member>,
    /// The last path exported and what became of it: neighbours in the table often share it.
    last: Option<(Exported, OfferId)>,
    /// A member is not behind any more.
    caught_up: bool,
}

type OfferId = PoolId<Offer>;

/// What many prefixes are announced with; the peer that it came from is not told.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Offer {
    source: Source,
    family: Family,
    attributes: EncodedAttributes,
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

/// Whether a member is told of a prefix, before and after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    before: bool,
    after: bool,
}

/// A prefix that the group is told something else about, and from whom both are.
#[derive(Debug)]
struct Change {
    slot: SlotId,
    before: Option<Source>,
    after: Option<Source>,
}

impl Change {
    fn towards(&self, peer: PeerId) -> Told {
        let told = |source: Option<Source>| source.is_some_and(|from| from != Source::Peer(peer));
        Told {
            before: told(self.before),
            after: told(self.after),
        }
    }
}

impl AdjRibOut {
    /// A group without members, filled from the Loc-RIB.
    pub(crate) fn new(policy: ExportPolicy, rib: &Rib) -> Self {
        let params = policy.session_params();
        let mut group = Self {
            policy,
            params,
            told: Vec::new(),
            offers: Pool::default(),
            members: BTreeMap::new(),
            last: None,
            caught_up: false,
        };
        for slot in rib.slots() {
            let offer = group.export(slot, rib);
            group.tell(slot, offer);
        }
        group.last = None;
        group
    }

    /// A session has come up: the peer is told everything.
    pub(crate) fn join(&mut self, peer: PeerId) {
        let member = Member::new(self.told_slots().collect());
        self.members.insert(peer, member);
    }

    /// A member of another group comes along, with what that one has still to say to it, and is
    /// told what differs.
    pub(crate) fn take_over(&mut self, other: &mut Self, peer: PeerId) {
        let Some(mut member) = other.members.remove(&peer) else {
            return self.join(peer);
        };
        let slots: SlotSet = self.told_slots().chain(other.told_slots()).collect();
        for slot in slots.iter() {
            let (before, after) = (other.told_to(peer, slot), self.told_to(peer, slot));
            if before != after {
                let told = Told {
                    before: before.is_some(),
                    after: after.is_some(),
                };
                member.lag(slot, told);
            }
        }
        self.members.insert(peer, member);
    }

    fn told_to(&self, peer: PeerId, slot: SlotId) -> Option<&Offer> {
        let offer = self.offers.get(*self.told.get(slot.index())?)?;
        (offer.source != Source::Peer(peer)).then_some(offer)
    }

    /// The session has ended.
    pub(crate) fn leave(&mut self, peer: PeerId) {
        self.members.remove(&peer);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The peer is to be sent End-of-RIB after what it has still to be told.
    pub(crate) fn end_of_rib(&mut self, peer: PeerId, families: &[Family]) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.mark_end_of_rib(families);
        }
    }

    /// Tells the peer everything of a family again (RFC 2918).
    pub(crate) fn refresh(&mut self, peer: PeerId, family: Family) {
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        for (index, offer) in self.told.iter().enumerate() {
            if self.offers.get(*offer).is_some_and(|o| o.family == family) {
                let again = Told {
                    before: true,
                    after: true,
                };
                member.lag(SlotId::new(index), again);
            }
        }
    }

    /// Whether there is something to send to the peer.
    pub(crate) fn wants_to_send(&self, peer: PeerId) -> bool {
        self.members
            .get(&peer)
            .is_some_and(|member| !member.is_idle())
    }

    /// Whether a member has still to be told about any prefix.
    pub(crate) fn is_behind(&self) -> bool {
        self.members.values().any(Member::has_behind)
    }

    /// Whether a member has still to be told about a prefix.
    pub(crate) fn needs(&self, slot: SlotId) -> bool {
        self.members.values().any(|member| member.needs(slot))
    }

    /// True once after a member has caught up.
    pub(crate) fn take_caught_up(&mut self) -> bool {
        std::mem::take(&mut self.caught_up)
    }

    /// How many prefixes the peer has been told or is about to be.
    pub(crate) fn count(&self, peer: PeerId) -> usize {
        self.slots_told_to(peer).count()
    }

    /// What the peer has been told or is about to be, by prefix. Made from the Loc-RIB again, so it
    /// costs something.
    pub(crate) fn advertised(
        &self,
        peer: PeerId,
        rib: &Rib,
    ) -> impl Iterator<Item = (IpNet, PathAttributes)> {
        let mut slots: Vec<SlotId> = self.slots_told_to(peer).collect();
        slots.sort_unstable_by_key(|slot| *rib.prefix(*slot));
        slots.into_iter().filter_map(|slot| {
            let path = rib.best(slot)?;
            Some((*rib.prefix(slot), self.apply(slot, &path, rib)?))
        })
    }

    fn slots_told_to(&self, peer: PeerId) -> impl Iterator<Item = SlotId> {
        self.told_slots().filter(move |slot| {
            let offer = self.offers.get(self.told[slot.index()]);
            offer.is_some_and(|offer| offer.source != Source::Peer(peer))
        })
    }

    fn told_slots(&self) -> impl Iterator<Item = SlotId> {
        let told = self.told.iter().enumerate();
        told.filter(|(_, offer)| !offer.is_none())
            .map(|(index, _)| SlotId::new(index))
    }

    /// The best paths of these prefixes may have changed. Returns who has something to send.
    pub(crate) fn update(&mut self, slots: &[SlotId], rib: &Rib) -> Vec<PeerId> {
        let mut shared = Shared::default();
        self.last = None;
        for slot in slots {
            let offer = self.export(*slot, rib);
            let before = self.told.get(slot.index()).copied();
            let before = before.unwrap_or(PoolId::NONE);
            if offer == before {
                continue;
            }
            let source = |offer| self.offers.get(offer).map(|offer: &Offer| offer.source);
            let change = Change {
                slot: *slot,
                before: source(before),
                after: source(offer),
            };
            self.tell(*slot, offer);
            if !self.members.is_empty() {
                shared.add(change, offer, &self.members);
            }
        }
        self.last = None;
        if shared.changes.is_empty() {
            return Vec::new();
        }
        self.distribute(shared, rib);
        let members = self.members.iter();
        let waiting = members.filter(|(_, member)| !member.is_idle());
        waiting.map(|(peer, _)| *peer).collect()
    }

    fn tell(&mut self, slot: SlotId, offer: OfferId) {
        if slot.index() >= self.told.len() {
            if offer.is_none() {
                return;
            }
            self.told.resize(slot.index() + 1, PoolId::NONE);
        }
        self.offers.hold(offer);
        let before = std::mem::replace(&mut self.told[slot.index()], offer);
        self.offers.release(before);
    }

    fn apply(&self, slot: SlotId, path: &Learned<'_>, rib: &Rib) -> Option<PathAttributes> {
        let facts = match path.source {
            Source::Local => None,
            Source::Peer(peer) => Some(rib.peer(peer)?),
        };
        let prefix = rib.prefix(slot);
        let rule = self.policy.rule(prefix, path).map(|(_, rule)| rule);
        let (attributes, next_hop) = self.policy.apply(prefix, path, facts, rule)?;
        Some(PathAttributes::new(attributes, next_hop))
    }

    fn export(&mut self, slot: SlotId, rib: &Rib) -> OfferId {
        let Some(path) = rib.best(slot) else {
            return PoolId::NONE;
        };
        let family = Family::of(rib.prefix(slot));
        let rule = self.policy.rule(rib.prefix(slot), &path);
        let rule = rule.map(|(place, _)| place);
        if let Some((last, offer)) = &self.last
            && last.is(family, &path, rule)
        {
            return *offer;
        }
        let exported = self.apply(slot, &path, rib);
        let offer = exported.map_or(PoolId::NONE, |path_out| {
            self.offer(path.source, family, &path_out)
        });
        let last = Exported {
            family,
            source: path.source,
            attributes: Arc::clone(path.attributes),
            rule,
        };
        self.last = Some((last, offer));
        offer
    }

    /// None if no message to this group could say it.
    fn offer(&mut self, source: Source, family: Family, path: &PathAttributes) -> OfferId {
        let encoder = UpdateEncoder::new(&self.params);
        let encoded = encoder.encode_attributes(family, &path.attributes, path.next_hop);
        let Some(attributes) = encoded.ok().filter(|encoded| encoder.has_room(encoded)) else {
            return PoolId::NONE;
        };
        let offer = Offer {
            source,
            family,
            attributes,
        };
        let make = || Offer {
            source,
            family,
            attributes: offer.attributes.clone(),
        };
        self.offers.intern(&offer, |known| *known == offer, make)
    }

    /// Shares the encoded changes out. The source of a path is told nothing of it, but that another
    /// path is gone if it was told one.
    fn distribute(&mut self, shared: Shared, rib: &Rib) {
        let Self {
            offers,
            params,
            members,
            ..
        } = self;
        let encode = |batch: Batch| batch.encode(rib, offers, params);
        let to_all = encode(shared.to_all);
        let encode_each = |batches: Batches| -> BTreeMap<PeerId, _> {
            let batches = batches.into_iter();
            batches.map(|(peer, batch)| (peer, encode(batch))).collect()
        };
        let to_all_but = encode_each(shared.to_all_but);
        let to_one = encode_each(shared.to_one);
        for (peer, member) in members {
            if member.is_behind() {
                for change in &shared.changes {
                    let told = change.towards(*peer);
                    if told.before || told.after {
                        member.lag(change.slot, told);
                    }
                }
                continue;
            }
            member.push(&to_all);
            for (_, messages) in to_all_but.iter().filter(|(source, _)| *source != peer) {
                member.push(messages);
            }
            if let Some(messages) = to_one.get(peer) {
                member.push(messages);
            }
        }
    }

    /// Messages for the peer, about `limit` octets of them; empty if there is nothing to send.
    pub(crate) fn take(&mut self, peer: PeerId, rib: &Rib, limit: usize) -> Vec<Arc<[u8]>> {
        let mut taken = Vec::new();
        let mut octets = 0;
        while octets < limit {
            let Some(member) = self.members.get_mut(&peer) else {
                break;
            };
            if !member.has_messages() {
                self.catch_up(peer, rib);
            }
            let member = self.members.get_mut(&peer);
            let Some(message) = member.and_then(Member::pop) else {
                break;
            };
            octets += message.len();
            taken.push(message);
        }
        taken
    }

    /// Turns some of what the member is behind with into messages.
    fn catch_up(&mut self, peer: PeerId, rib: &Rib) {
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        let mut batch = Batch::default();
        for _ in 0..CATCH_UP {
            let Some((slot, holds)) = member.next_behind() else {
                self.caught_up = true;
                break;
            };
            let id = self.told.get(slot.index()).copied();
            let id = id.unwrap_or(PoolId::NONE);
            match self.offers.get(id) {
                Some(offer) if offer.source != Source::Peer(peer) => batch.announce(id, slot),
                Some(_) | None if holds => batch.withdraw(slot),
                Some(_) | None => {}
            }
        }
        member.push(&batch.encode(rib, &self.offers, &self.params));
        let encoder = UpdateEncoder::new(&self.params);
        for family in member.take_end_of_rib() {
            let mut out = Vec::new();
            encoder.end_of_rib(family, &mut out);
            member.push(&[out.into()]);
        }
    }
}

/// Changes of a group, by who is told.
#[derive(Debug, Default)]
struct Shared {
    changes: Vec<Change>,
    to_all: Batch,
    /// All but the source of the path.
    to_all_but: Batches,
    to_one: Batches,
}

/// A batch for each of some peers.
#[derive(Debug, Default)]
struct Batches {
    /// Neighbours in the table often have the same one.
    last: Option<(PeerId, Batch)>,
    others: BTreeMap<PeerId, Batch>,
}

impl Batches {
    fn of(&mut self, peer: PeerId) -> &mut Batch {
        if self.last.as_ref().is_none_or(|(last, _)| *last != peer) {
            let batch = self.others.remove(&peer).unwrap_or_default();
            let before = self.last.replace((peer, batch));
            self.others.extend(before);
        }
        &mut self.last.get_or_insert_with(|| (peer, Batch::default())).1
    }

    fn into_iter(self) -> impl Iterator<Item = (PeerId, Batch)> {
        self.others.into_iter().chain(self.last)
    }
}

impl Shared {
    fn add(&mut self, change: Change, offer: OfferId, members: &BTreeMap<PeerId, Member>) {
        let source = change.after.or(change.before);
        let member = match source {
            Some(Source::Peer(peer)) if members.contains_key(&peer) => Some(peer),
            Some(Source::Peer(_) | Source::Local) | None => None,
        };
        let batch = match member {
            Some(peer) => self.to_all_but.of(peer),
            None => &mut self.to_all,
        };
        if offer.is_none() {
            batch.withdraw(change.slot);
        } else {
            batch.announce(offer, change.slot);
        }
        if let Some(peer) = member
            && change.towards(peer).before
        {
            self.to_one.of(peer).withdraw(change.slot);
        }
        self.changes.push(change);
    }
}

impl Exported {
    fn is(&self, family: Family, path: &Learned<'_>, rule: Option<usize>) -> bool {
        self.family == family
            && self.rule == rule
            && self.source == path.source
            && Arc::ptr_eq(&self.attributes, path.attributes)
    }
}

#[cfg(test)]
mod tests;
