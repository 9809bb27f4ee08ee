//! What this node announces: its blocks, and addresses of Services.

use crate::objects::Objects;
use bgp_core::LocalRoute;
use ipnet::IpNet;
use model::{BgpConfiguration, Community, ExternalTrafficPolicy, Node, Service, ServiceType};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A node with this label, whatever its value, announces no address of a Service.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What node `name`, which has `blocks`, announces: blocks, except those of pools that are not
/// exported, and addresses of Services, with what the configuration attaches to them.
pub fn local_routes(
    name: &str,
    blocks: &BTreeSet<IpNet>,
    objects: &Objects,
) -> BTreeSet<LocalRoute> {
    let configuration = objects.bgp_configuration();
    let exported = |block: &&IpNet| {
        !objects
            .pools()
            .any(|pool| pool.disable_bgp_export && pool.cidr.contains(*block))
    };
    let services = match objects.node(name) {
        Some(node) => service_prefixes(node, &configuration, objects),
        None => BTreeSet::new(),
    };
    let blocks = blocks.iter().filter(exported).map(IpNet::trunc);
    let prefixes: BTreeSet<IpNet> = blocks.chain(services).collect();
    let route = |prefix: IpNet| attach(LocalRoute::from(prefix), &configuration);
    prefixes.into_iter().map(route).collect()
}

/// `prefixAdvertisements`: of all entries that hold the prefix come the communities, of the last
/// one that has it the local preference.
fn attach(mut route: LocalRoute, configuration: &BgpConfiguration) -> LocalRoute {
    let all = configuration.prefix_advertisements.iter();
    for entry in all.filter(|entry| entry.cidr.contains(&route.prefix)) {
        for community in &entry.communities {
            match *community {
                Community::Standard(high, low) => {
                    route
                        .communities
                        .push(u32::from(high) << 16 | u32::from(low));
                }
                Community::Large(a, b, c) => route.large_communities.push([a, b, c]),
            }
        }
        route.local_pref = entry.local_preference.or(route.local_pref);
    }
    route.communities.sort_unstable();
    route.communities.dedup();
    route.large_communities.sort_unstable();
    route.large_communities.dedup();
    route
}

/// The ranges of Services whole, and single addresses of those Services whose connections may end
/// on some nodes only, from these nodes.
fn service_prefixes(
    node: &Node,
    configuration: &BgpConfiguration,
    objects: &Objects,
) -> BTreeSet<IpNet> {
    let ranges = Ranges::of(configuration);
    if ranges.is_empty() || node.labels.contains_key(EXCLUDED) {
        return BTreeSet::new();
    }
    let ready = ready_on(&node.name, objects);
    let mut prefixes: BTreeSet<IpNet> = ranges.whole().collect();
    for service in objects.services() {
        let local = service.external_traffic_policy == ExternalTrafficPolicy::Local;
        let key = (service.namespace.as_str(), service.name.as_str());
        if !has_addresses(service) || (local && !ready.contains(&key)) {
            continue;
        }
        let announced: Vec<IpAddr> = if local {
            ranges.addresses(service).collect()
        } else if ranges.load_balancers_apart {
            ranges.load_balancer_addresses(service).collect()
        } else {
            continue;
        };
        prefixes.extend(announced.into_iter().map(IpNet::from));
    }
    prefixes
}

/// Whether kube-proxy would serve any address of it: not for a headless Service or an alias.
fn has_addresses(service: &Service) -> bool {
    service.service_type != ServiceType::ExternalName && !service.cluster_ips.is_empty()
}

/// Services, by namespace and name, that have a ready endpoint on a node.
fn ready_on<'a>(node: &str, objects: &'a Objects) -> BTreeSet<(&'a str, &'a str)> {
    let slices = objects.endpoint_slices();
    slices
        .filter(|slice| slice.ready_nodes.contains(node))
        .map(|slice| (slice.namespace.as_str(), slice.service.as_str()))
        .collect()
}

/// The ranges of which addresses are announced.
struct Ranges<'a> {
    cluster: &'a [IpNet],
    external: &'a [IpNet],
    load_balancer: &'a [IpNet],
    /// Load balancer addresses are announced one by one.
    load_balancers_apart: bool,
}

impl<'a> Ranges<'a> {
    fn of(configuration: &'a BgpConfiguration) -> Self {
        Self {
            cluster: &configuration.service_cluster_ips,
            external: &configuration.service_external_ips,
            load_balancer: &configuration.service_load_balancer_ips,
            load_balancers_apart: !configuration.service_load_balancer_aggregation,
        }
    }

    fn is_empty(&self) -> bool {
        self.cluster.is_empty() && self.external.is_empty() && self.load_balancer.is_empty()
    }

    /// Those that every node announces as they are.
    fn whole(&self) -> impl Iterator<Item = IpNet> + '_ {
        let load_balancer = if self.load_balancers_apart {
            &[][..]
        } else {
            self.load_balancer
        };
        let all = self.cluster.iter().chain(self.external);
        all.chain(load_balancer).map(IpNet::trunc)
    }

    fn addresses(&self, service: &'a Service) -> impl Iterator<Item = IpAddr> {
        inside(&service.cluster_ips, self.cluster)
            .chain(inside(&service.external_ips, self.external))
            .chain(self.load_balancer_addresses(service))
    }

    fn load_balancer_addresses(&self, service: &'a Service) -> impl Iterator<Item = IpAddr> {
        inside(&service.load_balancer_ips, self.load_balancer)
    }
}

fn inside<'a>(addresses: &'a [IpAddr], ranges: &'a [IpNet]) -> impl Iterator<Item = IpAddr> {
    let held = |address: &&IpAddr| ranges.iter().any(|range| range.contains(*address));
    addresses.iter().filter(held).copied()
}

/// Every range of which addresses are announced.
pub(crate) fn service_ranges(configuration: &BgpConfiguration) -> BTreeSet<IpNet> {
    let cluster = configuration.service_cluster_ips.iter();
    let external = configuration.service_external_ips.iter();
    let load_balancer = configuration.service_load_balancer_ips.iter();
    let all = cluster.chain(external).chain(load_balancer);
    all.map(IpNet::trunc).collect()
}

#[cfg(test)]
mod tests;
