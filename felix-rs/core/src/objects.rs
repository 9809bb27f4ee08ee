//! Objects in force.
//!
//! What was in force stays in force until something valid replaces it: a rejected object keeps
//! its last good version, and a snapshot of an earlier process stands in until the datastore has
//! said everything.

mod in_force;
#[cfg(test)]
mod tests;
mod typed;

use in_force::{InForce, namespace, place};
use model::{Invalid, Kind, Object, ObjectKey, Sharing, Text, Update};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How much is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing yet: touch nothing.
    Starting,
    /// The datastore does not answer; an earlier process's last view is in force: add and repair,
    /// remove nothing.
    Snapshot,
    /// The datastore has said everything.
    InSync,
}

/// Every object that is in force, and what is wrong with those that are not.
#[derive(Debug)]
pub struct Objects {
    in_force: InForce,
    /// In force from the snapshot, not yet confirmed by the datastore.
    restored: BTreeMap<Kind, BTreeSet<Name>>,
    rejected: BTreeMap<ObjectKey, Invalid>,
    warnings: BTreeMap<ObjectKey, Vec<String>>,
    /// Sources that could not be read; what they said before stays in force.
    unreadable: BTreeMap<String, String>,
    has_snapshot: bool,
    phase: Phase,
    lost: Option<String>,
    /// Where Secrets that other objects name stand.
    secrets_namespace: String,
    sharing: Sharing,
}

/// Namespace (empty for cluster-scoped kinds) and name.
type Name = (Text, Text);

impl Default for Objects {
    fn default() -> Self {
        Self {
            in_force: InForce::default(),
            restored: BTreeMap::new(),
            rejected: BTreeMap::new(),
            warnings: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            has_snapshot: false,
            phase: Phase::Starting,
            lost: None,
            secrets_namespace: model::names::SECRETS_NAMESPACE.to_owned(),
            sharing: Sharing::default(),
        }
    }
}

impl Objects {
    /// The namespace of Secrets that other objects name: of their references, none says it.
    pub(crate) fn secrets_namespace(&self) -> &str {
        &self.secrets_namespace
    }

    pub(crate) fn set_secrets_namespace(&mut self, namespace: &str) {
        namespace.clone_into(&mut self.secrets_namespace);
    }

    /// Put an earlier process's view in force until the datastore confirms or replaces it.
    /// Returns the keys that are in force by it; what the datastore has said already wins.
    pub fn restore(&mut self, objects: Vec<Object>) -> Vec<ObjectKey> {
        let mut changed = Vec::new();
        if self.phase == Phase::InSync {
            return changed;
        }
        self.has_snapshot = true;
        for mut object in objects {
            let key = object.key();
            if self.in_force.of(&key).is_none() {
                self.share(&mut object);
                let restored = self.restored.entry(key.kind).or_default();
                restored.insert(place(&key, &object));
                self.in_force.put(&key, object);
                changed.push(key);
            }
        }
        changed
    }

    /// Whether an earlier process's whole view was restored.
    pub fn has_snapshot(&self) -> bool {
        self.has_snapshot
    }

