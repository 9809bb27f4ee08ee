//! Three agents over one registry of blocks, in any order of claims, blocks given back, news that
//! come late, pods, tunnels, crashes that lose everything but the journal, and nodes that leave for
//! good and come back: no address is ever in use twice, and none that is reserved is given out.

use super::*;
use crate::journal::{self, State};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// A part of a block, and a whole one.
const RESERVED: [&str; 2] = ["10.0.0.2/31", "10.0.0.8/30"];
/// Stands for the tunnel among a node's containers.
const TUNNEL: u8 = 99;

#[derive(Debug, Clone)]
enum Step {
    /// The agent claims what it wants, if the datastore can be reached.
    Claim {
        node: usize,
    },
    /// The agent hears the next piece of news about blocks.
    Hear {
        node: usize,
    },
    Add {
        node: usize,
        container: u8,
        requested: Option<u8>,
    },
    Delete {
        node: usize,
        container: u8,
    },
    /// The agent dies while it writes; `torn` bytes of its last write are lost, if that ADD or
    /// DEL was not yet answered.
    Crash {
        node: usize,
        torn: usize,
    },
    /// The agent stops using its idle blocks.
    GiveBack {
        node: usize,
    },
    /// What it stopped using is deleted from the datastore.
    Return {
        node: usize,
    },
    /// The agent takes an address for its tunnel, or does without one.
    Tunnel {
        node: usize,
        wanted: bool,
    },
    /// The node goes with its pods, its blocks are freed, and it comes back in sync.
    Depart {
        node: usize,
    },
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || 0..NODES.len();
    let step = prop_oneof![
        4 => node().prop_map(|node| Step::Claim { node }),
        3 => node().prop_map(|node| Step::Hear { node }),
        8 => (node(), 0..6u8, prop::option::weighted(0.2, 0..32u8))
            .prop_map(|(node, container, requested)| Step::Add { node, container, requested }),
        6 => (node(), 0..6u8).prop_map(|(node, container)| Step::Delete { node, container }),
        3 => (node(), 0..200usize).prop_map(|(node, torn)| Step::Crash { node, torn }),
        4 => node().prop_map(|node| Step::GiveBack { node }),
        4 => node().prop_map(|node| Step::Return { node }),
        1 => (node(), any::<bool>()).prop_map(|(node, wanted)| Step::Tunnel { node, wanted }),
        1 => node().prop_map(|node| Step::Depart { node }),
        3 => (0..60_000u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..300)
}

/// The datastore: a block belongs to whoever created it first.
#[derive(Default)]
struct Datastore {
    blocks: BTreeMap<IpNet, String>,
}

impl Datastore {
    fn create(&mut self, block: &IpamBlock) -> Result<(), IpamBlock> {
        match self.blocks.get(&block.cidr) {
            Some(node) => Err(IpamBlock {
                cidr: block.cidr,
                node: node.clone(),
            }),
            None => {
                self.blocks.insert(block.cidr, block.node.clone());
                Ok(())
            }
        }
    }
}

struct Agent {
    ipam: Ipam,
    state: State,
    journal: Vec<u8>,
    /// Start of the last write.
    last_write: usize,
    /// Blocks that changed hands, of which it has not heard yet; no node: the block is gone.
    news: VecDeque<(IpNet, Option<String>)>,
    /// Blocks that it stopped using and that it has not deleted yet.
    returning: Vec<IpNet>,
}

fn fresh_ipam(node: &str) -> Ipam {
    let mut ipam = Ipam::new(node);
    // Two pools of 32 addresses in all, so that blocks and addresses run out.
    ipam.set_pool("a", Some(pool("a", "10.0.0.0/28", 30)));
    ipam.set_pool("b", Some(pool("b", "10.0.0.16/28", 29)));
    ipam.set_reservation("r", Some(RESERVED.map(net).into()));
    ipam
}

impl Agent {
    fn new(node: &str) -> Self {
        let journal = journal::HEADER.to_vec();
        let last_write = journal.len();
        let news = VecDeque::new();
        Self {
            ipam: fresh_ipam(node),
            state: State::default(),
            journal,
            last_write,
            news,
            returning: Vec::new(),
        }
    }

    fn write(&mut self, record: &Record) {
        self.last_write = self.journal.len();
        self.journal.extend(journal::encode(record));
        self.state.apply(record);
    }

    fn restart(&mut self, node: &str, datastore: &Datastore) {
        let replay = journal::replay(&self.journal);
        assert_eq!(replay.corrupt, None);
        self.journal.truncate(replay.valid_len);
        self.last_write = self.journal.len();
        self.state = State::from_records(&replay.records);
        self.ipam = fresh_ipam(node);
        self.ipam.restore(&self.state);
        let seen = datastore.blocks.iter();
        self.news = seen
            .map(|(cidr, node)| (*cidr, Some(node.clone())))
            .collect();
        // What the journal says and the datastore does not know.
        let unknown = self.state.blocks.keys().copied();
        let unknown = unknown.filter(|cidr| !datastore.blocks.contains_key(cidr));
        self.news.extend(unknown.map(|cidr| (cidr, None)));
        self.returning.clear();
    }

