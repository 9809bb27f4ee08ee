//! Where objects in force are held.

use super::Name;
use model::{Kind, Object, ObjectKey, Text};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Objects by kind, namespace (empty for cluster-scoped kinds) and name. Shared with who needs them
/// whole for longer, so that a large cluster is held once.
#[derive(Debug, Default)]
pub(super) struct InForce {
    all: BTreeMap<Kind, BTreeMap<Text, BTreeMap<Text, Arc<Object>>>>,
    /// Pods and workload endpoints, of which a cluster has more than of anything else: their names
    /// are not held beside them.
    many: BTreeMap<Kind, BTreeMap<Text, BTreeSet<Named>>>,
}

/// A pod or a workload endpoint, compared by its name.
#[derive(Debug)]
struct Named(Arc<Object>);

impl Named {
    fn new(object: Arc<Object>) -> Result<Self, Arc<Object>> {
        match &*object {
            Object::Pod(_) | Object::WorkloadEndpoint(_) => Ok(Self(object)),
            _ => Err(object),
        }
    }
}

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        match &*self.0 {
            Object::Pod(pod) => &pod.name,
            Object::WorkloadEndpoint(endpoint) => &endpoint.name,
            other => unreachable!("invariant: {} is held by its key", other.key()),
        }
    }
}

impl Ord for Named {
    fn cmp(&self, other: &Self) -> Ordering {
        let (ours, theirs): (&str, &str) = (self.borrow(), other.borrow());
        ours.cmp(theirs)
    }
}

impl PartialOrd for Named {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Named {}

impl InForce {
    pub(super) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        if let Some(of_kind) = self.many.get(&kind) {
            return of_kind.get(namespace)?.get(name).map(|held| &held.0);
        }
        self.all.get(&kind)?.get(namespace)?.get(name)
    }

    pub(super) fn of(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.get(key.kind, namespace(key), &key.name)
    }

    pub(super) fn put(&mut self, key: &ObjectKey, object: Object) {
        let (kind, (namespace, name)) = (key.kind, place(key, &object));
        match Named::new(Arc::new(object)) {
            Ok(named) => {
                let of_kind = self.many.entry(kind).or_default();
                of_kind.entry(namespace).or_default().replace(named);
            }
            Err(object) => {
                let of_kind = self.all.entry(kind).or_default();
                of_kind.entry(namespace).or_default().insert(name, object);
            }
        }
    }

    pub(super) fn remove(
        &mut self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Object>> {
        if let Some(of_kind) = self.many.get_mut(&kind) {
            let here = of_kind.get_mut(namespace)?;
            let object = here.take(name);
            if here.is_empty() {
                of_kind.remove(namespace);
            }
            return object.map(|held| held.0);
        }
        let of_kind = self.all.get_mut(&kind)?;
        let here = of_kind.get_mut(namespace)?;
        let object = here.remove(name);
        if here.is_empty() {
            of_kind.remove(namespace);
        }
        object
    }

    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        let many = self.many.get(&kind).into_iter().flatten();
        let many = many.flat_map(|(_, here)| here.iter().map(|held| &held.0));
        let namespaces = self.all.get(&kind).into_iter().flatten();
        many.chain(namespaces.flat_map(|(_, here)| here.values()))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Object>> {
        let kinds: BTreeSet<Kind> = self.all.keys().chain(self.many.keys()).copied().collect();
        kinds.into_iter().flat_map(|kind| self.of_kind(kind))
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
