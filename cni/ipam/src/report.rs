//! What there is, for people to read.

use crate::{Ipam, PoolUsage};
use ipnet::IpNet;
use std::fmt;

/// A block of the datastore, or of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockReport {
    /// The block.
    pub cidr: IpNet,
    /// Its owner by the datastore's word; this node where the datastore knows none.
    pub node: String,
    /// Its pool; empty where there is none any more.
    pub pool: String,
    /// How full it is, if this node has it.
    pub counts: Option<BlockCounts>,
    /// What this node does with it.
    pub state: BlockState,
}

/// Addresses of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCounts {
    /// Taken.
    pub in_use: u32,
    /// That could be given out at once.
    pub free: u32,
}

/// What this node does with a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockState {
    /// Another node's.
    Foreign,
    /// Gives addresses from it.
    InUse,
    /// Is on its way back to the pool.
    Leaving,
    /// Holds addresses in it and waits for the datastore to say that it is its own.
    Unconfirmed,
    /// Somebody else has it, or an overlapping one, too.
    Disputed {
        /// The other block.
        block: IpNet,
        /// The other node.
        node: String,
    },
}

impl fmt::Display for BlockState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("another node's"),
            Self::InUse => f.write_str("own"),
            Self::Leaving => f.write_str("own, being given back"),
            Self::Unconfirmed => f.write_str("own, not in the datastore"),
            Self::Disputed { block, node } => write!(f, "disputed: {block} is node {node}'s"),
        }
    }
}

impl Ipam {
    /// How full each pool is, as this node knows it.
    pub fn usages(&self) -> Vec<PoolUsage> {
        self.pools.values().map(|pool| self.usage(pool)).collect()
    }

    /// Blocks of this node with addresses in use whose pool is gone, and how many those are.
    pub fn without_pool(&self) -> impl Iterator<Item = (IpNet, u32)> {
        let own = self
            .own
            .iter()
            .map(|(cidr, own)| (*cidr, own.block.in_use()));
        own.filter(|(cidr, used)| *used > 0 && self.pool_name(cidr.network()).is_empty())
    }

    /// Every block that is known, in order.
    pub fn blocks(&self) -> Vec<BlockReport> {
        let everything = "0.0.0.0/0".parse::<IpNet>().into_iter();
        let everything = everything.chain("::/0".parse::<IpNet>());
        let known = everything.flat_map(|all| self.registry.inside(all).collect::<Vec<_>>());
        let mut cidrs: Vec<IpNet> = known.map(|(cidr, _)| cidr).collect();
        cidrs.extend(self.own.keys());
        cidrs.sort_unstable();
        cidrs.dedup();
        cidrs.into_iter().map(|cidr| self.block(cidr)).collect()
    }

    fn block(&self, cidr: IpNet) -> BlockReport {
        let own = self.own.get(&cidr);
        let state = match own {
            None => BlockState::Foreign,
            Some(own) => match &own.disputed {
                Some((block, node)) => BlockState::Disputed {
                    block: *block,
                    node: node.clone(),
                },
                None if own.leaving => BlockState::Leaving,
                None if own.confirmed => BlockState::InUse,
                None => BlockState::Unconfirmed,
            },
        };
        BlockReport {
            cidr,
            node: self.registry.owner(cidr).unwrap_or(&self.node).to_owned(),
            pool: self.pool_name(cidr.network()),
            counts: own.map(|own| BlockCounts {
                in_use: own.block.in_use(),
                free: own.block.free(self.now, self.cooldown_ms),
            }),
            state,
        }
    }
}
