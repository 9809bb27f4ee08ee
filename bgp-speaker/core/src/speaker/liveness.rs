//! What BFD says about the path to a peer (RFC 5882, RFC 9384).
//!
//! A session of BFD starts with the first BGP session, between the addresses of that session, and
//! outlives it: what comes after a failure is how one learns that the path is back.

use super::peer::Peer;
use super::{Output, PeerId, Severity, Speaker};
use crate::bfd::{Profile, State, Transition};
use crate::wire::{ErrorCode, Notification};
use std::net::IpAddr;
use std::time::Instant;

/// A path for BFD to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedPath {
    /// Our address of the BGP session.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
    /// Index of the interface that link-local addresses are on; 0 for others.
    pub scope: u32,
    /// Network device that the BGP session is bound to.
    pub device: Option<String>,
    /// There may be routers between (RFC 5883 instead of RFC 5881).
    pub multihop: bool,
    /// Intervals and role.
    pub profile: Profile,
}

impl Speaker {
    /// The state of a watched path has changed, or only its report if `from` says the same state. A failure ends the BGP session and takes the routes
    /// with it, graceful restart or not: who can't be reached can't forward. A peer that closes its
    /// BFD session (AdminDown) or begins it anew says nothing about the path (RFC 5882 section 3.2).
    pub fn path_changed(&mut self, id: PeerId, change: &Transition, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        // Of a session that is watched no more.
        if peer.watched.is_none() {
            return;
        }
        let report = change.report;
        peer.record.bfd = Some(report);
        if change.from == report.state {
            return;
        }
        if report.state == State::Up {
            let text = format!("BFD session with {} is up", peer.key);
            return self.notice(id, Severity::Info, text);
        }
        if change.from != State::Up {
            return;
        }
        let failed = report.remote_state != State::AdminDown && !change.remote_restarted;
        let text = format!(
            "BFD session with {} is down: {}",
            peer.key, report.diagnostic
        );
        let severity = if failed {
            Severity::Warning
        } else {
            Severity::Info
        };
        self.notice(id, severity, text);
        if !failed {
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        self.outputs.push_back(Output::PathDown {
            address: peer.key.address,
            scope: peer.key.scope,
        });
        if peer.session.is_established() {
            let cease = Notification::new(ErrorCode::CEASE_BFD_DOWN);
            let words = format!("BFD: {}", report.diagnostic);
            peer.session.fail(&cease, &words, now);
            self.drain_session(id, now);
        } else if report.independent {
            // Not a restart of the peer's control plane, which its BFD would have outlived: what is
            // kept for the time of a restart leads nowhere (RFC 5882 section 4.3).
            peer.stale.clear();
            self.rib.retain_families(id, &[]);
        }
    }

    /// Says what is to be watched if that has changed.
    pub(super) fn watch_path(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let wanted = peer.wanted_path();
        if peer.watched == wanted {
            return;
        }
        if wanted.is_none() {
            peer.record.bfd = None;
        }
        peer.watched.clone_from(&wanted);
        self.outputs.push_back(Output::Watch {
            peer: id,
            path: wanted.map(Box::new),
        });
    }
}

impl Peer {
    fn wanted_path(&self) -> Option<WatchedPath> {
        let profile = self.config.bfd?;
        let local = self
            .local_address()
            .or(self.watched.as_ref().map(|path| path.local))?;
        Some(WatchedPath {
            local,
            remote: self.key.address,
            scope: self.key.scope,
            device: self.config.bind_device.clone(),
            multihop: self.socket_options().ttl != 1 && self.config.ttl_security != Some(1),
            profile,
        })
    }
}
