//! Three allocators with journals on one real directory, in threads of their own: claims, blocks
//! given back, crashes, nodes that depart, and news that come when they come. No address is ever
//! in use twice. `OCICAT_SEED` and `OCICAT_STEPS` repeat and prolong a run.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use datastore::{Directory, WriteError, Writer};
use ipam::journal::{self, Record, State};
use ipam::{AssignError, AssignRequest, Ipam, Owner, Pools};
use ipnet::IpNet;
use model::object::{AllowedUse, AssignmentMode, EncapMode};
use model::{IpPool, IpamBlock, Object, ObjectKey, Selector, Update, WorkloadEndpoint};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tokio::sync::mpsc::Receiver;

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const CONTAINERS: u64 = 6;
const RESERVED: &str = "10.0.0.4/31";

/// Addresses as the pods have them, and who.
type Ledger = Mutex<BTreeMap<IpAddr, String>>;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

struct Agent<'a> {
    node: &'static str,
    ledger: &'a Ledger,
    journal: PathBuf,
    directory: Directory,
    writer: Writer,
    updates: Receiver<Update>,
    blocks: BTreeMap<ObjectKey, IpNet>,
    /// Blocks that were given back and are not deleted yet.
    returning: Vec<IpNet>,
    ipam: Ipam,
    state: State,
    now: u64,
}

fn new_ipam(node: &str) -> Ipam {
    let mut ipam = Ipam::new(node);
    ipam.cooldown_ms = 3;
    let pool = IpPool {
        name: "a".to_owned(),
        cidr: "10.0.0.0/27".parse().unwrap(),
        block_size: 30,
        ipip_mode: EncapMode::Never,
        vxlan_mode: EncapMode::Never,
        nat_outgoing: false,
        disabled: false,
        disable_bgp_export: false,
        node_selector: Selector::All,
        namespace_selector: None,
        allowed_uses: [AllowedUse::Workload, AllowedUse::Tunnel].into(),
        assignment_mode: AssignmentMode::Automatic,
    };
    ipam.set_pool("a", Some(pool));
    ipam.set_reservation("r", Some(vec![RESERVED.parse().unwrap()]));
    ipam
}

impl<'a> Agent<'a> {
    fn start(node: &'static str, root: &Path, state: &Path, ledger: &'a Ledger) -> Self {
        let directory = Directory::open(root).unwrap();
        let mut agent = Self {
            node,
            ledger,
            journal: state.join(node),
            writer: directory.writer(),
            updates: directory.watch().unwrap(),
            directory,
            blocks: BTreeMap::new(),
            returning: Vec::new(),
            ipam: new_ipam(node),
            state: State::default(),
            now: 0,
        };
        std::fs::write(&agent.journal, journal::HEADER).unwrap();
        agent.sync();
        agent
    }

    /// Reads the datastore until it has said everything, as an agent does before its first ADD.
    fn sync(&mut self) {
        while let Some(update) = self.updates.blocking_recv() {
            let synced = matches!(update, Update::InSync);
            self.hear(update);
            if synced {
                break;
            }
        }
        let known: Vec<IpNet> = self.blocks.values().copied().collect();
        let own: Vec<IpNet> = self.ipam.own_blocks().collect();
        for cidr in own.iter().filter(|cidr| !known.contains(cidr)) {
            self.ipam.remove_block(*cidr);
        }
        self.journal_blocks();
    }

    fn hear(&mut self, update: Update) {
        match update {
            Update::Apply {
                object: Object::IpamBlock(block),
                ..
            } => {
                let key = Object::IpamBlock(block.clone()).key();
                self.blocks.insert(key, block.cidr);
                self.ipam.set_block(block);
            }
            Update::Delete(key) => {
                if let Some(cidr) = self.blocks.remove(&key) {
                    self.ipam.remove_block(cidr);
                }
            }
            _ => return,
        }
        self.journal_blocks();
    }

    fn write(&mut self, record: &Record) {
        let mut file = std::fs::File::options()
            .append(true)
            .open(&self.journal)
            .unwrap();
        file.write_all(&journal::encode(record)).unwrap();
        self.state.apply(record);
    }

