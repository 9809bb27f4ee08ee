//! Nodes: core `v1/Node` with Calico's annotations, or `projectcalico.org/v3` `Node`.

use crate::Labels;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name, as given to the agent by `--node-name`.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its address with the length of its subnet, host bits kept: `10.1.0.11/24`
    /// (`spec.bgp.ipv4Address`, annotation `projectcalico.org/IPv4Address`).
    pub ipv4_address: Option<Ipv4Net>,
    /// Likewise for IPv6.
    pub ipv6_address: Option<Ipv6Net>,
    /// Every address that its status lists (`status.addresses` of types `InternalIP` and
    /// `ExternalIP`; `spec.addresses` of Calico's Node), and its own addresses on tunnels.
    /// [`Node::all_addresses`] adds the two above.
    #[serde(default)]
    pub addresses: BTreeSet<IpAddr>,
    /// Its AS number; none means that of the [`BgpConfiguration`](super::BgpConfiguration).
    pub as_number: Option<u32>,
    /// Set on a route reflector (RFC 4456): it leaves the mesh.
    pub route_reflector_cluster_id: Option<Ipv4Addr>,
}

impl Node {
    /// Every address that is known to be the node's.
    pub fn all_addresses(&self) -> BTreeSet<IpAddr> {
        let own = [
            self.ipv4_address.map(|address| IpAddr::V4(address.addr())),
            self.ipv6_address.map(|address| IpAddr::V6(address.addr())),
        ];
        let listed = self.addresses.iter().copied();
        own.into_iter().flatten().chain(listed).collect()
    }
}
