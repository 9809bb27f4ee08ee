//! One parsed document -> object, with errors that name object, field and reason.
//!
//! The document is a [`serde_json::Value`], so that YAML from a directory and JSON from the
//! Kubernetes API take the same way. [`parse`] reads every kind that Ocicat uses;
//! [`to_manifest`] writes those that agents write.
//!
//! | file | what it holds |
//! |---|---|
//! | `reader` | typed access to fields, which keeps the path for messages and notices unread fields |
//! | `syntax` | names, labels, AS numbers, durations |
//! | `label_selector` | Kubernetes label selectors |
//! | `core`, `secret`, `service`, `node`, `network_policy` | kinds of Kubernetes |
//! | `cluster_policy`, `calico_policy`, `calico_rule`, `calico_entity`, `endpoints` | policy and what it selects |
//! | `bgp`, `bgp_peer`, `bgp_filter`, `felix`, `ipam`, `node_status`, `workload` | further kinds of Calico |
//! | `allocations` | who holds which address of an `IPAMBlock` |
//! | `write` | objects -> documents |

mod allocations;
mod bgp;
mod bgp_filter;
mod bgp_peer;
mod calico_entity;
mod calico_policy;
mod calico_rule;
mod cluster_policy;
mod core;
mod endpoints;
mod felix;
mod ipam;
mod label_selector;
mod network_policy;
mod node;
mod node_status;
mod reader;
mod secret;
mod service;
mod size;
mod syntax;
mod workload;
mod write;

#[cfg(test)]
mod tests;

pub use allocations::block_allocations;
#[cfg(test)]
pub(crate) use reader::asked;
pub use write::{allocations_of, block_with, to_manifest};

use crate::object::{Kind, Object, ObjectKey};
use crate::update::Invalid;
use reader::{Fields, Item, Problem};
use serde_json::Value;

/// What a document turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    /// An object that can be used.
    Valid {
        /// The object, defaulted and validated.
        object: Object,
        /// One sentence for each field that is ignored, each naming the field.
        warnings: Vec<String>,
    },
    /// An object that can't be used; what was in force for it stays in force.
    Invalid {
        /// What is wrong with which field.
        invalid: Invalid,
        /// What to put in force if nothing was: for a policy, one that isolates the pods that it
        /// selects and allows nothing.
        fallback: Option<Object>,
    },
    /// A kind that Ocicat does not use.
    Ignored {
        /// The kind with its API version, such as `apps/v1 Deployment`.
        kind: String,
        /// Why, in words.
        reason: String,
    },
}

