//! Journal, kernel, datastore and what should live, compared.
//!
//! [`examine`] says what differs; [`Reconciler`] says what may be done about it: nothing on one
//! look, and nothing about an endpoint that is not the one that was looked at (its sequence number
//! tells). What should live is the runtime's last list of attachments for the endpoints that are
//! older than it, and otherwise the Pod object, if there is one. Without either, an endpoint lives
//! for as long as its network namespace does, which the host end of its veth tells.

mod examine;

pub use examine::examine;

use crate::journal::State;
use crate::{Ipam, Owner, Suspicions};
use ipnet::IpNet;
use model::{IpamBlock, Pod, WorkloadEndpoint};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// The attachments of one network that the runtime called valid (CNI GC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The attachments.
    pub valid: BTreeSet<Owner>,
    /// Endpoints from this sequence number on came after the list.
    pub horizon: u64,
}

/// A host end of a pod's veth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEnd {
    /// Interface index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
}

/// What is known at one moment.
#[derive(Debug, Clone)]
pub struct Picture<'a> {
    /// This node.
    pub node: &'a str,
    /// The journal.
    pub journal: &'a State,
    /// The allocator.
    pub ipam: &'a Ipam,
    /// Links of ours in the kernel.
    pub links: Vec<HostEnd>,
    /// The runtime's last lists, by network.
    pub listed: &'a BTreeMap<String, Listed>,
    /// Pod objects by namespace and name: those of this node's endpoints are enough.
    pub pods: BTreeMap<(&'a str, &'a str), &'a Pod>,
    /// Workload endpoints of the whole datastore; none where it is not in sync.
    pub endpoints: Option<Vec<&'a WorkloadEndpoint>>,
    /// Blocks of the whole datastore; none where it is not in sync.
    pub blocks: Option<Vec<&'a IpamBlock>>,
}

/// Why an endpoint is taken for gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Gone {
    /// The runtime did not list it.
    NotListed,
    /// Its network namespace is gone, and nothing says that it should live.
    NamespaceGone,
    /// Its Pod object is finished or is another pod's, but its network namespace is still there.
    PodGone,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotListed => "the runtime does not list it",
            Self::NamespaceGone => "its network namespace is gone",
            Self::PodGone => "its pod is gone and its network namespace is still there",
        })
    }
}

/// Who holds an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// The node.
    pub node: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
}

impl From<&WorkloadEndpoint> for Holder {
    fn from(endpoint: &WorkloadEndpoint) -> Self {
        Self {
            node: endpoint.node.to_string(),
            namespace: endpoint.namespace.to_string(),
            pod: endpoint.pod.to_string(),
            container: endpoint.container_id.to_string(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pod {}/{} on node {}",
            self.namespace, self.pod, self.node
        )
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Finding {
    /// Addresses that a pod holds which is gone.
    Leaked {
        /// Who holds them.
        holder: Holder,
        /// The interface inside the pod.
        interface: String,
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// Tells this use of the addresses from others.
        sequence: u64,
        /// Why it is taken for gone.
        why: Gone,
    },
    /// The allocator holds an address for somebody whom the journal does not know.
    Unjournaled {
        /// The address.
        address: IpAddr,
        /// For whom.
        container: String,
        /// The interface inside the pod.
        interface: String,
    },
    /// One address, several pods.
    Doubled {
        /// The address.
        address: IpAddr,
        /// Everybody who has it.
        holders: Vec<Holder>,
    },
    /// A pod's address is in a block of another node.
    Foreign {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: Holder,
        /// The block around it.
        block: IpNet,
        /// The block's node.
        owner: String,
    },
    /// A link of ours that no pod has.
    StrayLink {
        /// Its name.
        name: String,
        /// Its index.
        ifindex: u32,
    },
    /// The datastore has an endpoint of this node that this node does not have.
    StaleEndpoint {
        /// Whose it is.
        holder: Holder,
        /// The object's name.
        name: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaked {
                holder,
                addresses,
                why,
                ..
            } => write!(f, "{} leaked by {holder}: {why}", join(addresses)),
            Self::Unjournaled {
                address, container, ..
            } => write!(
                f,
                "{address} is held for {container}, which is not in the journal"
            ),
            Self::Doubled { address, holders } => {
                write!(f, "{address} is the address of {}", join(holders))
            }
            Self::Foreign {
                address,
                holder,
                block,
                owner,
            } => write!(
                f,
                "{address} of {holder} is in block {block} of node {owner}"
            ),
            Self::StrayLink { name, .. } => write!(f, "link {name} has no pod"),
            Self::StaleEndpoint { holder, name } => {
                write!(f, "WorkloadEndpoint {name}: {holder} is not on its node")
            }
        }
    }
}

fn join<T: fmt::Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    items.join(", ")
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// Take the endpoint down, if it still has this sequence number.
    Free {
        /// The endpoint.
        owner: Owner,
        /// Its sequence number.
        sequence: u64,
    },
    /// Let the allocator have the address back.
    Release {
        /// The address.
        address: IpAddr,
    },
    /// Delete the link, if it still has this name.
    DeleteLink {
        /// Its index.
        ifindex: u32,
        /// Its name.
        name: String,
    },
    /// Delete the endpoint's object from the datastore.
    DeleteEndpoint {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// Remembers what looked wrong.
#[derive(Debug, Clone, Default)]
pub struct Reconciler {
    findings: Suspicions<Finding>,
}

impl Reconciler {
    /// One look. Answers what to do about what was wrong `apart` ago already and ever since.
    /// `now` is in milliseconds of a clock that never jumps.
    pub fn observe(&mut self, findings: Vec<Finding>, now: u64, apart: u64) -> Vec<Remedy> {
        let confirmed = self.findings.observe(findings, now, apart);
        confirmed.into_iter().filter_map(remedy).collect()
    }

    /// Since when this has been wrong.
    pub fn since(&self, finding: &Finding) -> Option<u64> {
        self.findings.since(finding)
    }

    /// How much the last look found.
    pub fn count(&self) -> usize {
        self.findings.keys().count()
    }

    /// Whether the last look found something that a second one would act on.
    pub fn is_waiting(&self) -> bool {
        self.findings
            .keys()
            .any(|finding| remedy(finding.clone()).is_some())
    }
}

fn remedy(finding: Finding) -> Option<Remedy> {
    Some(match finding {
        // A namespace that is still there may have traffic: its DEL will come.
        Finding::Leaked {
            why: Gone::PodGone, ..
        } => return None,
        Finding::Leaked {
            holder,
            interface,
            sequence,
            ..
        } => Remedy::Free {
            owner: Owner {
                container_id: holder.container,
                ifname: interface,
            },
            sequence,
        },
        Finding::Unjournaled { address, .. } => Remedy::Release { address },
        Finding::StrayLink { name, ifindex } => Remedy::DeleteLink { ifindex, name },
        Finding::StaleEndpoint { holder, name } => Remedy::DeleteEndpoint {
            namespace: holder.namespace,
            name,
        },
        // For the operator to decide.
        Finding::Doubled { .. } | Finding::Foreign { .. } => return None,
    })
}

#[cfg(test)]
mod tests;
