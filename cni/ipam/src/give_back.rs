//! Blocks that are empty and not needed go back to the pool.
//!
//! The caller looks twice ([`Suspicions`](crate::Suspicions)), calls [`Ipam::give_back`], writes
//! to the journal that the block is gone, and only then deletes the block's object: after a crash
//! in between the object is still there and the block is ours again, and at no moment does a
//! journal name a block that somebody else may have claimed.

use crate::Ipam;
use ipnet::IpNet;
use std::collections::BTreeMap;

impl Ipam {
    /// Blocks that hold no address, none that cools down, and that are not needed. Of a pool that
    /// this node takes addresses from by itself one block stays, and more where less than half a
    /// block would be left: claiming ahead starts at a quarter, so that nothing swings.
    pub fn idle_blocks(&self) -> Vec<IpNet> {
        let mut spare: BTreeMap<&str, (u32, usize)> = BTreeMap::new();
        for pool in self.automatic_pools() {
            let usable = self
                .own
                .iter()
                .filter(|(cidr, own)| own.usable() && pool.cidr.contains(*cidr));
            let (free, blocks) = usable.fold((0, 0), |(free, blocks), (_, own)| {
                let more = own.block.free(self.now, self.cooldown_ms);
                (free + more, blocks + 1)
            });
            spare.insert(&pool.name, (free, blocks));
        }
        let mut idle = Vec::new();
        for (cidr, own) in self.own.iter().rev().filter(|(_, own)| own.usable()) {
            let block = &own.block;
            if block.in_use() > 0 || block.cooling(self.now, self.cooldown_ms) > 0 {
                continue;
            }
            let pool = self.automatic_pools().find(|p| p.cidr.contains(cidr));
            if let Some((free, blocks)) = pool.and_then(|pool| spare.get_mut(pool.name.as_str())) {
                let left = free.saturating_sub(block.free(self.now, self.cooldown_ms));
                if *blocks == 1 || left < (block.size() / 2).max(1) {
                    continue;
                }
                *free = left;
                *blocks -= 1;
            }
            idle.push(*cidr);
        }
        idle
    }

    /// Stops using an idle block: it gives out no address and is not advertised from here on.
    /// False where it is not idle any more.
    pub fn give_back(&mut self, block: IpNet) -> bool {
        let idle = self.idle_blocks().contains(&block);
        if let Some(own) = self.own.get_mut(&block).filter(|_| idle) {
            own.leaving = true;
            self.returned.insert(block);
        }
        idle
    }

    /// Uses the block again: it could not be given back.
    pub fn keep(&mut self, block: IpNet) {
        if let Some(own) = self.own.get_mut(&block) {
            own.leaving = false;
        }
        self.returned.remove(&block);
    }

    /// Time has passed: cooldowns may be over.
    pub fn tick(&mut self, now: u64) {
        self.set_clock(now);
    }
}
