//! Objects in force.
//!
//! What was in force stays in force until something valid replaces it: a rejected object keeps
//! its last good version, and a snapshot of an earlier process stands in until the datastore has
//! said everything.

use model::{BgpConfiguration, Invalid, Kind, Node, Object, ObjectKey, Pod, Sharing, Text, Update};
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

/// Objects by kind, namespace (empty for cluster-scoped kinds) and name. Shared with who needs them
/// whole for longer, so that a large cluster is held once.
#[derive(Debug, Default)]
struct InForce(BTreeMap<Kind, BTreeMap<Text, BTreeMap<Text, Arc<Object>>>>);

impl InForce {
    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.0.get(&kind)?.get(namespace)?.get(name)
    }

    fn of(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.get(key.kind, namespace(key), &key.name)
    }

    fn put(&mut self, key: &ObjectKey, object: Object) {
        let (kind, (namespace, name)) = (key.kind, place(key, &object));
        let of_kind = self.0.entry(kind).or_default();
        let here = of_kind.entry(namespace).or_default();
        here.insert(name, Arc::new(object));
    }

    fn remove(&mut self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let of_kind = self.0.get_mut(&kind)?;
        let here = of_kind.get_mut(namespace)?;
        let object = here.remove(name);
        if here.is_empty() {
            of_kind.remove(namespace);
        }
        object
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        let namespaces = self.0.get(&kind).into_iter().flatten();
        namespaces.flat_map(|(_, here)| here.values())
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.0.keys().flat_map(|kind| self.of_kind(*kind))
    }
}

fn namespace(key: &ObjectKey) -> &str {
    key.namespace.as_deref().unwrap_or_default()
}

/// Namespace and name of an object, as it holds them where it can.
fn place(key: &ObjectKey, object: &Object) -> Name {
    match object {
        Object::Pod(pod) => (pod.namespace.clone(), pod.name.clone()),
        Object::WorkloadEndpoint(endpoint) => (endpoint.namespace.clone(), endpoint.name.clone()),
        _ => (namespace(key).into(), key.name.as_str().into()),
    }
}

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

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.in_force.of_kind(kind).map(|object| &**object)
    }
}

