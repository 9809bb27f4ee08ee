//! Speakers joined by a network in memory, with a clock of its own: the same seed gives the same run.

use crate::monitoring::Monitored;
use crate::speaker::{ConnectionId, Output, Speaker};
use crate::{FibChange, LocalRoute, Notice, PeerConfig, PeerKey, Restart, SpeakerConfig, Stop};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// One end of a connection.
type End = (usize, ConnectionId);

enum Packet {
    Octets(Vec<u8>),
    Closed,
}

pub(super) struct Node {
    pub(super) speaker: Speaker,
    pub(super) config: SpeakerConfig,
    pub(super) fib: BTreeMap<IpNet, Vec<IpAddr>>,
    /// Forwarding entries removed since the last look.
    pub(super) removed: Vec<IpNet>,
    pub(super) converged_at: Option<Instant>,
    pub(super) broken: Vec<IpAddr>,
    pub(super) notices: Vec<Notice>,
    pub(super) monitored: Vec<Monitored>,
    routes: BTreeSet<LocalRoute>,
    running: bool,
}

pub(super) struct Network {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Instant,
    seed: u64,
    links: BTreeMap<End, End>,
    wires: BTreeMap<End, VecDeque<Packet>>,
    /// Pairs of nodes between which octets get lost.
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// Nodes whose TCP takes nothing.
    pub(super) stalled: BTreeSet<usize>,
}

pub(super) fn address(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(node).unwrap() + 1))
}

pub(super) fn key(node: usize) -> PeerKey {
    PeerKey::new(address(node), 179)
}

pub(super) fn prefixes(node: usize) -> [IpNet; 2] {
    [
        format!("10.1.{node}.0/26").parse().unwrap(),
        format!("fd01:{node}::/122").parse().unwrap(),
    ]
}

/// More of one family than a limit of one lets pass.
pub(super) fn two_v4_prefixes() -> [IpNet; 2] {
    ["10.2.0.0/26", "10.2.0.64/26"].map(|prefix| prefix.parse().unwrap())
}

pub(super) fn config(node: usize, local_as: u32, peers: &[(usize, PeerConfig)]) -> SpeakerConfig {
    let number = u8::try_from(node).unwrap() + 1;
    SpeakerConfig {
        next_hop_v4: Some(Ipv4Addr::new(10, 0, 0, number)),
        next_hop_v6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into())),
        peers: peers
            .iter()
            .map(|(peer, config)| (key(*peer), config.clone()))
            .collect(),
        ..SpeakerConfig::new(local_as, Ipv4Addr::new(192, 0, 2, number))
    }
}

impl Network {
    pub(super) fn new(configs: Vec<SpeakerConfig>, seed: u64) -> Self {
        let mut network = Self {
            nodes: Vec::new(),
            now: Instant::now(),
            seed,
            links: BTreeMap::new(),
            wires: BTreeMap::new(),
            cut: BTreeSet::new(),
            stalled: BTreeSet::new(),
        };
        for (index, config) in configs.into_iter().enumerate() {
            let routes = prefixes(index).map(LocalRoute::from).into();
            network.nodes.push(Node {
                speaker: Speaker::new(Restart::default(), seed),
                config,
                fib: BTreeMap::new(),
                removed: Vec::new(),
                converged_at: None,
                notices: Vec::new(),
                broken: Vec::new(),
                monitored: Vec::new(),
                routes,
                running: false,
            });
        }
        for index in 0..network.nodes.len() {
            network.boot(index, false);
        }
        network
    }

    /// A new process on a node.
    pub(super) fn boot(&mut self, index: usize, restarting: bool) {
        let seed = self.random();
        let (now, node) = (self.now, &mut self.nodes[index]);
        node.speaker = Speaker::new(
            Restart {
                restarting,
                forwarding_preserved: true,
            },
            seed,
        );
        node.converged_at = None;
        node.running = true;
        node.speaker.set_config(node.config.clone(), now);
        node.speaker.set_local_routes(node.routes.clone(), now);
    }

