//! One peer: its session, its connections' octets, what its graceful restart is waiting for.

use super::{ConnectionId, PeerId, SocketOptions, WatchedPath};
use crate::bfd;
use crate::config::{PeerConfig, PeerKey, SpeakerConfig};
use crate::rib::PeerFacts;
use crate::rib::export::ExportPolicy;
use crate::session::open::{Agreement, Proposal};
use crate::session::{DialPolicy, Session};
use crate::wire::{Family, Framer};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

/// A configured peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) key: PeerKey,
    pub(super) config: PeerConfig,
    pub(super) session: Session,
    pub(super) wires: BTreeMap<ConnectionId, Wire>,
    /// The Established connection and the update group it belongs to.
    pub(super) member: Option<(ConnectionId, ExportPolicy)>,
    pub(super) agreement: Option<Box<Agreement>>,
    /// Families with paths of an ended session, and when they are forgotten.
    pub(super) stale: BTreeMap<Family, Instant>,
    /// Families whose End-of-RIB has been received in this session.
    pub(super) end_of_rib: BTreeSet<Family>,
    /// End-of-RIB markers that wait until this speaker has converged.
    pub(super) held_end_of_rib: Vec<Family>,
    pub(super) initial: Initial,
    /// What BFD watches.
    pub(super) watched: Option<WatchedPath>,
    pub(super) record: Record,
}

/// Octets of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) framer: Framer,
    pub(super) local: IpAddr,
    control: VecDeque<Arc<[u8]>>,
    /// The caller knows that there is something to transmit.
    announced: bool,
}

/// What the initial exchange of this speaker waits for from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Initial {
    /// A session.
    Session,
    /// End-of-RIB, until the given time.
    EndOfRib {
        until: Instant,
    },
    Over,
}

/// What is remembered for status.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) state: &'static str,
    pub(super) since: Instant,
    pub(super) updates_received: u64,
    pub(super) faults: u64,
    pub(super) established_count: u64,
    pub(super) bfd: Option<bfd::Report>,
    pub(super) last_error: Option<String>,
    pub(super) last_notification_received: Option<String>,
    pub(super) last_notification_sent: Option<String>,
}

impl Peer {
    pub(super) fn new(
        id: PeerId,
        key: PeerKey,
        config: PeerConfig,
        proposal: Proposal,
        seed: u64,
        now: Instant,
    ) -> Self {
        let session = Session::new(id, proposal, dial_policy(&config), seed);
        Self {
            key,
            config,
            session,
            wires: BTreeMap::new(),
            member: None,
            agreement: None,
            stale: BTreeMap::new(),
            end_of_rib: BTreeSet::new(),
            held_end_of_rib: Vec::new(),
            initial: Initial::Session,
            watched: None,
            record: Record {
                state: "Idle",
                since: now,
                updates_received: 0,
                faults: 0,
                established_count: 0,
                bfd: None,
                last_error: None,
                last_notification_received: None,
                last_notification_sent: None,
            },
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.stale
            .values()
            .copied()
            .chain(self.session.next_deadline())
            .min()
    }

    pub(super) fn socket_options(&self) -> SocketOptions {
        let proposal = self.session.proposal();
        let ebgp = proposal.local_as != proposal.remote_as;
        let ttl = match self.config.ttl_security {
            Some(_) => 255,
            None if ebgp && !self.config.multihop => 1,
            None => 64,
        };
        SocketOptions {
            source: self.config.source_address,
            device: self.config.bind_device.clone(),
            ttl,
            min_ttl: self
                .config
                .ttl_security
                .map_or(0, |hops| 255 - hops.saturating_sub(1)),
            password: self.config.password.clone(),
        }
    }

    pub(super) fn open_wire(&mut self, connection: ConnectionId, local: IpAddr) {
        let wire = Wire {
            framer: Framer::new(),
            local,
            control: VecDeque::new(),
            announced: false,
        };
        self.wires.insert(connection, wire);
    }

    /// Queues a message that overtakes UPDATEs; whether the caller has to be told.
    pub(super) fn send_control(&mut self, connection: ConnectionId, message: Vec<u8>) -> bool {
        let Some(wire) = self.wires.get_mut(&connection) else {
            return false;
        };
        wire.control.push_back(message.into());
        !std::mem::replace(&mut wire.announced, true)
    }

    pub(super) fn take_control(&mut self, connection: ConnectionId) -> Vec<Arc<[u8]>> {
        let wire = self.wires.get_mut(&connection);
        wire.map(|wire| wire.control.drain(..).collect())
            .unwrap_or_default()
    }

    /// There is something to transmit; whether the caller has to be told.
    pub(super) fn busy(&mut self, connection: ConnectionId) -> bool {
        let wire = self.wires.get_mut(&connection);
        wire.is_some_and(|wire| !std::mem::replace(&mut wire.announced, true))
    }

    pub(super) fn idle(&mut self, connection: ConnectionId) {
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.announced = false;
        }
    }

