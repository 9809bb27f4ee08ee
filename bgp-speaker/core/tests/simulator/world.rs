//! Speakers, the connections between them, and one clock.
//!
//! Octets of a connection arrive in order, after delays of their own: what different connections
//! say overtakes each other in every possible way. Across a cut nothing arrives until it is mended
//! (TCP sends again), so that hold timers find out; a reset breaks connections; a crash takes a
//! process away, and its successor finds the forwarding table as it was left.

use bgp_core::{
    ConnectionId, FibChange, LocalRoute, Output, Restart, Speaker, SpeakerConfig, Stop,
};
use ipnet::IpNet;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

pub(crate) type NodeId = usize;
type End = (NodeId, ConnectionId);

pub(crate) struct Node {
    pub(crate) speaker: Speaker,
    pub(crate) config: SpeakerConfig,
    pub(crate) routes: BTreeSet<LocalRoute>,
    pub(crate) running: bool,
    /// As the kernel has it; it outlives the process.
    pub(crate) fib: BTreeMap<IpNet, BTreeSet<IpAddr>>,
    /// Prefixes that were taken out of the forwarding table since the last look.
    pub(crate) removed: BTreeSet<IpNet>,
    /// What this process has set of it.
    set: BTreeSet<IpNet>,
    deadline: Option<Instant>,
}

enum Packet {
    Octets(Vec<u8>),
    Closed,
}

/// What happens, by time and then by order of having been decided.
type Scheduled = Reverse<(Instant, u64)>;

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Instant,
    pub(crate) random: Random,
    /// Pairs of nodes between which nothing arrives, and what waits for that to change.
    cut: BTreeMap<(NodeId, NodeId), Vec<(End, Packet)>>,
    links: BTreeMap<End, End>,
    queue: BinaryHeap<Scheduled>,
    packets: BTreeMap<u64, (End, Packet)>,
    /// When the last octet on its way to an end arrives.
    arrival: BTreeMap<End, Instant>,
    deadlines: BTreeSet<(Instant, NodeId)>,
    serial: u64,
    pub(crate) events: u64,
}

/// SplitMix64.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % limit.max(1)
    }
}

pub(crate) fn address(node: NodeId) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0001 + u32::try_from(node).unwrap())
}

fn node_at(address: IpAddr) -> NodeId {
    match address {
        IpAddr::V4(address) => (u32::from(address) - 0x0a00_0001) as usize,
        IpAddr::V6(_) => unreachable!("sessions are over IPv4 here"),
    }
}

impl World {
    pub(crate) fn new(nodes: Vec<(SpeakerConfig, BTreeSet<LocalRoute>)>, seed: u64) -> Self {
        let nodes = nodes.into_iter().map(|(config, routes)| Node {
            speaker: Speaker::new(Restart::default(), 0),
            config,
            routes,
            running: false,
            fib: BTreeMap::new(),
            removed: BTreeSet::new(),
            set: BTreeSet::new(),
            deadline: None,
        });
        let mut world = Self {
            nodes: nodes.collect(),
            now: Instant::now(),
            random: Random(seed),
            cut: BTreeMap::new(),
            links: BTreeMap::new(),
            queue: BinaryHeap::new(),
            packets: BTreeMap::new(),
            arrival: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            serial: 0,
            events: 0,
        };
        for node in 0..world.nodes.len() {
            world.boot(node, false);
        }
        world
    }

    /// A process begins on a node.
    pub(crate) fn boot(&mut self, id: NodeId, restarting: bool) {
        let seed = self.random.next();
        let (now, node) = (self.now, &mut self.nodes[id]);
        let restart = Restart {
            restarting,
            forwarding_preserved: true,
        };
        node.speaker = Speaker::new(restart, seed);
        node.running = true;
        node.set.clear();
        node.speaker.set_config(node.config.clone(), now);
        node.speaker.set_local_routes(node.routes.clone(), now);
        self.perform(id);
    }

