//! Typed objects: what Ocicat uses of each kind, already defaulted and validated.

mod bgp;
mod calico_policy;
mod cluster_policy;
mod ipam;
mod key;
mod node;
mod policy;
mod workload;

pub use bgp::{BgpConfiguration, BgpPeer};
pub use calico_policy::{
    CalicoAction, CalicoPolicy, CalicoPort, CalicoRule, EndpointSlice, EntityRule, HostEndpoint,
    IcmpMatch, IpVersion, NetworkSet, Order, Profile, ServiceAccount, ServiceAccountMatch,
    ServiceMatch, StagedAction, StagedKubernetesPolicy, Tier, TierDefault,
};
pub use cluster_policy::{
    ClusterAction, ClusterNetworkPolicy, ClusterPeer, ClusterPods, ClusterPort, ClusterRule,
    ClusterTier,
};
pub use ipam::{AllowedUse, AssignmentMode, EncapMode, IpPool, IpamBlock};
pub use key::{Kind, ObjectKey};
pub use node::Node;
pub use policy::{NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol};
pub use workload::{HostPort, NamedPort, Namespace, Pod, WorkloadEndpoint};

use serde::{Deserialize, Serialize};

/// Any object that a datastore holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is documented on its type
pub enum Object {
    Namespace(Namespace),
    Pod(Pod),
    Node(Node),
    NetworkPolicy(NetworkPolicy),
    IpPool(IpPool),
    BgpConfiguration(BgpConfiguration),
    BgpPeer(BgpPeer),
    WorkloadEndpoint(WorkloadEndpoint),
    IpamBlock(IpamBlock),
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
        }
    }
}