    fn journal_blocks(&mut self) {
        let own: Vec<IpNet> = self.ipam.own_blocks().collect();
        let journaled: Vec<IpNet> = self.state.blocks.keys().copied().collect();
        for cidr in journaled.iter().filter(|cidr| !own.contains(cidr)) {
            self.write(&Record::BlockGone(*cidr));
        }
        for cidr in own.iter().filter(|cidr| !journaled.contains(cidr)) {
            self.write(&Record::Block(self.block(*cidr)));
        }
    }

    fn block(&self, cidr: IpNet) -> IpamBlock {
        IpamBlock {
            cidr,
            node: self.node.to_owned(),
        }
    }

    fn claim(&mut self, cidr: IpNet) {
        let block = self.block(cidr);
        // As in the agent, a claim overtakes the deletion of the same block.
        self.returning.retain(|other| *other != cidr);
        match self.writer.create(&Object::IpamBlock(block.clone())) {
            Ok(()) => self.ipam.claimed(block),
            Err(WriteError::Exists { object }) => match *object {
                Object::IpamBlock(owned) => self.ipam.refused(owned),
                other => panic!("{other:?}"),
            },
            Err(error) => panic!("{error}"),
        }
        self.journal_blocks();
    }

    fn owner(&self, container: u64) -> Owner {
        Owner {
            container_id: format!("{}-{container}", self.node),
            ifname: "eth0".to_owned(),
        }
    }

    fn add(&mut self, container: u64) {
        let owner = self.owner(container);
        if self.state.endpoints.contains_key(&owner) {
            return;
        }
        let pools = Pools::default();
        let request = AssignRequest {
            owner: owner.clone(),
            namespace_labels: None,
            requested: &[],
            pools: &pools,
            v4: true,
            v6: false,
        };
        let assigned = match self.ipam.assign(&request, self.now) {
            Err(AssignError::NeedsBlock { block }) => {
                self.claim(block);
                self.ipam.assign(&request, self.now)
            }
            assigned => assigned,
        };
        let Ok(assigned) = assigned else { return };
        let ip = assigned[0].ip;
        let reserved: IpNet = RESERVED.parse().unwrap();
        assert!(!reserved.contains(&ip), "{ip} is reserved");
        let endpoint = self.endpoint(&owner, ip);
        let sequence = self.state.next_sequence;
        self.write(&Record::Endpoint {
            endpoint,
            ifindex: 1,
            mtu: 1500,
            sequence,
            network: String::new(),
        });
        let before = self
            .ledger
            .lock()
            .unwrap()
            .insert(ip, owner.container_id.clone());
        assert_eq!(before, None, "{ip} is in use twice");
    }

    fn endpoint(&self, owner: &Owner, ip: IpAddr) -> WorkloadEndpoint {
        WorkloadEndpoint {
            namespace: "default".to_owned().into(),
            name: owner.container_id.clone().into(),
            node: self.node.to_owned().into(),
            pod: owner.container_id.clone().into(),
            pod_uid: None,
            container_id: owner.container_id.clone().into(),
            endpoint: owner.ifname.clone().into(),
            interface_name: "oci1".to_owned().into(),
            mac: [2, 0, 0, 0, 0, 1],
            ip_networks: vec![IpNet::from(ip)],
            labels: model::Labels::new(),
            ports: Vec::new().into(),
            host_ports: Vec::new(),
        }
    }

    fn delete(&mut self, container: u64) {
        let owner = self.owner(container);
        let Some(live) = self.state.endpoints.get(&owner).cloned() else {
            return;
        };
        for net in &live.endpoint.ip_networks {
            let mut ledger = self.ledger.lock().unwrap();
            // After a departure the address may be somebody else's by now.
            if ledger.get(&net.addr()) == Some(&owner.container_id) {
                ledger.remove(&net.addr());
            }
        }
        self.write(&Record::EndpointGone {
            container_id: owner.container_id.clone(),
            ifname: owner.ifname.clone(),
            sequence: live.sequence,
            at_ms: self.now,
        });
        self.ipam.release(&owner, self.now);
    }

