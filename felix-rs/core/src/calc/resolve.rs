//! From what is known to what should be: only what is dirty is computed.

use super::{Calc, DEFAULT_MTU, LARGEST_MTU};
use crate::bgp::{self, Sessions};
use crate::objects::Phase;
use crate::routes::{Topology, Withheld};
use crate::workloads;
use bgp_core::SpeakerConfig;
use ipnet::IpNet;
use model::dataplane::RouteKind;
use model::object::ServiceLoopPrevention;
use model::{Node, names};
use policy::NetworkSets;
use policy::ruleset::Op;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

impl Calc {
    /// Compute what is dirty. Returns the changes of our table; everything else is in
    /// [`Calc::desired`], and [`Calc::take_touched`] says which prefixes to look at.
    pub fn resolve(&mut self) -> Vec<Op> {
        let mut dirty = std::mem::take(&mut self.dirty);
        if dirty.topology {
            dirty.all_learned |= self.resolve_topology();
        }
        dirty.sessions |= dirty.local && self.peers_with_pods();
        if dirty.local && !self.topology.workloads.is_empty() {
            // The links that lead there may have come or gone.
            let through_pods = self.behind.keys().chain(self.withheld.keys());
            dirty.learned.extend(through_pods.copied());
        }
        if dirty.sessions {
            let Sessions {
                config,
                workloads,
                peering,
                problems,
            } = bgp::sessions(&self.node, &self.objects, &self.pods_to_peer_with());
            self.session_problems = problems;
            self.desired.peering = peering;
            dirty.all_learned |= workloads != self.topology.workloads;
            self.topology.workloads = workloads;
            dirty.all_learned |= without_peers(&config) != without_peers(&self.desired.sessions);
            self.desired.sessions = config;
        }
        if dirty.host_interfaces {
            self.feed_host_interfaces();
        }
        if dirty.local {
            self.resolve_local();
        }
        if dirty.sessions {
            let to_peers = bgp::reachable_by(&self.node, &self.objects);
            let before = std::mem::replace(&mut self.to_peers, to_peers);
            let all = before.keys().chain(self.to_peers.keys());
            dirty.learned.extend(all.copied());
        }
        if dirty.all_learned {
            dirty.learned = self
                .fib
                .keys()
                .chain(self.strays.keys())
                .chain(self.to_peers.keys())
                .chain(self.desired.learned.keys())
                .chain(self.topology.block_owners.keys())
                .copied()
                .collect();
        }
        for prefix in &dirty.learned {
            self.resolve_learned(*prefix);
        }
        self.resolve_behind(&dirty.learned);
        if dirty.sessions || dirty.local || dirty.services {
            let own = self
                .own_blocks
                .iter()
                .copied()
                .chain(self.outside_own_blocks());
            self.desired.advertised = bgp::local_routes(&self.node, &own.collect(), &self.objects);
        }
        self.compiler.resolve()
    }

    /// Pools, nodes, tunnel. Returns whether learnt routes may differ by it.
    fn resolve_topology(&mut self) -> bool {
        let own = self.objects.node(&self.node);
        let own_v4 = own.and_then(|node| node.ipv4_address);
        let own_v6 = own.and_then(|node| node.ipv6_address);
        let others = || self.objects.nodes().filter(|node| node.name != self.node);
        let node_v4 = || {
            others()
                .filter_map(|node| node.ipv4_address)
                .map(|net| net.addr())
        };
        let node_v6 = others()
            .filter_map(|node| node.ipv6_address)
            .map(|net| net.addr());
        let topology = Topology {
            pools: self
                .objects
                .pools()
                .map(|pool| (pool.cidr, pool.clone()))
                .collect(),
            node_addresses: node_v4()
                .map(IpAddr::V4)
                .chain(node_v6.map(IpAddr::V6))
                .collect(),
            own_subnets: own_v4
                .map(IpNet::V4)
                .into_iter()
                .chain(own_v6.map(IpNet::V6))
                .map(|own| self.underlay.subnet_of(own))
                .collect(),
            owners_known: self.phase() == Phase::InSync && self.objects.lost().is_none(),
            // Kept in step block by block.
            block_owners: std::mem::take(&mut self.topology.block_owners),
            workloads: std::mem::take(&mut self.topology.workloads),
            node_names: others()
                .flat_map(|node| {
                    let v4 = node.ipv4_address.map(|net| IpAddr::V4(net.addr()));
                    let v6 = node.ipv6_address.map(|net| IpAddr::V6(net.addr()));
                    v4.into_iter().chain(v6).map(|ip| (ip, node.name.clone()))
                })
                .collect(),
            tunnels: self.tunnels_up(),
            service_ranges: bgp::service_ranges(&self.objects.bgp_configuration()),
        };
        let ignored = self.objects.bgp_configuration().ignored_interfaces;
        let ignores = self.underlay.set_ignored(ignored);
        self.desired.tunnels = self.tunnels();
        let masquerade = |pool: &&model::IpPool| pool.nat_outgoing;
        self.compiler.set_network(NetworkSets {
            masquerade: self
                .objects
                .pools()
                .filter(masquerade)
                .map(|pool| pool.cidr)
                .collect(),
            pools: self.not_masqueraded(),
            nat_ports: self.nat_ports(),
            nat_address: self.nat_address(),
            spread: self.has_several_ways().then_some(names::SPREAD_MARK),
            vxlan_peers: others().flat_map(model::Node::all_addresses).collect(),
            vxlan_local: self.vxlan_locals(),
            ipip_peers: topology.node_addresses.clone(),
            ipip_local: self.ipip_local(),
            ip6_local: self.ip6_local(),
            services: self.guarded_services(),
            reject_unused_services: self.service_loops() == ServiceLoopPrevention::Reject,
        });
        let differs = ignores || !topology.same_but_for_blocks(&self.topology);
        self.topology = topology;
        differs
    }

