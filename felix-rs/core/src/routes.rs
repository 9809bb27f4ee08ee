//! Loc-RIB, pools and nodes -> routes.
//!
//! Encapsulation is decided here and nowhere else, as a property of the step from a BGP route to
//! a kernel route: the pool that holds the prefix says the mode, and whether the next hop is a
//! node outside this node's own subnet says whether `CrossSubnet` applies.

use crate::bgp::Workloads;
use crate::underlay::Underlay;
use bgp_core::FibNextHop;
use ipnet::IpNet;
use model::dataplane::{NextHop, RouteKind, vtep_gateway, vtep_mac};
use model::{EncapMode, IpPool, names};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// Why a BGP route is not in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// No interface and no route leads to the next hop.
    #[error("{dest}: no route to next hop {next_hop}")]
    NextHopUnreachable {
        /// The route.
        dest: IpNet,
        /// Its next hop.
        next_hop: IpAddr,
    },
    /// A node announces a block that the datastore says is another node's.
    #[error("{dest}: node {node} ({next_hop}) announces it, and it is the block of node {owner}")]
    NotTheOwner {
        /// The block.
        dest: IpNet,
        /// The node's address.
        next_hop: IpAddr,
        /// The node that announces it.
        node: String,
        /// The node that owns it.
        owner: String,
    },
    /// The metric that a filter sets is that of somebody else's route, which ours would replace.
    #[error("{dest}: a BGPFilter sets metric {metric}, with which there is somebody else's route")]
    MetricTaken {
        /// The route.
        dest: IpNet,
        /// The metric.
        metric: u32,
    },
    /// Over IPv4, IPv6 packets are carried by VXLAN only.
    #[error("{dest}: next hop {next_hop} is IPv4: only vxlanMode carries IPv6 over it")]
    NotCarried {
        /// The route.
        dest: IpNet,
        /// Its next hop.
        next_hop: IpAddr,
    },
    /// The pool wants a tunnel and there is no device for it.
    #[error(
        "{dest}: IPPool/{pool} wants {encapsulation} towards {next_hop} and there is no tunnel device"
    )]
    NoTunnel {
        /// The route.
        dest: IpNet,
        /// Its pool.
        pool: String,
        /// Its next hop.
        next_hop: IpAddr,
        /// What the pool wants.
        encapsulation: Encapsulation,
    },
}

/// How packets to another node are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encapsulation {
    /// Protocol 4, over IPv4.
    Ipip,
    /// Protocols 4 and 41, over IPv6.
    Ip6,
    /// VXLAN, over either family.
    Vxlan,
}

impl fmt::Display for Encapsulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipip => "IPIP",
            Self::Ip6 => "IP in IPv6",
            Self::Vxlan => "VXLAN",
        })
    }
}

/// What decides a route besides the underlay.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Topology {
    /// Pools by CIDR.
    pub pools: BTreeMap<IpNet, IpPool>,
    /// Addresses of all nodes: only towards them traffic is encapsulated.
    pub node_addresses: BTreeSet<IpAddr>,
    /// The nodes of these addresses.
    pub node_names: BTreeMap<IpAddr, String>,
    /// Blocks and the nodes that own them, as the datastore says.
    pub block_owners: BTreeMap<IpNet, String>,
    /// Whether the datastore answers: an earlier word about a block may be out of date.
    pub owners_known: bool,
    /// This node's own subnets.
    pub own_subnets: Vec<IpNet>,
    /// Indices of the tunnel devices that are there and up, by name.
    pub tunnels: BTreeMap<String, u32>,
    /// Ranges of Services' addresses that nodes announce.
    pub service_ranges: BTreeSet<IpNet>,
    /// Pods of this node that are BGP peers.
    pub(crate) workloads: Workloads,
}

impl Topology {
    /// The pool that holds this prefix.
    pub fn pool_of(&self, dest: &IpNet) -> Option<&IpPool> {
        self.pools
            .iter()
            .filter(|(cidr, _)| cidr.contains(dest))
            .max_by_key(|(cidr, _)| cidr.prefix_len())
            .map(|(_, pool)| pool)
    }

