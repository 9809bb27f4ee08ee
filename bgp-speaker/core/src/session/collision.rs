//! Which of two connections with a peer survives (RFC 4271 section 6.8, RFC 4724 section 4.2).

use super::connection::{Event, Phase};
use super::{Direction, Session};
use crate::speaker::ConnectionId;
use crate::wire::{ErrorCode, Notification};
use std::time::{Duration, Instant};

/// Within this time of a session's start another connection is a collision; after it, a sign
/// that the peer has lost the first (RFC 4724 section 4.2).
const COLLISION_WINDOW: Duration = Duration::from_secs(10);
/// A connection on which our OPEN has waited for an answer this long decides about no other: the
/// peer may have lost it, and each connection of its own that it is refused makes it wait longer.
const UNANSWERED: Duration = Duration::from_secs(3);

/// What two connections mean.
enum Verdict {
    Collision { loser: ConnectionId },
    PeerRestarted,
}

impl Session {
    /// Connection collision detection (RFC 4271 section 6.8): `id` has just received its OPEN.
    /// Its identifier decides about a fresh connection in `OpenSent` too, or that one would unseat
    /// this one a moment later, when it is Established.
    pub(super) fn arbitrate(&mut self, id: ConnectionId, now: Instant) {
        let others: Vec<_> = self
            .slots
            .iter()
            .filter(|slot| slot.id != id)
            .filter(|slot| {
                slot.connection.phase() >= Phase::OpenConfirm || now < slot.since + UNANSWERED
            })
            .map(|slot| slot.id)
            .collect();
        for other in others {
            let Some(verdict) = self.verdict(id, other, now) else {
                return;
            };
            let (loser, event) = match verdict {
                Verdict::Collision { loser } => {
                    let words = "another connection with the peer was kept".to_owned();
                    let cease = Notification::new(ErrorCode::CEASE_COLLISION);
                    (loser, Event::Stop(Some(cease), words))
                }
                Verdict::PeerRestarted => (
                    other,
                    Event::Lost("the peer has restarted its session".into()),
                ),
            };
            self.handle(loser, event, now);
        }
    }

    fn verdict(&self, id: ConnectionId, other: ConnectionId, now: Instant) -> Option<Verdict> {
        let newer = self.slots.iter().find(|slot| slot.id == id)?;
        let older = self.slots.iter().find(|slot| slot.id == other)?;
        let agreement = newer.connection.agreement()?;
        if let Some((old, since)) = &older.up {
            let restarting = agreement
                .graceful_restart
                .as_ref()
                .is_some_and(|peer| peer.restarting);
            let settled = now >= *since + COLLISION_WINDOW;
            if old.graceful_restart.is_some() && (restarting || settled) {
                return Some(Verdict::PeerRestarted);
            }
            if settled {
                return Some(Verdict::Collision { loser: id });
            }
        }
        if newer.direction == older.direction {
            return Some(Verdict::Collision { loser: other });
        }
        let ours = newer.connection.proposal();
        let keep = if (ours.router_id, ours.local_as) > (agreement.router_id, agreement.remote_as) {
            Direction::Outgoing
        } else {
            Direction::Incoming
        };
        Some(Verdict::Collision {
            loser: if newer.direction == keep { other } else { id },
        })
    }
}