    /// Addresses of this node's pods in a block that is not (any more) its own: without a route of
    /// their own they could not be reached.
    fn outside_own_blocks(&self) -> impl Iterator<Item = IpNet> {
        let locals = self.local.values();
        let addresses = locals.flat_map(|local| local.endpoint.ip_networks.iter().copied());
        addresses.filter(|ip| !self.own_blocks.iter().any(|block| block.contains(ip)))
    }

    fn resolve_local(&mut self) {
        let mut local: BTreeMap<IpNet, RouteKind> = self
            .own_blocks
            .iter()
            .map(|block| (*block, RouteKind::Blackhole))
            .collect();
        // Of two endpoints with one address, the later holds it.
        let mut endpoints: Vec<_> = self.local.values().collect();
        endpoints.sort_by_key(|endpoint| endpoint.sequence);
        let host_ports = workloads::host_ports(endpoints.iter().copied());
        self.compiler.set_host_ports(host_ports);
        for endpoint in endpoints {
            if self
                .underlay
                .link(endpoint.ifindex)
                .is_some_and(|link| link.up)
            {
                let kind = RouteKind::Device {
                    ifindex: endpoint.ifindex,
                };
                local.extend(
                    endpoint
                        .endpoint
                        .ip_networks
                        .iter()
                        .map(|ip| (*ip, kind.clone())),
                );
            }
        }
        let before = std::mem::take(&mut self.desired.local);
        self.touched.extend(
            before
                .iter()
                .filter(|(d, k)| local.get(*d) != Some(*k))
                .map(|(d, _)| *d),
        );
        self.touched.extend(
            local
                .iter()
                .filter(|(d, k)| before.get(*d) != Some(*k))
                .map(|(d, _)| *d),
        );
        self.desired.local = local;
    }

    fn resolve_learned(&mut self, prefix: IpNet) {
        let service = self.topology.is_of_services(&prefix);
        let learned = self.fib.get(&prefix).filter(|_| !service);
        // A session whose way is learned over itself would come and go.
        let gateway = self.to_peers.get(&prefix);
        let metric = self.fib_metrics.get(&prefix).copied();
        let metric = metric.filter(|_| gateway.is_none() && learned.is_some());
        let taken = metric.filter(|metric| self.underlay.is_foreign(&prefix, *metric));
        let route = gateway
            .map(|gateway| self.topology.route(&prefix, &[*gateway], &self.underlay))
            .or_else(|| {
                let dest = prefix;
                taken.map(|metric| Err(Withheld::MetricTaken { dest, metric }))
            })
            .or_else(|| Some(self.topology.route(&prefix, learned?, &self.underlay)));
        let route = route.or_else(|| {
            let next_hops = self.strays.get(&prefix)?;
            Some(self.topology.route(&prefix, next_hops, &self.underlay))
        });
        let route = route.or_else(|| {
            let next_hop = self.next_hop_of_owner(&prefix)?;
            Some(self.topology.route(&prefix, &[next_hop], &self.underlay))
        });
        if let Some(Ok(kind)) = &route
            && self.waits_for_others(&prefix, kind)
        {
            return;
        }
        let before = match route {
            Some(Ok(kind)) => {
                self.withheld.remove(&prefix);
                let same_metric = self.set_metric(prefix, metric);
                match self.desired.learned.entry(prefix) {
                    Entry::Occupied(same) if same_metric && *same.get() == kind => return,
                    Entry::Occupied(mut other) => Some(other.insert(kind)),
                    Entry::Vacant(vacant) => {
                        vacant.insert(kind);
                        self.touched.insert(prefix);
                        return;
                    }
                }
            }
            Some(Err(reason @ Withheld::NoTunnel { .. }))
                if self.desired.learned.contains_key(&prefix) =>
            {
                // The way from before the change of mode is better than none.
                self.withheld.insert(prefix, reason);
                return;
            }
            Some(Err(reason)) => {
                self.withheld.insert(prefix, reason);
                self.set_metric(prefix, None);
                self.desired.learned.remove(&prefix)
            }
            None => {
                self.withheld.remove(&prefix);
                self.set_metric(prefix, None);
                self.desired.learned.remove(&prefix)
            }
        };
        if before.is_some() || self.desired.learned.contains_key(&prefix) {
            self.touched.insert(prefix);
        }
    }