    /// Go on from the snapshot, since the datastore does not answer.
    pub fn start_from_snapshot(&mut self) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Snapshot;
        }
    }

    /// Take in one update. Returns the keys whose object in force changed.
    pub fn apply(&mut self, update: Update) -> Vec<ObjectKey> {
        match update {
            Update::Apply { object, warnings } => {
                let key = object.key();
                self.confirm(&key);
                self.rejected.remove(&key);
                if warnings.is_empty() {
                    self.warnings.remove(&key);
                } else {
                    self.warnings.insert(key.clone(), warnings);
                }
                self.put(key, object)
            }
            Update::Reject { invalid, fallback } => {
                let key = invalid.object.clone();
                self.confirm(&key);
                self.rejected.insert(key.clone(), invalid);
                match fallback {
                    Some(object) if self.in_force.of(&key).is_none() => self.put(key, object),
                    _ => Vec::new(),
                }
            }
            Update::Delete(key) => {
                self.confirm(&key);
                self.rejected.remove(&key);
                self.warnings.remove(&key);
                let removed = self.in_force.remove(key.kind, namespace(&key), &key.name);
                removed.map(|_| key).into_iter().collect()
            }
            Update::InSync => {
                self.phase = Phase::InSync;
                self.lost = None;
                self.sweep()
            }
            Update::Unreadable { source, reason } => {
                self.unreadable.insert(source, reason);
                Vec::new()
            }
            Update::Readable { source } => {
                self.unreadable.remove(&source);
                self.sweep()
            }
            Update::Lost { reason } => {
                self.lost = Some(reason);
                Vec::new()
            }
        }
    }

    /// The datastore has said something of the object.
    fn confirm(&mut self, key: &ObjectKey) {
        if let Some(restored) = self.restored.get_mut(&key.kind) {
            restored.remove(&(namespace(key).into(), key.name.as_str().into()));
            if restored.is_empty() {
                self.restored.remove(&key.kind);
            }
        }
    }

    /// What the snapshot had and the datastore has not goes, unless it may stand in something that
    /// can't be read now.
    fn sweep(&mut self) -> Vec<ObjectKey> {
        if self.phase != Phase::InSync {
            return Vec::new();
        }
        // What agents write stands below `state/`, and nothing of users does.
        let unreadable = |agents: bool| {
            self.unreadable
                .keys()
                .any(|source| source.starts_with("state/") == agents)
        };
        let (agents, users) = (unreadable(true), unreadable(false));
        let (kept, stale): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.restored)
            .into_iter()
            .partition(|(kind, _)| {
                if kind.is_written_by_agents() {
                    agents
                } else {
                    users
                }
            });
        self.restored = kept;
        let mut gone = Vec::new();
        for (kind, names) in stale {
            for (namespace, name) in names {
                if self.in_force.remove(kind, &namespace, &name).is_some() {
                    gone.push(ObjectKey {
                        kind,
                        namespace: (!namespace.is_empty()).then(|| namespace.into()),
                        name: name.into(),
                    });
                }
            }
        }
        gone
    }

    fn put(&mut self, key: ObjectKey, mut object: Object) -> Vec<ObjectKey> {
        if self
            .in_force
            .of(&key)
            .is_some_and(|known| **known == object)
        {
            return Vec::new();
        }
        self.share(&mut object);
        self.in_force.put(&key, object);
        vec![key]
    }

    /// Most of what is said of a pod is said of others too, and of its endpoint.
    fn share(&mut self, object: &mut Object) {
        self.sharing.share(object);
        let Object::WorkloadEndpoint(endpoint) = object else {
            return;
        };
        let pod = self
            .in_force
            .get(Kind::Pod, &endpoint.namespace, &endpoint.pod);
        if let Some(Object::Pod(pod)) = pod.map(|pod| &**pod) {
            endpoint.pod = pod.name.clone();
            if endpoint.pod_uid == pod.uid {
                endpoint.pod_uid.clone_from(&pod.uid);
            }
        }
    }

    /// How much is known.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Why the datastore does not answer, if it does not.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// The object in force under this key.
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.in_force.of(key).map(|object| &**object)
    }

    /// The object in force under this key, shared.
    pub(crate) fn shared(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.in_force.of(key).cloned()
    }

    /// Objects that can't be used, and why.
    pub fn rejected(&self) -> impl Iterator<Item = &Invalid> {
        self.rejected.values()
    }

    /// Sources that could not be read, such as a file, and why.
    pub fn unreadable(&self) -> &BTreeMap<String, String> {
        &self.unreadable
    }

    /// Fields that are ignored, by object.
    pub fn warnings(&self) -> &BTreeMap<ObjectKey, Vec<String>> {
        &self.warnings
    }

    /// Everything in force.
    pub fn all(&self) -> impl Iterator<Item = &Object> {
        self.in_force.all().map(|object| &**object)
    }

    /// Everything in force, shared, for the snapshot.
    pub fn all_shared(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.in_force.all()
    }
}
