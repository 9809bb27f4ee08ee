//! Who asks for addresses, for which, and what comes out.

use ipnet::IpNet;
use model::Labels;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// Who holds addresses: one interface of one container. Prints as `container/interface`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The runtime's container (sandbox) id.
    pub container_id: String,
    /// The interface inside the pod.
    pub ifname: String,
}

impl Owner {
    /// This node itself, for its address on a tunnel device. No container has this id: a container
    /// id holds no colon (CNI specification, section 2).
    pub fn tunnel(device: &str) -> Self {
        Self {
            container_id: "tunnel:".to_owned(),
            ifname: device.to_owned(),
        }
    }

    /// Whether this is the node itself.
    pub fn is_tunnel(&self) -> bool {
        self.container_id == "tunnel:"
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

/// What a pod asks for.
#[derive(Debug, Clone)]
pub struct AssignRequest<'a> {
    /// Who asks. The same owner gets the same addresses again.
    pub owner: Owner,
    /// Labels of the pod's namespace; none where they are not known, so that pools with a
    /// namespace selector are not used.
    pub namespace_labels: Option<&'a Labels>,
    /// Exactly these addresses; `pools`, `v4` and `v6` are then not looked at.
    pub requested: &'a [IpAddr],
    /// Pools to use.
    pub pools: &'a Pools,
    /// An IPv4 address is wanted.
    pub v4: bool,
    /// An IPv6 address is wanted. With `v4`, both are assigned or none.
    pub v6: bool,
}

/// Pools by name or CIDR, in the order in which they are tried. A family of which none is named
/// uses all that select the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pools {
    /// Pools of either family, for a family that has no list of its own.
    pub any: Vec<String>,
    /// IPv4 pools.
    pub v4: Vec<String>,
    /// IPv6 pools.
    pub v6: Vec<String>,
}

/// An assigned address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assignment {
    /// The address.
    pub ip: IpAddr,
    /// Its pool; empty where an adopted address is in no pool any more.
    pub pool: String,
    /// Its block; /32 or /128 where an adopted address is in no block of this node.
    pub block: IpNet,
}
