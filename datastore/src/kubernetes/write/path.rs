//! Where objects are in the API.

use model::{Kind, ObjectKey};

const CALICO: &str = "projectcalico.org/v3";

/// `apiVersion` and plural of a kind that is written, or that a status is written about.
pub(super) fn resource(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Namespace => ("v1", "namespaces"),
        Kind::Pod => ("v1", "pods"),
        Kind::Node => ("v1", "nodes"),
        Kind::Service => ("v1", "services"),
        Kind::ServiceAccount => ("v1", "serviceaccounts"),
        Kind::Secret => ("v1", "secrets"),
        Kind::EndpointSlice => ("discovery.k8s.io/v1", "endpointslices"),
        Kind::NetworkPolicy => ("networking.k8s.io/v1", "networkpolicies"),
        Kind::ClusterNetworkPolicy => (
            "policy.networking.k8s.io/v1alpha2",
            "clusternetworkpolicies",
        ),
        Kind::IpPool => (CALICO, "ippools"),
        Kind::IpReservation => (CALICO, "ipreservations"),
        Kind::IpamBlock => (CALICO, "ipamblocks"),
        Kind::BgpConfiguration => (CALICO, "bgpconfigurations"),
        Kind::BgpPeer => (CALICO, "bgppeers"),
        Kind::BgpFilter => (CALICO, "bgpfilters"),
        Kind::WorkloadEndpoint => (CALICO, "workloadendpoints"),
        Kind::Tier => (CALICO, "tiers"),
        Kind::CalicoNetworkPolicy => (CALICO, "networkpolicies"),
        Kind::GlobalNetworkPolicy => (CALICO, "globalnetworkpolicies"),
        Kind::StagedNetworkPolicy => (CALICO, "stagednetworkpolicies"),
        Kind::StagedGlobalNetworkPolicy => (CALICO, "stagedglobalnetworkpolicies"),
        Kind::StagedKubernetesNetworkPolicy => (CALICO, "stagedkubernetesnetworkpolicies"),
        Kind::NetworkSet => (CALICO, "networksets"),
        Kind::GlobalNetworkSet => (CALICO, "globalnetworksets"),
        Kind::HostEndpoint => (CALICO, "hostendpoints"),
        Kind::Profile => (CALICO, "profiles"),
        Kind::CalicoNodeStatus => (CALICO, "caliconodestatuses"),
        Kind::FelixConfiguration => (CALICO, "felixconfigurations"),
    }
}

/// The path of all objects of a kind, in a namespace where it has any.
pub(super) fn collection(kind: Kind, namespace: Option<&str>) -> String {
    let (version, plural) = resource(kind);
    under(version, plural, namespace)
}

/// The path of an object.
pub(super) fn object(key: &ObjectKey) -> String {
    let collection = collection(key.kind, key.namespace.as_deref());
    format!("{collection}/{}", key.name)
}

/// The path of the objects of an `apiVersion` with this plural.
pub(super) fn under(version: &str, plural: &str, namespace: Option<&str>) -> String {
    let root = if version.contains('/') { "apis" } else { "api" };
    match namespace {
        Some(namespace) => format!("/{root}/{version}/namespaces/{namespace}/{plural}"),
        None => format!("/{root}/{version}/{plural}"),
    }
}
