//! Typed objects: what Ocicat uses of each kind, already defaulted and validated.

mod bgp;
mod bgp_filter;
mod calico_policy;
mod cluster_policy;
mod felix;
mod ipam;
mod key;
mod node;
mod node_status;
mod policy;
mod secret;
mod service;
mod workload;

pub use bgp::{
    AddPath, BfdProfile, BgpConfiguration, BgpPeer, BgpRole, BgpRoleName, BindMode, Community,
    CommunityError, DynamicPeers, MaxPrefixes, NextHopMode, PrefixAdvertisement, RemoteAs,
    SecretKeyRef,
};
pub use bgp_filter::{
    BgpFilter, BgpFilterAction, BgpFilterOperation, BgpFilterRule, BgpPeerType, MatchOperator,
    PrefixMatch,
};
pub use calico_policy::{
    CalicoAction, CalicoPolicy, CalicoPort, CalicoRule, EndpointSlice, EntityRule, HostEndpoint,
    IcmpMatch, IpVersion, NetworkSet, Order, Profile, ServiceAccount, ServiceAccountMatch,
    ServiceMatch, StagedAction, StagedKubernetesPolicy, Tier, TierDefault,
};
pub use cluster_policy::{
    ClusterAction, ClusterNetworkPolicy, ClusterPeer, ClusterPods, ClusterPort, ClusterRule,
    ClusterTier,
};
pub use felix::{
    EndpointToHostAction, FailsafePort, FelixConfiguration, NatOutgoingExclusions,
    ServiceLoopPrevention,
};
pub use ipam::{
    Allocation, AllowedUse, AssignmentMode, BlockAllocations, EncapMode, IpPool, IpReservation,
    IpamBlock,
};
pub use key::{Kind, ObjectKey};
pub use node::Node;
pub use node_status::{CalicoNodeStatus, NodeStatusClass};
pub use policy::{NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol};
pub use secret::{Secret, SecretValue};
pub use service::{ExternalTrafficPolicy, IpFamily, Service, ServicePort, ServiceType};
pub use workload::{Annotations, HostPort, NamedPort, Namespace, Pod, WorkloadEndpoint};

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Any object that a datastore holds. A cluster has more pods than anything else: what is larger
/// than a [`Pod`] stands elsewhere. Policies are shared with what compiles them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is documented on its type
pub enum Object {
    Namespace(Namespace),
    Pod(Pod),
    Node(Node),
    NetworkPolicy(#[serde(with = "shared")] Arc<NetworkPolicy>),
    IpPool(Box<IpPool>),
    BgpConfiguration(Box<BgpConfiguration>),
    BgpPeer(Box<BgpPeer>),
    WorkloadEndpoint(Box<WorkloadEndpoint>),
    IpamBlock(IpamBlock),
    ServiceAccount(ServiceAccount),
    EndpointSlice(Box<EndpointSlice>),
    ClusterNetworkPolicy(#[serde(with = "shared")] Arc<ClusterNetworkPolicy>),
    Tier(Tier),
    /// Of four kinds: see [`CalicoPolicy::kind`].
    CalicoPolicy(#[serde(with = "shared")] Arc<CalicoPolicy>),
    StagedKubernetesPolicy(#[serde(with = "shared")] Arc<StagedKubernetesPolicy>),
    /// `NetworkSet` with a namespace, `GlobalNetworkSet` without.
    NetworkSet(NetworkSet),
    HostEndpoint(Box<HostEndpoint>),
    Profile(Profile),
    IpReservation(IpReservation),
    Service(Box<Service>),
    BgpFilter(Box<BgpFilter>),
    FelixConfiguration(Box<FelixConfiguration>),
    Secret(Secret),
    CalicoNodeStatus(CalicoNodeStatus),
}

/// What is shared reads and writes as if it were not.
mod shared {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}

impl Object {
    /// The object's identity.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Namespace(o) => ObjectKey::global(Kind::Namespace, &o.name),
            Self::Pod(o) => ObjectKey::namespaced(Kind::Pod, &o.namespace, &o.name),
            Self::Node(o) => ObjectKey::global(Kind::Node, &o.name),
            Self::NetworkPolicy(o) => {
                ObjectKey::namespaced(Kind::NetworkPolicy, &o.namespace, &o.name)
            }
            Self::IpPool(o) => ObjectKey::global(Kind::IpPool, &o.name),
            Self::BgpConfiguration(o) => ObjectKey::global(Kind::BgpConfiguration, &o.name),
            Self::BgpPeer(o) => ObjectKey::global(Kind::BgpPeer, &o.name),
            Self::WorkloadEndpoint(o) => {
                ObjectKey::namespaced(Kind::WorkloadEndpoint, &o.namespace, &o.name)
            }
            Self::IpamBlock(o) => ObjectKey::global(Kind::IpamBlock, &o.name()),
            Self::ServiceAccount(o) => {
                ObjectKey::namespaced(Kind::ServiceAccount, &o.namespace, &o.name)
            }
            Self::EndpointSlice(o) => {
                ObjectKey::namespaced(Kind::EndpointSlice, &o.namespace, &o.name)
            }
            Self::ClusterNetworkPolicy(o) => ObjectKey::global(Kind::ClusterNetworkPolicy, &o.name),
            Self::Tier(o) => ObjectKey::global(Kind::Tier, &o.name),
            Self::CalicoPolicy(o) => ObjectKey {
                kind: o.kind(),
                namespace: o.namespace.clone(),
                name: o.name.clone(),
            },
            Self::StagedKubernetesPolicy(o) => ObjectKey::namespaced(
                Kind::StagedKubernetesNetworkPolicy,
                &o.policy.namespace,
                &o.policy.name,
            ),
            Self::NetworkSet(o) => ObjectKey {
                kind: o.kind(),
                namespace: o.namespace.clone(),
                name: o.name.clone(),
            },
            Self::HostEndpoint(o) => ObjectKey::global(Kind::HostEndpoint, &o.name),
            Self::Profile(o) => ObjectKey::global(Kind::Profile, &o.name),
            Self::Service(o) => ObjectKey::namespaced(Kind::Service, &o.namespace, &o.name),
            Self::Secret(o) => ObjectKey::namespaced(Kind::Secret, &o.namespace, &o.name),
            Self::BgpFilter(o) => ObjectKey::global(Kind::BgpFilter, &o.name),
            Self::FelixConfiguration(o) => ObjectKey::global(Kind::FelixConfiguration, &o.name),
            Self::IpReservation(o) => ObjectKey::global(Kind::IpReservation, &o.name),
            Self::CalicoNodeStatus(o) => ObjectKey::global(Kind::CalicoNodeStatus, &o.name),
        }
    }
}
