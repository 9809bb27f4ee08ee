//! Which pools a pod may use, and which block of a pool comes next.

use crate::error::{AssignError, Family, PoolUsage, Unusable};
use crate::{Ipam, Pools, net};
use ipnet::IpNet;
use model::object::{AllowedUse, AssignmentMode};
use model::{IpPool, Labels};
use std::net::IpAddr;

/// Two enabled pools share addresses. One of them gives out none, since nodes that claim blocks
/// of different sizes would not notice each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Overlap {
    /// The pool that is used.
    pub used: String,
    /// The pool that is not.
    pub refused: String,
}

impl std::fmt::Display for Overlap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { used, refused } = self;
        write!(f, "pool {refused} overlaps pool {used} and is not used")
    }
}

/// Random-looking candidates before falling back on the first gap.
const PROBES: u64 = 8;

impl Ipam {
    /// Pairs of enabled pools that share addresses.
    pub fn overlaps(&self) -> Vec<Overlap> {
        let refused = self.pools.values().filter_map(|pool| {
            let used = self.shadowed_by(pool)?;
            Some(Overlap {
                used: used.name.clone(),
                refused: pool.name.clone(),
            })
        });
        refused.collect()
    }

    /// Whether some pool gives addresses of (IPv4, IPv6) on this node without being asked for by
    /// name; namespace selectors are taken to match.
    pub fn families(&self) -> (bool, bool) {
        let any = |family| self.automatic_pools().any(|pool| family_of(pool) == family);
        (any(Family::V4), any(Family::V6))
    }

    /// Pools that this node may claim blocks of ahead of need.
    pub(crate) fn automatic_pools(&self) -> impl Iterator<Item = &IpPool> {
        self.pools.values().filter(|pool| {
            self.unusable(pool, AllowedUse::Workload).is_none()
                && pool.assignment_mode == AssignmentMode::Automatic
                && pool.node_selector.matches(&self.node_labels)
        })
    }

    /// The pools for one family, by name: those that were asked for, or all that select the pod.
    /// As in Calico, asking for a pool overrides its selectors.
    pub(crate) fn pools_for(
        &self,
        family: Family,
        named: &Pools,
        namespace: Option<&Labels>,
    ) -> Result<Vec<&IpPool>, AssignError> {
        let own = match family {
            Family::V4 => &named.v4,
            Family::V6 => &named.v6,
        };
        if !own.is_empty() {
            let own = self.named_pools(own)?;
            return match own.iter().find(|pool| family_of(pool) != family) {
                None => Ok(own),
                Some(other) => Err(AssignError::OtherFamily {
                    pool: other.name.clone(),
                    family,
                }),
            };
        }
        let mut any = self.named_pools(&named.any)?;
        any.retain(|pool| family_of(pool) == family);
        if !any.is_empty() {
            return Ok(any);
        }
        let (mut usable, mut rejected) = (Vec::new(), Vec::new());
        for pool in self.pools.values().filter(|p| family_of(p) == family) {
            match self
                .unusable(pool, AllowedUse::Workload)
                .or_else(|| self.not_selected(pool, namespace))
            {
                None => usable.push(pool),
                Some(reason) => rejected.push((pool.name.clone(), reason)),
            }
        }
        if usable.is_empty() {
            Err(AssignError::NoPool { family, rejected })
        } else {
            Ok(usable)
        }
    }

    /// The pool that gives out `ip`, if it may be used.
    pub(crate) fn pool_of_requested(&self, ip: IpAddr) -> Result<&IpPool, AssignError> {
        let mut refused = None;
        for pool in self.pools.values().filter(|p| p.cidr.contains(&ip)) {
            match self.unusable(pool, AllowedUse::Workload) {
                None => return Ok(pool),
                Some(reason) => refused = Some((pool.name.clone(), reason)),
            }
        }
        Err(match refused {
            Some((pool, reason)) => AssignError::PoolUnusable { pool, reason },
            None => AssignError::OutsidePools { ip },
        })
    }

    /// The name of the pool around an address that is already held.
    pub(crate) fn pool_name(&self, ip: IpAddr) -> String {
        let mut around: Vec<&IpPool> = self
            .pools
            .values()
            .filter(|p| p.cidr.contains(&ip))
            .collect();
        around.sort_by_key(|p| (self.unusable(p, AllowedUse::Workload).is_some(), &p.name));
        around.first().map(|p| p.name.clone()).unwrap_or_default()
    }

    /// The next block of the pool that nobody is known to own, in an order of this node's own.
    pub(crate) fn candidate(&self, pool: &IpPool) -> Option<IpNet> {
        let blocks = Blocks::of(pool);
        let seed = hash(&[self.node.as_bytes(), pool.cidr.to_string().as_bytes()]);
        let mut state = seed;
        for _ in 0..PROBES {
            let block = blocks.at(u128::from(mix(&mut state)) % blocks.count);
            if self.registry.overlapping(block).next().is_none() && !self.is_reserved(block) {
                return Some(block);
            }
        }
        self.first_gap(&blocks, u128::from(seed) % blocks.count)
    }

    /// How full the pool is.
    pub(crate) fn usage(&self, pool: &IpPool) -> PoolUsage {
        let own = self
            .own
            .iter()
            .filter(|(cidr, _)| pool.cidr.contains(*cidr));
        let mut usage = PoolUsage {
            pool: pool.name.clone(),
            cidr: pool.cidr,
            blocks: u64::try_from(Blocks::of(pool).count).unwrap_or(u64::MAX),
            claimed: self.registry.inside(pool.cidr).count() as u64,
            own: 0,
            barred: 0,
            addresses: 0,
            in_use: 0,
            cooling: 0,
        };
        for (_, own) in own {
            usage.own += 1;
            usage.addresses += u64::from(own.block.size());
            usage.in_use += u64::from(own.block.in_use());
            usage.barred += u64::from(own.block.barred());
            usage.cooling += u64::from(own.block.cooling(self.now, self.cooldown_ms));
        }
        usage
    }

