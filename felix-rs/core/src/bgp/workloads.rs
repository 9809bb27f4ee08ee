//! `localWorkloadSelector`: pods of this node that are BGP peers.

use super::peers::{Builder, stated_as};
use bgp_core::{Import, PeerKey, RemoteAs};
use model::{BgpPeer, Kind, Labels};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const FIELD: &str = "spec.localWorkloadSelector";

/// A pod of this node, as selectors of peers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalPod {
    /// Its own labels, and those that Calico gives it for its namespace.
    pub labels: Labels,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Interface index of its host end.
    pub ifindex: u32,
}

/// Pods that are peers: their address, and the interface that they are on.
pub(crate) type Workloads = BTreeMap<IpAddr, u32>;

impl Builder<'_> {
    /// One session for each address of a selected pod. The pod connects to the address that the
    /// BGPConfiguration says; nothing that it announces is taken unless a filter accepts it.
    pub(super) fn add_workloads(&mut self, object: &BgpPeer, pods: &[LocalPod]) {
        let Some(selector) = &object.local_workload_selector else {
            return;
        };
        let configuration = self.objects.bgp_configuration();
        let v4 = configuration.local_workload_peering_ipv4.is_some();
        let v6 = configuration.local_workload_peering_ipv6.is_some();
        if !v4 && !v6 {
            let reason = "BGPConfiguration/default has no localWorkloadPeeringIPV4 or \
                          localWorkloadPeeringIPV6 that pods could connect to, so there is no session";
            return self.refuse(Kind::BgpPeer, &object.name, FIELD, reason);
        }
        let remote_as = stated_as(object);
        if remote_as == RemoteAs::Auto {
            let reason = "is required beside localWorkloadSelector, so there is no session";
            return self.refuse(Kind::BgpPeer, &object.name, "spec.asNumber", reason);
        }
        for pod in pods.iter().filter(|pod| selector.matches(&pod.labels)) {
            for address in &pod.addresses {
                if if address.is_ipv4() { v4 } else { v6 } {
                    self.add_workload(object, *address, pod.ifindex, remote_as);
                }
            }
        }
    }

    fn add_workload(
        &mut self,
        object: &BgpPeer,
        address: IpAddr,
        ifindex: u32,
        remote_as: RemoteAs,
    ) {
        let key = PeerKey::new(address, object.peer_port);
        if let Some(other) = self.peers.get(&key) {
            let reason = format!("{address} is the peer of {} already", other.name);
            return self.refuse(Kind::BgpPeer, &object.name, FIELD, reason);
        }
        if let Some(mut peer) = self.session(object, remote_as, Some(address)) {
            peer.passive = true;
            // The address that the pod connects to.
            peer.source_address = None;
            peer.import = Import::None;
            self.peers.insert(key, peer);
            self.workloads.insert(address, ifindex);
        }
    }

    /// The addresses by which these pods reach their node, by the interface that has to hold them.
    pub(super) fn peering_addresses(&self) -> BTreeMap<u32, BTreeSet<IpAddr>> {
        let configuration = self.objects.bgp_configuration();
        let v4 = configuration.local_workload_peering_ipv4.map(IpAddr::V4);
        let v6 = configuration.local_workload_peering_ipv6.map(IpAddr::V6);
        let mut addresses: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        for (pod, ifindex) in &self.workloads {
            let ours = if pod.is_ipv4() { v4 } else { v6 };
            addresses.entry(*ifindex).or_default().extend(ours);
        }
        addresses
    }
}
