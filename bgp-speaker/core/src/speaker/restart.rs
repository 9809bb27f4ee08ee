//! Graceful restart (RFC 4724): what we hold back when we have restarted, and what we keep of a
//! peer that may have; if it stays away, long-lived (RFC 9494).

use super::peer::{Stale, StalePhase};
use super::{PeerId, Severity, Speaker};
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
    pub(super) fn mark_end_of_rib(&mut self, id: PeerId, families: &[Family]) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.held_end_of_rib.clear();
        let own_only =
            peer.config.export != Export::All && peer.config.export_filter.rules.is_empty();
        let complete = self.convergence.is_released() || !self.restart.restarting || own_only;
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
        let preserved = |family: &Family, phase: StalePhase| {
            let restart = agreement.graceful_restart.as_ref();
            let listed = restart.is_some_and(|restart| restart.families.contains(&(*family, true)));
            let mut long_lived = agreement.long_lived.iter();
            match phase {
                StalePhase::Restart | StalePhase::RestartThen(_) => listed,
                StalePhase::LastResort => {
                    long_lived.any(|(other, kept, _)| other == family && *kept)
                }
            }
        };
        let mut gone = Vec::new();
        peer.stale.retain(|family, stale| {
            let kept = preserved(family, stale.phase);
            if !kept {
                gone.push(*family);
            } else if stale.phase != StalePhase::LastResort {
                // RFC 9494 section 4.2: the long-lived timer runs on.
                stale.until = now + STALE_AFTER_RETURN;
                stale.phase = StalePhase::Restart;
            }
            kept
        });
        for family in gone {
            self.rib.sweep(id, family);
        }
        self.rib.retain_families(id, &agreement.params.families);
    }

    /// The session has ended and these families are kept for as long as the peer asked for.
    pub(super) fn start_restart_timers(
        &mut self,
        id: PeerId,
        kept: &[Family],
        agreement: &Agreement,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let restart = agreement.graceful_restart.as_ref();
        let seconds = restart.map_or(0, |restart| restart.restart_time);
        let until = now + Duration::from_secs(seconds.into());
        let phase = |family: &Family| {
            let mut long_lived = agreement.long_lived.iter();
            let entry = long_lived.find(|(other, _, _)| other == family);
            entry.map_or(StalePhase::Restart, |(_, _, time)| {
                StalePhase::RestartThen(*time)
            })
        };
        let stale = |family: &Family| {
            let phase = phase(family);
            (*family, Stale { until, phase })
        };
        peer.stale = kept.iter().map(stale).collect();
        self.refresh_facts(id);
    }

    /// Forgets stale paths whose time has come, or makes them a last resort.
    pub(super) fn sweep_overdue(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let mut overdue = Vec::new();
        let mut demoted = Vec::new();
        let established = peer.agreement.is_some();
        peer.stale.retain(|family, stale| {
            if stale.until > now {
                return true;
            }
            match stale.phase {
                StalePhase::RestartThen(time) if !established => {
                    stale.until += time;
                    stale.phase = StalePhase::LastResort;
                    demoted.push(*family);
                    true
                }
                StalePhase::Restart | StalePhase::RestartThen(_) | StalePhase::LastResort => {
                    overdue.push(*family);
                    false
                }
            }
        });
        peer.refreshing.retain(|family, until| {
            let over = *until <= now;
            if over {
                overdue.push(*family);
            }
            !over
        });
        for family in &overdue {
            self.rib.sweep(id, *family);
        }
        if !(overdue.is_empty() && demoted.is_empty()) {
            self.refresh_facts(id);
        }
        for family in demoted {
            let text = format!("its {family} routes are kept as a last resort");
            self.notice(id, Severity::Warning, text);
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
