//! Choosing addresses: everything is chosen before anything is taken.

use crate::error::{AssignError, Family};
use crate::pools::block_around;
use crate::{AssignRequest, Assignment, Ipam};
use ipnet::IpNet;
use model::IpPool;
use std::net::IpAddr;

impl Ipam {
    /// Addresses for a pod: those requested, or one per family. The same owner gets the same
    /// again. `now` is in milliseconds and may be a wall clock; a jump back prolongs a cooldown
    /// by its length at most.
    pub fn assign(
        &mut self,
        request: &AssignRequest<'_>,
        now: u64,
    ) -> Result<Vec<Assignment>, AssignError> {
        self.set_clock(now);
        if let Some(held) = self.held.get(&request.owner) {
            return self.again(request, held);
        }
        let chosen = if request.requested.is_empty() {
            self.choose_any(request)?
        } else {
            self.choose_requested(request.requested)?
        };
        for assignment in &chosen {
            self.take(assignment.ip);
            self.owners.insert(assignment.ip, request.owner.clone());
        }
        let ips = chosen.iter().map(|a| a.ip).collect();
        self.held.insert(request.owner.clone(), ips);
        Ok(chosen)
    }

    fn again(
        &self,
        request: &AssignRequest<'_>,
        held: &[IpAddr],
    ) -> Result<Vec<Assignment>, AssignError> {
        let sorted = |ips: &[IpAddr]| {
            let mut ips = ips.to_vec();
            ips.sort_unstable();
            ips
        };
        if !request.requested.is_empty() && sorted(request.requested) != sorted(held) {
            return Err(AssignError::AlreadyAssigned {
                owner: request.owner.clone(),
                held: held.to_vec(),
                requested: request.requested.to_vec(),
            });
        }
        let describe = |ip: &IpAddr| {
            let block = self
                .own
                .keys()
                .rev()
                .find(|cidr| cidr.contains(ip))
                .copied();
            let block = block.unwrap_or_else(|| IpNet::from(*ip));
            Assignment {
                ip: *ip,
                pool: self.pool_name(*ip),
                block,
            }
        };
        Ok(held.iter().map(describe).collect())
    }

    fn choose_any(&self, request: &AssignRequest<'_>) -> Result<Vec<Assignment>, AssignError> {
        let mut chosen = Vec::with_capacity(2);
        for (wanted, family) in [(request.v4, Family::V4), (request.v6, Family::V6)] {
            if wanted {
                let pools = self.pools_for(family, request.pools, request.namespace_labels)?;
                chosen.push(self.choose_from(family, &pools)?);
            }
        }
        if chosen.is_empty() {
            Err(AssignError::NothingAsked)
        } else {
            Ok(chosen)
        }
    }

    /// Never used addresses of our blocks first, then the one released longest ago, then a block
    /// that nobody owns.
    pub(crate) fn choose_from(
        &self,
        family: Family,
        pools: &[&IpPool],
    ) -> Result<Assignment, AssignError> {
        let blocks = || {
            pools.iter().flat_map(|pool| {
                let inside = self
                    .own
                    .iter()
                    .filter(|(c, own)| pool.cidr.contains(*c) && own.usable());
                inside.map(|(cidr, own)| (pool.name.as_str(), *cidr, &own.block))
            })
        };
        let assignment = |ip, pool: &str, block| Assignment {
            ip,
            pool: pool.to_owned(),
            block,
        };
        let fresh = blocks().find_map(|(pool, cidr, block)| {
            Some(assignment(self.unheld(block.fresh()?)?, pool, cidr))
        });
        if let Some(found) = fresh {
            return Ok(found);
        }
        let rested = blocks().filter_map(|(pool, cidr, block)| {
            let (at, ip) = block.rested(self.now, self.cooldown_ms)?;
            Some((at, assignment(self.unheld(ip)?, pool, cidr)))
        });
        if let Some((_, found)) = rested.min_by_key(|(at, _)| *at) {
            return Ok(found);
        }
        match pools.iter().find_map(|pool| self.candidate(pool)) {
            Some(block) => Err(AssignError::NeedsBlock { block }),
            None => {
                let pools = pools.iter().map(|pool| self.usage(pool)).collect();
                Err(AssignError::Exhausted { family, pools })
            }
        }
    }

    /// Bitmap and owners never disagree; if they did, nobody gets the address.
    fn unheld(&self, ip: IpAddr) -> Option<IpAddr> {
        (!self.owners.contains_key(&ip)).then_some(ip)
    }

    fn choose_requested(&self, requested: &[IpAddr]) -> Result<Vec<Assignment>, AssignError> {
        let mut chosen: Vec<Assignment> = Vec::with_capacity(requested.len());
        for ip in requested {
            if chosen.iter().any(|other| other.ip == *ip) {
                return Err(AssignError::Duplicate { ip: *ip });
            }
            chosen.push(self.choose_one(*ip)?);
        }
        Ok(chosen)
    }

    fn choose_one(&self, ip: IpAddr) -> Result<Assignment, AssignError> {
        let pool = self.pool_of_requested(ip)?;
        if let Some(owner) = self.owners.get(&ip) {
            return Err(AssignError::InUse {
                ip,
                owner: owner.clone(),
            });
        }
        if let Some(holder) = self.foreign.get(&ip) {
            return Err(AssignError::InUseElsewhere {
                ip,
                holder: holder.clone(),
            });
        }
        let own = self.own.iter().rev().filter(|(cidr, _)| cidr.contains(&ip));
        if let Some((block, _)) = own.clone().find(|(_, own)| own.usable()) {
            return Ok(Assignment {
                ip,
                pool: pool.name.clone(),
                block: *block,
            });
        }
        let wanted = block_around(pool, ip);
        let foreign = self
            .registry
            .overlapping(wanted)
            .find(|(_, node)| *node != self.node);
        let disputed = own.clone().find_map(|(_, own)| own.disputed.as_ref());
        match foreign.or_else(|| disputed.map(|(block, node)| (*block, node.as_str()))) {
            Some((block, node)) => Err(AssignError::ForeignBlock {
                ip,
                block,
                node: node.to_owned(),
            }),
            None => Err(AssignError::NeedsBlock { block: wanted }),
        }
    }
}
