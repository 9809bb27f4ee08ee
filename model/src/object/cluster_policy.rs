//! `policy.networking.k8s.io/v1alpha2` `ClusterNetworkPolicy`, normalised.

use super::Protocol;
use crate::Selector;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Before or after the NetworkPolicies of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClusterTier {
    /// Before them: they can't override it.
    Admin,
    /// After them: for pods that no NetworkPolicy isolates in the direction in question.
    Baseline,
}

/// An ordered list of rules for the pods that it selects; it isolates nobody by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNetworkPolicy {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub tier: ClusterTier,
    /// 0 to 1000, lower first; ties go by name.
    pub priority: u16,
    /// The pods that it is for.
    pub subject: ClusterPods,
    /// Rules for what comes in; the first that matches decides.
    pub ingress: Vec<ClusterRule>,
    /// Rules for what goes out; the first that matches decides.
    pub egress: Vec<ClusterRule>,
}

/// Pods that match `pods` in namespaces that match `namespaces`. Pods in the host's network never
/// match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterPods {
    /// Which namespaces.
    pub namespaces: Selector,
    /// Which pods in them ([`Selector::All`] for a `namespaces` subject or peer).
    pub pods: Selector,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClusterAction {
    /// Allowed, whatever comes later.
    Accept,
    /// Denied, whatever comes later.
    Deny,
    /// On to what stands after this tier.
    Pass,
}

/// One rule: a peer matches and a protocol matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRule {
    /// For people to read.
    pub name: Option<String>,
    /// What is done.
    pub action: ClusterAction,
    /// `None` is anybody: what a `Deny` with an unknown peer is widened to. An empty list matches
    /// nobody: what an `Accept` whose peers are all unknown is narrowed to.
    pub peers: Option<Vec<ClusterPeer>>,
    /// `None` is any port of any protocol; an empty list matches nothing.
    pub protocols: Option<Vec<ClusterPort>>,
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClusterPeer {
    /// Pods.
    Pods(ClusterPods),
    /// Addresses, in or outside of the cluster; egress only. Host bits are zero.
    Networks(Vec<IpNet>),
    /// The addresses of nodes (`status.addresses`); egress only.
    Nodes(Selector),
    /// What these names resolve to, in lower case without a final dot; a leading `*.` stands for
    /// one or more labels. Egress `Accept` only.
    DomainNames(Vec<String>),
}

/// Which destination ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClusterPort {
    /// First to last port of a protocol; all of them where the manifest names none.
    Range {
        /// The protocol.
        protocol: Protocol,
        /// First port.
        first: u16,
        /// Last port, included.
        last: u16,
    },
    /// The destination pod's ports with this name, with the protocol of the port.
    Named(String),
}
