//! Pods: as told, as in the table, and by what policies find them.

use super::base;
use super::groups::ContentName;
use super::sets::Sets;
use crate::endpoint::{Endpoint, EndpointId};
use crate::hash::{content_name, content_number};
use crate::ir::Hint;
use crate::ruleset::{Element, Part};
use model::{Profile, Text};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Endpoints {
    /// As told.
    pub(super) told: BTreeMap<EndpointId, Arc<Endpoint>>,
    /// As in the table.
    pub(super) compiled: BTreeMap<EndpointId, Arc<Endpoint>>,
    /// Of `compiled`, by namespace.
    pub(super) by_namespace: BTreeMap<Text, BTreeSet<EndpointId>>,
    /// Of `compiled`, by label.
    by_label: BTreeMap<u64, BTreeSet<Arc<EndpointId>>>,
}

impl Endpoints {
    /// Those that inherit labels from any of these.
    pub(super) fn inheriting(
        &self,
        namespaces: &BTreeSet<String>,
        accounts: &BTreeSet<(String, String)>,
        profiles: &BTreeSet<String>,
    ) -> BTreeSet<EndpointId> {
        let mut found = BTreeSet::new();
        for name in namespaces {
            found.extend(
                self.by_namespace
                    .get(name.as_str())
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
        }
        for (namespace, account) in accounts {
            let here = self
                .by_namespace
                .get(namespace.as_str())
                .into_iter()
                .flatten();
            let runs_as = |id: &&EndpointId| {
                let endpoint = self.compiled.get(*id);
                endpoint.is_some_and(|e| e.service_account.as_deref() == Some(account))
            };
            found.extend(here.filter(runs_as).cloned());
        }
        if !profiles.is_empty() {
            let names_one = |(_, endpoint): &(&EndpointId, &Arc<Endpoint>)| {
                endpoint
                    .profiles
                    .iter()
                    .any(|name| profiles.contains(name.as_str()))
            };
            found.extend(
                self.compiled
                    .iter()
                    .filter(names_one)
                    .map(|(id, _)| id.clone()),
            );
        }
        found
    }

    /// Those that selectors with these hints may select, given the profiles that there are; `None`
    /// is all of them.
    pub(super) fn candidates(
        &self,
        hints: &[Hint],
        profiles: &BTreeMap<String, Profile>,
    ) -> Option<BTreeSet<&EndpointId>> {
        let inherits = |endpoint: &Endpoint| {
            let mut names = endpoint.profiles.iter();
            names.any(|name| profiles.contains_key(name.as_str()))
        };
        let mut found = BTreeSet::new();
        for hint in hints {
            match hint {
                // Labels that Calico adds are in no index.
                Hint::Label(key, _) if key.starts_with("projectcalico.org/") => return None,
                Hint::Label(key, value) => {
                    let number = label_number(key, value);
                    let here = self.by_label.get(&number).into_iter().flatten();
                    found.extend(here.map(Arc::as_ref));
                }
                Hint::Namespace(name) => {
                    found.extend(self.by_namespace.get(name.as_str()).into_iter().flatten());
                }
                Hint::Key(_) | Hint::None => return None,
            }
        }
        if !profiles.is_empty() && hints.iter().any(|hint| matches!(hint, Hint::Label(..))) {
            let all = self.compiled.iter();
            found.extend(all.filter(|(_, e)| inherits(e)).map(|(id, _)| id));
        }
        Some(found)
    }

    /// The endpoint goes into the table as told.
    pub(super) fn compile(&mut self, id: &EndpointId) {
        if let Some(old) = self.compiled.remove(id) {
            if let Some(others) = self.by_namespace.get_mut(old.namespace.as_str()) {
                others.remove(id);
                if others.is_empty() {
                    self.by_namespace.remove(old.namespace.as_str());
                }
            }
            for label in &old.labels {
                let number = label_number(label.0, label.1);
                if let Some(others) = self.by_label.get_mut(&number) {
                    others.remove(id);
                    if others.is_empty() {
                        self.by_label.remove(&number);
                    }
                }
            }
        }
        if let Some(new) = self.told.get(id) {
            let shared = Arc::new(id.clone());
            for label in &new.labels {
                let others = self.by_label.entry(label_number(label.0, label.1));
                others.or_default().insert(Arc::clone(&shared));
            }
            self.by_namespace
                .entry(new.namespace.clone())
                .or_default()
                .insert(id.clone());
            self.compiled.insert(id.clone(), Arc::clone(new));
        }
    }
}

/// All of an endpoint that policies can see.
pub(super) fn class(endpoint: &Endpoint) -> ContentName {
    content_name(&(
        &endpoint.namespace,
        &endpoint.labels,
        &endpoint.ports,
        endpoint.labels_known,
        &endpoint.service_account,
        &endpoint.profiles,
    ))
}

/// A label as a number; others may have the same.
fn label_number(key: &str, value: &str) -> u64 {
    content_number(&(key, value))
}

/// What a local pod may speak with and be spoken to.
pub(super) fn count_local(sets: &mut Sets, endpoint: Option<&Endpoint>, delta: i64) {
    let Some((endpoint, interface)) = endpoint.and_then(|e| Some((e, e.local?))) else {
        return;
    };
    for ip in &endpoint.ips {
        let own = Element::exact(&[Part::Ifindex(interface), Part::Address(*ip)]);
        sets.count(base::LOCAL[usize::from(ip.is_ipv6())], own, delta);
    }
}