    fn hear(&mut self) {
        match self.news.pop_front() {
            Some((cidr, Some(node))) => self.ipam.set_block(IpamBlock { cidr, node }),
            Some((cidr, None)) => self.ipam.remove_block(cidr),
            None => return,
        }
        self.journal_blocks();
    }

    /// The journal names the blocks that the allocator calls its own.
    fn journal_blocks(&mut self) {
        let own: Vec<IpNet> = self.ipam.own_blocks().collect();
        let journaled: Vec<IpNet> = self.state.blocks.keys().copied().collect();
        for cidr in journaled.iter().filter(|cidr| !own.contains(cidr)) {
            self.write(&Record::BlockGone(*cidr));
        }
        for cidr in own.iter().filter(|cidr| !journaled.contains(cidr)) {
            let node = self.ipam.node.clone();
            self.write(&Record::Block(IpamBlock { cidr: *cidr, node }));
        }
    }
}

struct Cluster {
    datastore: Datastore,
    agents: Vec<Agent>,
    /// Address to (node, container), as the pods have it: from the answer of ADD to the
    /// request of DEL.
    in_use: BTreeMap<IpAddr, (usize, u8)>,
    now: u64,
}

impl Cluster {
    fn new() -> Self {
        let agents = NODES.map(Agent::new).into();
        Self {
            datastore: Datastore::default(),
            agents,
            in_use: BTreeMap::new(),
            now: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Claim { node } => {
                for cidr in self.agents[node].ipam.wanted_claims() {
                    self.claim(node, cidr);
                }
            }
            Step::Hear { node } => {
                self.agents[node].hear();
            }
            Step::Add {
                node,
                container,
                requested,
            } => self.add(node, container, requested),
            Step::Delete { node, container } => self.delete(node, container),
            Step::Crash { node, torn } => self.crash(node, torn),
            Step::GiveBack { node } => {
                let agent = &mut self.agents[node];
                agent.ipam.tick(self.now);
                for cidr in agent.ipam.idle_blocks() {
                    if agent.ipam.give_back(cidr) {
                        agent.returning.push(cidr);
                    }
                }
                agent.journal_blocks();
            }
            Step::Return { node } => {
                for cidr in std::mem::take(&mut self.agents[node].returning) {
                    self.delete_block(node, cidr);
                }
            }
            Step::Tunnel { node, wanted } => self.tunnel(node, wanted),
            Step::Depart { node } => self.depart(node),
            Step::Wait(ms) => self.now += ms,
        }
    }

    fn claim(&mut self, node: usize, cidr: IpNet) {
        let block = IpamBlock {
            cidr,
            node: NODES[node].to_owned(),
        };
        match self.datastore.create(&block) {
            Ok(()) => {
                // The agent that claimed it hears of it too, later.
                for agent in &mut self.agents {
                    agent.news.push_back((cidr, Some(block.node.clone())));
                }
                self.agents[node].ipam.claimed(block);
            }
            Err(owned) => self.agents[node].ipam.refused(owned),
        }
        // A claim overtakes the deletion of the same block.
        self.agents[node].returning.retain(|other| *other != cidr);
        self.agents[node].journal_blocks();
    }

    /// Deletes the block's object if it is this node's.
    fn delete_block(&mut self, node: usize, cidr: IpNet) {
        if self
            .datastore
            .blocks
            .get(&cidr)
            .is_some_and(|o| o == NODES[node])
        {
            self.datastore.blocks.remove(&cidr);
            for agent in &mut self.agents {
                agent.news.push_back((cidr, None));
            }
        }
    }

    fn tunnel(&mut self, node: usize, wanted: bool) {
        let now = self.now;
        let agent = &mut self.agents[node];
        let found = agent
            .ipam
            .tunnel_address("t", crate::Family::V4, |_| wanted, now);
        let found = match found {
            Err(crate::TunnelError {
                source: AssignError::NeedsBlock { block },
                ..
            }) => {
                self.claim(node, block);
                let ipam = &mut self.agents[node].ipam;
                ipam.tunnel_address("t", crate::Family::V4, |_| wanted, now)
            }
            found => found,
        };
        let Ok(ip) = found else { return };
        let agent = &mut self.agents[node];
        if agent.state.tunnels.get("t") != ip.as_ref() {
            let device = "t".to_owned();
            agent.write(&Record::Tunnel {
                device,
                ip,
                at_ms: now,
            });
        }
        self.in_use.retain(|_, user| *user != (node, TUNNEL));
        if let Some(ip) = ip {
            self.use_address(ip, (node, TUNNEL));
        }
    }

    fn use_address(&mut self, ip: IpAddr, user: (usize, u8)) {
        let previous = self.in_use.insert(ip, user);
        assert!(
            previous.is_none_or(|p| p == user),
            "{ip} is used by {previous:?} and {user:?}"
        );
    }

