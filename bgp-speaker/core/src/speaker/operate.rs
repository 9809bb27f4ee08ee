//! What operators ask for, beside the configuration.

use super::peer::Peer;
use super::{PeerId, Speaker};
use crate::config::PeerKey;
use crate::wire::{ErrorCode, Family, Notification, RouteRefresh};
use std::time::Instant;

/// What is to be done with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Have the peer send its routes again (RFC 2918).
    RefreshIn,
    /// Tell the peer everything again.
    RefreshOut,
    /// End the session with a text for the peer (RFC 9003) and start it again; both sides keep
    /// routes meanwhile if RFC 8538 was agreed on.
    Reset(String),
    /// The same, without keeping routes.
    HardReset(String),
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// There is no such peer.
    #[error("{key} is no peer")]
    NoPeer {
        /// The key.
        key: PeerKey,
    },
    /// It needs a session.
    #[error("there is no session with {key}")]
    NoSession {
        /// The peer.
        key: PeerKey,
    },
    /// The peer did not announce route refresh.
    #[error("{key} cannot send its routes again: it does not know ROUTE-REFRESH")]
    NoRouteRefresh {
        /// The peer.
        key: PeerKey,
    },
}

impl Speaker {
    /// Does something with the session of a peer.
    ///
    /// # Errors
    /// [`OperationError`], naming the peer.
    pub fn operate(
        &mut self,
        key: PeerKey,
        operation: &Operation,
        now: Instant,
    ) -> Result<(), OperationError> {
        let id = *self
            .by_key
            .get(&key)
            .ok_or(OperationError::NoPeer { key })?;
        match operation {
            Operation::RefreshIn => self.refresh_in(id, key, now),
            Operation::RefreshOut => self.refresh_out(id, key, now),
            Operation::Reset(text) => {
                self.reset(id, |peer| {
                    let cease = Notification::with_text(ErrorCode::CEASE_ADMIN_RESET, text);
                    peer.session.reset(&cease, "it was reset by hand", now);
                });
                self.drain_session(id, now);
                Ok(())
            }
            Operation::HardReset(text) => {
                self.reset(id, |peer| {
                    let cease = Notification::with_text(ErrorCode::CEASE_ADMIN_RESET, text);
                    peer.session.reset_hard(&cease, "it was reset by hand", now);
                });
                self.drain_session(id, now);
                Ok(())
            }
        }
    }

    /// Announces to all peers that our routes are about to go away (RFC 8326), or that they are
    /// not: the first step of taking this node out of service.
    pub fn set_draining(&mut self, draining: bool) {
        if self.draining != draining {
            self.draining = draining;
            self.regroup_all();
        }
    }

    fn reset(&mut self, id: PeerId, end: impl FnOnce(&mut Peer)) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.over_limit = false;
        if peer.is_wanted() {
            end(peer);
        }
    }

    fn families(&self, id: PeerId, key: PeerKey) -> Result<Vec<Family>, OperationError> {
        let peer = self.peers.get(&id);
        let agreement = peer.and_then(|peer| peer.agreement.as_deref());
        agreement
            .map(|agreement| agreement.params.families.clone())
            .ok_or(OperationError::NoSession { key })
    }

    fn refresh_in(&mut self, id: PeerId, key: PeerKey, now: Instant) -> Result<(), OperationError> {
        let families = self.families(id, key)?;
        let peer = self.peers.get(&id);
        let able = peer.is_some_and(|peer| {
            let agreement = peer.agreement.as_deref();
            agreement.is_some_and(|agreement| agreement.route_refresh)
        });
        if !able {
            return Err(OperationError::NoRouteRefresh { key });
        }
        for family in families {
            self.send_refresh(id, RouteRefresh { family, subtype: 0 }, now);
        }
        Ok(())
    }

    fn refresh_out(
        &mut self,
        id: PeerId,
        key: PeerKey,
        now: Instant,
    ) -> Result<(), OperationError> {
        for family in self.families(id, key)? {
            self.tell_again(id, family, now);
        }
        Ok(())
    }
}
