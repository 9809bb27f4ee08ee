//! The nouns of Ocicat.
//!
//! Pure: values in, values out. Nothing here reads a clock, a file or a socket.
//!
//! | module | what it holds |
//! |---|---|
//! | [`names`] | every name that the outside sees: sockets, paths, ports, table, protocol numbers |
//! | [`labels`], [`selector`] | labels and the selectors over them |
//! | [`object`] | typed Kubernetes and Calico objects |
//! | [`manifest`] | one parsed YAML or JSON document -> object, with errors that name object, field and reason |
//! | [`schema`] | what a cluster must know to store Calico's kinds: CustomResourceDefinitions |
//! | [`lease`] | the record of an election among agents |
//! | [`update`] | [`Update`], what every datastore yields |
//! | [`dataplane`] | routes, links and neighbours as the kernel has them |
//! | [`cni`] | the messages between the CNI plugin and the agent |

pub mod cni;
pub mod dataplane;
pub mod labels;
pub mod lease;
pub mod manifest;
pub mod names;
pub mod object;
pub mod schema;
pub mod selector;
pub mod sharing;
pub mod text;
pub mod update;

pub use labels::Labels;
pub use lease::Lease;
pub use manifest::{ManifestError, Parsed};
pub use object::{
    AddPath, Allocation, AllowedUse, Annotations, BfdProfile, BgpConfiguration, BgpFilter,
    BgpFilterAction, BgpFilterOperation, BgpFilterRule, BgpPeer, BgpPeerType, BgpRole, BgpRoleName,
    BindMode, BlockAllocations, CalicoAction, CalicoNodeStatus, CalicoPolicy, CalicoPort,
    CalicoRule, ClusterAction, ClusterNetworkPolicy, ClusterPeer, ClusterPods, ClusterPort,
    ClusterRule, ClusterTier, Community, DynamicPeers, EncapMode, EndpointSlice,
    EndpointToHostAction, EntityRule, ExternalTrafficPolicy, FailsafePort, FelixConfiguration,
    HostEndpoint, HostPort, IcmpMatch, IpFamily, IpPool, IpReservation, IpVersion, IpamBlock, Kind,
    MatchOperator, MaxPrefixes, NamedPort, Namespace, NatOutgoingExclusions, NetworkPolicy,
    NetworkSet, NextHopMode, Node, NodeStatusClass, Object, ObjectKey, Order, Pod, PolicyPeer,
    PolicyPort, PolicyRule, PortMatch, PrefixAdvertisement, PrefixMatch, Profile, Protocol,
    RemoteAs, Secret, SecretKeyRef, SecretValue, Service, ServiceAccount, ServiceAccountMatch,
    ServiceLoopPrevention, ServiceMatch, ServicePort, ServiceType, StagedAction,
    StagedKubernetesPolicy, Tier, TierDefault, WorkloadEndpoint,
};
pub use selector::{Selector, SelectorError};
pub use sharing::{Pool, Sharing};
pub use text::Text;
pub use update::{Invalid, Update};
