//! Pods as policies see them.

use model::{Labels, NamedPort, Text};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Names an endpoint: `namespace/name` of its `WorkloadEndpoint`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub Text);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One pod of the cluster. Pods in the host's network are none: they are not subject to policy,
/// and no selector may match their addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod's namespace.
    pub namespace: Text,
    /// The pod's name.
    pub pod: Text,
    /// The pod's labels.
    pub labels: Labels,
    /// Its container ports that have a name.
    pub ports: Arc<[NamedPort]>,
    /// Its addresses, both families.
    pub ips: Vec<IpAddr>,
    /// Index of the host's end of its link, if the pod runs on this node.
    pub local: Option<u32>,
    /// False while nobody has told the labels: the pod is denied in both directions, except from
    /// and to its own node, and no selector matches it.
    pub labels_known: bool,
    /// The service account that it runs as, if known.
    pub service_account: Option<Text>,
    /// Names of Calico profiles whose labels it inherits.
    pub profiles: Arc<[Text]>,
}