    /// The machine is gone and whoever holds the lease frees its blocks; when it is back, its
    /// agent takes its pods down and hears everything before it gives out an address.
    fn depart(&mut self, node: usize) {
        self.in_use.retain(|_, user| user.0 != node);
        let blocks: Vec<IpNet> = self.datastore.blocks.keys().copied().collect();
        for cidr in blocks {
            self.delete_block(node, cidr);
        }
        let Self {
            datastore, agents, ..
        } = self;
        let agent = &mut agents[node];
        agent.restart(NODES[node], datastore);
        while !agent.news.is_empty() {
            agent.hear();
        }
        let owners: Vec<(Owner, u64)> = agent
            .state
            .endpoints
            .iter()
            .map(|(owner, live)| (owner.clone(), live.sequence))
            .collect();
        for (owner, sequence) in owners {
            agent.write(&Record::EndpointGone {
                container_id: owner.container_id.clone(),
                ifname: owner.ifname.clone(),
                sequence,
                at_ms: self.now,
            });
            agent.ipam.release(&owner, self.now);
        }
        if agent.state.tunnels.contains_key("t") {
            let device = "t".to_owned();
            agent.write(&Record::Tunnel {
                device,
                ip: None,
                at_ms: self.now,
            });
            agent.ipam.release(&Owner::tunnel("t"), self.now);
        }
        agent.journal_blocks();
    }

    fn add(&mut self, node: usize, container: u8, requested: Option<u8>) {
        let requested: Vec<IpAddr> = requested
            .map(|n| IpAddr::from([10, 0, 0, n]))
            .into_iter()
            .collect();
        let id = format!("{node}-{container}");
        let request = AssignRequest {
            requested: &requested,
            ..v4(&id)
        };
        let held = self.agents[node].ipam.held(&request.owner);
        let held = held.map(<[IpAddr]>::to_vec).unwrap_or_default();
        let result = match self.agents[node].ipam.assign(&request, self.now) {
            Err(AssignError::NeedsBlock { block }) => {
                self.claim(node, block);
                self.agents[node].ipam.assign(&request, self.now)
            }
            result => result,
        };
        let Ok(assigned) = result else { return };
        let agent = &mut self.agents[node];
        if !agent.state.endpoints.contains_key(&request.owner) {
            let sequence = agent.state.next_sequence;
            let ips: Vec<IpAddr> = assigned.iter().map(|a| a.ip).collect();
            let endpoint = endpoint(NODES[node], &id, &ips);
            agent.write(&Record::Endpoint {
                endpoint,
                ifindex: 1,
                mtu: 1500,
                sequence,
                network: String::new(),
            });
        }
        for assignment in assigned {
            let reserved = RESERVED.iter().any(|r| net(r).contains(&assignment.ip));
            let asked = requested.contains(&assignment.ip) || held.contains(&assignment.ip);
            assert!(asked || !reserved, "{} is reserved", assignment.ip);
            self.use_address(assignment.ip, (node, container));
        }
    }

    fn delete(&mut self, node: usize, container: u8) {
        self.in_use.retain(|_, user| *user != (node, container));
        let owner = owner(&format!("{node}-{container}"));
        let agent = &mut self.agents[node];
        let Some(live) = agent.state.endpoints.get(&owner) else {
            return;
        };
        let sequence = live.sequence;
        let Owner {
            container_id,
            ifname,
        } = owner.clone();
        agent.write(&Record::EndpointGone {
            container_id,
            ifname,
            sequence,
            at_ms: self.now,
        });
        agent.ipam.release(&owner, self.now);
    }

    /// The process dies in the middle of its last write, so that its effect was never answered.
    fn crash(&mut self, node: usize, torn: usize) {
        let agent = &mut self.agents[node];
        let last = journal::replay(&agent.journal).records.pop();
        if let Some(Record::Endpoint { endpoint, .. }) = last
            && torn > 0
            && agent.last_write < agent.journal.len()
        {
            let keep = agent
                .journal
                .len()
                .saturating_sub(torn)
                .max(agent.last_write);
            agent.journal.truncate(keep);
            for net in &endpoint.ip_networks {
                self.in_use.remove(&net.addr());
            }
        }
        let Self {
            datastore, agents, ..
        } = self;
        agents[node].restart(NODES[node], datastore);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_interleaving_of_three_agents_gives_one_address_twice(steps in steps()) {
        let mut cluster = Cluster::new();
        for step in steps {
            cluster.step(step);
        }
        // Every pod still has its address in its agent's books, and only those are there.
        for (node, agent) in cluster.agents.iter_mut().enumerate() {
            agent.restart(NODES[node], &cluster.datastore);
            for live in agent.state.endpoints.values() {
                let ip = live.endpoint.ip_networks[0].addr();
                prop_assert_eq!(cluster.in_use.get(&ip).map(|user| user.0), Some(node), "{} leaked", ip);
            }
        }
        let booked: usize = cluster.agents.iter().map(|agent| agent.state.endpoints.len() + agent.state.tunnels.len()).sum();
        prop_assert_eq!(booked, cluster.in_use.len());
    }
}
