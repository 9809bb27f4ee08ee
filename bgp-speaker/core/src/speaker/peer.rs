//! One peer: its session, its connections' octets, what its graceful restart is waiting for.

use super::{ConnectionId, PeerId, SocketOptions, WatchedPath};
use crate::bfd;
use crate::config::{PeerConfig, PeerKey, RemoteAs, SpeakerConfig};
use crate::monitoring::MonitoredPeer;
use crate::rib::PeerFacts;
use crate::rib::export::ExportPolicy;
use crate::session::open::{Agreement, Proposal};
use crate::session::{DialPolicy, Session};
use crate::wire::{Family, Framer, RouteRefresh, encode_route_refresh};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A configured peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) key: PeerKey,
    pub(super) origin: Origin,
    pub(super) config: PeerConfig,
    pub(super) session: Session,
    pub(super) wires: BTreeMap<ConnectionId, Wire>,
    /// The Established connection and the update group it belongs to.
    pub(super) member: Option<(ConnectionId, ExportPolicy)>,
    pub(super) agreement: Option<Box<Agreement>>,
    /// As those who watch were told.
    pub(super) monitored: Option<Arc<MonitoredPeer>>,
    /// Families with paths of an ended session.
    pub(super) stale: BTreeMap<Family, Stale>,
    /// Families that the peer is sending again (RFC 7313), and when we stop to believe it.
    pub(super) refreshing: BTreeMap<Family, Instant>,
    /// Families that the peer is being told again, whose end is to be marked.
    pub(super) refresh_ends: Vec<Family>,
    /// Too many prefixes have ended the session until somebody looks after it.
    pub(super) over_limit: bool,
    /// Families whose End-of-RIB has been received in this session.
    pub(super) end_of_rib: BTreeSet<Family>,
    /// End-of-RIB markers that wait until this speaker has converged.
    pub(super) held_end_of_rib: Vec<Family>,
    pub(super) initial: Initial,
    pub(super) added: Instant,
    pub(super) refusals: Refusals,
    /// What BFD watches.
    pub(super) watched: Option<WatchedPath>,
    pub(super) record: Record,
}

/// Octets of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) framer: Framer,
    pub(super) local: IpAddr,
    /// TCP ports: ours, theirs.
    pub(super) ports: [u16; 2],
    /// OPEN messages: ours, theirs.
    pub(super) opens: [Arc<[u8]>; 2],
    control: VecDeque<Arc<[u8]>>,
    /// The caller knows that there is something to transmit.
    announced: bool,
    /// Since when the oldest of `control` waits.
    waiting_since: Option<Instant>,
}

/// Why a peer is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is listed.
    Listed,
    /// It has connected from within this range.
    Dynamic(IpNet),
    /// It has been found on this interface.
    Interface(Arc<str>),
}

/// Paths of an ended session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stale {
    pub(super) until: Instant,
    pub(super) phase: StalePhase,
}

/// What becomes of stale paths when their time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StalePhase {
    /// They are forgotten (RFC 4724).
    Restart,
    /// They are a last resort for so long (RFC 9494).
    RestartThen(Duration),
    /// They are a last resort already.
    LastResort,
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

/// Words to a peer that connects although it is not to have a session: fewer and fewer.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The latest, and how long it was to do.
    latest: Option<(Instant, Duration)>,
}

impl Refusals {
    const FIRST_PAUSE: Duration = Duration::from_secs(30);
    const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

    /// Whether it is time to say it again.
    pub(super) fn may_say(&mut self, now: Instant) -> bool {
        let pause = match self.latest {
            None => Self::FIRST_PAUSE,
            Some((at, pause)) if now < at + pause => return false,
            Some((_, pause)) => (2 * pause).min(Self::LONGEST_PAUSE),
        };
        self.latest = Some((now, pause));
        true
    }
}

