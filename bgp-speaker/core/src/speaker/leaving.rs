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
}

impl Leaving {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.peers.values().map(|notice| notice.look_at).min()
    }

    pub(super) fn forget(&mut self, key: &PeerKey) {
        self.peers.remove(key);
    }

    /// These are to go, or to stay no longer than they were to.
    fn add(&mut self, keys: impl IntoIterator<Item = PeerKey>, until: Instant) {
        let look_at = until;
        for key in keys {
            self.peers.entry(key).or_insert(Notice { look_at, until });
        }
    }

    /// Those that are configured again stay for good.
    fn retain(&mut self, gone: &BTreeSet<PeerKey>) {
        self.peers.retain(|key, _| gone.contains(key));
    }
}

impl Speaker {
    /// Ends the sessions with peers that are configured no more: at once where nobody comes in
    /// their place.
    pub(super) fn let_go(&mut self, gone: &BTreeSet<PeerKey>, now: Instant) {
        self.leaving.retain(gone);
        if self.newcomers(now).next().is_some() {
            let established = |key: &&PeerKey| {
                let peer = self.by_key.get(key).and_then(|id| self.peers.get(id));
                peer.is_some_and(|peer| {
                    peer.origin == Origin::Listed && peer.session.is_established()
                })
            };
            let (stay, go): (Vec<_>, Vec<_>) = gone.iter().partition(established);
            self.leaving.add(stay.into_iter().copied(), now + LINGER);
            go.into_iter().for_each(|key| self.remove_peer(*key, now));
        } else {
            let leaving = &self.leaving.peers;
            let go: Vec<_> = gone
                .iter()
                .filter(|key| !leaving.contains_key(key))
                .collect();
            go.into_iter().for_each(|key| self.remove_peer(*key, now));
        }
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
            if id.is_some_and(|id| needed.contains(&id)) && now < notice.until {
                let look_at = notice.until.min(now + LOOK_AGAIN);
                self.leaving.peers.insert(key, Notice { look_at, ..notice });
                continue;
            }
            if let Some(peer) = id.and_then(|id| self.peers.get_mut(&id)) {
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