    fn give_back(&mut self) {
        self.ipam.tick(self.now);
        for cidr in self.ipam.idle_blocks() {
            if self.ipam.give_back(cidr) {
                self.returning.push(cidr);
            }
        }
        self.journal_blocks();
    }

    fn delete_returned(&mut self) {
        for cidr in std::mem::take(&mut self.returning) {
            self.delete_block(&self.block(cidr));
        }
    }

    fn delete_block(&self, block: &IpamBlock) {
        let object = Object::IpamBlock(block.clone());
        match self.writer.delete(&object.key(), Some(&object)) {
            Ok(()) | Err(WriteError::Changed { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// SIGKILL and a start: only the journal and the directory are left.
    fn crash(&mut self) {
        let replay = journal::replay(&std::fs::read(&self.journal).unwrap());
        assert_eq!(replay.corrupt, None);
        self.state = State::from_records(&replay.records);
        self.ipam = new_ipam(self.node);
        self.ipam.restore(&self.state);
        self.blocks.clear();
        self.returning.clear();
        self.updates = self.directory.watch().unwrap();
        self.sync();
    }

    /// The machine goes with its pods, its blocks are freed by others, and it comes back.
    fn depart(&mut self) {
        self.ledger
            .lock()
            .unwrap()
            .retain(|_, user| !user.starts_with(self.node));
        // What whoever holds the lease sees of it.
        let blocks: Vec<IpamBlock> = self.state.blocks.values().cloned().collect();
        for block in blocks.iter().chain(&self.returning_blocks()) {
            self.delete_block(block);
        }
        self.crash();
        for container in 0..CONTAINERS {
            self.delete(container);
        }
    }

    fn returning_blocks(&self) -> Vec<IpamBlock> {
        self.returning
            .iter()
            .map(|cidr| self.block(*cidr))
            .collect()
    }

    fn step(&mut self, random: &mut Random) {
        match random.below(40) {
            0..14 => self.add(random.below(CONTAINERS)),
            14..26 => self.delete(random.below(CONTAINERS)),
            26..29 => {
                while let Ok(update) = self.updates.try_recv() {
                    self.hear(update);
                }
            }
            29..31 => {
                if let Ok(update) = self.updates.try_recv() {
                    self.hear(update);
                }
            }
            31..33 => {
                for cidr in self.ipam.wanted_claims() {
                    self.claim(cidr);
                }
            }
            33..35 => self.give_back(),
            35..37 => self.delete_returned(),
            37 => self.crash(),
            38 if random.below(4) == 0 => self.depart(),
            _ => self.now += random.below(8),
        }
    }
}

#[test]
fn three_agents_on_one_directory_never_give_one_address_twice() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed: u64 = number("OCICAT_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let steps: u64 = number("OCICAT_STEPS").unwrap_or(1_500);
    println!("OCICAT_SEED={seed}");
    let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = Ledger::default();
    std::thread::scope(|scope| {
        for (index, node) in (0_u64..).zip(NODES) {
            let (root, state, ledger) = (root.path(), state.path(), &ledger);
            scope.spawn(move || {
                let mut random = Random(seed.wrapping_add(index));
                let mut agent = Agent::start(node, root, state, ledger);
                for _ in 0..steps {
                    agent.step(&mut random);
                }
                // Everything that is in use is in the journal, and nothing else.
                agent.crash();
                let held: BTreeMap<IpAddr, String> = agent
                    .state
                    .endpoints
                    .iter()
                    .map(|(owner, live)| {
                        let ip = live.endpoint.ip_networks[0].addr();
                        (ip, owner.container_id.clone())
                    })
                    .collect();
                let ledger = ledger.lock().unwrap();
                let ours = ledger.iter().filter(|(_, user)| user.starts_with(node));
                let ours: BTreeMap<IpAddr, String> =
                    ours.map(|(ip, user)| (*ip, user.clone())).collect();
                assert_eq!(held, ours);
            });
        }
    });
}
