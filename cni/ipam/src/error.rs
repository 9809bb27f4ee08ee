//! Why there is no address.

use crate::Owner;
use ipnet::IpNet;
use model::object::AllowedUse;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Why a pool gives no address to this pod on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// `spec.disabled`.
    #[error("it is disabled")]
    Disabled,
    /// `spec.allowedUses` lacks what the address is for.
    #[error("its allowedUses do not include {purpose:?}")]
    NotFor {
        /// What it is for.
        purpose: AllowedUse,
    },
    /// `spec.assignmentMode: Manual`, and the pod does not name it.
    #[error("its assignmentMode is Manual and nobody asked for it by name")]
    Manual,
    /// `spec.nodeSelector`.
    #[error("its nodeSelector does not select this node")]
    Node,
    /// `spec.namespaceSelector`.
    #[error("its namespaceSelector does not select the pod's namespace")]
    Namespace,
    /// Two pools share addresses; see [`Ipam::overlaps`](crate::Ipam::overlaps).
    #[error("it overlaps pool {with}, which is in use")]
    Overlaps {
        /// The other pool.
        with: String,
    },
}

/// How full a pool is, as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolUsage {
    /// Its name.
    pub pool: String,
    /// Its addresses.
    pub cidr: IpNet,
    /// Blocks that it holds in all; `u64::MAX` stands for that many or more.
    pub blocks: u64,
    /// Blocks that some node owns.
    pub claimed: u64,
    /// Blocks that this node owns.
    pub own: u64,
    /// Addresses in the blocks of this node.
    pub addresses: u64,
    /// Of these, taken.
    pub in_use: u64,
    /// Of these, released less than a cooldown ago.
    pub cooling: u64,
    /// Of these, neither taken nor given out, since they are reserved or another node's pod has them.
    pub barred: u64,
}

impl fmt::Display for PoolUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pool {} ({}): {} of {} blocks claimed, {} by this node, where {} of {} addresses are \
             in use and {} cool down{}",
            self.pool,
            self.cidr,
            self.claimed,
            self.blocks,
            self.own,
            self.in_use,
            self.addresses,
            self.cooling,
            match self.barred {
                0 => String::new(),
                barred => format!(", {barred} are reserved"),
            }
        )
    }
}

/// Why [`Ipam::assign`](crate::Ipam::assign) gave no address. Nothing was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// Neither a family nor an address was asked for.
    #[error("no address family was asked for")]
    NothingAsked,
    /// Not an error of the user: claim this block, call [`Ipam::claimed`](crate::Ipam::claimed)
    /// or [`Ipam::refused`](crate::Ipam::refused), and ask again.
    #[error("block {block} has to be claimed first")]
    NeedsBlock {
        /// The block.
        block: IpNet,
    },
    /// A pool was named that does not exist.
    #[error("there is no pool with the name or CIDR {pool:?}")]
    UnknownPool {
        /// What was asked for.
        pool: String,
    },
    /// A pool was named for a family that is not its own.
    #[error("pool {pool} holds no {family} addresses")]
    OtherFamily {
        /// The pool.
        pool: String,
        /// The family that it was named for.
        family: Family,
    },
    /// A requested address belongs to a pod of another node, which this node's block surrounds.
    #[error("requested address {ip} is in use by {holder}")]
    InUseElsewhere {
        /// The address.
        ip: IpAddr,
        /// Whose it is.
        holder: String,
    },
    /// A pool was named, or holds a requested address, and may not be used.
    #[error("pool {pool}: {reason}")]
    PoolUnusable {
        /// The pool.
        pool: String,
        /// Why.
        reason: Unusable,
    },
    /// No pool may be used.
    #[error("no pool for {family}{}", reasons(.rejected))]
    NoPool {
        /// The family that has none.
        family: Family,
        /// Pools of this family, and why not.
        rejected: Vec<(String, Unusable)>,
    },
    /// Every usable pool is full.
    #[error("no {family} address is left: {}", join(.pools))]
    Exhausted {
        /// The family.
        family: Family,
        /// The pools that were tried.
        pools: Vec<PoolUsage>,
    },
    /// A requested address is in no pool.
    #[error("requested address {ip} is in no pool")]
    OutsidePools {
        /// The address.
        ip: IpAddr,
    },
    /// A requested address is taken.
    #[error("requested address {ip} is in use by container {owner}")]
    InUse {
        /// The address.
        ip: IpAddr,
        /// Who has it.
        owner: Owner,
    },
    /// A requested address is in a block that is not (only) ours.
    #[error("requested address {ip} is in block {block}, which node {node} owns")]
    ForeignBlock {
        /// The address.
        ip: IpAddr,
        /// The block.
        block: IpNet,
        /// Its owner.
        node: String,
    },
    /// One address was requested twice.
    #[error("address {ip} is requested twice")]
    Duplicate {
        /// The address.
        ip: IpAddr,
    },
    /// The owner holds other addresses than it now requests.
    #[error("container {owner} holds {} and now requests {}", join(.held), join(.requested))]
    AlreadyAssigned {
        /// Who asks.
        owner: Owner,
        /// What it holds.
        held: Vec<IpAddr>,
        /// What it asks for.
        requested: Vec<IpAddr>,
    },
}

fn join<T: ToString>(items: &[T]) -> String {
    items
        .iter()
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

fn reasons(pools: &[(String, Unusable)]) -> String {
    if pools.is_empty() {
        return ": there is none of this family".to_owned();
    }
    let reasons: Vec<String> = pools
        .iter()
        .map(|(p, why)| format!("pool {p}: {why}"))
        .collect();
    format!(": {}", reasons.join("; "))
}