    /// Answers whether the route had it before.
    fn set_metric(&mut self, prefix: IpNet, metric: Option<u32>) -> bool {
        let before = match metric {
            Some(metric) => self.desired.metrics.insert(prefix, metric),
            None => self.desired.metrics.remove(&prefix),
        };
        before == metric
    }

    /// The node that owns a block, where no BGP session tells of it: on a node without any, and for
    /// IPv6 blocks of nodes that have IPv4 addresses only, which no session can announce.
    fn next_hop_of_owner(&self, block: &IpNet) -> Option<IpAddr> {
        let owner = self.topology.block_owners.get(block)?;
        let (own, owner) = (self.objects.node(&self.node)?, self.objects.node(owner)?);
        if own.name == owner.name {
            return None;
        }
        let v4 = own.ipv4_address.and(owner.ipv4_address);
        let v6 = own.ipv6_address.and(owner.ipv6_address);
        let (v4, v6) = (
            v4.map(|net| IpAddr::V4(net.addr())),
            v6.map(|net| IpAddr::V6(net.addr())),
        );
        let next_hop = match block {
            IpNet::V4(_) => v4.or(v6),
            IpNet::V6(_) => v6.or(v4),
        }?;
        let never_told = block.addr().is_ipv6() && next_hop.is_ipv4();
        (never_told || without_peers(&self.desired.sessions)).then_some(next_hop)
    }

    /// Whether the way is through a tunnel that was made a moment ago, and the one before works.
    fn waits_for_others(&self, prefix: &IpNet, kind: &RouteKind) -> bool {
        if self.settling.is_empty() {
            return false;
        }
        let settling = |ifindex: u32| {
            let link = self.underlay.link(ifindex);
            link.is_some_and(|link| self.settling.contains(&link.name))
        };
        let works = |ifindex: u32| {
            let link = self.underlay.link(ifindex);
            link.is_some_and(|link| link.up && !self.settling.contains(&link.name))
        };
        let all = |kind: &RouteKind, holds: &dyn Fn(u32) -> bool| match kind {
            RouteKind::Via(hops) => hops.iter().all(|hop| hop.ifindex.is_some_and(holds)),
            RouteKind::Device { .. } | RouteKind::Blackhole => false,
        };
        let before = self.desired.learned.get(prefix);
        before.is_some_and(|before| all(before, &works)) && all(kind, &settling)
    }

    /// Whether other nodes are reached by more than one path.
    fn has_several_ways(&self) -> bool {
        let several = |address: IpAddr| {
            let hops = self.underlay.gateways(address);
            self.underlay.connected(address).is_none() && hops.is_some_and(|hops| hops.len() > 1)
        };
        self.topology.node_addresses.iter().any(|ip| several(*ip))
    }

    /// MTU in bytes of the way to the other nodes: the least of the interfaces that lead there, in
    /// the families that both ends have, or that of the one that holds this node's address.
    pub fn uplink_mtu(&self) -> u32 {
        let own = self.objects.node(&self.node);
        let others = self.objects.nodes().filter(|node| node.name != self.node);
        let addresses = |node: &Node| {
            let v4 = node.ipv4_address.map(|net| IpAddr::V4(net.addr()));
            let v6 = node.ipv6_address.map(|net| IpAddr::V6(net.addr()));
            [v4, v6].into_iter().flatten()
        };
        let common = |address: &IpAddr| {
            own.is_none_or(|own| addresses(own).any(|own| own.is_ipv4() == address.is_ipv4()))
        };
        let ways: BTreeSet<u32> = others
            .flat_map(addresses)
            .filter(common)
            .flat_map(|address| self.underlay.ways(address))
            .collect();
        let mtu = |ifindex: &u32| self.underlay.link(*ifindex).map(|link| link.mtu);
        let own = own.and_then(|own| addresses(own).next());
        let of_own = own.and_then(|own| self.underlay.link_with_address(own));
        let least = ways.iter().filter_map(mtu).min();
        least
            .or(of_own.map(|link| link.mtu))
            .unwrap_or(DEFAULT_MTU)
            .min(LARGEST_MTU)
    }
}

/// Whether BGP tells this node nothing, whatever happens.
fn without_peers(config: &Option<SpeakerConfig>) -> bool {
    config.as_ref().is_none_or(|config| {
        config.peers.is_empty()
            && config.dynamic_peers.is_empty()
            && config.interface_peers.is_empty()
    })
}
