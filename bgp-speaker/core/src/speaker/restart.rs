//! Graceful restart (RFC 4724): what we hold back when we have restarted, and what we keep of a
//! peer that may have.

use super::{PeerId, Speaker};
use crate::config::Export;
use crate::session::open::Agreement;
use crate::wire::Family;
use std::time::{Duration, Instant};

/// How long stale paths are kept after the peer is back without it sending End-of-RIB.
const STALE_AFTER_RETURN: Duration = Duration::from_secs(360);

impl Speaker {
    /// End-of-RIB follows the table at once, except for routes of others that a restarted speaker
    /// has yet to learn: peers would forget what it announced before (RFC 4724 section 4.1). That
    /// wait is bounded, whatever the initial exchange still waits for.
    pub(super) fn mark_end_of_rib(&mut self, id: PeerId, export: Export, families: &[Family]) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.held_end_of_rib.clear();
        let complete = self.convergence.is_released()
            || !self.restart.restarting
            || export == Export::OwnRoutes;
        if !complete {
            peer.held_end_of_rib = families.to_vec();
            return;
        }
        if let Some(group) = peer
            .member
            .as_ref()
            .and_then(|(_, key)| self.groups.get_mut(key))
        {
            group.end_of_rib(id, families);
        }
    }

    /// The peer is back: its stale paths wait for End-of-RIB only where it kept forwarding
    /// (RFC 4724 section 4.2).
    pub(super) fn keep_stale_paths(&mut self, id: PeerId, agreement: &Agreement, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let preserved = |family: &Family| {
            let restart = agreement.graceful_restart.as_ref();
            restart.is_some_and(|restart| restart.families.contains(&(*family, true)))
        };
        let (kept, gone): (Vec<_>, Vec<_>) = peer.stale.keys().copied().partition(preserved);
        peer.stale = kept
            .iter()
            .map(|family| (*family, now + STALE_AFTER_RETURN))
            .collect();
        for family in gone {
            self.rib.sweep(id, family);
        }
        self.rib.retain_families(id, &agreement.params.families);
    }

    /// Forgets stale paths whose time has come.
    pub(super) fn sweep_overdue(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let overdue: Vec<_> = peer
            .stale
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(family, _)| *family)
            .collect();
        for family in overdue {
            peer.stale.remove(&family);
            self.rib.sweep(id, family);
        }
    }
}

/// Families whose paths outlive a session: the peer listed them in its capability.
pub(super) fn kept_families(agreement: &Agreement) -> Vec<Family> {
    let listed = agreement
        .graceful_restart
        .iter()
        .flat_map(|restart| &restart.families);
    let agreed = listed.map(|(family, _)| *family);
    agreed
        .filter(|family| agreement.params.families.contains(family))
        .collect()
}
