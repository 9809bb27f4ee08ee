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

/// A kind of tunnel device that a pool wants and this kernel lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingKind<'a> {
    /// The pool.
    pub pool: &'a IpPool,
    /// The kind, as the kernel calls it.
    pub kind: &'static str,
    field: &'static str,
    mode: EncapMode,
}

/// Pools that want a tunnel which this kernel can't have. The others are not concerned.
pub fn missing_kinds(objects: &Objects, tunnels: TunnelKinds) -> Vec<MissingKind<'_>> {
    let mut missing = Vec::new();
    for pool in objects.pools() {
        // Packets of IPv4 pools are carried by either family, those of IPv6 pools by IPv6.
        let (ipip, kind) = match pool.cidr.addr().is_ipv4() {
            true => (tunnels.ipip || tunnels.ip6, "ipip"),
            false => (tunnels.ip6, "ip6tnl"),
        };
        let wanted = [
            (pool.ipip_mode, ipip, kind, "spec.ipipMode"),
            (pool.vxlan_mode, tunnels.vxlan, "vxlan", "spec.vxlanMode"),
        ];
        let wanted = wanted.into_iter();
        let wanted = wanted.filter(|(mode, there, ..)| *mode != EncapMode::Never && !there);
        missing.extend(wanted.map(|(mode, _, kind, field)| MissingKind {
            pool,
            kind,
            field,
            mode,
        }));
    }
    missing
}

/// Pools that want what this kernel or this version can't do.
pub fn unsupported_encapsulation(objects: &Objects, tunnels: TunnelKinds) -> Vec<Invalid> {
    let missing = missing_kinds(objects, tunnels).into_iter();
    let missing = missing.map(|missing| {
        let reason = format!(
            "{:?}: this kernel has no {}; routes of this pool that need it are withheld",
            missing.mode, missing.kind
        );
        pool_problem(missing.pool, missing.field, reason)
    });
    missing
        .chain(
            objects
                .pools()
                .filter_map(|pool| not_carried(objects, pool, tunnels)),
        )
        .collect()
}

/// IP in IP carries no IPv6 to a node without an IPv6 address.
fn not_carried(objects: &Objects, pool: &IpPool, tunnels: TunnelKinds) -> Option<Invalid> {
    let wants = pool.ipip_mode != EncapMode::Never && pool.cidr.addr().is_ipv6();
    let mut without = objects.nodes().filter(|node| node.ipv6_address.is_none());
    let node = without.next().filter(|_| wants && tunnels.ip6)?;
    let reason = format!(
        "{:?}: IP in IP carries IPv6 over IPv6 only, and Node/{} has no IPv6 address; use vxlanMode",
        pool.ipip_mode, node.name
    );
    Some(pool_problem(pool, "spec.ipipMode", reason))
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