    fn first_gap(&self, blocks: &Blocks, start: u128) -> Option<IpNet> {
        let (mut index, mut seen) = (start, 0);
        while seen < blocks.count {
            let block = blocks.at(index);
            let taken = self.registry.overlapping(block).next();
            let Some(taken) = taken
                .map(|(taken, _)| taken)
                .or(self.reserved_around(block))
            else {
                return Some(block);
            };
            let next = blocks.after(taken).max(index + 1);
            seen += next - index;
            index = if next >= blocks.count { 0 } else { next };
        }
        None
    }

    fn named_pools(&self, named: &[String]) -> Result<Vec<&IpPool>, AssignError> {
        let mut pools: Vec<&IpPool> = Vec::new();
        for name in named {
            let cidr = name.parse::<IpNet>().ok();
            let pool = self.pools.get(name).or_else(|| {
                self.pools
                    .values()
                    .find(|pool| cidr.is_some_and(|c| c.trunc() == pool.cidr))
            });
            let pool = pool.ok_or_else(|| AssignError::UnknownPool { pool: name.clone() })?;
            if let Some(reason) = self.unusable(pool, AllowedUse::Workload) {
                return Err(AssignError::PoolUnusable {
                    pool: pool.name.clone(),
                    reason,
                });
            }
            pools.push(pool);
        }
        Ok(pools)
    }

    fn not_selected(&self, pool: &IpPool, namespace: Option<&Labels>) -> Option<Unusable> {
        if pool.assignment_mode == AssignmentMode::Manual {
            return Some(Unusable::Manual);
        }
        if !pool.node_selector.matches(&self.node_labels) {
            return Some(Unusable::Node);
        }
        let selected = pool.namespace_selector.as_ref();
        let selected = selected.is_none_or(|s| namespace.is_some_and(|labels| s.matches(labels)));
        (!selected).then_some(Unusable::Namespace)
    }

    /// Reasons that hold even for a pool that was asked for by name.
    pub(crate) fn unusable(&self, pool: &IpPool, purpose: AllowedUse) -> Option<Unusable> {
        if pool.disabled {
            return Some(Unusable::Disabled);
        }
        if !pool.allowed_uses.contains(&purpose) {
            return Some(Unusable::NotFor { purpose });
        }
        self.shadowed_by(pool).map(|with| Unusable::Overlaps {
            with: with.name.clone(),
        })
    }

    /// The pool that keeps this one from being used. The one in which blocks of its size exist
    /// goes first, so that adding a pool never stops another; then the lesser name.
    fn shadowed_by(&self, pool: &IpPool) -> Option<&IpPool> {
        if pool.disabled {
            return None;
        }
        let own_rank = (!self.has_blocks(pool), &pool.name);
        self.pools.values().find(|other| {
            other.name != pool.name
                && !other.disabled
                && net::overlap(other.cidr, pool.cidr)
                && (!self.has_blocks(other), &other.name) < own_rank
        })
    }

    fn has_blocks(&self, pool: &IpPool) -> bool {
        let size = Blocks::of(pool).length;
        self.registry
            .inside(pool.cidr)
            .any(|(block, _)| block.prefix_len() == size)
    }
}

pub(crate) fn family_of(pool: &IpPool) -> Family {
    Family::of(pool.cidr.network())
}

/// The block of the pool around an address.
pub(crate) fn block_around(pool: &IpPool, ip: IpAddr) -> IpNet {
    net::prefix_of(ip, Blocks::of(pool).length)
}

/// A pool cut into blocks.
struct Blocks {
    pool: IpNet,
    length: u8,
    count: u128,
}

impl Blocks {
    fn of(pool: &IpPool) -> Self {
        let length = pool
            .block_size
            .clamp(pool.cidr.prefix_len(), pool.cidr.max_prefix_len());
        // A /0 cut into /128 has one block more than fits; it is never walked.
        let bits = u32::from(length - pool.cidr.prefix_len());
        Self {
            pool: pool.cidr,
            length,
            count: 1u128.checked_shl(bits).unwrap_or(u128::MAX),
        }
    }

    fn at(&self, index: u128) -> IpNet {
        let shift = u32::from(self.pool.max_prefix_len() - self.length);
        let first = self.pool.network();
        // Shifting out everything (a block of /0) leaves index 0, the only one there is.
        let offset = index.checked_shl(shift).unwrap_or(0);
        net::prefix_of(
            net::address(first, net::number(first) + offset),
            self.length,
        )
    }

    /// Index of the first block after `net`.
    fn after(&self, net: IpNet) -> u128 {
        let last = net::number(net.broadcast()).min(net::number(self.pool.broadcast()));
        let shift = u32::from(self.pool.max_prefix_len() - self.length);
        let offset = last.saturating_sub(net::number(self.pool.network()));
        offset.checked_shr(shift).unwrap_or(0) + 1
    }
}

/// FNV-1a, 64 bits; only spreads nodes over a pool.
fn hash(parts: &[&[u8]]) -> u64 {
    let bytes = parts
        .iter()
        .flat_map(|part| part.iter().chain(std::iter::once(&0)));
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    })
}

/// SplitMix64: the next number of a sequence that the seed decides.
fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