    /// The update group, if the connection is the Established one.
    pub(super) fn group_of(&self, connection: ConnectionId) -> Option<&ExportPolicy> {
        let (established, key) = self.member.as_ref()?;
        (*established == connection).then_some(key)
    }

    pub(super) fn local_address(&self) -> Option<IpAddr> {
        let (connection, _) = self.member.as_ref()?;
        self.wires.get(connection).map(|wire| wire.local)
    }

    /// Facts for the decision process; the identifier is the last one known.
    pub(super) fn facts(&self, previous: Option<&PeerFacts>) -> PeerFacts {
        let proposal = self.session.proposal();
        let known = self.agreement.as_ref().map(|agreement| agreement.router_id);
        PeerFacts {
            address: self.key.address,
            router_id: known
                .or(previous.map(|facts| facts.router_id))
                .unwrap_or(Ipv4Addr::UNSPECIFIED),
            local_as: proposal.local_as,
            ibgp: proposal.local_as == proposal.remote_as,
            client: self.config.route_reflector_client,
            allow_own_as: self.config.allow_own_as,
            import: self.config.import,
            local_address: self
                .local_address()
                .or(previous.and_then(|facts| facts.local_address)),
        }
    }

    /// The update group of a session over `local` with this agreement.
    pub(super) fn export_policy(
        &self,
        config: &SpeakerConfig,
        agreement: &Agreement,
        local: Option<IpAddr>,
    ) -> ExportPolicy {
        let (local_v4, local_v6) = match local {
            Some(IpAddr::V4(address)) => (Some(address), None),
            Some(IpAddr::V6(address)) => (None, Some(address)),
            None => (None, None),
        };
        ExportPolicy {
            local_as: self.session.proposal().local_as,
            ibgp: agreement.params.ibgp,
            client: self.config.route_reflector_client,
            export: self.config.export,
            keep_next_hop: self.config.keep_next_hop,
            next_hop_v4: config.next_hop_v4.or(local_v4),
            next_hop_v6: config.next_hop_v6.or(local_v6),
            cluster_id: config.cluster_id(),
            families: agreement.params.families.clone(),
            four_octet_as: agreement.params.four_octet_as,
        }
    }

    /// The R bit is for the first session after a restart, and not for long after it.
    pub(super) fn restart_is_over(&mut self) {
        let proposal = self.session.proposal();
        if proposal.restarting {
            self.session.set_proposal(Proposal {
                restarting: false,
                ..proposal.clone()
            });
        }
    }

    /// Notes a change of state for status.
    pub(super) fn note_state(&mut self, now: Instant) {
        let state = self.session.state();
        if self.record.state != state {
            self.record.state = state;
            self.record.since = now;
        }
    }
}

pub(super) fn dial_policy(config: &PeerConfig) -> DialPolicy {
    DialPolicy {
        passive: config.passive,
        retry: config.connect_retry,
    }
}
