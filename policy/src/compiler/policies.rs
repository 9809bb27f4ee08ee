//! Policies as told, found by those whom they may be about: each is filed under a label that its
//! subjects have to have, where there is one.

use super::endpoints::label_number;
use crate::input::{Policy, PolicyKey};
use crate::ir::{Asked, needed_label};
use model::Selector;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Policies {
    /// By namespace; those without one are cluster-wide.
    by_namespace: BTreeMap<Option<String>, InNamespace>,
}

#[derive(Debug, Default)]
struct InNamespace {
    all: BTreeMap<Arc<PolicyKey>, Policy>,
    by_label: BTreeMap<u64, Keys>,
    rest: Keys,
}

type Keys = BTreeSet<Arc<PolicyKey>>;

/// Whom policies that changed may be about.
#[derive(Debug, Default)]
pub(super) struct Subjects {
    labels: BTreeSet<u64>,
    anybody: bool,
}

impl Policies {
    /// A policy says this, or is gone; `touched` learns whom it may be about, now and before.
    pub(super) fn set(
        &mut self,
        key: &PolicyKey,
        policy: Option<Policy>,
        touched: &mut BTreeMap<Option<String>, Subjects>,
    ) {
        let here = self.by_namespace.entry(key.namespace.clone()).or_default();
        if here.all.get(key) == policy.as_ref() {
            if here.all.is_empty() {
                self.by_namespace.remove(&key.namespace);
            }
            return;
        }
        let subjects = touched.entry(key.namespace.clone()).or_default();
        if let Some(old) = here.all.remove(key) {
            let label = subject_label(&old);
            here.drawer(label).remove(key);
            if let Some(label) = label
                && here.by_label.get(&label).is_some_and(BTreeSet::is_empty)
            {
                here.by_label.remove(&label);
            }
            subjects.add(label);
        }
        if let Some(policy) = policy {
            let label = subject_label(&policy);
            let key = Arc::new(key.clone());
            here.drawer(label).insert(Arc::clone(&key));
            here.all.insert(key, policy);
            subjects.add(label);
        }
        if here.all.is_empty() {
            self.by_namespace.remove(&key.namespace);
        }
    }

    /// All policies of a namespace, or all cluster-wide ones.
    pub(super) fn all<'a>(
        &'a self,
        namespace: &Option<String>,
    ) -> impl Iterator<Item = &'a Policy> + use<'a> {
        let here = self.by_namespace.get(namespace).into_iter();
        here.flat_map(|here| here.all.values())
    }

    /// Policies of a namespace, or cluster-wide ones, that may be about somebody, by name.
    pub(super) fn about<'a>(
        &'a self,
        namespace: &Option<String>,
        asked: &Asked<'_>,
    ) -> impl Iterator<Item = &'a Policy> + use<'a> {
        let here = self.by_namespace.get(namespace);
        let mut keys: BTreeSet<&PolicyKey> = BTreeSet::new();
        if let Some(here) = here {
            keys.extend(here.rest.iter().map(Arc::as_ref));
            asked.each_label(|key, value| {
                let here = here.by_label.get(&label_number(key, value));
                keys.extend(here.into_iter().flatten().map(Arc::as_ref));
            });
        }
        keys.into_iter().filter_map(move |key| here?.all.get(key))
    }
}

impl InNamespace {
    fn drawer(&mut self, label: Option<u64>) -> &mut Keys {
        match label {
            Some(label) => self.by_label.entry(label).or_default(),
            None => &mut self.rest,
        }
    }
}

impl Subjects {
    fn add(&mut self, label: Option<u64>) {
        match label {
            Some(label) => drop(self.labels.insert(label)),
            None => self.anybody = true,
        }
    }

    pub(super) fn may_hold(&self, asked: &Asked<'_>) -> bool {
        let mut holds = self.anybody;
        asked.each_label(|key, value| {
            holds = holds || self.labels.contains(&label_number(key, value));
        });
        holds
    }
}

/// The number of a label without which nobody is a subject of the policy.
fn subject_label(policy: &Policy) -> Option<u64> {
    let selector: &Selector = match policy {
        Policy::Kubernetes(policy) => &policy.pod_selector,
        Policy::StagedKubernetes(staged) => &staged.policy.pod_selector,
        Policy::Cluster(policy) => &policy.subject.pods,
        Policy::Calico(policy) => &policy.selector,
    };
    needed_label(selector).map(|(key, value)| label_number(key, value))
}
