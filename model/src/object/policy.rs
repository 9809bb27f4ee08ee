//! `networking.k8s.io/v1` `NetworkPolicy`, normalised: absent and empty are told apart by type.

use crate::Selector;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// An L4 protocol that policies name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Number in the IP header (`IPPROTO_*`).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// A policy. For each direction, `None` does not isolate the selected pods; `Some(rules)` isolates
/// them and allows the union of the rules, so that `Some(vec![])` denies everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// Its namespace: it selects pods here only.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The pods that it isolates.
    pub pod_selector: Selector,
    /// What may come in.
    pub ingress: Option<Vec<PolicyRule>>,
    /// What may go out.
    pub egress: Option<Vec<PolicyRule>>,
}

/// One allow rule: a peer matches and a port matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyRule {
    /// `None` is any peer, inside or outside the cluster; an empty list matches nobody (all its
    /// peers were unreadable, which fails closed).
    pub peers: Option<Vec<PolicyPeer>>,
    /// `None` is any port of any protocol; an empty list matches nothing, likewise.
    pub ports: Option<Vec<PolicyPort>>,
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyPeer {
    /// Pods that match `pods` in namespaces that match `namespaces`; no `namespaces` is the
    /// policy's own namespace. Pods in the host's network never match.
    Pods {
        /// Which namespaces.
        namespaces: Option<Selector>,
        /// Which pods ([`Selector::All`] where the manifest has no podSelector).
        pods: Selector,
    },
    /// Addresses in `cidr` but in none of `except`. Host bits are zero.
    IpBlock {
        /// The addresses.
        cidr: IpNet,
        /// Subtracted from this peer only.
        except: Vec<IpNet>,
    },
}

/// A protocol, and which of its ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port.
    pub port: PortMatch,
}

/// Which destination ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PortMatch {
    /// All of them.
    Any,
    /// First to last, both included; a single port is a range of one.
    Range(u16, u16),
    /// The destination pod's container port with this name and the rule's protocol. Never matches
    /// a destination that is not a pod.
    Named(String),
}
