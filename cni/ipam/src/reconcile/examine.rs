//! One look.

use super::{Finding, Gone, Holder, Picture};
use crate::journal::Live;
use crate::{Owner, registry::Registry};
use ipnet::IpNet;
use model::{Pod, WorkloadEndpoint};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Everything that differs, in a fixed order.
pub fn examine(picture: &Picture<'_>) -> Vec<Finding> {
    let mut findings = leaks(picture);
    findings.extend(unjournaled(picture));
    findings.extend(stray_links(picture));
    findings.extend(stale_endpoints(picture));
    let holders = holders(picture);
    findings.extend(doubled(&holders));
    findings.extend(foreign(picture, &holders));
    findings.sort_unstable();
    findings.dedup();
    findings
}

fn leaks(picture: &Picture<'_>) -> Vec<Finding> {
    let links: BTreeMap<u32, &str> = picture
        .links
        .iter()
        .map(|link| (link.ifindex, link.name.as_str()))
        .collect();
    let leaked = picture
        .journal
        .endpoints
        .iter()
        .filter_map(|(owner, live)| {
            let endpoint = &live.endpoint;
            let has_namespace = links.get(&live.ifindex) == Some(&endpoint.interface_name.as_str());
            let why = match (verdict(picture, owner, live), has_namespace) {
                (Verdict::NotListed, _) => Gone::NotListed,
                (Verdict::PodGone, true) => Gone::PodGone,
                (Verdict::PodGone | Verdict::Unknown, false) => Gone::NamespaceGone,
                (Verdict::Lives, _) | (Verdict::Unknown, true) => return None,
            };
            Some(Finding::Leaked {
                holder: Holder::from(endpoint),
                interface: endpoint.endpoint.to_string(),
                addresses: endpoint.ip_networks.iter().map(IpNet::addr).collect(),
                sequence: live.sequence,
                why,
            })
        });
    leaked.collect()
}

/// What is said about whether an endpoint should live.
enum Verdict {
    Lives,
    NotListed,
    PodGone,
    Unknown,
}

fn verdict(picture: &Picture<'_>, owner: &Owner, live: &Live) -> Verdict {
    let list = picture.listed.get(&live.network);
    if let Some(list) = list.filter(|list| live.sequence < list.horizon) {
        return if list.valid.contains(owner) {
            Verdict::Lives
        } else {
            Verdict::NotListed
        };
    }
    let endpoint = &live.endpoint;
    let pod = picture
        .pods
        .get(&(endpoint.namespace.as_str(), endpoint.pod.as_str()));
    match pod {
        None => Verdict::Unknown,
        Some(pod) if pod.finished || is_another(pod, endpoint) => Verdict::PodGone,
        // The pod's later sandbox has taken its place.
        Some(_) if is_superseded(picture, live) => Verdict::PodGone,
        Some(_) => Verdict::Lives,
    }
}

fn is_another(pod: &Pod, endpoint: &WorkloadEndpoint) -> bool {
    let uids = pod.uid.as_ref().zip(endpoint.pod_uid.as_ref());
    uids.is_some_and(|(object, endpoint)| object != endpoint)
}

fn is_superseded(picture: &Picture<'_>, live: &Live) -> bool {
    let (mine, mut others) = (&live.endpoint, picture.journal.endpoints.values());
    others.any(|other| {
        let theirs = &other.endpoint;
        other.sequence > live.sequence
            && theirs.pod == mine.pod
            && theirs.namespace == mine.namespace
            && theirs.endpoint == mine.endpoint
    })
}

fn unjournaled(picture: &Picture<'_>) -> Vec<Finding> {
    let journal = picture.journal;
    let known = |owner: &Owner, ip: &IpAddr| {
        if owner.is_tunnel() {
            return journal.tunnels.get(&owner.ifname) == Some(ip);
        }
        let live = journal.endpoints.get(owner);
        live.is_some_and(|live| live.endpoint.ip_networks.contains(&IpNet::from(*ip)))
    };
    let held = picture.ipam.owners.iter();
    let unknown = held.filter(|(ip, owner)| !known(owner, ip));
    unknown
        .map(|(ip, owner)| Finding::Unjournaled {
            address: *ip,
            container: owner.container_id.clone(),
            interface: owner.ifname.clone(),
        })
        .collect()
}

