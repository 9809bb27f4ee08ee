//! What Calico's selectors find: pods, host endpoints and network sets, with the labels that they
//! have there.

use super::super::Evaluator;
use crate::endpoint::Endpoint;
use model::{HostEndpoint, Labels, NamedPort, NetworkSet, Selector, Text};
use std::net::IpAddr;

const LABEL_NAME: &str = "projectcalico.org/name";
const LABEL_NAMESPACE: &str = "projectcalico.org/namespace";
const LABEL_ORCHESTRATOR: &str = "projectcalico.org/orchestrator";
const LABEL_SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";

/// What a selector is asked about: a pod, a host endpoint or a network set.
pub(super) struct Entity<'a> {
    pub(super) namespace: Option<&'a str>,
    pub(super) labels: Labels,
    pub(super) service_account: Option<&'a str>,
    pub(super) ports: &'a [NamedPort],
}

impl Evaluator {
    /// Everything at an address that selectors may match.
    pub(super) fn entities(&self, address: IpAddr) -> Vec<Entity<'_>> {
        let pods = self.known_holders(address).map(|pod| self.pod_entity(pod));
        let hosts = self.host_endpoints.values();
        let hosts = hosts
            .filter(|host| host.expected_ips.contains(&address))
            .map(|host| self.host_entity(host));
        let sets = self.network_sets.values();
        let sets = sets.filter(|set| set.nets.iter().any(|net| net.contains(&address)));
        let sets = sets.map(set_entity);
        pods.chain(hosts).chain(sets).collect()
    }

    /// Everything that selectors may match.
    pub(super) fn all_entities(&self) -> impl Iterator<Item = Entity<'_>> {
        let pods = self.endpoints.values().filter(|pod| pod.labels_known);
        let pods = pods.map(|pod| self.pod_entity(pod));
        let hosts = self.host_endpoints.values();
        let hosts = hosts.map(|host| self.host_entity(host));
        pods.chain(hosts)
            .chain(self.network_sets.values().map(set_entity))
    }

    /// A pod with the labels that Calico adds, over those of its profiles.
    pub(super) fn pod_entity<'a>(&'a self, pod: &'a Endpoint) -> Entity<'a> {
        let mut labels = self.inherited(&pod.profiles, &pod.labels);
        labels.insert(LABEL_NAMESPACE.to_owned(), pod.namespace.clone());
        labels.insert(LABEL_ORCHESTRATOR.to_owned(), "k8s".to_owned());
        if let Some(account) = &pod.service_account {
            labels.insert(LABEL_SERVICE_ACCOUNT.to_owned(), account.clone());
        }
        Entity {
            namespace: Some(&pod.namespace),
            labels,
            service_account: pod.service_account.as_deref(),
            ports: &pod.ports,
        }
    }

    pub(super) fn host_entity<'a>(&self, host: &'a HostEndpoint) -> Entity<'a> {
        Entity {
            namespace: None,
            labels: self.inherited(&host.profiles, &host.labels),
            service_account: None,
            ports: &host.ports,
        }
    }

    /// An endpoint's own labels over those of its profiles.
    fn inherited(&self, profiles: &[Text], own: &Labels) -> Labels {
        let known = profiles
            .iter()
            .filter_map(|name| self.profiles.get(name.as_str()));
        let mut labels = Labels::new();
        for profile in known {
            labels.extend(profile.labels_to_apply.clone());
        }
        labels.extend(own.clone());
        labels
    }

    /// Namespaces have their name as a label, under Kubernetes' name for it and Calico's.
    pub(super) fn namespace_matches(&self, selector: &Selector, entity: &Entity<'_>) -> bool {
        let labels = entity.namespace.map(|name| {
            let mut labels = self.namespace_labels(name);
            labels.insert(LABEL_NAME.to_owned(), name.to_owned());
            labels
        });
        owner_matches(selector, labels.as_ref())
    }

    pub(super) fn account_matches(&self, selector: &Selector, entity: &Entity<'_>) -> bool {
        let account = entity.service_account.zip(entity.namespace);
        let labels = account.map(|(name, namespace)| {
            let key = (namespace.to_owned(), name.to_owned());
            let known = self.service_accounts.get(&key);
            let mut labels = known
                .map(|account| account.labels.clone())
                .unwrap_or_default();
            labels.insert(LABEL_NAME.to_owned(), name.to_owned());
            labels
        });
        owner_matches(selector, labels.as_ref())
    }
}

fn set_entity(set: &NetworkSet) -> Entity<'_> {
    let mut labels = set.labels.clone();
    if let Some(namespace) = &set.namespace {
        labels.insert(LABEL_NAMESPACE.to_owned(), namespace.clone());
    }
    Entity {
        namespace: set.namespace.as_deref(),
        labels,
        service_account: None,
        ports: &[],
    }
}

/// A selector of namespaces or service accounts asked about what has none: `global()` matches and
/// `all()` does not; any other test sees no labels.
fn owner_matches(selector: &Selector, labels: Option<&Labels>) -> bool {
    match selector {
        Selector::All => labels.is_some(),
        Selector::Global => labels.is_none(),
        Selector::And(all) => all.iter().all(|one| owner_matches(one, labels)),
        Selector::Or(any) => any.iter().any(|one| owner_matches(one, labels)),
        Selector::Not(inner) => !owner_matches(inner, labels),
        test => match labels {
            Some(labels) => test.matches(labels),
            None => test.matches(&Labels::new()),
        },
    }
}