    /// Whether a prefix lies in a range of Services: every node serves their addresses itself, so
    /// that an announcement of another node is nothing to forward by.
    pub(crate) fn is_of_services(&self, dest: &IpNet) -> bool {
        self.service_ranges.iter().any(|range| range.contains(dest))
    }

    /// Whether everything but the owners of blocks and the pods that are peers is the same.
    pub(crate) fn same_but_for_blocks(&self, other: &Self) -> bool {
        let Self {
            pools,
            node_addresses,
            node_names,
            block_owners: _,
            owners_known,
            own_subnets,
            tunnels,
            service_ranges,
            workloads: _,
        } = self;
        *pools == other.pools
            && *node_addresses == other.node_addresses
            && *node_names == other.node_names
            && *owners_known == other.owners_known
            && *own_subnets == other.own_subnets
            && *tunnels == other.tunnels
            && *service_ranges == other.service_ranges
    }

    /// Of two nodes that announce one block, the datastore's owner is believed. A block that the
    /// datastore does not know, and a next hop that is no node, are nobody's business here.
    fn not_the_owner(&self, dest: &IpNet, next_hop: IpAddr) -> Option<Withheld> {
        let owner = self.block_owners.get(dest).filter(|_| self.owners_known)?;
        let node = self.node_names.get(&next_hop)?;
        (node != owner).then(|| Withheld::NotTheOwner {
            dest: *dest,
            next_hop,
            node: node.clone(),
            owner: owner.clone(),
        })
    }

    /// How packets of this pool reach the node at `next_hop`; `None` is natively.
    fn encapsulation(&self, pool: &IpPool, next_hop: IpAddr) -> Option<Encapsulation> {
        let far = || !self.own_subnets.iter().any(|s| s.contains(&next_hop));
        let wanted = |mode| match mode {
            EncapMode::Never => false,
            EncapMode::Always => true,
            EncapMode::CrossSubnet => far(),
        };
        if !self.node_addresses.contains(&next_hop) {
            None
        } else if wanted(pool.ipip_mode) {
            Some(match next_hop {
                IpAddr::V4(_) => Encapsulation::Ipip,
                IpAddr::V6(_) => Encapsulation::Ip6,
            })
        } else {
            wanted(pool.vxlan_mode).then_some(Encapsulation::Vxlan)
        }
    }

    /// The way through a tunnel, if its device is there.
    fn through(
        &self,
        encapsulation: Encapsulation,
        dest: &IpNet,
        next_hop: IpAddr,
    ) -> Option<NextHop> {
        let (name, gateway) = match (encapsulation, next_hop) {
            (Encapsulation::Ipip, _) => (names::IPIP_DEVICE, next_hop),
            (Encapsulation::Ip6, _) => (names::IP6_DEVICE, next_hop),
            (Encapsulation::Vxlan, IpAddr::V4(_)) if dest.addr().is_ipv4() => {
                (names::VXLAN_DEVICE, next_hop)
            }
            (Encapsulation::Vxlan, _) => {
                let device = match next_hop {
                    IpAddr::V4(_) => names::VXLAN_DEVICE,
                    IpAddr::V6(_) => names::VXLAN6_DEVICE,
                };
                (device, vtep_gateway(vtep_mac(next_hop)).into())
            }
        };
        Some(NextHop {
            gateway,
            ifindex: Some(*self.tunnels.get(name)?),
            onlink: true,
            weight: 1,
        })
    }

