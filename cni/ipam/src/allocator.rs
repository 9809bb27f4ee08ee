//! The allocator of one node: what it knows, and what changes it.

use crate::block::Block;
use crate::journal::State;
use crate::net;
use crate::registry::{Conflict, Registry};
use crate::request::Owner;
use ipnet::IpNet;
use model::{IpPool, IpamBlock, Labels};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A block that this node holds, and who else says so.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) block: Block,
    /// The datastore says that it is ours.
    pub(crate) confirmed: bool,
    /// Somebody else's block that is the same or overlaps.
    pub(crate) disputed: Option<(IpNet, String)>,
    /// On its way back to the pool.
    pub(crate) leaving: bool,
}

impl Own {
    /// Addresses may be taken from it.
    pub(crate) fn usable(&self) -> bool {
        self.confirmed && self.disputed.is_none() && !self.leaving
    }
}

/// The allocator of one node.
#[derive(Debug, Clone)]
pub struct Ipam {
    /// Milliseconds before a released address is given out again; 30,000 unless changed.
    pub cooldown_ms: u64,
    pub(crate) node: String,
    pub(crate) node_labels: Labels,
    pub(crate) pools: BTreeMap<String, IpPool>,
    pub(crate) registry: Registry,
    /// Blocks that were given back: news of an earlier claim may still be on their way.
    pub(crate) returned: BTreeSet<IpNet>,
    /// Prefixes by the reservation that names them.
    pub(crate) reservations: BTreeMap<String, Vec<IpNet>>,
    /// Addresses of other nodes' pods in this node's blocks, and whose.
    pub(crate) foreign: BTreeMap<IpAddr, String>,
    pub(crate) own: BTreeMap<IpNet, Own>,
    pub(crate) held: BTreeMap<Owner, Vec<IpAddr>>,
    pub(crate) owners: BTreeMap<IpAddr, Owner>,
    /// The latest time that a caller passed.
    pub(crate) now: u64,
}

impl Ipam {
    /// An allocator for the node of this name, without pools or blocks.
    pub fn new(node: &str) -> Self {
        Self {
            cooldown_ms: 30_000,
            node: node.to_owned(),
            node_labels: Labels::new(),
            pools: BTreeMap::new(),
            registry: Registry::default(),
            returned: BTreeSet::new(),
            reservations: BTreeMap::new(),
            foreign: BTreeMap::new(),
            own: BTreeMap::new(),
            held: BTreeMap::new(),
            owners: BTreeMap::new(),
            now: 0,
        }
    }

    /// A pool appeared, changed or went. Addresses that are held stay.
    pub fn set_pool(&mut self, name: &str, pool: Option<IpPool>) {
        match pool {
            Some(pool) => self.pools.insert(name.to_owned(), pool),
            None => self.pools.remove(name),
        };
    }

    /// The labels that node selectors of pools look at.
    pub fn set_node_labels(&mut self, labels: Labels) {
        self.node_labels = labels;
    }

    /// The datastore has this block, of whatever node. Its word is final, but for a block that was
    /// given back: that is ours again only when a claim says so.
    pub fn set_block(&mut self, block: IpamBlock) {
        let cidr = block.cidr.trunc();
        let ours = block.node == self.node;
        self.registry.set(cidr, block.node);
        if ours && !self.own.contains_key(&cidr) && !self.returned.contains(&cidr) {
            let block = self.block_with_held(cidr);
            self.own.insert(
                cidr,
                Own {
                    block,
                    confirmed: true,
                    disputed: None,
                    leaving: false,
                },
            );
        }
        self.review(cidr);
    }

    /// The datastore does not have this block any more. If it was ours and holds addresses, it is
    /// kept, gives out nothing, and is wanted again; see [`Ipam::wanted_claims`].
    pub fn remove_block(&mut self, block: IpNet) {
        self.registry.remove(block.trunc());
        self.review(block.trunc());
    }

