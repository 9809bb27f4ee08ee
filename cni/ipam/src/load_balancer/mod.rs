//! Addresses of Services of type LoadBalancer, from pools whose `allowedUses` say so.
//!
//! They are taken from blocks of their own ([`IpamBlock::LOAD_BALANCER`]), which no node gives to
//! pods. The block's object is the truth: an address is noted there by compare-and-swap before a
//! Service shows it, so that two who believe to be in charge can't give it out twice. An address
//! that another Service still shows is not given out either.

mod blocks;
mod demand;
mod refused;
#[cfg(test)]
mod tests;

pub use demand::{Demand, ServiceKey, Wish};
pub use refused::Refused;

use crate::Family;
use ipnet::IpNet;
use model::object::{AllowedUse, AssignmentMode};
use model::{BlockAllocations, IpPool, IpamBlock};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What there is to give.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Pools that give addresses to Services, in the order of their names.
    pools: Vec<IpPool>,
    /// Addresses that are given to nobody who did not ask for exactly them.
    reserved: Vec<IpNet>,
    /// Blocks of Services, and who holds what.
    blocks: BTreeMap<IpNet, BlockAllocations>,
    /// Every other block.
    others: BTreeSet<IpNet>,
    /// Blocks that are not as they were.
    changed: BTreeSet<IpNet>,
}

/// What every Service gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What each Service's status has to show; those that are somebody else's are left out.
    pub shown: BTreeMap<ServiceKey, Vec<IpAddr>>,
    /// What can't be given, and why.
    pub refused: Vec<(ServiceKey, Refused)>,
}

