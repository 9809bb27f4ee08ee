//! What the compiler and the evaluator are told, besides pods and namespaces.

use model::{
    CalicoPolicy, ClusterNetworkPolicy, Labels, NetworkPolicy, Object, StagedKubernetesPolicy,
};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// A policy of any kind, shared with the object that it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// `networking.k8s.io/v1` `NetworkPolicy`.
    Kubernetes(Arc<NetworkPolicy>),
    /// `policy.networking.k8s.io/v1alpha2` `ClusterNetworkPolicy`.
    Cluster(Arc<ClusterNetworkPolicy>),
    /// `projectcalico.org/v3` `NetworkPolicy` or `GlobalNetworkPolicy`, or one of their staged
    /// forms.
    Calico(Arc<CalicoPolicy>),
    /// `projectcalico.org/v3` `StagedKubernetesNetworkPolicy`.
    StagedKubernetes(Arc<StagedKubernetesPolicy>),
}

/// The kind of a policy. Ties of order between policies of one tier go by name, then by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // as the variants of Policy
pub enum PolicyKind {
    Kubernetes,
    Cluster,
    Calico,
    StagedCalico,
    StagedKubernetes,
}

/// Names a policy. Ordered by name first: that is how policies of one tier and order stand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// Its name.
    pub name: String,
    /// Its namespace; none for cluster-wide policies.
    pub namespace: Option<String>,
    /// Its kind.
    pub kind: PolicyKind,
}

impl Policy {
    /// Its identity.
    pub fn key(&self) -> PolicyKey {
        let (kind, namespace, name) = match self {
            Self::Kubernetes(p) => (PolicyKind::Kubernetes, Some(&p.namespace), &p.name),
            Self::Cluster(p) => (PolicyKind::Cluster, None, &p.name),
            Self::Calico(p) => {
                let kind = match p.staged {
                    Some(_) => PolicyKind::StagedCalico,
                    None => PolicyKind::Calico,
                };
                (kind, p.namespace.as_ref(), &p.name)
            }
            Self::StagedKubernetes(p) => (
                PolicyKind::StagedKubernetes,
                Some(&p.policy.namespace),
                &p.policy.name,
            ),
        };
        PolicyKey {
            name: name.clone(),
            namespace: namespace.cloned(),
            kind,
        }
    }
}

macro_rules! is_a_policy {
    ($($kind:ident($type:ty)),+) => {
        $(impl From<$type> for Policy {
            fn from(policy: $type) -> Self {
                Self::$kind(Arc::new(policy))
            }
        })+
    };
}

is_a_policy! {
    Kubernetes(NetworkPolicy), Cluster(ClusterNetworkPolicy), Calico(CalicoPolicy),
    StagedKubernetes(StagedKubernetesPolicy)
}

impl TryFrom<Object> for Policy {
    type Error = Object;

    /// The object again where it is no policy.
    fn try_from(object: Object) -> Result<Self, Object> {
        Ok(match object {
            Object::NetworkPolicy(policy) => Self::Kubernetes(policy),
            Object::ClusterNetworkPolicy(policy) => Self::Cluster(policy),
            Object::CalicoPolicy(policy) => Self::Calico(policy),
            Object::StagedKubernetesPolicy(policy) => Self::StagedKubernetes(policy),
            other => return Err(other),
        })
    }
}

impl PolicyKey {
    /// The `kind:` of its manifest.
    pub fn manifest_kind(&self) -> &'static str {
        match (self.kind, &self.namespace) {
            (PolicyKind::Kubernetes, _) => "NetworkPolicy",
            (PolicyKind::Cluster, _) => "ClusterNetworkPolicy",
            (PolicyKind::Calico, Some(_)) => "NetworkPolicy.projectcalico.org",
            (PolicyKind::Calico, None) => "GlobalNetworkPolicy",
            (PolicyKind::StagedCalico, Some(_)) => "StagedNetworkPolicy",
            (PolicyKind::StagedCalico, None) => "StagedGlobalNetworkPolicy",
            (PolicyKind::StagedKubernetes, _) => "StagedKubernetesNetworkPolicy",
        }
    }
}

/// `NetworkPolicy/shop/api`, `GlobalNetworkPolicy/deny-all`.
impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.manifest_kind())?;
        if let Some(namespace) = &self.namespace {
            write!(f, "/{namespace}")?;
        }
        write!(f, "/{}", self.name)
    }
}

/// A node, as the `nodes` peers of a `ClusterNetworkPolicy` see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePeer {
    /// Its labels.
    pub labels: Labels,
    /// All its addresses: `status.addresses`, and those of its tunnels.
    pub addresses: BTreeSet<IpAddr>,
}
