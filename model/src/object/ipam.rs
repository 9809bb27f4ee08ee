//! Address pools and blocks.

use crate::Selector;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// When a pool's traffic is encapsulated (`ipipMode`, `vxlanMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EncapMode {
    /// Never.
    Never,
    /// Towards every other node.
    Always,
    /// Only towards nodes outside this node's own subnet.
    CrossSubnet,
}

/// What a pool's addresses may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum AllowedUse {
    Workload,
    Tunnel,
    LoadBalancer,
}

/// Whether addresses are taken from a pool without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum AssignmentMode {
    Automatic,
    Manual,
}

/// Calico `IPPool`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpPool {
    /// Its name.
    pub name: String,
    /// Its addresses; host bits are zero.
    pub cidr: IpNet,
    /// Prefix length of a block: 20 to 32 (26) or 116 to 128 (122).
    pub block_size: u8,
    /// IPIP towards this pool's pods.
    pub ipip_mode: EncapMode,
    /// VXLAN towards this pool's pods.
    pub vxlan_mode: EncapMode,
    /// Masquerade what leaves the pools.
    pub nat_outgoing: bool,
    /// No new addresses from here; existing ones keep working.
    pub disabled: bool,
    /// Do not advertise this pool's blocks over BGP.
    pub disable_bgp_export: bool,
    /// Nodes that may take blocks.
    pub node_selector: Selector,
    /// Namespaces whose pods may take addresses; none means all.
    pub namespace_selector: Option<Selector>,
    /// What the addresses may be used for.
    pub allowed_uses: BTreeSet<AllowedUse>,
    /// Whether addresses are taken without being asked for.
    pub assignment_mode: AssignmentMode,
}

/// Calico `IPReservation`: addresses of pools that are given to nobody who did not ask for exactly
/// them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpReservation {
    /// Its name.
    pub name: String,
    /// The addresses; host bits are zero.
    pub reserved_cidrs: Vec<IpNet>,
}

/// Calico `IPAMBlock`: a block and the node that owns it. The object is claimed by creating it;
/// the owner's journal is the truth for the addresses inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamBlock {
    /// The block, a sub-prefix of its pool.
    pub cidr: IpNet,
    /// The node that owns it (`spec.affinity: host:<node>`), or the affinity of a block of no node,
    /// such as [`IpamBlock::LOAD_BALANCER`], which can't be a node's name.
    pub node: String,
}

impl IpamBlock {
    /// The affinity of blocks whose addresses are Services'.
    pub const LOAD_BALANCER: &str = "virtual:load-balancer";

    /// Calico's object name: `10-244-0-0-26`, `fd00-10---26` with every `.`, `:` and `/` a dash.
    pub fn name(&self) -> String {
        self.cidr.to_string().replace(['.', ':', '/'], "-")
    }

    /// Whether it belongs to no node.
    pub fn is_virtual(&self) -> bool {
        self.node.starts_with("virtual:")
    }

    /// `spec.affinity`.
    pub fn affinity(&self) -> String {
        if self.is_virtual() {
            self.node.clone()
        } else {
            format!("host:{}", self.node)
        }
    }

    /// The address of this number in the block, if it has that many.
    pub fn address(&self, ordinal: u32) -> Option<IpAddr> {
        let address = match self.cidr.network() {
            IpAddr::V4(first) => u32::from(first)
                .checked_add(ordinal)
                .map(|bits| IpAddr::V4(bits.into())),
            IpAddr::V6(first) => u128::from(first)
                .checked_add(ordinal.into())
                .map(|bits| IpAddr::V6(bits.into())),
        };
        address.filter(|address| self.cidr.contains(address))
    }

    /// The number of the address in the block, if it is in it. Blocks have up to 65,536 addresses;
    /// none beyond.
    pub fn ordinal(&self, address: IpAddr) -> Option<u32> {
        if !self.cidr.contains(&address) {
            return None;
        }
        match (self.cidr.network(), address) {
            (IpAddr::V4(first), IpAddr::V4(at)) => u32::from(at).checked_sub(first.into()),
            (IpAddr::V6(first), IpAddr::V6(at)) => {
                let distance = u128::from(at).checked_sub(first.into())?;
                u32::try_from(distance).ok()
            }
            _ => None,
        }
    }

    /// How many addresses it has, at most [`IpamBlock::LARGEST`].
    pub fn size(&self) -> u32 {
        let bits = self.cidr.max_prefix_len() - self.cidr.prefix_len();
        1_u32
            .checked_shl(bits.into())
            .map_or(Self::LARGEST, |size| size.min(Self::LARGEST))
    }

    /// Addresses in the largest block that Calico knows, a /20 or a /116.
    pub const LARGEST: u32 = 4096;
}

/// Who holds an address of a block, in an entry of `spec.attributes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Allocation {
    /// `handle_id`: the same for all addresses of one holder.
    pub handle: String,
    /// `secondary`: who that is, in words for people, such as `namespace` and `pod`.
    pub attributes: BTreeMap<String, String>,
}

/// Which addresses of a block are held, as its object says. For a node's block that is a report:
/// the truth is in the node's journal. For a block of Services it is the truth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockAllocations {
    /// The holders, by the number of the address in the block.
    pub held: BTreeMap<u32, Allocation>,
    /// The others in the order in which they are to be given out.
    pub free: Vec<u32>,
    /// Counts the writes.
    pub sequence: u64,
    /// What it was when the addresses were taken.
    pub taken_at: BTreeMap<u32, u64>,
}

impl BlockAllocations {
    /// A block of which nothing is held.
    pub fn empty(block: &IpamBlock) -> Self {
        Self {
            free: (0..block.size()).collect(),
            ..Self::default()
        }
    }

    /// Notes that somebody holds the address of this number.
    pub fn take(&mut self, ordinal: u32, holder: Allocation) {
        self.free.retain(|free| *free != ordinal);
        self.taken_at.insert(ordinal, self.sequence);
        self.held.insert(ordinal, holder);
    }

    /// Frees an address, which is given out last. Answers whether anybody held it.
    pub fn release(&mut self, ordinal: u32) -> bool {
        self.taken_at.remove(&ordinal);
        let held = self.held.remove(&ordinal).is_some();
        if held {
            self.free.push(ordinal);
        }
        held
    }
}
