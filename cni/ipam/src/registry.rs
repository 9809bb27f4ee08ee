//! Who owns which block, as far as this node has heard.

use crate::net;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// Two nodes claim one block, or blocks that overlap. The datastore's owner keeps it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The block that this node believes to own.
    pub block: IpNet,
    /// This node.
    pub node: String,
    /// The other's block; the same, or one that overlaps it.
    pub other_block: IpNet,
    /// The other node.
    pub other: String,
    /// Addresses of this node's pods in the block.
    pub in_use: u32,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "block {} is claimed by nodes {} and {} (as {}); addresses in use by {}: {}",
            self.block, self.node, self.other, self.other_block, self.node, self.in_use
        )
    }
}

/// Blocks and their owners.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    owners: BTreeMap<IpNet, String>,
    /// How many blocks there are of each prefix length: what to look for around a prefix.
    lengths: BTreeMap<u8, usize>,
}

impl Registry {
    pub(crate) fn set(&mut self, block: IpNet, node: String) {
        if self.owners.insert(block, node).is_none() {
            *self.lengths.entry(block.prefix_len()).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, block: IpNet) {
        if self.owners.remove(&block).is_some()
            && let Entry::Occupied(mut count) = self.lengths.entry(block.prefix_len())
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    pub(crate) fn owner(&self, block: IpNet) -> Option<&str> {
        self.owners.get(&block).map(String::as_str)
    }

    /// Known blocks inside `net`, in order.
    pub(crate) fn inside(&self, net: IpNet) -> impl Iterator<Item = (IpNet, &str)> {
        self.owners
            .range(IpNet::new_assert(net.network(), 0)..)
            .take_while(move |(block, _)| net.contains(&block.network()))
            .filter(move |(block, _)| net.contains(*block))
            .map(|(block, node)| (*block, node.as_str()))
    }

    /// Every known block that shares an address with `net`: those around it, it, those inside.
    pub(crate) fn overlapping(&self, net: IpNet) -> impl Iterator<Item = (IpNet, &str)> {
        let lengths = self.lengths.range(..net.prefix_len()).rev();
        let around = lengths.filter_map(move |(length, _)| {
            let (block, node) = self
                .owners
                .get_key_value(&net::prefix_of(net.network(), *length))?;
            Some((*block, node.as_str()))
        });
        around.chain(self.inside(net))
    }
}
