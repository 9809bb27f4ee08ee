//! Selectors of peers that policy sets use: who matches them, and which policy sets use them.

use super::layout::{Layout, Term};
use super::sets::Sets;
use crate::endpoint::{Endpoint, EndpointId};
use crate::ir::{PodPeer, PolicySet};
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
    /// Chains of the policy sets that use the selector.
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
        policy_sets: &PolicySets,
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
            for terms in selected
                .users
                .iter()
                .filter_map(|user| policy_sets.terms(user, peer))
            {
                was.iter()
                    .for_each(|endpoint| count(terms, endpoint, -1, sets));
                is.iter()
                    .for_each(|endpoint| count(terms, endpoint, 1, sets));
            }
            match is {
                Some(_) => drop(selected.members.insert(id.clone())),
                None => drop(selected.members.remove(id)),
            }
        }
    }

    /// A policy set uses the selector; returns who matches.
    pub(super) fn add_user(
        &mut self,
        peer: &PodPeer,
        chain: &str,
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
        selected.users.insert(chain.to_owned());
        &selected.members
    }

    pub(super) fn remove_user(&mut self, peer: &PodPeer, chain: &str) {
        if let Some(selected) = self.selectors.get_mut(peer) {
            selected.users.remove(chain);
            if selected.users.is_empty() {
                self.selectors.remove(peer);
            }
        }
    }
}

/// Adds to the references that an endpoint's elements have, or subtracts from them.
pub(super) fn count(terms: &[Term], endpoint: &Endpoint, delta: i64, sets: &mut Sets) {
    for (base, element) in terms.iter().flat_map(|term| term.elements(endpoint)) {
        sets.count(base, element, delta);
    }
}

/// Policy sets in use, by chain.
#[derive(Debug, Default)]
pub(super) struct PolicySets {
    by_chain: BTreeMap<String, (Layout, usize)>,
}

impl PolicySets {
    /// One more interface and direction uses the policy set; true where it is the first.
    pub(super) fn add_user(&mut self, chain: &str, set: &PolicySet) -> bool {
        if let Some((_, users)) = self.by_chain.get_mut(chain) {
            *users += 1;
            return false;
        }
        self.by_chain
            .insert(chain.to_owned(), (Layout::new(set), 1));
        true
    }

    pub(super) fn remove_user(&mut self, chain: &str) {
        if let Some((_, users)) = self.by_chain.get_mut(chain) {
            *users -= 1;
        }
    }

    /// Takes those that nobody uses.
    pub(super) fn remove_unused(&mut self) -> Vec<Layout> {
        let unused = self.by_chain.extract_if(.., |_, (_, users)| *users == 0);
        unused.map(|(_, (layout, _))| layout).collect()
    }

    pub(super) fn get(&self, chain: &str) -> Option<&Layout> {
        self.by_chain.get(chain).map(|(layout, _)| layout)
    }

    fn terms(&self, chain: &str, peer: &PodPeer) -> Option<&[Term]> {
        self.get(chain)?.terms.get(peer).map(Vec::as_slice)
    }

    /// Policy sets whose chains have to be rendered: new ones and those with a renamed set.
    pub(super) fn to_render<'a>(
        &'a self,
        new: &'a BTreeSet<String>,
        renamed: &'a BTreeSet<String>,
        all: bool,
    ) -> impl Iterator<Item = &'a Layout> {
        let layouts = self.by_chain.values().map(|(layout, _)| layout);
        layouts.filter(move |layout| {
            all || new.contains(&layout.chain)
                || renamed.iter().any(|base| layout.counted.contains_key(base))
        })
    }
}
