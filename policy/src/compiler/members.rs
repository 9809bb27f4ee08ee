//! Selectors of peers in use: who matches them, and which sets take their members.

use super::pod_sets::PodSets;
use super::sets::Sets;
use crate::endpoint::{Endpoint, EndpointId};
use crate::ir::PodPeer;
use model::Labels;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Kubernetes gives every namespace this label.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn with_name(mut labels: Labels, namespace: &str) -> Labels {
    labels.insert(NAME_LABEL.to_owned(), namespace.to_owned());
    labels
}

fn labels_of<'a>(namespaces: &'a BTreeMap<String, Labels>, name: &str) -> Cow<'a, Labels> {
    match namespaces.get(name) {
        Some(labels) => Cow::Borrowed(labels),
        None => Cow::Owned(with_name(Labels::new(), name)),
    }
}

/// Members of every selector in use.
#[derive(Debug, Default)]
pub(super) struct Members {
    selectors: BTreeMap<PodPeer, Selected>,
}

#[derive(Debug, Default)]
struct Selected {
    members: BTreeSet<EndpointId>,
    /// Base names of the sets of pods that take the members.
    users: BTreeSet<String>,
}

impl Members {
    /// An endpoint, or its namespace, is another than before: counts it out of and into the sets
    /// of all selectors that it leaves or joins.
    pub(super) fn set(
        &mut self,
        id: &EndpointId,
        old: Option<&Endpoint>,
        new: Option<&Endpoint>,
        namespaces: &BTreeMap<String, Labels>,
        pod_sets: &PodSets,
        sets: &mut Sets,
    ) {
        let same_keys =
            matches!((old, new), (Some(a), Some(b)) if a.ips == b.ips && a.ports == b.ports);
        for (peer, selected) in &mut self.selectors {
            let was = old.filter(|_| selected.members.contains(id));
            let is = new.filter(|endpoint| {
                peer.matches(endpoint, || labels_of(namespaces, &endpoint.namespace))
            });
            if was.is_none() && is.is_none() || was.is_some() && is.is_some() && same_keys {
                continue;
            }
            for base in &selected.users {
                let Some(set) = pod_sets.get(base) else {
                    continue;
                };
                was.iter()
                    .for_each(|endpoint| set.count(base, peer, endpoint, -1, sets));
                is.iter()
                    .for_each(|endpoint| set.count(base, peer, endpoint, 1, sets));
            }
            match is {
                Some(_) => drop(selected.members.insert(id.clone())),
                None => drop(selected.members.remove(id)),
            }
        }
    }

    /// A set takes the members of the selector; returns them.
    pub(super) fn add_user(
        &mut self,
        peer: &PodPeer,
        base: &str,
        endpoints: &BTreeMap<EndpointId, Arc<Endpoint>>,
        namespaces: &BTreeMap<String, Labels>,
    ) -> &BTreeSet<EndpointId> {
        let selected = self.selectors.entry(peer.clone()).or_insert_with(|| {
            let matching = endpoints.iter().filter(|(_, endpoint)| {
                peer.matches(endpoint, || labels_of(namespaces, &endpoint.namespace))
            });
            let members = matching.map(|(id, _)| id.clone()).collect();
            Selected {
                members,
                users: BTreeSet::new(),
            }
        });
        selected.users.insert(base.to_owned());
        &selected.members
    }

    pub(super) fn remove_user(&mut self, peer: &PodPeer, base: &str) {
        if let Some(selected) = self.selectors.get_mut(peer) {
            selected.users.remove(base);
            if selected.users.is_empty() {
                self.selectors.remove(peer);
            }
        }
    }
}