    /// The process dies; the kernel closes its connections and goes on forwarding.
    pub(crate) fn kill(&mut self, id: NodeId) {
        self.nodes[id].running = false;
        let ends: Vec<End> = self
            .links
            .keys()
            .filter(|end| end.0 == id)
            .copied()
            .collect();
        for end in ends {
            self.close(end);
        }
        self.set_deadline(id);
    }

    /// The process is told to leave its peers' routes in place for a successor.
    pub(crate) fn stop_planned(&mut self, id: NodeId) {
        let now = self.now;
        self.nodes[id].speaker.stop(Stop::Planned, now);
        self.perform(id);
        self.kill(id);
    }

    pub(crate) fn set_routes(&mut self, id: NodeId, routes: BTreeSet<LocalRoute>) {
        let (now, node) = (self.now, &mut self.nodes[id]);
        node.routes.clone_from(&routes);
        if node.running {
            node.speaker.set_local_routes(routes, now);
            self.perform(id);
        }
    }

    pub(crate) fn configure(&mut self, id: NodeId, change: impl FnOnce(&mut SpeakerConfig)) {
        let (now, node) = (self.now, &mut self.nodes[id]);
        change(&mut node.config);
        if node.running {
            node.speaker.set_config(node.config.clone(), now);
            self.perform(id);
        }
    }

    /// Nothing arrives between two nodes from now on, or everything does.
    pub(crate) fn set_cut(&mut self, a: NodeId, b: NodeId, cut: bool) {
        let pair = (a.min(b), a.max(b));
        if cut {
            self.cut.entry(pair).or_default();
            return;
        }
        for (to, packet) in self.cut.remove(&pair).into_iter().flatten() {
            self.post(pair.0 ^ pair.1 ^ to.0, to, packet);
        }
    }

    fn is_cut(&self, a: NodeId, b: NodeId) -> bool {
        self.cut.contains_key(&(a.min(b), a.max(b)))
    }

    /// Breaks any one connection, as a TCP reset would.
    pub(crate) fn reset_any(&mut self) {
        if self.links.is_empty() {
            return;
        }
        let choice = self.random.below(self.links.len());
        let Some(end) = self.links.keys().nth(choice).copied() else {
            return;
        };
        self.close(end);
        let now = self.now;
        self.nodes[end.0].speaker.lost(end.1, "reset", now);
        self.perform(end.0);
    }

