//! What those who watch are told: sessions, and the Adj-RIBs-In before import policy.

use super::peer::{Peer, Wire};
use super::{ConnectionId, Output, PeerId, Speaker};
use crate::monitoring::mrt::{TablePath, TablePeer, TableWriter};
use crate::monitoring::{DownReason, Monitored, MonitoredEvent, MonitoredPeer};
use crate::rib::Source;
use crate::rib::attributes::PathAttributes;
use crate::session::connection::{Cause, End};
use crate::session::open::Agreement;
use crate::wire::{Family, Nlri, SessionParams, Update, UpdateEncoder, encode_notification};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

impl Speaker {
    /// Whether [`Output::Monitored`] is wanted. Sessions that are up already are in
    /// [`Speaker::monitored`].
    pub fn set_monitored(&mut self, monitored: bool) {
        self.monitored = monitored;
    }

    /// Everything that whoever begins to watch has missed: sessions that are up, the routes of
    /// each, and End-of-RIB after them (RFC 7854 section 5).
    pub fn monitored(&self) -> Vec<Monitored> {
        let mut tables = self.adj_ribs_in();
        let mut all = Vec::new();
        for (id, peer) in &self.peers {
            let (Some((connection, _)), Some(agreement)) = (&peer.member, &peer.agreement) else {
                continue;
            };
            let Some(wire) = peer.wires.get(connection) else {
                continue;
            };
            let described = Arc::new(describe(peer, wire, agreement));
            let mut tell = |event| {
                all.push(Monitored {
                    peer: Arc::clone(&described),
                    event,
                });
            };
            tell(up(wire));
            let params = as_received(agreement);
            let encoder = UpdateEncoder::new(&params);
            let mut octets = Vec::new();
            for ((family, _), (path, nlri)) in tables.remove(id).unwrap_or_default() {
                let (attributes, next_hop) = (&path.attributes, path.next_hop);
                // What cannot be written is what a session like this one could not have carried.
                let _ = encoder.announce(family, attributes, next_hop, nlri, &mut octets);
            }
            for family in &params.families {
                encoder.end_of_rib(*family, &mut octets);
            }
            tell(MonitoredEvent::Updates(octets));
        }
        all
    }

    /// All paths to all prefixes as an MRT table (RFC 6396 section 4.3), at `time` since 1970.
    /// Peer 0 is this speaker, with the routes that it originates.
    pub fn mrt_table(&self, time: Duration) -> Vec<u8> {
        let router_id = self
            .config
            .as_ref()
            .map_or(Ipv4Addr::UNSPECIFIED, |config| config.router_id);
        let mut peers = vec![TablePeer {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            router_id,
            remote_as: self.config.as_ref().map_or(0, |config| config.local_as),
        }];
        let mut places = BTreeMap::new();
        for (id, peer) in self.peers.iter().take(usize::from(u16::MAX) - 1) {
            places.insert(*id, peers.len() as u16);
            let facts = self.rib.peer(*id);
            peers.push(TablePeer {
                address: peer.key.address,
                router_id: facts.map_or(Ipv4Addr::UNSPECIFIED, |facts| facts.router_id),
                remote_as: facts.map_or(0, |facts| facts.remote_as),
            });
        }
        let mut table = TableWriter::new(router_id, &peers, time);
        for (prefix, destination) in self.rib.destinations() {
            let paths = destination.paths().iter().filter_map(|path| {
                let (peer, next_hop) = match path.source {
                    Source::Local => (0, None),
                    Source::Peer(id) => (*places.get(&id)?, Some(path.attributes.next_hop)),
                };
                Some(TablePath {
                    peer,
                    path_id: path.path_id(),
                    attributes: &path.attributes.attributes,
                    next_hop,
                })
            });
            table.prefix(prefix, &paths.collect::<Vec<_>>());
        }
        table.finish()
    }

    pub(super) fn monitor_up(&mut self, connection: ConnectionId) {
        if !self.monitored {
            return;
        }
        let Some(peer) = self.peers.get_mut(&connection.peer) else {
            return;
        };
        let (Some(wire), Some(agreement)) = (peer.wires.get(&connection), &peer.agreement) else {
            return;
        };
        let event = up(wire);
        peer.monitored = Some(Arc::new(describe(peer, wire, agreement)));
        self.tell(connection.peer, event);
    }

