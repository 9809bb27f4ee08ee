//! What the policy compiler is told of the objects in force.

use super::Calc;
use model::{Kind, Node, Object, ObjectKey};
use policy::{NodePeer, Policy, PolicyKey, PolicyKind};
use std::collections::BTreeMap;

/// The object of one kind, if it is one.
macro_rules! only {
    ($object:expr, $kind:ident) => {
        $object.and_then(|object| match object {
            Object::$kind(object) => Some(object),
            _ => None,
        })
    };
}

impl Calc {
    /// An object that policies are made of changed, or is gone.
    pub(super) fn feed_compiler(&mut self, key: &ObjectKey, object: Option<Object>) {
        let namespace = key.namespace.as_deref();
        let (of, name) = (namespace.unwrap_or_default(), key.name.as_str());
        let compiler = &mut self.compiler;
        if let Some(key) = policy_key(key) {
            return compiler.set_policy(&key, object.and_then(policy));
        }
        match key.kind {
            Kind::Namespace => {
                compiler.set_namespace(name, only!(object, Namespace).map(|n| n.labels));
            }
            Kind::Tier => compiler.set_tier(name, only!(object, Tier)),
            Kind::NetworkSet | Kind::GlobalNetworkSet => {
                compiler.set_network_set(namespace, name, only!(object, NetworkSet));
            }
            Kind::HostEndpoint => {
                compiler.set_host_endpoint(name, only!(object, HostEndpoint).map(|host| *host))
            }
            Kind::ServiceAccount => {
                compiler.set_service_account(of, name, only!(object, ServiceAccount));
            }
            Kind::Profile => compiler.set_profile(name, only!(object, Profile)),
            Kind::EndpointSlice => {
                compiler.set_endpoint_slice(
                    of,
                    name,
                    only!(object, EndpointSlice).map(|slice| *slice),
                );
            }
            Kind::Node => compiler.set_node(name, only!(object, Node).map(node_peer)),
            _ => {}
        }
    }

    /// Tells which interfaces of this node are no pod's, and their addresses.
    pub(super) fn feed_host_interfaces(&mut self) {
        let mut interfaces: BTreeMap<String, _> = BTreeMap::new();
        for link in self.underlay.links() {
            if !link.name.starts_with(model::names::INTERFACE_PREFIX) {
                let addresses = self.underlay.addresses_of(link.ifindex).collect();
                interfaces.insert(link.name.clone(), addresses);
            }
        }
        self.compiler.set_host_interfaces(interfaces);
    }
}

/// The identity of a policy object; `None` for other kinds.
pub(crate) fn policy_key(key: &ObjectKey) -> Option<PolicyKey> {
    let kind = match key.kind {
        Kind::NetworkPolicy => PolicyKind::Kubernetes,
        Kind::ClusterNetworkPolicy => PolicyKind::Cluster,
        Kind::CalicoNetworkPolicy | Kind::GlobalNetworkPolicy => PolicyKind::Calico,
        Kind::StagedNetworkPolicy | Kind::StagedGlobalNetworkPolicy => PolicyKind::StagedCalico,
        Kind::StagedKubernetesNetworkPolicy => PolicyKind::StagedKubernetes,
        _ => return None,
    };
    Some(PolicyKey {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        kind,
    })
}

/// The policy in an object; `None` for other kinds.
pub(crate) fn policy(object: Object) -> Option<Policy> {
    match object {
        Object::NetworkPolicy(policy) => Some(Policy::Kubernetes(policy)),
        Object::ClusterNetworkPolicy(policy) => Some(Policy::Cluster(policy)),
        Object::CalicoPolicy(policy) => Some(Policy::Calico(policy)),
        Object::StagedKubernetesPolicy(policy) => Some(Policy::StagedKubernetes(policy)),
        _ => None,
    }
}

fn node_peer(node: Node) -> NodePeer {
    NodePeer {
        addresses: node.all_addresses(),
        labels: node.labels,
    }
}
