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
pub mod selector;
pub mod update;

pub use labels::Labels;
pub use lease::Lease;
pub use manifest::{ManifestError, Parsed};
pub use object::{
    Annotations, BgpConfiguration, BgpPeer, EncapMode, IpPool, IpReservation, IpamBlock, Kind,
    NamedPort, Namespace, NetworkPolicy, Node, Object, ObjectKey, Pod, PolicyPeer, PolicyPort,
    PolicyRule, PortMatch, Protocol, WorkloadEndpoint,
};
pub use selector::{Selector, SelectorError};
pub use update::{Invalid, Update};