fn stray_links(picture: &Picture<'_>) -> Vec<Finding> {
    if picture.endpoints.is_none() {
        return Vec::new();
    }
    let endpoints = picture.journal.endpoints.values();
    let known: BTreeSet<u32> = endpoints.map(|live| live.ifindex).collect();
    let stray = picture
        .links
        .iter()
        .filter(|link| !known.contains(&link.ifindex));
    stray
        .map(|link| Finding::StrayLink {
            name: link.name.clone(),
            ifindex: link.ifindex,
        })
        .collect()
}

fn stale_endpoints(picture: &Picture<'_>) -> Vec<Finding> {
    let ours = picture.journal.endpoints.values();
    let ours: BTreeSet<_> = ours
        .map(|live| (&live.endpoint.namespace, &live.endpoint.name))
        .collect();
    let all = picture.endpoints.iter().flatten();
    let stale = all.filter(|endpoint| {
        endpoint.node == picture.node && !ours.contains(&(&endpoint.namespace, &endpoint.name))
    });
    stale
        .map(|endpoint| Finding::StaleEndpoint {
            holder: Holder::from(*endpoint),
            name: endpoint.name.to_string(),
        })
        .collect()
}

/// Who has addresses that are this node's business: those of its own endpoints, by its journal,
/// and of others, by the datastore, those that its own endpoints have too or that are in its own
/// blocks. A cluster's other endpoints are passed over without a copy.
fn holders<'a>(picture: &'a Picture<'_>) -> BTreeMap<IpAddr, Vec<&'a WorkloadEndpoint>> {
    let own = picture
        .journal
        .endpoints
        .values()
        .map(|live| &live.endpoint);
    let mut holders: BTreeMap<IpAddr, Vec<&WorkloadEndpoint>> = BTreeMap::new();
    for endpoint in own {
        for net in &endpoint.ip_networks {
            holders.entry(net.addr()).or_default().push(endpoint);
        }
    }
    let blocks = picture.blocks.iter().flatten();
    let blocks: Vec<IpNet> = blocks
        .filter(|block| block.node == picture.node)
        .map(|block| block.cidr)
        .collect();
    let others = picture.endpoints.iter().flatten();
    for endpoint in others.filter(|endpoint| endpoint.node != picture.node) {
        for ip in endpoint.ip_networks.iter().map(IpNet::addr) {
            if holders.contains_key(&ip) || blocks.iter().any(|block| block.contains(&ip)) {
                holders.entry(ip).or_default().push(endpoint);
            }
        }
    }
    holders
}

fn doubled(holders: &BTreeMap<IpAddr, Vec<&WorkloadEndpoint>>) -> Vec<Finding> {
    let several = holders.iter().filter(|(_, holders)| holders.len() > 1);
    several
        .map(|(address, endpoints)| {
            let mut holders: Vec<Holder> = endpoints.iter().map(|e| Holder::from(*e)).collect();
            holders.sort_unstable();
            Finding::Doubled {
                address: *address,
                holders,
            }
        })
        .collect()
}

fn foreign(
    picture: &Picture<'_>,
    holders: &BTreeMap<IpAddr, Vec<&WorkloadEndpoint>>,
) -> Vec<Finding> {
    let Some(blocks) = &picture.blocks else {
        return Vec::new();
    };
    let mut registry = Registry::default();
    for block in blocks {
        registry.set(block.cidr, block.node.clone());
    }
    let mut findings = Vec::new();
    for (address, endpoints) in holders {
        let around: Vec<(IpNet, &str)> = registry.overlapping(IpNet::from(*address)).collect();
        for endpoint in endpoints {
            if around.iter().any(|(_, node)| *node == endpoint.node) {
                continue;
            }
            if let Some((block, owner)) = around.first() {
                findings.push(Finding::Foreign {
                    address: *address,
                    holder: Holder::from(*endpoint),
                    block: *block,
                    owner: (*owner).to_owned(),
                });
            }
        }
    }
    findings
}
