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
pub fn unsupported_encapsulation(objects: &Objects, tunnels: TunnelKinds) -> Vec<Invalid> {
    let mut problems = Vec::new();
    for pool in objects.pools() {
        if pool.ipip_mode != EncapMode::Never {
            let reason = ipip_problem(objects, pool, tunnels);
            problems.extend(reason.map(|reason| pool_problem(pool, "spec.ipipMode", reason)));
        }
        if pool.vxlan_mode != EncapMode::Never && !tunnels.vxlan {
            let reason = format!(
                "{:?}: this kernel has no vxlan; routes of this pool that need it are withheld",
                pool.vxlan_mode
            );
            problems.push(pool_problem(pool, "spec.vxlanMode", reason));
        }
    }
    problems
}

/// Packets of IPv4 pools are carried by either family, those of IPv6 pools by IPv6.
fn ipip_problem(objects: &Objects, pool: &IpPool, tunnels: TunnelKinds) -> Option<String> {
    let v4_pool = pool.cidr.addr().is_ipv4();
    let (there, kind) = match v4_pool {
        true => (tunnels.ipip || tunnels.ip6, "ipip"),
        false => (tunnels.ip6, "ip6tnl"),
    };
    if !there {
        return Some(format!(
            "{:?}: this kernel has no {kind}; routes of this pool that need it are withheld",
            pool.ipip_mode
        ));
    }
    let mut without = objects.nodes().filter(|node| node.ipv6_address.is_none());
    let node = without.next().filter(|_| !v4_pool)?;
    Some(format!(
        "{:?}: IP in IP carries IPv6 over IPv6 only, and Node/{} has no IPv6 address; use vxlanMode",
        pool.ipip_mode, node.name
    ))
}

/// Which tunnel devices the kernel can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelKinds {
    /// Protocol 4 over IPv4.
    pub ipip: bool,
    /// Protocols 4 and 41 over IPv6.
    pub ip6: bool,
    /// VXLAN.
    pub vxlan: bool,
}

fn pool_problem(pool: &IpPool, field: &str, reason: String) -> Invalid {
    Invalid {
        object: ObjectKey::global(Kind::IpPool, &pool.name),
        field: field.into(),
        reason,
    }
}
