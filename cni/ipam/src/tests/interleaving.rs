//! Three agents over one registry of blocks, in any order of claims, news that come late, pods,
//! and crashes that lose everything but the journal: no address is ever in use twice.

use super::*;
use crate::journal::{self, State};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

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
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || 0..NODES.len();
    let step = prop_oneof![
        2 => node().prop_map(|node| Step::Claim { node }),
        3 => node().prop_map(|node| Step::Hear { node }),
        8 => (node(), 0..12u8, prop::option::weighted(0.2, 0..32u8))
            .prop_map(|(node, container, requested)| Step::Add { node, container, requested }),
        5 => (node(), 0..12u8).prop_map(|(node, container)| Step::Delete { node, container }),
        2 => (node(), 0..200usize).prop_map(|(node, torn)| Step::Crash { node, torn }),
        1 => (0..40_000u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..150)
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
    /// Blocks of others that it has not heard of yet.
    news: VecDeque<IpamBlock>,
}

fn fresh_ipam(node: &str) -> Ipam {
    let mut ipam = Ipam::new(node);
    // Two pools of 32 addresses in all, so that blocks and addresses run out.
    ipam.set_pool("a", Some(pool("a", "10.0.0.0/28", 30)));
    ipam.set_pool("b", Some(pool("b", "10.0.0.16/28", 29)));
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
            .map(|(cidr, node)| IpamBlock {
                cidr: *cidr,
                node: node.clone(),
            })
            .collect();
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
                if let Some(block) = self.agents[node].news.pop_front() {
                    self.agents[node].ipam.set_block(block);
                }
            }
            Step::Add {
                node,
                container,
                requested,
            } => self.add(node, container, requested),
            Step::Delete { node, container } => self.delete(node, container),
            Step::Crash { node, torn } => self.crash(node, torn),
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
                for (_, agent) in self
                    .agents
                    .iter_mut()
                    .enumerate()
                    .filter(|(i, _)| *i != node)
                {
                    agent.news.push_back(block.clone());
                }
                self.agents[node].write(&Record::Block(block.clone()));
                self.agents[node].ipam.claimed(block);
            }
            Err(owned) => {
                if owned.node == NODES[node] {
                    self.agents[node].write(&Record::Block(owned.clone()));
                }
                self.agents[node].ipam.refused(owned);
            }
        }
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
            let user = (node, container);
            let previous = self.in_use.insert(assignment.ip, user);
            assert!(
                previous.is_none_or(|p| p == user),
                "{} is used by {previous:?} and {user:?}",
                assignment.ip
            );
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
        let booked: usize = cluster.agents.iter().map(|agent| agent.state.endpoints.len()).sum();
        prop_assert_eq!(booked, cluster.in_use.len());
    }
}
