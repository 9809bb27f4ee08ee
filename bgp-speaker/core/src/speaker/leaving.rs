//! Make before break: peers that are configured no more stay until those that came in their place
//! have said what they have, and nothing is known from the former alone. So a change from a mesh to
//! a route reflector, or from one router to another, leaves no prefix without a path.

use super::peer::{Initial, Origin};
use super::{PeerId, Speaker};
use crate::config::PeerKey;
use crate::wire::{ErrorCode, Notification};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long somebody who came in another's place is waited for.
const LINGER: Duration = Duration::from_secs(30);
/// How long somebody is waited for who may come in another's place: objects change one by one.
const MOMENT: Duration = Duration::from_millis(500);
/// How long everybody else has to hear of us from those, once they have said what they have.
const SETTLE: Duration = Duration::from_secs(3);

/// Time between looks at whether a peer is needed still.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Peers that are configured no more.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    peers: BTreeMap<PeerKey, Notice>,
}

/// When a peer is to go.
#[derive(Debug, Clone, Copy)]
struct Notice {
    /// When to look whether it can be done without.
    look_at: Instant,
    /// When it goes in any case.
    until: Instant,
    /// Others come in its place.
    replaced: bool,
}

impl Leaving {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.peers.values().map(|notice| notice.look_at).min()
    }

    pub(super) fn forget(&mut self, key: &PeerKey) {
        self.peers.remove(key);
    }

    /// These are to go: in a moment, or when others have taken over.
    fn add(&mut self, keys: impl IntoIterator<Item = PeerKey>, replaced: bool, now: Instant) {
        let until = now + if replaced { LINGER } else { MOMENT };
        let notice = Notice {
            look_at: until,
            until,
            replaced,
        };
        for key in keys {
            let known = self.peers.entry(key).or_insert(notice);
            if replaced && !known.replaced {
                *known = notice;
            }
        }
    }

    /// Those that are configured again stay for good.
    fn retain(&mut self, gone: &BTreeSet<PeerKey>) {
        self.peers.retain(|key, _| gone.contains(key));
    }
}

impl Speaker {
    /// Ends the sessions with peers that are configured no more: in a moment where nobody comes in
    /// their place.
    pub(super) fn let_go(&mut self, gone: &BTreeSet<PeerKey>, now: Instant) {
        self.leaving.retain(gone);
        let replaced = self.newcomers(now).next().is_some();
        let established = |key: &&PeerKey| {
            let peer = self.by_key.get(key).and_then(|id| self.peers.get(id));
            peer.is_some_and(|peer| peer.origin == Origin::Listed && peer.session.is_established())
        };
        let (stay, go): (Vec<_>, Vec<_>) = gone.iter().partition(established);
        self.leaving.add(stay.into_iter().copied(), replaced, now);
        go.into_iter().for_each(|key| self.remove_peer(*key, now));
        self.check_leaving(now);
    }

    /// Lets those go whose time is over. A peer that can keep our routes for a restart keeps them
    /// (RFC 8538): it may be told the same by others a moment later.
    pub(super) fn check_leaving(&mut self, now: Instant) {
        if self.leaving.peers.is_empty() {
            return;
        }
        if self.newcomers(now).next().is_none() {
            let settled = now + SETTLE;
            let notices = self.leaving.peers.values_mut();
            notices.for_each(|notice| notice.look_at = settled.min(notice.look_at));
        }
        let due = self.leaving.peers.iter();
        let due = due.filter(|(_, notice)| notice.look_at <= now);
        let due: Vec<(PeerKey, Notice)> = due.map(|(key, notice)| (*key, *notice)).collect();
        let going: BTreeSet<PeerId> = due
            .iter()
            .filter_map(|(key, _)| self.by_key.get(key).copied())
            .collect();
        let needed = self.rib.sole_sources(&going);
        for (key, notice) in due {
            let id = self.by_key.get(&key).copied();
            let needed = id.is_some_and(|id| needed.contains(&id));
            if notice.replaced && needed && now < notice.until {
                let look_at = notice.until.min(now + LOOK_AGAIN);
                self.leaving.peers.insert(key, Notice { look_at, ..notice });
                continue;
            }
            if let Some(peer) = id.and_then(|id| self.peers.get_mut(&id))
                && notice.replaced
            {
                let cease = Notification::new(ErrorCode::CEASE_PEER_DECONFIGURED);
                let words = "it is configured no more, and others have taken over";
                peer.session.leave(&cease, words, now);
            }
            self.remove_peer(key, now);
        }
    }

    /// Configured peers that have come lately and have not said all that they have.
    fn newcomers(&self, now: Instant) -> impl Iterator<Item = PeerId> + '_ {
        let config = self.config.as_ref();
        let peers = self.peers.iter().filter(move |(_, peer)| {
            let configured = config.is_some_and(|config| match &peer.origin {
                Origin::Listed => config.peers.contains_key(&peer.key),
                Origin::Dynamic(_) => false,
                Origin::Interface(name) => config.interface_peers.contains_key(&**name),
            });
            configured
                && peer.is_wanted()
                && peer.initial != Initial::Over
                && now < peer.added + LINGER
        });
        peers.map(|(id, _)| *id)
    }
}
