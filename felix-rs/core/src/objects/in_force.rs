//! Where objects in force are held.

use super::Name;
use model::{Kind, Object, ObjectKey, Text};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Objects by kind, namespace (empty for cluster-scoped kinds) and name. Shared with who needs them
/// whole for longer, so that a large cluster is held once.
#[derive(Debug, Default)]
pub(super) struct InForce(BTreeMap<Kind, BTreeMap<Text, BTreeMap<Text, Arc<Object>>>>);

impl InForce {
    pub(super) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.0.get(&kind)?.get(namespace)?.get(name)
    }

    pub(super) fn of(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.get(key.kind, namespace(key), &key.name)
    }

    pub(super) fn put(&mut self, key: &ObjectKey, object: Object) {
        let (kind, (namespace, name)) = (key.kind, place(key, &object));
        let of_kind = self.0.entry(kind).or_default();
        let here = of_kind.entry(namespace).or_default();
        here.insert(name, Arc::new(object));
    }

    pub(super) fn remove(
        &mut self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Object>> {
        let of_kind = self.0.get_mut(&kind)?;
        let here = of_kind.get_mut(namespace)?;
        let object = here.remove(name);
        if here.is_empty() {
            of_kind.remove(namespace);
        }
        object
    }

    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        let namespaces = self.0.get(&kind).into_iter().flatten();
        namespaces.flat_map(|(_, here)| here.values())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.0.keys().flat_map(|kind| self.of_kind(*kind))
    }
}

pub(super) fn namespace(key: &ObjectKey) -> &str {
    key.namespace.as_deref().unwrap_or_default()
}

/// Namespace and name of an object, as it holds them where it can.
pub(super) fn place(key: &ObjectKey, object: &Object) -> Name {
    match object {
        Object::Pod(pod) => (pod.namespace.clone(), pod.name.clone()),
        Object::WorkloadEndpoint(endpoint) => (endpoint.namespace.clone(), endpoint.name.clone()),
        _ => (namespace(key).into(), key.name.as_str().into()),
    }
}