    /// Before the routes are taken over.
    pub(super) fn monitor_update(&mut self, id: PeerId, update: &Update) {
        if !self.monitored {
            return;
        }
        let Some(agreement) = self.peers.get(&id).and_then(|peer| peer.agreement.as_ref()) else {
            return;
        };
        let params = as_received(agreement);
        let encoder = UpdateEncoder::new(&params);
        let mut octets = Vec::new();
        for family in [Family::IPV4, Family::IPV6] {
            let of_family = |nlri: &&Nlri| Family::of(&nlri.prefix) == family;
            let withdrawn = update.withdrawn.iter().filter(of_family).copied();
            // As above: what came over the session fits into its messages.
            let _ = encoder.withdraw(family, withdrawn, &mut octets);
            for announced in &update.announced {
                let nlri = announced.nlri.iter().filter(of_family).copied();
                let (attributes, next_hop) = (&update.attributes, announced.next_hop);
                let _ = encoder.announce(family, attributes, next_hop, nlri, &mut octets);
            }
        }
        if let Some(family) = update.end_of_rib {
            encoder.end_of_rib(family, &mut octets);
        }
        self.tell(id, MonitoredEvent::Updates(octets));
    }

    pub(super) fn monitor_down(&mut self, id: PeerId, end: &End) {
        if !self.monitored {
            return;
        }
        let configured = self.by_key.values().any(|other| *other == id);
        let reason = match &end.cause {
            _ if !configured => DownReason::Deconfigured,
            Cause::Lost => DownReason::Lost,
            Cause::Received(notification) => {
                DownReason::Received(encode_notification(notification))
            }
            Cause::Sent(notification) => DownReason::Sent(encode_notification(notification)),
        };
        self.tell(id, MonitoredEvent::Down(reason));
    }

    fn tell(&mut self, id: PeerId, event: MonitoredEvent) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.monitored.is_none()
            && let (Some((connection, _)), Some(agreement)) = (&peer.member, &peer.agreement)
            && let Some(wire) = peer.wires.get(connection)
        {
            peer.monitored = Some(Arc::new(describe(peer, wire, agreement)));
        }
        let over = matches!(event, MonitoredEvent::Down(_));
        if let Some(described) = peer.monitored.clone() {
            if over {
                peer.monitored = None;
            }
            self.outputs
                .push_back(Output::Monitored(Box::new(Monitored {
                    peer: described,
                    event,
                })));
        }
    }

    /// Paths by peer, those with the same attributes together.
    fn adj_ribs_in(&self) -> BTreeMap<PeerId, Bundles> {
        let mut tables = BTreeMap::<_, Bundles>::new();
        for (prefix, destination) in self.rib.destinations() {
            for path in destination.paths().iter().filter(|path| !path.stale) {
                let Source::Peer(id) = path.source else {
                    continue;
                };
                let shared = Arc::as_ptr(&path.attributes).addr();
                let bundle = tables
                    .entry(id)
                    .or_default()
                    .entry((Family::of(&prefix), shared))
                    .or_insert_with(|| (Arc::clone(&path.attributes), Vec::new()));
                bundle.1.push(Nlri {
                    path_id: path.path_id(),
                    prefix,
                });
            }
        }
        tables
    }
}

/// By family and the place of what they share.
type Bundles = BTreeMap<(Family, usize), (Arc<PathAttributes>, Vec<Nlri>)>;

fn up(wire: &Wire) -> MonitoredEvent {
    let [sent_open, received_open] = wire.opens.clone();
    MonitoredEvent::Up {
        sent_open,
        received_open,
    }
}

fn describe(peer: &Peer, wire: &Wire, agreement: &Agreement) -> MonitoredPeer {
    let [local_port, remote_port] = wire.ports;
    MonitoredPeer {
        remote: SocketAddr::new(peer.key.address, remote_port),
        local: SocketAddr::new(wire.local, local_port),
        remote_as: agreement.remote_as,
        local_as: peer.session.proposal().local_as,
        router_id: agreement.router_id,
        four_octet_as: agreement.params.four_octet_as,
        add_path: !agreement.params.add_path_receive.is_empty(),
    }
}

/// To write what the peer would have written.
fn as_received(agreement: &Agreement) -> SessionParams {
    SessionParams {
        add_path_send: agreement.params.add_path_receive.clone(),
        ..agreement.params.clone()
    }
}