impl Ledger {
    /// What the pools and reservations leave, with the blocks of Services and of others.
    pub fn new(
        pools: impl IntoIterator<Item = IpPool>,
        reserved: Vec<IpNet>,
        blocks: BTreeMap<IpNet, BlockAllocations>,
        others: BTreeSet<IpNet>,
    ) -> Self {
        let gives = |pool: &IpPool| pool.allowed_uses.contains(&AllowedUse::LoadBalancer);
        let mut pools: Vec<IpPool> = pools.into_iter().filter(gives).collect();
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            pools,
            reserved,
            blocks,
            others,
            changed: BTreeSet::new(),
        }
    }

    /// Services that hold addresses and demand none: gone, perhaps, or just not seen yet.
    pub fn strangers(&self, demands: &[Demand]) -> BTreeSet<ServiceKey> {
        let known: BTreeSet<&ServiceKey> = demands.iter().map(|demand| &demand.service).collect();
        let holders = self.blocks.values().flat_map(|block| block.held.values());
        let services = holders.filter_map(ServiceKey::of);
        services.filter(|key| !known.contains(key)).collect()
    }

    /// Frees what a Service holds that is known to be gone, or not to be served any more.
    pub fn forget(&mut self, service: &ServiceKey) {
        for address in self.held_by(service) {
            self.release(address);
        }
    }

    /// Gives every Service what it demands, as far as that goes. What was given before stays
    /// wherever it may.
    pub fn assign(&mut self, demands: &[Demand]) -> Outcome {
        let mut shown_by: BTreeMap<IpAddr, BTreeSet<&ServiceKey>> = BTreeMap::new();
        for demand in demands {
            for ip in &demand.shown {
                shown_by.entry(*ip).or_default().insert(&demand.service);
            }
        }
        let mut outcome = Outcome::default();
        let mut kept = Vec::new();
        for demand in demands {
            match self.keep(demand, &shown_by) {
                Ok(addresses) => kept.push((demand, addresses)),
                Err(reason) => outcome.refused.push((demand.service.clone(), reason)),
            }
        }
        for (demand, mut addresses) in kept {
            if let Ok(wish) = &demand.wish {
                let result = self.complete(demand, wish, &mut addresses, &shown_by);
                outcome
                    .refused
                    .extend(result.into_iter().map(|r| (demand.service.clone(), r)));
            } else if let Err(reason) = &demand.wish {
                outcome
                    .refused
                    .push((demand.service.clone(), reason.clone()));
            }
            addresses.sort_unstable();
            outcome.shown.insert(demand.service.clone(), addresses);
        }
        outcome
    }

    /// The blocks that [`Ledger::assign`] and [`Ledger::forget`] changed or began, to be written
    /// before any status is. Their sequence numbers are those of before.
    pub fn changed(&self) -> impl Iterator<Item = (IpamBlock, &BlockAllocations)> {
        let block = |cidr: &IpNet| IpamBlock {
            cidr: *cidr,
            node: IpamBlock::LOAD_BALANCER.to_owned(),
        };
        let changed = self.changed.iter();
        changed.filter_map(move |cidr| Some((block(cidr), self.blocks.get(cidr)?)))
    }

    /// What stays of what the Service holds, and of what it shows and nobody holds: a Service whose
    /// block was lost keeps its address. The rest is released.
    fn keep(
        &mut self,
        demand: &Demand,
        shown_by: &BTreeMap<IpAddr, BTreeSet<&ServiceKey>>,
    ) -> Result<Vec<IpAddr>, Refused> {
        let held = self.held_by(&demand.service);
        let pooled = |ip: &&IpAddr| self.pools.iter().any(|pool| pool.cidr.contains(*ip));
        let foreign = demand.shown.iter().find(|ip| !pooled(ip));
        if let (Some(ip), true) = (
            foreign,
            held.is_empty() && !demand.shown.iter().any(|ip| pooled(&ip)),
        ) {
            return Err(Refused::Foreign { ip: *ip });
        }
        let Ok(wish) = &demand.wish else {
            return Ok(held);
        };
        let mut kept: Vec<IpAddr> = Vec::new();
        for ip in held {
            if self.may_stay(ip, wish, demand, &kept) {
                kept.push(ip);
            } else {
                self.release(ip);
            }
        }
        for ip in &demand.shown {
            let alone = shown_by
                .get(ip)
                .is_none_or(|by| by.first() == Some(&&demand.service));
            if !kept.contains(ip)
                && alone
                && self.pools.iter().any(|pool| pool.cidr.contains(ip))
                && self.may_stay(*ip, wish, demand, &kept)
                && self.take(*ip, demand)
            {
                kept.push(*ip);
            }
        }
        Ok(kept)
    }

    fn may_stay(&self, ip: IpAddr, wish: &Wish, demand: &Demand, kept: &[IpAddr]) -> bool {
        let family = Family::of(ip);
        let named = |names: &Option<Vec<String>>| {
            names.as_ref().is_none_or(|names| {
                let mut pools = self.pools.iter().filter(|pool| pool.cidr.contains(&ip));
                pools.any(|pool| names.iter().any(|name| is_called(pool, name)))
            })
        };
        let one =
            demand.families.contains(&family) && kept.iter().all(|k| Family::of(*k) != family);
        match wish {
            Wish::Exactly(ips) => ips.contains(&ip),
            Wish::Any => one,
            Wish::Pools { v4, v6 } => one && named(if ip.is_ipv4() { v4 } else { v6 }),
        }
    }

    /// Adds what the Service lacks.
    fn complete(
        &mut self,
        demand: &Demand,
        wish: &Wish,
        addresses: &mut Vec<IpAddr>,
        shown_by: &BTreeMap<IpAddr, BTreeSet<&ServiceKey>>,
    ) -> Vec<Refused> {
        let mut refused = Vec::new();
        let others_show = |ip: &IpAddr| {
            let by = shown_by.get(ip)?;
            by.iter()
                .find(|service| **service != &demand.service)
                .copied()
        };
        if let Wish::Exactly(ips) = wish {
            for ip in ips
                .iter()
                .filter(|ip| !addresses.contains(ip))
                .copied()
                .collect::<BTreeSet<_>>()
            {
                let result = match others_show(&ip) {
                    Some(other) => Err(Refused::InUse {
                        ip,
                        holder: other.to_string(),
                    }),
                    None => self.take_exactly(ip, demand),
                };
                match result {
                    Ok(()) => addresses.push(ip),
                    Err(reason) => refused.push(reason),
                }
            }
            return refused;
        }
        for family in &demand.families {
            if addresses.iter().any(|ip| Family::of(*ip) == *family) {
                continue;
            }
            match self.usable(wish, *family).and_then(|pools| {
                self.take_any(&pools, demand, |ip| others_show(ip).is_some())
                    .ok_or_else(|| {
                        let names: Vec<&str> =
                            pools.iter().map(|pool| pool.name.as_str()).collect();
                        Refused::Exhausted {
                            family: *family,
                            pools: names.join(", "),
                        }
                    })
            }) {
                Ok(ip) => addresses.push(ip),
                Err(reason) => refused.push(reason),
            }
        }
        refused
    }

    /// The pools of a family that may be used, in order.
    fn usable(&self, wish: &Wish, family: Family) -> Result<Vec<IpPool>, Refused> {
        let named = match (wish, family) {
            (Wish::Pools { v4, .. }, Family::V4) => v4.as_ref(),
            (Wish::Pools { v6, .. }, Family::V6) => v6.as_ref(),
            _ => None,
        };
        let of_family = |pool: &&IpPool| !pool.disabled && Family::of(pool.cidr.addr()) == family;
        let pools = self.pools.iter().filter(of_family);
        if let Some(names) = named {
            let find = |name: &String| {
                let mut pools = pools.clone();
                let found = pools.find(|pool| is_called(pool, name)).cloned();
                found.ok_or_else(|| Refused::UnknownPool {
                    pool: name.clone(),
                    family,
                })
            };
            return names.iter().map(find).collect();
        }
        let automatic = pools.filter(|pool| pool.assignment_mode == AssignmentMode::Automatic);
        let automatic: Vec<IpPool> = automatic.cloned().collect();
        if automatic.is_empty() {
            return Err(Refused::NoPool { family });
        }
        Ok(automatic)
    }
}

fn is_called(pool: &IpPool, name: &str) -> bool {
    pool.name == name || name.parse::<IpNet>().is_ok_and(|cidr| cidr == pool.cidr)
}