    /// The datastore accepted our claim, or the journal says that it once did.
    pub fn claimed(&mut self, block: IpamBlock) {
        self.returned.remove(&block.cidr.trunc());
        self.set_block(IpamBlock {
            cidr: block.cidr,
            node: self.node.clone(),
        });
        if let Some(own) = self.own.get_mut(&block.cidr.trunc()) {
            own.leaving = false;
        }
    }

    /// The datastore refused our claim; `block` names the owner. If that is us, an earlier
    /// process claimed it and the block is ours.
    pub fn refused(&mut self, block: IpamBlock) {
        if block.node == self.node {
            self.claimed(block);
        } else {
            self.set_block(block);
        }
    }

    /// Takes over what the journal says of an earlier process, into an allocator that has assigned
    /// nothing yet. Pools and the datastore's blocks may be set before or after.
    pub fn restore(&mut self, state: &State) {
        for (device, ip) in &state.tunnels {
            self.adopt(&Owner::tunnel(device), *ip);
        }
        // Of two endpoints with one address, the later holds it.
        let mut endpoints: Vec<_> = state.endpoints.iter().collect();
        endpoints.sort_by_key(|(_, live)| live.sequence);
        for (owner, live) in endpoints {
            for net in &live.endpoint.ip_networks {
                self.adopt(owner, net.addr());
            }
        }
        for cidr in state.blocks.values().map(|block| block.cidr.trunc()) {
            if self.registry.owner(cidr).is_none() {
                self.registry.set(cidr, self.node.clone());
            }
            let block = self.block_with_held(cidr);
            self.own.insert(
                cidr,
                Own {
                    block,
                    confirmed: false,
                    disputed: None,
                    leaving: false,
                },
            );
            self.review(cidr);
        }
        for (ip, at_ms) in &state.cooldowns {
            self.adopt_cooldown(*ip, *at_ms);
        }
    }

    /// The owner holds this address, says the journal. It is kept even where the block is not
    /// ours (yet), since a pod uses it.
    pub fn adopt(&mut self, owner: &Owner, ip: IpAddr) {
        if let Some(previous) = self.owners.insert(ip, owner.clone())
            && previous != *owner
            && let Some(ips) = self.held.get_mut(&previous)
        {
            ips.retain(|held| *held != ip);
            if ips.is_empty() {
                self.held.remove(&previous);
            }
        }
        let ips = self.held.entry(owner.clone()).or_default();
        if !ips.contains(&ip) {
            ips.push(ip);
        }
        self.take(ip);
    }

    /// The address was released at `at_ms`, says the journal: its cooldown goes on. No effect on
    /// an address that is held, or in no block that this node is known to own.
    pub fn adopt_cooldown(&mut self, ip: IpAddr, at_ms: u64) {
        self.now = self.now.max(at_ms);
        if !self.owners.contains_key(&ip)
            && let Some(own) = self.own_around(ip)
        {
            own.block.release(ip, at_ms);
        }
    }

    /// Takes the owner's addresses back; empty if it holds none.
    pub fn release(&mut self, owner: &Owner, now: u64) -> Vec<IpAddr> {
        self.set_clock(now);
        let ips = self.held.remove(owner).unwrap_or_default();
        for ip in &ips {
            self.owners.remove(ip);
            if let Some(own) = self.own_around(*ip) {
                own.block.release(*ip, now);
            }
        }
        self.drop_lost_blocks();
        ips
    }

    /// Takes one address back, whoever holds it; the holder's others stay.
    pub fn release_one(&mut self, ip: IpAddr, now: u64) -> Option<Owner> {
        self.set_clock(now);
        let owner = self.owners.remove(&ip)?;
        if let Some(held) = self.held.get_mut(&owner) {
            held.retain(|other| *other != ip);
            if held.is_empty() {
                self.held.remove(&owner);
            }
        }
        if let Some(own) = self.own_around(ip) {
            own.block.release(ip, now);
        }
        self.drop_lost_blocks();
        Some(owner)
    }

