//! Contradictions between objects that are each valid alone, as data for status and log.

use crate::objects::Objects;
use model::{EncapMode, Invalid, IpPool, Kind, ObjectKey};

/// Pools that overlap: the first by name is used, the others give no addresses.
pub fn overlapping_pools(objects: &Objects) -> Vec<Invalid> {
    let pools: Vec<&IpPool> = objects.pools().collect();
    let mut problems = Vec::new();
    for (index, pool) in pools.iter().enumerate() {
        let overlap = pools
            .iter()
            .take(index)
            .find(|earlier| earlier.cidr.contains(&pool.cidr) || pool.cidr.contains(&earlier.cidr));
        if let Some(earlier) = overlap {
            let reason = format!(
                "{} overlaps {} of IPPool/{}",
                pool.cidr, earlier.cidr, earlier.name
            );
            problems.push(pool_problem(pool, "spec.cidr", reason));
        }
    }
    problems
}

/// Pools that want what this kernel or this version can't do.
pub fn unsupported_encapsulation(objects: &Objects, ipip: bool) -> Vec<Invalid> {
    let mut problems = Vec::new();
    for pool in objects.pools() {
        if pool.ipip_mode != EncapMode::Never && !ipip {
            let reason = format!(
                "{:?}: this kernel has no ipip; routes of this pool that need it are withheld",
                pool.ipip_mode
            );
            problems.push(pool_problem(pool, "spec.ipipMode", reason));
        }
        if pool.vxlan_mode != EncapMode::Never {
            let reason = format!(
                "{:?}: VXLAN is not supported yet; this pool's routes are native",
                pool.vxlan_mode
            );
            problems.push(pool_problem(pool, "spec.vxlanMode", reason));
        }
    }
    problems
}

fn pool_problem(pool: &IpPool, field: &str, reason: String) -> Invalid {
    Invalid {
        object: ObjectKey::global(Kind::IpPool, &pool.name),
        field: field.into(),
        reason,
    }
}