macro_rules! typed {
    ($($(#[$doc:meta])* $name:ident: $variant:ident($type:ty) of $($kind:ident),+;)*) => {
        impl Objects {
            $($(#[$doc])*
            pub fn $name(&self) -> impl Iterator<Item = &$type> {
                let kinds = [$(Kind::$kind),+].into_iter();
                kinds.flat_map(|kind| self.of_kind(kind)).filter_map(|object| match object {
                    Object::$variant(inner) => {
                        let inner: &$type = inner;
                        Some(inner)
                    }
                    _ => None,
                })
            })*
        }
    };
}

typed! {
    /// Namespaces in force, by name.
    namespaces: Namespace(model::Namespace) of Namespace;
    /// Pods in force.
    pods: Pod(Pod) of Pod;
    /// Nodes in force, by name.
    nodes: Node(Node) of Node;
    /// Policies in force.
    policies: NetworkPolicy(model::NetworkPolicy) of NetworkPolicy;
    /// Pools in force, by name.
    pools: IpPool(model::IpPool) of IpPool;
    /// BGP configurations in force.
    bgp_configurations: BgpConfiguration(BgpConfiguration) of BgpConfiguration;
    /// BGP peers in force, by name.
    bgp_peers: BgpPeer(model::BgpPeer) of BgpPeer;
    /// Workload endpoints in force.
    workload_endpoints: WorkloadEndpoint(model::WorkloadEndpoint) of WorkloadEndpoint;
    /// Blocks in force.
    blocks: IpamBlock(model::IpamBlock) of IpamBlock;
    /// Service accounts in force.
    service_accounts: ServiceAccount(model::ServiceAccount) of ServiceAccount;
    /// Endpoint slices in force.
    endpoint_slices: EndpointSlice(model::EndpointSlice) of EndpointSlice;
    /// Cluster network policies in force, by name.
    cluster_policies: ClusterNetworkPolicy(model::ClusterNetworkPolicy) of ClusterNetworkPolicy;
    /// Tiers that have an object, by name.
    tiers: Tier(model::Tier) of Tier;
    /// Calico policies, staged ones too.
    calico_policies: CalicoPolicy(model::CalicoPolicy) of CalicoNetworkPolicy,
        GlobalNetworkPolicy, StagedNetworkPolicy, StagedGlobalNetworkPolicy;
    /// Staged Kubernetes policies.
    staged_kubernetes_policies: StagedKubernetesPolicy(model::StagedKubernetesPolicy)
        of StagedKubernetesNetworkPolicy;
    /// Network sets, of namespaces and global.
    network_sets: NetworkSet(model::NetworkSet) of NetworkSet, GlobalNetworkSet;
    /// Host endpoints, by name.
    host_endpoints: HostEndpoint(model::HostEndpoint) of HostEndpoint;
    /// Profiles, by name.
    profiles: Profile(model::Profile) of Profile;
    /// Services in force.
    services: Service(model::Service) of Service;
    /// Reservations in force, by name.
    reservations: IpReservation(model::IpReservation) of IpReservation;
    /// Questions about nodes, by name.
    node_statuses: CalicoNodeStatus(model::CalicoNodeStatus) of CalicoNodeStatus;
    /// BGP filters in force, by name.
    bgp_filters: BgpFilter(model::BgpFilter) of BgpFilter;
    /// Felix configurations in force: `default` and `node.<name>`.
    felix_configurations: FelixConfiguration(model::FelixConfiguration) of FelixConfiguration;
}

impl Objects {
    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        match self.get(&ObjectKey::global(Kind::Node, name)) {
            Some(Object::Node(node)) => Some(node),
            _ => None,
        }
    }

    /// The pod of this name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        match self
            .in_force
            .get(Kind::Pod, namespace, name)
            .map(|pod| &**pod)
        {
            Some(Object::Pod(pod)) => Some(pod),
            _ => None,
        }
    }

    /// The cluster's BGP configuration (`default`), or Calico's defaults.
    pub fn bgp_configuration(&self) -> BgpConfiguration {
        match self.get(&ObjectKey::global(Kind::BgpConfiguration, "default")) {
            Some(Object::BgpConfiguration(configuration)) => (**configuration).clone(),
            _ => BgpConfiguration::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{NetworkPolicy, Selector};

    fn policy(name: &str, selector: Selector) -> Object {
        Object::NetworkPolicy(Box::new(NetworkPolicy {
            namespace: "shop".into(),
            name: name.into(),
            pod_selector: selector,
            ingress: Some(vec![]),
            egress: None,
        }))
    }

    fn apply(object: Object) -> Update {
        Update::Apply {
            object,
            warnings: vec![],
        }
    }

    fn reject(object: &Object, fallback: Option<Object>) -> Update {
        Update::Reject {
            invalid: Invalid {
                object: object.key(),
                field: "spec".into(),
                reason: "bad".into(),
            },
            fallback,
        }
    }

    #[test]
    fn a_rejected_object_keeps_its_last_good_version() {
        let mut objects = Objects::default();
        let good = policy("api", Selector::Has("app".into()));
        objects.apply(apply(good.clone()));
        let changed = objects.apply(reject(&good, Some(policy("api", Selector::All))));
        assert!(changed.is_empty());
        assert_eq!(objects.get(&good.key()), Some(&good));
        assert_eq!(objects.rejected().count(), 1);
    }

    #[test]
    fn a_rejected_object_that_was_never_good_uses_its_fallback() {
        let mut objects = Objects::default();
        let fallback = policy("api", Selector::All);
        objects.apply(reject(&fallback, Some(fallback.clone())));
        assert_eq!(objects.get(&fallback.key()), Some(&fallback));
    }

    #[test]
    fn a_snapshot_keeps_the_last_good_version_of_an_object_that_is_bad_after_the_restart() {
        let mut objects = Objects::default();
        let good = policy("api", Selector::Has("app".into()));
        objects.restore(vec![good.clone()]);
        objects.apply(reject(&good, Some(policy("api", Selector::All))));
        objects.apply(Update::InSync);
        assert_eq!(objects.get(&good.key()), Some(&good));
    }

    #[test]
    fn what_the_datastore_no_longer_has_goes_when_it_is_in_sync() {
        let mut objects = Objects::default();
        let (gone, kept) = (policy("gone", Selector::All), policy("kept", Selector::All));
        objects.restore(vec![gone.clone(), kept.clone()]);
        objects.start_from_snapshot();
        assert!(objects.apply(apply(kept.clone())).is_empty());
        assert!(objects.get(&gone.key()).is_some());
        assert_eq!(objects.apply(Update::InSync), vec![gone.key()]);
        assert!(objects.get(&gone.key()).is_none());
        assert!(objects.get(&kept.key()).is_some());
    }

    #[test]
    fn what_may_stand_in_an_unreadable_file_stays_until_the_file_can_be_read() {
        let mut objects = Objects::default();
        let unknown = policy("api", Selector::All);
        objects.restore(vec![unknown.clone()]);
        objects.apply(Update::Unreadable {
            source: "np.yaml".into(),
            reason: "line 3".into(),
        });
        assert!(objects.apply(Update::InSync).is_empty());
        assert!(objects.get(&unknown.key()).is_some());
        let changed = objects.apply(Update::Readable {
            source: "np.yaml".into(),
        });
        assert_eq!(changed, vec![unknown.key()]);
    }

    #[test]
    fn a_snapshot_never_replaces_what_the_datastore_said() {
        let mut objects = Objects::default();
        let said = policy("api", Selector::Has("app".into()));
        objects.apply(apply(said.clone()));
        assert!(
            objects
                .restore(vec![policy("api", Selector::All)])
                .is_empty()
        );
        assert_eq!(objects.get(&said.key()), Some(&said));
    }
}
