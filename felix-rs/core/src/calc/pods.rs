//! Workload endpoints -> the pods that policy and routes know.

use super::Calc;
use crate::workloads::{EndpointKey, LocalEndpoint, id, seen};
use model::{Object, ObjectKey, Text, WorkloadEndpoint};
use policy::EndpointId;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

/// A workload endpoint, and the interface index of one of this node.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    object: Arc<Object>,
    local: Option<u32>,
}

impl Seen {
    fn here(local: &LocalEndpoint) -> Self {
        Self {
            object: Arc::new(Object::WorkloadEndpoint(Box::new(local.endpoint.clone()))),
            local: Some(local.ifindex),
        }
    }

    pub(super) fn endpoint(&self) -> &WorkloadEndpoint {
        match &*self.object {
            Object::WorkloadEndpoint(endpoint) => endpoint,
            other => unreachable!("invariant: {} is no endpoint", other.key()),
        }
    }
}

/// A pod as a number; others may have the same.
fn pod_number(namespace: &str, pod: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (namespace, pod).hash(&mut hasher);
    hasher.finish()
}

impl Calc {
    /// A workload endpoint of another node. Those of this node come from CNI and the journal.
    pub(super) fn on_workload_endpoint(&mut self, key: &ObjectKey) {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        let id = EndpointId(format!("{namespace}/{}", key.name).into());
        let elsewhere = |object: &Arc<Object>| match &**object {
            Object::WorkloadEndpoint(endpoint) => endpoint.node != self.node,
            _ => false,
        };
        match self.objects.shared(key) {
            Some(object) if elsewhere(&object) => self.see(
                id,
                Seen {
                    object,
                    local: None,
                },
            ),
            Some(_) => {}
            None => {
                let local = self
                    .local
                    .values()
                    .any(|local| crate::workloads::id(&local.endpoint) == id);
                if !local {
                    self.forget(&id);
                }
            }
        }
    }

    fn see(&mut self, id: EndpointId, seen_now: Seen) {
        let endpoint = seen_now.endpoint();
        let number = pod_number(&endpoint.namespace, &endpoint.pod);
        for net in &endpoint.ip_networks {
            self.departed.remove(&net.addr());
        }
        self.tell(&id, &seen_now);
        self.by_pod.insert((number, id.clone()));
        self.seen.insert(id, seen_now);
    }

    /// Tells the compiler how an endpoint looks to policies.
    fn tell(&mut self, id: &EndpointId, known: &Seen) {
        let mut endpoint = seen(known.endpoint(), known.local, &self.objects);
        if let Some(endpoint) = &mut endpoint {
            endpoint.profiles = self.profiles.share(&endpoint.profiles);
        }
        self.compiler.set_endpoint(id, endpoint);
    }

    fn forget(&mut self, id: &EndpointId) {
        self.compiler.set_endpoint(id, None);
        let Some(known) = self.seen.remove(id) else {
            return;
        };
        let endpoint = known.endpoint();
        let number = pod_number(&endpoint.namespace, &endpoint.pod);
        self.by_pod.remove(&(number, id.clone()));
    }

    pub(super) fn refresh_pod(&mut self, namespace: &str, pod: &str) {
        let number = pod_number(namespace, pod);
        let of_number = self.by_pod.range((number, EndpointId(Text::default()))..);
        let of_number = of_number.take_while(|(here, _)| *here == number);
        let of_pod = of_number.filter_map(|(_, id)| {
            let known = self.seen.get(id)?;
            let endpoint = known.endpoint();
            let is_its = endpoint.namespace == *namespace && endpoint.pod == *pod;
            is_its.then(|| (id.clone(), known.clone()))
        });
        for (id, known) in of_pod.collect::<Vec<_>>() {
            self.tell(&id, &known);
        }
    }

    /// A pod of this node has a link now.
    pub fn set_local(&mut self, endpoint: LocalEndpoint) {
        let key = EndpointKey::of(&endpoint.endpoint);
        for ip in &endpoint.endpoint.ip_networks {
            self.desired.freed.remove(ip);
        }
        self.see(id(&endpoint.endpoint), Seen::here(&endpoint));
        self.local.insert(key, endpoint);
        self.dirty.local = true;
    }

    /// A pod of this node is gone.
    pub fn remove_local(&mut self, key: &EndpointKey) -> Option<LocalEndpoint> {
        let gone = self.local.remove(key)?;
        let gone_id = id(&gone.endpoint);
        match self
            .local
            .values()
            .filter(|other| id(&other.endpoint) == gone_id)
            .max_by_key(|other| other.sequence)
        {
            // Another sandbox of the same pod; the latest holds its place.
            Some(other) => {
                let seen = Seen::here(other);
                self.see(gone_id, seen);
            }
            None => self.forget(&gone_id),
        }
        for net in &gone.endpoint.ip_networks {
            self.desired.freed.insert(*net);
            if !self.own_blocks.iter().any(|block| block.contains(net)) {
                self.departed.insert(net.addr());
            }
        }
        self.dirty.local = true;
        Some(gone)
    }

    /// Addresses outside of own blocks whose pod is gone: what they had open must not be inherited.
    pub fn departed(&self) -> &BTreeSet<IpAddr> {
        &self.departed
    }

    /// These addresses have no connection any more.
    pub fn forget_departed(&mut self, gone: impl Fn(IpAddr) -> bool) {
        self.departed.retain(|address| !gone(*address));
    }

    /// The pods of this node.
    pub fn local(&self) -> &BTreeMap<EndpointKey, LocalEndpoint> {
        &self.local
    }

    /// Every endpoint of the cluster that is known, with the interface index of those of this node.
    pub(crate) fn endpoints(
        &self,
    ) -> impl Iterator<Item = (&EndpointId, &WorkloadEndpoint, Option<u32>)> {
        let all = self.seen.iter();
        all.map(|(id, known)| (id, known.endpoint(), known.local))
    }
}