    /// Runs for so long.
    pub(crate) fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            let packet = self.queue.peek().map(|Reverse((at, _))| *at);
            let deadline = self.deadlines.first().map(|(at, _)| *at);
            let next = [packet, deadline].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            self.events += 1;
            if packet == Some(next) {
                self.deliver();
            } else if let Some((_, id)) = self.deadlines.pop_first() {
                let now = self.now;
                self.nodes[id].deadline = None;
                self.nodes[id].speaker.tick(now);
                self.perform(id);
            }
        }
    }

    fn deliver(&mut self) {
        let Some(Reverse((_, serial))) = self.queue.pop() else {
            return;
        };
        let Some((end, packet)) = self.packets.remove(&serial) else {
            return;
        };
        let (now, node) = (self.now, &mut self.nodes[end.0]);
        if !node.running {
            return;
        }
        match packet {
            Packet::Octets(octets) => node.speaker.received(end.1, &octets, now),
            Packet::Closed => node.speaker.lost(end.1, "closed by the peer", now),
        }
        self.perform(end.0);
    }

    /// Does what a speaker asks for until it asks for nothing.
    fn perform(&mut self, id: NodeId) {
        let mut converged = false;
        while self.nodes[id].running
            && let Some(output) = self.nodes[id].speaker.poll()
        {
            match output {
                Output::Connect {
                    connection, target, ..
                } => self.connect((id, connection), node_at(target.ip())),
                Output::Transmit(connection) => self.transmit((id, connection)),
                Output::Close { connection, last } => {
                    self.send((id, connection), last);
                    self.close((id, connection));
                }
                Output::Converged => converged = true,
                Output::More
                | Output::Notice(_)
                | Output::Monitored(_)
                | Output::PathDown { .. }
                | Output::Rekey { .. }
                | Output::Watch { .. } => {}
            }
        }
        let node = &mut self.nodes[id];
        while node.running
            && let Some(change) = node.speaker.poll_fib()
        {
            match change {
                FibChange::Set {
                    prefix, next_hops, ..
                } => {
                    let addresses = next_hops.iter().map(|next_hop| next_hop.address);
                    node.fib.insert(prefix, addresses.collect());
                    node.set.insert(prefix);
                }
                FibChange::Remove { prefix } => {
                    node.fib.remove(&prefix);
                    node.set.remove(&prefix);
                    node.removed.insert(prefix);
                }
            }
        }
        // What an earlier process has left and nobody announces any more goes only now.
        if converged {
            let Node {
                fib, set, removed, ..
            } = node;
            removed.extend(fib.keys().filter(|prefix| !set.contains(prefix)));
            fib.retain(|prefix, _| set.contains(prefix));
        }
        self.set_deadline(id);
    }

    fn set_deadline(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        let wanted = node.speaker.next_deadline().filter(|_| node.running);
        if node.deadline == wanted {
            return;
        }
        if let Some(before) = node.deadline {
            self.deadlines.remove(&(before, id));
        }
        node.deadline = wanted;
        if let Some(at) = wanted {
            self.deadlines.insert((at, id));
        }
    }

    fn connect(&mut self, from: End, to: NodeId) {
        let now = self.now;
        let source = SocketAddr::from((address(from.0), 40000));
        let target = SocketAddr::from((address(to), 179));
        if self.is_cut(from.0, to) {
            return; // No answer: the speaker gives up by itself.
        }
        if !self.nodes[to].running {
            let speaker = &mut self.nodes[from.0].speaker;
            return speaker.connect_failed(from.1, "connection refused", now);
        }
        let accepted = self.nodes[to].speaker.accept(source, target, now);
        self.nodes[from.0].speaker.connected(from.1, source, now);
        match accepted {
            Ok((connection, _)) => {
                let other = (to, connection);
                self.links.insert(from, other);
                self.links.insert(other, from);
                self.perform(to);
            }
            Err(rejected) => {
                self.post(to, from, Packet::Octets(rejected.last));
                self.post(to, from, Packet::Closed);
            }
        }
    }

    fn transmit(&mut self, from: End) {
        loop {
            let messages = self.nodes[from.0].speaker.transmit(from.1, 4096);
            if messages.is_empty() {
                return;
            }
            self.send(from, messages.concat());
        }
    }

    fn send(&mut self, from: End, octets: Vec<u8>) {
        let Some(to) = self.links.get(&from).copied() else {
            return;
        };
        // TCP keeps no boundaries.
        for piece in octets.chunks(1400) {
            self.post(from.0, to, Packet::Octets(piece.to_vec()));
        }
    }

    fn close(&mut self, from: End) {
        let Some(to) = self.links.remove(&from) else {
            return;
        };
        self.links.remove(&to);
        self.arrival.remove(&from);
        self.post(from.0, to, Packet::Closed);
        self.arrival.remove(&to);
    }

    /// Arrives after some milliseconds, and after what was sent before.
    fn post(&mut self, from: NodeId, to: End, packet: Packet) {
        let pair = (from.min(to.0), from.max(to.0));
        if let Some(waiting) = self.cut.get_mut(&pair) {
            waiting.push((to, packet));
            return;
        }
        let delay = Duration::from_micros(100 + self.random.next() % 20_000);
        let after = self.arrival.get(&to).copied().unwrap_or(self.now);
        let at = (self.now + delay).max(after);
        self.arrival.insert(to, at);
        self.serial += 1;
        self.packets.insert(self.serial, (to, packet));
        self.queue.push(Reverse((at, self.serial)));
    }
}
