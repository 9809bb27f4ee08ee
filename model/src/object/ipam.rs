//! Address pools and blocks.

use crate::Selector;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

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
    /// The node that owns it (`spec.affinity: host:<node>`).
    pub node: String,
}

impl IpamBlock {
    /// Calico's object name: `10-244-0-0-26`, `fd00-10---26` with every `.`, `:` and `/` a dash.
    pub fn name(&self) -> String {
        self.cidr.to_string().replace(['.', ':', '/'], "-")
    }
}
