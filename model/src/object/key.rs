//! Kinds and keys.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The kinds that a datastore holds. `Node` is both core/v1 and `projectcalico.org/v3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum Kind {
    Namespace,
    Pod,
    Node,
    /// `networking.k8s.io/v1`
    NetworkPolicy,
    IpPool,
    BgpConfiguration,
    BgpPeer,
    WorkloadEndpoint,
    IpamBlock,
    ServiceAccount,
    EndpointSlice,
    ClusterNetworkPolicy,
    Tier,
    /// `NetworkPolicy` of `projectcalico.org/v3`.
    CalicoNetworkPolicy,
    GlobalNetworkPolicy,
    StagedNetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    NetworkSet,
    GlobalNetworkSet,
    HostEndpoint,
    Profile,
    IpReservation,
    Service,
    BgpFilter,
    FelixConfiguration,
    Secret,
    CalicoNodeStatus,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 28] = [
        Self::Namespace,
        Self::Pod,
        Self::Node,
        Self::NetworkPolicy,
        Self::IpPool,
        Self::BgpConfiguration,
        Self::BgpPeer,
        Self::WorkloadEndpoint,
        Self::IpamBlock,
        Self::ServiceAccount,
        Self::EndpointSlice,
        Self::ClusterNetworkPolicy,
        Self::Tier,
        Self::CalicoNetworkPolicy,
        Self::GlobalNetworkPolicy,
        Self::StagedNetworkPolicy,
        Self::StagedGlobalNetworkPolicy,
        Self::StagedKubernetesNetworkPolicy,
        Self::NetworkSet,
        Self::GlobalNetworkSet,
        Self::HostEndpoint,
        Self::Profile,
        Self::IpReservation,
        Self::Service,
        Self::BgpFilter,
        Self::FelixConfiguration,
        Self::Secret,
        Self::CalicoNodeStatus,
    ];

    /// The `kind:` of a manifest. Two kinds are called `NetworkPolicy`; `Display` tells them apart.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::NetworkPolicy | Self::CalicoNetworkPolicy => "NetworkPolicy",
            Self::IpPool => "IPPool",
            Self::BgpConfiguration => "BGPConfiguration",
            Self::BgpPeer => "BGPPeer",
            Self::WorkloadEndpoint => "WorkloadEndpoint",
            Self::IpamBlock => "IPAMBlock",
            Self::ServiceAccount => "ServiceAccount",
            Self::EndpointSlice => "EndpointSlice",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::Tier => "Tier",
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Self::StagedNetworkPolicy => "StagedNetworkPolicy",
            Self::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
            Self::StagedKubernetesNetworkPolicy => "StagedKubernetesNetworkPolicy",
            Self::NetworkSet => "NetworkSet",
            Self::GlobalNetworkSet => "GlobalNetworkSet",
            Self::HostEndpoint => "HostEndpoint",
            Self::Profile => "Profile",
            Self::Service => "Service",
            Self::Secret => "Secret",
            Self::BgpFilter => "BGPFilter",
            Self::FelixConfiguration => "FelixConfiguration",
            Self::IpReservation => "IPReservation",
            Self::CalicoNodeStatus => "CalicoNodeStatus",
        }
    }

    /// Whether objects of this kind stand in a namespace.
    pub fn is_namespaced(self) -> bool {
        match self {
            Self::Pod
            | Self::NetworkPolicy
            | Self::WorkloadEndpoint
            | Self::ServiceAccount
            | Self::EndpointSlice
            | Self::Service
            | Self::Secret
            | Self::CalicoNetworkPolicy
            | Self::StagedNetworkPolicy
            | Self::StagedKubernetesNetworkPolicy
            | Self::NetworkSet => true,
            Self::Namespace
            | Self::Node
            | Self::IpPool
            | Self::BgpConfiguration
            | Self::BgpPeer
            | Self::IpamBlock
            | Self::IpReservation
            | Self::ClusterNetworkPolicy
            | Self::Tier
            | Self::GlobalNetworkPolicy
            | Self::StagedGlobalNetworkPolicy
            | Self::GlobalNetworkSet
            | Self::HostEndpoint
            | Self::Profile
            | Self::BgpFilter
            | Self::FelixConfiguration
            | Self::CalicoNodeStatus => false,
        }
    }

    /// Whether objects of this kind are written by agents; all others are users'.
    pub fn is_written_by_agents(self) -> bool {
        matches!(self, Self::WorkloadEndpoint | Self::IpamBlock)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CalicoNetworkPolicy => f.write_str("NetworkPolicy.projectcalico.org"),
            kind => f.write_str(kind.as_str()),
        }
    }
}

/// Identity of an object: prints as `NetworkPolicy/shop/api`,
/// `NetworkPolicy.projectcalico.org/shop/api` or `BGPPeer/rack1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// What it is.
    pub kind: Kind,
    /// Its namespace; none for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// Key of a cluster-scoped object.
    pub fn global(kind: Kind, name: &str) -> Self {
        Self {
            kind,
            namespace: None,
            name: name.to_owned(),
        }
    }

    /// Key of a namespaced object.
    pub fn namespaced(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}
