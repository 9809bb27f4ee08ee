//! Pods of this node that are BGP peers (`localWorkloadSelector`), and what is behind them.

use super::Calc;
use crate::bgp::LocalPod;
use crate::workloads::seen;
use ipnet::IpNet;
use model::dataplane::RouteKind;
use model::{Labels, names};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Labels that Calico gives to workload endpoints, for their namespace (`pcns.` and its label).
const NAMESPACE: &str = "projectcalico.org/namespace";
const ORCHESTRATOR: &str = "projectcalico.org/orchestrator";
const OF_NAMESPACE: &str = "pcns.";

/// What has to change in the addresses of a pod's host end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readdress {
    /// Index of the host end.
    pub ifindex: u32,
    /// Addresses that it lacks.
    pub add: Vec<IpAddr>,
    /// Addresses that it has and should not.
    pub remove: Vec<IpNet>,
}

impl Calc {
    /// Whether labels of pods decide about sessions.
    pub(super) fn peers_with_pods(&self) -> bool {
        let mut peers = self.objects.bgp_peers();
        peers.any(|peer| peer.local_workload_selector.is_some())
    }

    /// This node's pods with their labels; those whose labels are not known are left out.
    pub(super) fn pods_to_peer_with(&self) -> Vec<LocalPod> {
        if !self.peers_with_pods() {
            return Vec::new();
        }
        let pods = self.local.values().filter_map(|local| {
            let pod = seen(&local.endpoint, Some(local.ifindex), &self.objects)?;
            pod.labels_known.then(|| LocalPod {
                labels: self.labels_of(pod.labels, &pod.namespace),
                addresses: pod.ips,
                ifindex: local.ifindex,
            })
        });
        pods.collect()
    }

    fn labels_of(&self, mut labels: Labels, namespace: &str) -> Labels {
        let mut namespaces = self.objects.namespaces();
        if let Some(found) = namespaces.find(|found| found.name == namespace) {
            let inherited = found.labels.iter();
            labels.extend(
                inherited.map(|(key, value)| (format!("{OF_NAMESPACE}{key}"), value.clone())),
            );
        }
        labels.insert(NAMESPACE.to_owned(), namespace.to_owned());
        labels.insert(ORCHESTRATOR.to_owned(), "k8s".to_owned());
        labels
    }

    /// Of these prefixes: those that lead through a pod which is a peer. Packets from there may
    /// come from the pod, and those to there may go to it.
    pub(super) fn resolve_behind(&mut self, prefixes: &BTreeSet<IpNet>) {
        if self.topology.workloads.is_empty() && self.behind.is_empty() {
            return;
        }
        let pods: BTreeSet<u32> = self.topology.workloads.values().copied().collect();
        let through = |prefix: &IpNet| -> BTreeSet<u32> {
            match self.desired.route(prefix) {
                Some(RouteKind::Via(hops)) => {
                    let links = hops.iter().filter_map(|hop| hop.ifindex);
                    links.filter(|ifindex| pods.contains(ifindex)).collect()
                }
                Some(RouteKind::Device { .. } | RouteKind::Blackhole) | None => BTreeSet::new(),
            }
        };
        let found: BTreeMap<IpNet, BTreeSet<u32>> = prefixes
            .iter()
            .map(|prefix| (*prefix, through(prefix)))
            .collect();
        for (prefix, interfaces) in found {
            if interfaces.is_empty() {
                self.behind.remove(&prefix);
            } else {
                self.behind.insert(prefix, interfaces);
            }
        }
        let all = self.behind.iter();
        let all = all.flat_map(|(prefix, links)| links.iter().map(|link| (*link, *prefix)));
        self.compiler.set_behind_pods(all.collect());
    }

    /// Host ends of pods whose addresses are not those of [`super::Desired::peering`].
    pub fn host_ends_to_readdress(&self) -> Vec<Readdress> {
        // Somebody else's link is left alone, also one that has a name such as ours.
        let pods: BTreeSet<u32> = self.local.values().map(|local| local.ifindex).collect();
        let host_end = |ifindex: u32| {
            let link = self.underlay.link(ifindex);
            let named = link.is_some_and(|link| link.name.starts_with(names::INTERFACE_PREFIX));
            named && pods.contains(&ifindex)
        };
        let mut present: BTreeMap<u32, BTreeSet<IpNet>> = BTreeMap::new();
        for (ifindex, net) in self.underlay.held() {
            let linklocal = matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local());
            if !linklocal && host_end(ifindex) {
                present.entry(ifindex).or_default().insert(net);
            }
        }
        let wanted = self.desired.peering.keys();
        let ends: BTreeSet<u32> = wanted.chain(present.keys()).copied().collect();
        let (none, nothing) = (BTreeSet::new(), BTreeSet::new());
        let ends = ends
            .into_iter()
            .filter(|ifindex| host_end(*ifindex))
            .map(|ifindex| {
                let present = present.get(&ifindex).unwrap_or(&none);
                let wanted = self.desired.peering.get(&ifindex).unwrap_or(&nothing);
                let is_there = |ip: &&IpAddr| present.contains(&IpNet::from(**ip));
                let is_wanted = |net: &&IpNet| wanted.iter().any(|ip| IpNet::from(*ip) == **net);
                Readdress {
                    ifindex,
                    add: wanted.iter().filter(|ip| !is_there(ip)).copied().collect(),
                    remove: present
                        .iter()
                        .filter(|net| !is_wanted(net))
                        .copied()
                        .collect(),
                }
            });
        ends.filter(|change| !change.add.is_empty() || !change.remove.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests;