/// Why no object can be recognised in a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The document is a list or a scalar.
    #[error("the document is {found}, not a mapping")]
    NotAMapping {
        /// What it is, shortened.
        found: String,
    },
    /// A field that identifies the object is missing or unusable.
    #[error("{subject}{field}: {reason}")]
    Identity {
        /// The kind followed by a space, as far as it is known.
        subject: String,
        /// `apiVersion`, `kind`, `metadata.name` or `metadata.namespace`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads one document. Never panics, whatever the document holds.
pub fn parse(document: &Value) -> Result<Parsed, ManifestError> {
    let identity = |subject: &str, problem: Problem| ManifestError::Identity {
        subject: subject.to_owned(),
        field: problem.field,
        reason: problem.reason,
    };
    let mut root = Item::root(document)
        .fields()
        .map_err(|_| ManifestError::NotAMapping {
            found: reader::shown(document),
        })?;
    let version = root
        .need("apiVersion")
        .and_then(Item::text)
        .map_err(|p| identity("", p))?;
    let name = root
        .need("kind")
        .and_then(Item::text)
        .map_err(|p| identity("", p))?;
    let Some((kind, read)) = known(version, name) else {
        return Ok(ignored(version, name));
    };
    let subject = format!("{name} ");
    let (body, key) = Body::new(root, kind).map_err(|p| identity(&subject, p))?;
    Ok(body.finish(key, read, document))
}

/// Reads the fields of one kind.
type Read = fn(&mut Body<'_>) -> Result<Object, Problem>;

fn known(version: &str, kind: &str) -> Option<(Kind, Read)> {
    Some(match (version, kind) {
        ("v1", "Namespace") => (Kind::Namespace, core::namespace),
        ("v1", "Pod") => (Kind::Pod, core::pod),
        ("v1", "Node") => (Kind::Node, node::kubernetes),
        ("v1", "Secret") => (Kind::Secret, secret::read),
        ("v1", "Service") => (Kind::Service, service::service),
        ("v1", "ServiceAccount") => (Kind::ServiceAccount, service::service_account),
        ("discovery.k8s.io/v1", "EndpointSlice") => (Kind::EndpointSlice, service::endpoint_slice),
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy") => {
            (Kind::ClusterNetworkPolicy, cluster_policy::read)
        }
        ("networking.k8s.io/v1", "NetworkPolicy") => (Kind::NetworkPolicy, network_policy::read),
        ("projectcalico.org/v3", "Tier") => (Kind::Tier, calico_policy::tier),
        ("projectcalico.org/v3", "NetworkPolicy") => {
            (Kind::CalicoNetworkPolicy, calico_policy::policy)
        }
        ("projectcalico.org/v3", "GlobalNetworkPolicy") => {
            (Kind::GlobalNetworkPolicy, calico_policy::policy)
        }
        ("projectcalico.org/v3", "StagedNetworkPolicy") => {
            (Kind::StagedNetworkPolicy, calico_policy::staged)
        }
        ("projectcalico.org/v3", "StagedGlobalNetworkPolicy") => {
            (Kind::StagedGlobalNetworkPolicy, calico_policy::staged)
        }
        ("projectcalico.org/v3", "StagedKubernetesNetworkPolicy") => (
            Kind::StagedKubernetesNetworkPolicy,
            calico_policy::staged_kubernetes,
        ),
        ("projectcalico.org/v3", "NetworkSet") => (Kind::NetworkSet, endpoints::network_set),
        ("projectcalico.org/v3", "GlobalNetworkSet") => {
            (Kind::GlobalNetworkSet, endpoints::network_set)
        }
        ("projectcalico.org/v3", "HostEndpoint") => (Kind::HostEndpoint, endpoints::host_endpoint),
        ("projectcalico.org/v3", "Profile") => (Kind::Profile, endpoints::profile),
        ("projectcalico.org/v3", "IPPool") => (Kind::IpPool, ipam::pool),
        ("projectcalico.org/v3", "BGPConfiguration") => {
            (Kind::BgpConfiguration, bgp::configuration)
        }
        ("projectcalico.org/v3", "FelixConfiguration") => (Kind::FelixConfiguration, felix::read),
        ("projectcalico.org/v3", "BGPFilter") => (Kind::BgpFilter, bgp_filter::read),
        ("projectcalico.org/v3", "BGPPeer") => (Kind::BgpPeer, bgp_peer::read),
        ("projectcalico.org/v3", "Node") => (Kind::Node, node::calico),
        ("projectcalico.org/v3", "WorkloadEndpoint") => (Kind::WorkloadEndpoint, workload::read),
        ("projectcalico.org/v3", "IPAMBlock") => (Kind::IpamBlock, ipam::block),
        ("projectcalico.org/v3", "CalicoNodeStatus") => (Kind::CalicoNodeStatus, node_status::read),
        ("projectcalico.org/v3", "IPReservation") => (Kind::IpReservation, ipam::reservation),
        _ => return None,
    })
}

/// Every `apiVersion` that a kind is read in.
const VERSIONS: [&str; 5] = [
    "v1",
    "networking.k8s.io/v1",
    "policy.networking.k8s.io/v1alpha2",
    "discovery.k8s.io/v1",
    "projectcalico.org/v3",
];

fn ignored(version: &str, kind: &str) -> Parsed {
    let other = VERSIONS.into_iter().find(|v| known(v, kind).is_some());
    Parsed::Ignored {
        kind: format!("{version} {kind}"),
        reason: match other {
            Some(other) => format!("{kind} is read in apiVersion {other}, not in {version}"),
            None => format!("{kind} is not a kind that Ocicat uses"),
        },
    }
}

/// The parts of a document that its kind's reader works on.
struct Body<'a> {
    /// Empty for cluster-scoped kinds.
    namespace: String,
    name: String,
    /// A name identifies the object even where it is not a good one, so that a policy with such a
    /// name can still fail closed.
    name_problem: Option<Problem>,
    metadata: Fields<'a>,
    root: Fields<'a>,
    warnings: Vec<String>,
}