/// What is remembered for status.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) state: &'static str,
    pub(super) since: Instant,
    pub(super) updates_received: u64,
    pub(super) faults: u64,
    /// The peer has been warned about, since its prefixes come near the limit.
    pub(super) near_limit: BTreeSet<Family>,
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
        origin: Origin,
        config: PeerConfig,
        proposal: Proposal,
        seed: u64,
        now: Instant,
    ) -> Self {
        let session = Session::new(id, proposal, dial_policy(&config), seed);
        Self {
            key,
            origin,
            config,
            session,
            wires: BTreeMap::new(),
            member: None,
            agreement: None,
            monitored: None,
            stale: BTreeMap::new(),
            refreshing: BTreeMap::new(),
            refresh_ends: Vec::new(),
            over_limit: false,
            end_of_rib: BTreeSet::new(),
            held_end_of_rib: Vec::new(),
            initial: Initial::Session,
            added: now,
            refusals: Refusals::default(),
            watched: None,
            record: Record {
                state: "Idle",
                since: now,
                updates_received: 0,
                faults: 0,
                near_limit: BTreeSet::new(),
                established_count: 0,
                bfd: None,
                last_error: None,
                last_notification_received: None,
                last_notification_sent: None,
            },
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let stale = self.stale.values().map(|stale| stale.until);
        stale
            .chain(self.refreshing.values().copied())
            .chain(self.session.next_deadline())
            .chain(self.send_hold_at())
            .min()
    }

    /// When the peer will have left what we send unread for too long (RFC 9687). Keepalives see to
    /// it that there is something to send.
    pub(super) fn send_hold_at(&self) -> Option<Instant> {
        let (connection, _) = self.member.as_ref()?;
        let since = self.wires.get(connection)?.waiting_since?;
        Some(since + self.agreement.as_ref()?.send_hold())
    }

    /// Whether it is to have a session at all.
    pub(super) fn is_wanted(&self) -> bool {
        self.config.shutdown.is_none() && !self.over_limit
    }

    pub(super) fn socket_options(&self) -> SocketOptions {
        let ebgp = self.session.proposal().is_internal() == Some(false);
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

    pub(super) fn open_wire(&mut self, connection: ConnectionId, local: SocketAddr, port: u16) {
        let wire = Wire {
            framer: Framer::new(),
            local: local.ip().to_canonical(),
            ports: [local.port(), port],
            opens: Default::default(),
            control: VecDeque::new(),
            announced: false,
            waiting_since: None,
        };
        self.wires.insert(connection, wire);
    }

    /// Queues a message that overtakes UPDATEs; whether the caller has to be told.
    pub(super) fn send_control(
        &mut self,
        connection: ConnectionId,
        message: Vec<u8>,
        now: Instant,
    ) -> bool {
        let Some(wire) = self.wires.get_mut(&connection) else {
            return false;
        };
        wire.waiting_since.get_or_insert(now);
        wire.control.push_back(message.into());
        !std::mem::replace(&mut wire.announced, true)
    }

    pub(super) fn take_control(&mut self, connection: ConnectionId) -> Vec<Arc<[u8]>> {
        let Some(wire) = self.wires.get_mut(&connection) else {
            return Vec::new();
        };
        wire.waiting_since = None;
        wire.control.drain(..).collect()
    }

    /// Marks the end of what the peer has been told again (RFC 7313).
    pub(super) fn end_refreshes(&mut self) -> Vec<Arc<[u8]>> {
        let ends = std::mem::take(&mut self.refresh_ends).into_iter();
        let markers = ends.map(|family| RouteRefresh { family, subtype: 2 });
        markers
            .map(|marker| encode_route_refresh(&marker).into())
            .collect()
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

    /// Facts for the decision process; what only a session tells is that of the last one.
    pub(super) fn facts(&self, config: &SpeakerConfig, previous: Option<&PeerFacts>) -> PeerFacts {
        let proposal = self.session.proposal();
        let agreement = self.agreement.as_deref();
        let remote_as = match (agreement, proposal.remote_as) {
            (Some(agreement), _) => Some(agreement.remote_as),
            (None, RemoteAs::Number(number)) => Some(number),
            (None, RemoteAs::Internal) => Some(proposal.local_as),
            (None, RemoteAs::External | RemoteAs::Auto) => previous.map(|facts| facts.remote_as),
        };
        let last_resort = |(family, stale): (&Family, &Stale)| {
            (stale.phase == StalePhase::LastResort).then_some(*family)
        };
        PeerFacts {
            address: self.key.address,
            scope: self.key.scope,
            interface: match &self.origin {
                Origin::Interface(name) => Some(Arc::clone(name)),
                Origin::Listed | Origin::Dynamic(_) => None,
            },
            router_id: agreement
                .map(|agreement| agreement.router_id)
                .or(previous.map(|facts| facts.router_id))
                .unwrap_or(Ipv4Addr::UNSPECIFIED),
            local_as: proposal.local_as,
            remote_as: remote_as.unwrap_or_default(),
            ibgp: remote_as == Some(proposal.local_as),
            client: self.config.route_reflector_client,
            cluster_id: self.cluster_id(config),
            allow_own_as: self.config.allow_own_as,
            import: self.config.import,
            import_filter: Arc::clone(&self.config.import_filter),
            role: self.config.role,
            long_lived: self.stale.iter().filter_map(last_resort).collect(),
            local_address: self
                .local_address()
                .or(previous.and_then(|facts| facts.local_address)),
        }
    }

    fn cluster_id(&self, config: &SpeakerConfig) -> Ipv4Addr {
        self.config.cluster_id.unwrap_or(config.cluster_id())
    }

    /// The update group of a session over `local` with this agreement.
    pub(super) fn export_policy(
        &self,
        config: &SpeakerConfig,
        agreement: &Agreement,
        local: Option<IpAddr>,
        draining: bool,
    ) -> ExportPolicy {
        let (local_v4, local_v6) = match local {
            Some(IpAddr::V4(address)) => (Some(address), None),
            Some(IpAddr::V6(address)) => (None, Some(address)),
            None => (None, None),
        };
        let link_local = local_v6.filter(Ipv6Addr::is_unicast_link_local);
        let params = &agreement.params;
        // On a link without other addresses, an IPv4 next hop could not be resolved.
        let unnumbered = link_local.is_some() && params.extended_next_hop;
        ExportPolicy {
            local_as: self.session.proposal().local_as,
            ibgp: params.ibgp,
            client: self.config.route_reflector_client,
            export: self.config.export,
            filter: Arc::clone(&self.config.export_filter),
            next_hop_mode: self.config.next_hop,
            next_hop_v4: config.next_hop_v4.or(local_v4).filter(|_| !unnumbered),
            next_hop_v6: config
                .next_hop_v6
                .or(local_v6.filter(|_| link_local.is_none())),
            link_local,
            cluster_id: self.cluster_id(config),
            role: self.config.role,
            graceful_shutdown: draining || self.config.graceful_shutdown,
            long_lived: !agreement.long_lived.is_empty(),
            families: params.families.clone(),
            four_octet_as: params.four_octet_as,
            extended_message: params.extended_message,
            extended_next_hop: params.extended_next_hop,
            add_path: params.add_path_send.clone(),
            path_limit: self.config.add_path.send,
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
        delay_open: config.delay_open,
    }
}
