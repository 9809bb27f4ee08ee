//! Pods: as told, as in the table, and by what policies find them.

use super::base;
use super::groups::ContentName;
use super::sets::Sets;
use crate::endpoint::{Endpoint, EndpointId};
use crate::hash::{content_name, content_number};
use crate::ir::Hint;
use crate::ruleset::{Element, Part};
use model::{Labels, Profile, Text};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What was told, and what of it is not in the table yet. A large cluster is held here once: those
/// who are alike are found together, and a label leads to them, not to each.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    /// As told.
    told: BTreeMap<EndpointId, Arc<Endpoint>>,
    /// What those that were told anew since are in the table.
    before: BTreeMap<EndpointId, Option<Arc<Endpoint>>>,
    /// Those in the table.
    alike: BTreeMap<Arc<Likeness>, BTreeSet<EndpointId>>,
    /// Keys of `alike`, by each of their labels.
    by_label: BTreeMap<u64, BTreeSet<Arc<Likeness>>>,
}

/// What the pods of a Deployment have in common.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Likeness {
    namespace: Text,
    labels: Labels,
}

impl Likeness {
    fn of(endpoint: &Endpoint) -> Self {
        Self {
            namespace: endpoint.namespace.clone(),
            labels: endpoint.labels.clone(),
        }
    }
}

impl Endpoints {
    /// An endpoint looks like this, or is gone.
    pub(super) fn set(&mut self, id: &EndpointId, endpoint: Option<Endpoint>) {
        if self.get(id) == endpoint.as_ref() {
            return;
        }
        let old = match endpoint {
            Some(endpoint) => self.told.insert(id.clone(), Arc::new(endpoint)),
            None => self.told.remove(id),
        };
        self.before.entry(id.clone()).or_insert(old);
    }

    /// The endpoint as it was told.
    pub(super) fn get(&self, id: &EndpointId) -> Option<&Endpoint> {
        self.told.get(id).map(Arc::as_ref)
    }

    /// All as they were told.
    pub(super) fn all(&self) -> impl Iterator<Item = (&EndpointId, &Endpoint)> {
        self.told.iter().map(|(id, endpoint)| (id, &**endpoint))
    }

    /// Those that were told anew since they were put into the table.
    pub(super) fn changed(&self) -> BTreeSet<EndpointId> {
        self.before.keys().cloned().collect()
    }

    /// Puts an endpoint into the table as told; returns what it was there, and what it is now.
    pub(super) fn compile(
        &mut self,
        id: &EndpointId,
    ) -> (Option<Arc<Endpoint>>, Option<Arc<Endpoint>>) {
        let new = self.told.get(id).cloned();
        let Some(old) = self.before.remove(id) else {
            return (new.clone(), new);
        };
        if let Some(old) = &old {
            self.strike(id, &Likeness::of(old));
        }
        if let Some(new) = &new {
            self.list(id, Likeness::of(new));
        }
        (old, new)
    }

    fn list(&mut self, id: &EndpointId, likeness: Likeness) {
        if let Some(others) = self.alike.get_mut(&likeness) {
            others.insert(id.clone());
            return;
        }
        let likeness = Arc::new(likeness);
        for (key, value) in &likeness.labels {
            let others = self.by_label.entry(label_number(key, value));
            others.or_default().insert(Arc::clone(&likeness));
        }
        self.alike.insert(likeness, BTreeSet::from([id.clone()]));
    }

    fn strike(&mut self, id: &EndpointId, likeness: &Likeness) {
        if let Some(others) = self.alike.get_mut(likeness) {
            others.remove(id);
            if !others.is_empty() {
                return;
            }
        }
        self.alike.remove(likeness);
        for (key, value) in &likeness.labels {
            let number = label_number(key, value);
            if let Some(others) = self.by_label.get_mut(&number) {
                others.remove(likeness);
                if others.is_empty() {
                    self.by_label.remove(&number);
                }
            }
        }
    }

    /// Those in the table of one namespace.
    fn of_namespace(&self, name: &str) -> impl Iterator<Item = &EndpointId> {
        let first = Likeness {
            namespace: name.into(),
            labels: Labels::new(),
        };
        let here = self.alike.range(first..);
        let here = here.take_while(move |(likeness, _)| likeness.namespace == *name);
        here.flat_map(|(_, ids)| ids)
    }

    /// Those in the table that inherit labels from any of these.
    pub(super) fn inheriting(
        &self,
        namespaces: &BTreeSet<String>,
        accounts: &BTreeSet<(String, String)>,
        profiles: &BTreeSet<String>,
    ) -> BTreeSet<EndpointId> {
        let mut found = BTreeSet::new();
        for name in namespaces {
            found.extend(self.of_namespace(name).cloned());
        }
        for (namespace, account) in accounts {
            let runs_as = |id: &&EndpointId| {
                let endpoint = self.get(id);
                endpoint.is_some_and(|e| e.service_account.as_deref() == Some(account))
            };
            found.extend(self.of_namespace(namespace).filter(runs_as).cloned());
        }
        if !profiles.is_empty() {
            let names_one = |(_, endpoint): &(&EndpointId, &Endpoint)| {
                let mut names = endpoint.profiles.iter();
                names.any(|name| profiles.contains(name.as_str()))
            };
            found.extend(self.all().filter(names_one).map(|(id, _)| id.clone()));
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
                    let with_label = self.by_label.get(&label_number(key, value));
                    let with_label = with_label.into_iter().flatten();
                    let ids = with_label.filter_map(|likeness| self.alike.get(likeness));
                    found.extend(ids.flatten());
                }
                Hint::Namespace(name) => found.extend(self.of_namespace(name)),
                Hint::Key(_) | Hint::None => return None,
            }
        }
        if !profiles.is_empty() && hints.iter().any(|hint| matches!(hint, Hint::Label(..))) {
            found.extend(self.all().filter(|(_, e)| inherits(e)).map(|(id, _)| id));
        }
        Some(found)
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
pub(super) fn label_number(key: &str, value: &str) -> u64 {
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