impl<'a> Body<'a> {
    fn new(mut root: Fields<'a>, kind: Kind) -> Result<(Self, ObjectKey), Problem> {
        let mut metadata = root.need("metadata")?.fields()?;
        let item = metadata.need("name")?;
        let name_problem = item.check(syntax::subdomain).err();
        let name = item.check(syntax::printable)?.to_owned();
        let namespace = metadata.take("namespace");
        let mut warnings = Vec::new();
        let (namespace, key) = if kind.is_namespaced() {
            let namespace = match namespace {
                Some(item) => item.check(syntax::label)?,
                None => "default",
            };
            (
                namespace.to_owned(),
                ObjectKey::namespaced(kind, namespace, &name),
            )
        } else {
            if let Some(item) = namespace {
                warnings.push(item.warning("this kind has no namespace, ignored"));
            }
            (String::new(), ObjectKey::global(kind, &name))
        };
        Ok((
            Self {
                namespace,
                name,
                name_problem,
                metadata,
                root,
                warnings,
            },
            key,
        ))
    }

    fn spec(&mut self) -> Result<Fields<'a>, Problem> {
        self.root.need("spec")?.fields()
    }

    fn labels(&mut self) -> Result<crate::Labels, Problem> {
        self.metadata
            .take("labels")
            .map_or(Ok(crate::Labels::new()), |item| item.labels())
    }

    /// The annotations under [`names::ANNOTATION_PREFIX`](crate::names::ANNOTATION_PREFIX).
    fn annotations(&mut self) -> Result<crate::Annotations, Problem> {
        let Some(item) = self.metadata.take("annotations") else {
            return Ok(crate::Annotations::new());
        };
        let fields = item.fields()?;
        let ours = |key: &str| key.starts_with(crate::names::ANNOTATION_PREFIX);
        let kept = fields.all().filter(|(key, _)| ours(key));
        kept.map(|(key, item)| Ok((key.to_owned(), item.text()?.to_owned())))
            .collect()
    }

    fn finish(mut self, key: ObjectKey, read: Read, document: &Value) -> Parsed {
        let object = self
            .name_problem
            .take()
            .map_or_else(|| size::check(key.kind, document), Err)
            .and_then(|()| read(&mut self));
        match object {
            Ok(object) => {
                self.metadata.ignore(METADATA);
                self.root.ignore(&["status"]);
                let unknown = self
                    .metadata
                    .unknown()
                    .into_iter()
                    .chain(self.root.unknown());
                self.warnings
                    .extend(unknown.map(|path| format!("{path}: unknown field, ignored")));
                Parsed::Valid {
                    object,
                    warnings: self.warnings,
                }
            }
            Err(Problem { field, reason }) => Parsed::Invalid {
                fallback: fallback(key.kind, document, &self.namespace, &self.name),
                invalid: Invalid {
                    object: key,
                    field,
                    reason,
                },
            },
        }
    }
}

/// What to put in force for an object that can't be read and never could.
fn fallback(kind: Kind, document: &Value, namespace: &str, name: &str) -> Option<Object> {
    match kind {
        Kind::NetworkPolicy => Some(network_policy::fallback(document, namespace, name)),
        Kind::CalicoNetworkPolicy | Kind::GlobalNetworkPolicy => {
            calico_policy::fallback(document, namespace, name)
        }
        Kind::ClusterNetworkPolicy => cluster_policy::fallback(document, name),
        Kind::BgpFilter => Some(bgp_filter::fallback(name)),
        _ => None,
    }
}

/// Fields of Kubernetes' `ObjectMeta` that mean nothing to us.
const METADATA: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];
