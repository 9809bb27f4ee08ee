//! Addresses taken from blocks of Services, and given back.

use super::{Demand, Ledger, Refused, ServiceKey};
use crate::net;
use ipnet::IpNet;
use model::{BlockAllocations, IpPool, IpamBlock};
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Ledger {
    pub(super) fn take_any(
        &mut self,
        pools: &[IpPool],
        demand: &Demand,
        barred: impl Fn(&IpAddr) -> bool,
    ) -> Option<IpAddr> {
        for pool in pools {
            let inside: Vec<IpNet> = self
                .blocks
                .keys()
                .copied()
                .filter(|block| pool.cidr.contains(block))
                .collect();
            let mut tried = BTreeSet::new();
            let mut next = inside.into_iter();
            while let Some(cidr) = next.next().or_else(|| self.begin_block(pool, &tried)) {
                tried.insert(cidr);
                let block = virtual_block(cidr);
                let free = self.blocks.get(&cidr)?.free.iter();
                let mut addresses = free.filter_map(|ordinal| block.address(*ordinal));
                let fits = |ip: &IpAddr| {
                    pool.cidr.contains(ip) && !barred(ip) && !self.is_reserved(IpNet::from(*ip))
                };
                if let Some(ip) = addresses.find(fits) {
                    self.take(ip, demand);
                    return Some(ip);
                }
            }
        }
        None
    }

    pub(super) fn take_exactly(&mut self, ip: IpAddr, demand: &Demand) -> Result<(), Refused> {
        let pools = self.pools.iter().filter(|pool| !pool.disabled);
        let Some(_) = pools.clone().find(|pool| pool.cidr.contains(&ip)) else {
            return Err(Refused::OutsidePools { ip });
        };
        if let Some(block) = self.others.iter().find(|block| block.contains(&ip)) {
            return Err(Refused::PodBlock { ip, block: *block });
        }
        if self.take(ip, demand) {
            return Ok(());
        }
        let holder = self
            .holder(ip)
            .map_or_else(|| "somebody".to_owned(), |key| key.to_string());
        Err(Refused::InUse { ip, holder })
    }

    /// Notes the Service as the holder of an address that nobody holds, in a block that is ours or
    /// nobody's.
    pub(super) fn take(&mut self, ip: IpAddr, demand: &Demand) -> bool {
        let around = self
            .blocks
            .keys()
            .copied()
            .find(|block| block.contains(&ip));
        let cidr = around.or_else(|| {
            let pool = self.pools.iter().find(|pool| pool.cidr.contains(&ip))?;
            let cidr = net::prefix_of(ip, pool.block_size);
            self.may_begin(cidr).then_some(cidr)
        });
        let Some(cidr) = cidr else {
            return false;
        };
        let block = virtual_block(cidr);
        let empty = || BlockAllocations::empty(&block);
        let allocations = self.blocks.entry(cidr).or_insert_with(empty);
        match block.ordinal(ip) {
            Some(ordinal) if !allocations.held.contains_key(&ordinal) => {
                allocations.take(ordinal, demand.service.allocation());
                self.changed.insert(cidr);
                true
            }
            _ => false,
        }
    }

    pub(super) fn release(&mut self, ip: IpAddr) {
        for (cidr, allocations) in self
            .blocks
            .iter_mut()
            .filter(|(cidr, _)| cidr.contains(&ip))
        {
            let ordinal = virtual_block(*cidr).ordinal(ip);
            if ordinal.is_some_and(|ordinal| allocations.release(ordinal)) {
                self.changed.insert(*cidr);
            }
        }
    }

    /// A block of the pool that is nobody's, apart from those that were tried.
    fn begin_block(&mut self, pool: &IpPool, tried: &BTreeSet<IpNet>) -> Option<IpNet> {
        let first = net::number(pool.cidr.network());
        let last = net::number(pool.cidr.broadcast());
        let size = 1_u128 << (pool.cidr.max_prefix_len() - pool.block_size);
        let mut at = first;
        while at <= last {
            let cidr = net::prefix_of(net::address(pool.cidr.network(), at), pool.block_size);
            if self.may_begin(cidr) && !self.is_reserved(cidr) && !tried.contains(&cidr) {
                self.blocks
                    .insert(cidr, BlockAllocations::empty(&virtual_block(cidr)));
                return Some(cidr);
            }
            let around = self
                .reserved
                .iter()
                .chain(&self.others)
                .chain(self.blocks.keys());
            let end = around
                .filter(|net| net.contains(&cidr))
                .map(|net| net::number(net.broadcast()))
                .max();
            at = end.map_or(Some(at + (size - 1)), Some)?.checked_add(1)?;
        }
        None
    }

    fn may_begin(&self, cidr: IpNet) -> bool {
        let mut known = self.others.iter().chain(self.blocks.keys());
        !known.any(|other| net::overlap(*other, cidr))
    }

    pub(super) fn is_reserved(&self, net: IpNet) -> bool {
        self.reserved.iter().any(|reserved| reserved.contains(&net))
    }

    pub(super) fn held_by(&self, service: &ServiceKey) -> Vec<IpAddr> {
        let handle = service.allocation().handle;
        let blocks = self.blocks.iter();
        let held = blocks.flat_map(|(cidr, block)| {
            block
                .held
                .iter()
                .map(|(ordinal, holder)| (*cidr, *ordinal, holder))
        });
        let own = held.filter(|(_, _, holder)| holder.handle == handle);
        own.filter_map(|(cidr, ordinal, _)| virtual_block(cidr).address(ordinal))
            .collect()
    }

    pub(super) fn holder(&self, ip: IpAddr) -> Option<ServiceKey> {
        let (cidr, block) = self.blocks.iter().find(|(cidr, _)| cidr.contains(&ip))?;
        ServiceKey::of(block.held.get(&virtual_block(*cidr).ordinal(ip)?)?)
    }
}

pub(super) fn virtual_block(cidr: IpNet) -> IpamBlock {
    IpamBlock {
        cidr,
        node: IpamBlock::LOAD_BALANCER.to_owned(),
    }
}