    /// The process on a node dies; the kernel closes its connections.
    pub(super) fn kill(&mut self, index: usize) {
        self.nodes[index].running = false;
        let ends: Vec<End> = self
            .links
            .keys()
            .filter(|end| end.0 == index)
            .copied()
            .collect();
        for end in ends {
            self.close(end);
        }
    }

    /// The power of a node fails: its connections hang at the other ends.
    pub(super) fn power_off(&mut self, index: usize) {
        self.nodes[index].running = false;
        let links = std::mem::take(&mut self.links);
        let (dead, alive) = links
            .into_iter()
            .partition(|(end, other)| end.0 == index || other.0 == index);
        self.links = alive;
        for end in BTreeMap::into_keys(dead) {
            self.wires.remove(&end);
        }
    }

    pub(super) fn stop(&mut self, index: usize, stop: Stop) {
        let now = self.now;
        self.nodes[index].speaker.stop(stop, now);
        self.perform(index);
        self.kill(index);
    }

    pub(super) fn configure(&mut self, index: usize, change: impl FnOnce(&mut SpeakerConfig)) {
        let (now, node) = (self.now, &mut self.nodes[index]);
        change(&mut node.config);
        node.speaker.set_config(node.config.clone(), now);
    }

    /// The connection that a node has with another one.
    pub(super) fn connection(&self, from: usize, to: usize) -> ConnectionId {
        let mut links = self.links.iter();
        let link = links.find(|((a, _), (b, _))| (*a, *b) == (from, to));
        link.expect("a connection").0.1
    }

    pub(super) fn set_routes(&mut self, index: usize, routes: &[IpNet]) {
        let (now, node) = (self.now, &mut self.nodes[index]);
        node.routes = routes.iter().copied().map(LocalRoute::from).collect();
        node.speaker.set_local_routes(node.routes.clone(), now);
    }

    /// Breaks a connection of a node, as a TCP reset would.
    pub(super) fn reset_one(&mut self, choice: u64) {
        let ends: Vec<End> = self.links.keys().copied().collect();
        if ends.is_empty() {
            return;
        }
        let end = ends[usize::try_from(choice % ends.len() as u64).unwrap()];
        self.close(end);
        let now = self.now;
        self.nodes[end.0].speaker.lost(end.1, "reset", now);
    }

    /// Puts octets of our own on a connection from one node to another.
    pub(super) fn inject(&mut self, from: usize, to: usize, octets: &[u8]) {
        let link = self
            .links
            .iter()
            .find(|((a, _), (b, _))| (*a, *b) == (from, to));
        let end = *link.expect("a connection").1;
        self.wires
            .entry(end)
            .or_default()
            .push_back(Packet::Octets(octets.to_vec()));
    }