    /// The kernel route for a prefix of the Loc-RIB.
    pub fn route(
        &self,
        dest: &IpNet,
        next_hops: &[impl Copy + Into<FibNextHop>],
        underlay: &Underlay,
    ) -> Result<RouteKind, Withheld> {
        let pool = self.pool_of(dest);
        let mut hops = Hops::default();
        let mut failure = None;
        for &hop in next_hops {
            let hop: FibNextHop = hop.into();
            let next_hop = hop.address;
            if let Some(reason) = self.not_the_owner(dest, next_hop) {
                failure = Some(reason);
                continue;
            }
            let wanted = pool.and_then(|pool| Some((pool, self.encapsulation(pool, next_hop)?)));
            match wanted {
                None | Some((_, Encapsulation::Ipip))
                    if dest.addr().is_ipv6() && next_hop.is_ipv4() =>
                {
                    failure = Some(Withheld::NotCarried {
                        dest: *dest,
                        next_hop,
                    });
                }
                Some((pool, encapsulation)) => match self.through(encapsulation, dest, next_hop) {
                    Some(through) => hops.add(&[through], hop.weight),
                    None => {
                        failure = Some(Withheld::NoTunnel {
                            dest: *dest,
                            pool: pool.name.clone(),
                            next_hop,
                            encapsulation,
                        });
                    }
                },
                None => match self.resolve(hop, underlay) {
                    Some(resolved) => hops.add(&resolved, hop.weight),
                    None => {
                        failure = Some(Withheld::NextHopUnreachable {
                            dest: *dest,
                            next_hop,
                        })
                    }
                },
            }
        }
        match failure {
            Some(reason) if hops.0.is_empty() => Err(reason),
            _ => Ok(RouteKind::Via(hops.in_lowest_terms())),
        }
    }
}

impl Topology {
    /// How a next hop is reached without a tunnel: where it is a pod of this node, by its link.
    fn resolve(&self, hop: FibNextHop, underlay: &Underlay) -> Option<Vec<NextHop>> {
        let Some(ifindex) = self.workloads.get(&hop.address) else {
            return resolve(hop, underlay);
        };
        let link = underlay.link(*ifindex);
        let link = link.filter(|link| link.up && link.carrier)?;
        Some(vec![NextHop {
            gateway: hop.address,
            ifindex: Some(link.ifindex),
            onlink: true,
            weight: 1,
        }])
    }
}

/// Gateways and how much of the traffic each is to get.
#[derive(Debug, Default)]
struct Hops(BTreeMap<NextHop, u64>);

impl Hops {
    /// Divides by any number of gateways up to 10, and by some beyond.
    const SHARES: u64 = 2520;

    /// A next hop of this weight, and the gateways that lead to it in proportion to their weights.
    fn add(&mut self, gateways: &[NextHop], weight: u8) {
        let all: u64 = gateways.iter().map(|hop| u64::from(hop.weight)).sum();
        for hop in gateways {
            let share = Self::SHARES * u64::from(weight) * u64::from(hop.weight) / all.max(1);
            *self.0.entry(NextHop { weight: 1, ..*hop }).or_default() += share;
        }
    }

    /// With the smallest weights that say the same, as near as 255 steps can.
    fn in_lowest_terms(self) -> Vec<NextHop> {
        let divisor = self
            .0
            .values()
            .copied()
            .fold(0, greatest_common_divisor)
            .max(1);
        let greatest = self.0.values().copied().max().unwrap_or(0) / divisor;
        let weight = |share: u64| {
            let share = share / divisor;
            let scaled = if greatest > 255 {
                (share * 255 + greatest / 2) / greatest
            } else {
                share
            };
            u8::try_from(scaled).unwrap_or(u8::MAX).max(1)
        };
        let all = self.0.into_iter();
        all.map(|(hop, share)| NextHop {
            weight: weight(share),
            ..hop
        })
        .collect()
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

fn resolve(hop: FibNextHop, underlay: &Underlay) -> Option<Vec<NextHop>> {
    let next_hop = hop.address;
    // A link-local address is on the link that it was heard on.
    if hop.scope != 0 {
        let link = underlay.link(hop.scope);
        let link = link.filter(|link| link.up && link.carrier)?;
        return Some(vec![NextHop {
            gateway: next_hop,
            ifindex: Some(link.ifindex),
            onlink: false,
            weight: 1,
        }]);
    }
    if let Some(ifindex) = underlay.connected(next_hop) {
        return Some(vec![NextHop {
            gateway: next_hop,
            ifindex: Some(ifindex),
            onlink: false,
            weight: 1,
        }]);
    }
    underlay.gateways(next_hop)
}

#[cfg(test)]
mod tests;