    /// What the owner holds.
    pub fn held(&self, owner: &Owner) -> Option<&[IpAddr]> {
        self.held.get(owner).map(Vec::as_slice)
    }

    /// Who holds the address.
    pub fn owner(&self, ip: IpAddr) -> Option<&Owner> {
        self.owners.get(&ip)
    }

    /// Blocks to claim as soon as possible: our own that vanished from the datastore while in
    /// use, and for each automatic pool one block ahead of need (when less than a quarter of a
    /// block is left). Deterministic; the same until something changes.
    pub fn wanted_claims(&self) -> Vec<IpNet> {
        let lost = self
            .own
            .iter()
            .filter(|(_, own)| !own.confirmed && own.disputed.is_none() && !own.leaving);
        let mut wanted: Vec<IpNet> = lost.map(|(cidr, _)| *cidr).collect();
        for pool in self.automatic_pools() {
            let own = self
                .own
                .iter()
                .filter(|(c, own)| pool.cidr.contains(*c) && own.usable());
            let (mut free, mut reserve) = (0, 1);
            for (_, own) in own {
                free += own.block.free(self.now, self.cooldown_ms);
                reserve = reserve.max(own.block.size() / 4);
            }
            if free < reserve {
                wanted.extend(self.candidate(pool));
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// The blocks whose addresses lead to this node: what it advertises and blackholes. Blocks
    /// that somebody else owns by the datastore's word are not among them.
    pub fn own_blocks(&self) -> impl Iterator<Item = IpNet> {
        let ours = |own: &Own| (own.confirmed || own.disputed.is_none()) && !own.leaving;
        self.own
            .iter()
            .filter(move |(_, own)| ours(own))
            .map(|(cidr, _)| *cidr)
    }

    /// Blocks of ours that somebody else claims too. They give out no addresses.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let disputed = self.own.iter().filter_map(|(cidr, own)| {
            let (other_block, other) = own.disputed.clone()?;
            let (block, node) = (*cidr, self.node.clone());
            Some(Conflict {
                block,
                node,
                other_block,
                other,
                in_use: own.block.in_use(),
            })
        });
        disputed.collect()
    }

    pub(crate) fn set_clock(&mut self, now: u64) {
        if now < self.now {
            self.own.values_mut().for_each(|own| own.block.clock(now));
        }
        self.now = now;
    }

    /// Compares our blocks that share addresses with `cidr` with the registry.
    fn review(&mut self, cidr: IpNet) {
        for (own_cidr, own) in self.own.iter_mut().filter(|(c, _)| net::overlap(**c, cidr)) {
            own.confirmed = self.registry.owner(*own_cidr) == Some(&self.node);
            let others = self.registry.overlapping(*own_cidr);
            own.disputed = others
                .filter(|(_, node)| *node != self.node)
                .map(|(block, node)| (block, node.to_owned()))
                .next();
        }
        self.drop_lost_blocks();
    }

    /// A block that the datastore does not call ours is forgotten once nothing in it is in use.
    fn drop_lost_blocks(&mut self) {
        self.own
            .retain(|_, own| own.confirmed || own.block.in_use() > 0);
    }

    fn block_with_held(&self, cidr: IpNet) -> Block {
        let mut block = Block::new(cidr);
        block.bar(self.barred());
        self.owners
            .keys()
            .filter(|ip| cidr.contains(*ip))
            .for_each(|ip| block.take(*ip));
        block
    }

    pub(crate) fn take(&mut self, ip: IpAddr) {
        for (_, own) in self.own.iter_mut().filter(|(cidr, _)| cidr.contains(&ip)) {
            own.block.take(ip);
        }
    }

    /// Our block around the address. The most specific, were there several.
    pub(crate) fn own_around(&mut self, ip: IpAddr) -> Option<&mut Own> {
        self.own
            .iter_mut()
            .rev()
            .find(|(cidr, _)| cidr.contains(&ip))
            .map(|(_, own)| own)
    }
}