    /// Runs for so long.
    pub(super) fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            self.settle();
            let deadlines = self.nodes.iter().filter(|node| node.running);
            let next = deadlines
                .filter_map(|node| node.speaker.next_deadline())
                .min();
            self.now = next.unwrap_or(until).clamp(self.now, until);
            for index in 0..self.nodes.len() {
                if self.nodes[index].running {
                    let now = self.now;
                    self.nodes[index].speaker.tick(now);
                }
            }
            if self.now >= until {
                return self.settle();
            }
        }
    }

    pub(super) fn established(&self, a: usize, b: usize) -> bool {
        let status = self.nodes[a].speaker.status(self.now);
        status
            .peers
            .iter()
            .any(|peer| peer.key == key(b) && peer.state == "Established")
    }

    pub(super) fn has_said(&self, index: usize, text: &str) -> bool {
        self.nodes[index]
            .notices
            .iter()
            .any(|notice| notice.text.contains(text))
    }

    fn random(&mut self) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.seed >> 33
    }

    /// Until nothing moves; connections take turns as the seed has it.
    fn settle(&mut self) {
        loop {
            for index in 0..self.nodes.len() {
                self.perform(index);
            }
            let waiting: Vec<End> = self
                .wires
                .iter()
                .filter(|(_, packets)| !packets.is_empty())
                .map(|(end, _)| *end)
                .collect();
            if waiting.is_empty() {
                return;
            }
            let choice = self.random() as usize % waiting.len();
            self.deliver(waiting[choice]);
        }
    }

    fn deliver(&mut self, end: End) {
        let packet = self.wires.get_mut(&end).and_then(VecDeque::pop_front);
        let now = self.now;
        let node = &mut self.nodes[end.0];
        match packet {
            Some(Packet::Octets(octets)) if node.running => {
                node.speaker.received(end.1, &octets, now);
            }
            Some(Packet::Closed) if node.running => {
                node.speaker
                    .lost(end.1, "the peer closed the connection", now);
            }
            Some(_) | None => {}
        }
    }

    fn perform(&mut self, index: usize) {
        while self.nodes[index].running
            && let Some(output) = self.nodes[index].speaker.poll()
        {
            let node = &mut self.nodes[index];
            match output {
                Output::Connect {
                    connection, target, ..
                } => {
                    let to = self.nodes.iter().position(|node| {
                        node.config.next_hop_v4.map(IpAddr::V4) == Some(target.ip())
                    });
                    self.connect((index, connection), to);
                }
                Output::Transmit(connection) => self.transmit((index, connection)),
                Output::Close { connection, last } => {
                    self.send((index, connection), &last);
                    self.close((index, connection));
                }
                Output::More => {}
                Output::Converged => {
                    assert_eq!(node.converged_at.replace(self.now), None, "said once");
                }
                Output::Notice(notice) => node.notices.push(notice),
                Output::PathDown { address, .. } => node.broken.push(address),
                Output::Rekey { .. } | Output::Watch { .. } => {}
                Output::Monitored(monitored) => node.monitored.push(*monitored),
            }
        }
        self.forward(index);
    }

    fn forward(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        while node.running
            && let Some(change) = node.speaker.poll_fib()
        {
            match change {
                FibChange::Set {
                    prefix, next_hops, ..
                } => {
                    let addresses = next_hops.iter().map(|next_hop| next_hop.address);
                    node.fib.insert(prefix, addresses.collect());
                }
                FibChange::Remove { prefix } => {
                    node.fib.remove(&prefix);
                    node.removed.push(prefix);
                }
            }
        }
    }

    fn connect(&mut self, from: End, to: Option<usize>) {
        let now = self.now;
        let to = to.filter(|to| self.nodes[*to].running);
        let Some(to) = to else {
            self.nodes[from.0]
                .speaker
                .connect_failed(from.1, "connection refused", now);
            return;
        };
        let (source, target) = (address(from.0), address(to));
        let accepted =
            self.nodes[to]
                .speaker
                .accept((source, 40000).into(), (target, 179).into(), now);
        self.nodes[from.0]
            .speaker
            .connected(from.1, (source, 40000).into(), now);
        match accepted {
            Ok((connection, _)) => {
                self.links.insert(from, (to, connection));
                self.links.insert((to, connection), from);
            }
            Err(rejected) => {
                let wire = self.wires.entry(from).or_default();
                wire.push_back(Packet::Octets(rejected.last));
                wire.push_back(Packet::Closed);
            }
        }
    }

    fn transmit(&mut self, from: End) {
        if self.stalled.contains(&from.0) {
            return;
        }
        loop {
            let messages = self.nodes[from.0].speaker.transmit(from.1, 512);
            if messages.is_empty() {
                return;
            }
            self.send(from, &messages.concat());
        }
    }

    fn send(&mut self, from: End, octets: &[u8]) {
        let Some(to) = self.links.get(&from) else {
            return;
        };
        if self.cut.contains(&(from.0, to.0)) {
            return;
        }
        // TCP keeps no boundaries.
        for piece in octets.chunks(97) {
            self.wires
                .entry(*to)
                .or_default()
                .push_back(Packet::Octets(piece.to_vec()));
        }
    }

    fn close(&mut self, from: End) {
        let Some(to) = self.links.remove(&from) else {
            return;
        };
        self.links.remove(&to);
        self.wires.remove(&from);
        self.wires.entry(to).or_default().push_back(Packet::Closed);
    }
}
