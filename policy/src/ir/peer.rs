//! Who may be at an end of a packet: selectors of peers, and the members that they select.

use crate::endpoint::Endpoint;
use crate::input::NodePeer;
use ipnet::IpNet;
use model::{
    EndpointSlice, HostEndpoint, Labels, NamedPort, NetworkSet, Profile, Selector, ServiceAccount,
    ServiceAccountMatch, Text,
};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Kubernetes gives every namespace this label.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Calico gives namespaces and service accounts this label.
const CALICO_NAME: &str = "projectcalico.org/name";
/// Calico gives what stands in a namespace this label, and endpoints the two others.
const CALICO_NAMESPACE: &str = "projectcalico.org/namespace";
const CALICO_ORCHESTRATOR: &str = "projectcalico.org/orchestrator";
const CALICO_SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";

/// A set of peers that changes while policies stay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PeerSelector {
    /// Pods, as Kubernetes' policies select them.
    Pods(PodPeer),
    /// Pods, host endpoints and network sets, as Calico's policies select them.
    Entities(EntityPeer),
    /// Nodes with these labels.
    Nodes(Selector),
    /// What any of these names, or patterns of names, resolves to.
    Domains(BTreeSet<String>),
    /// Where the connections of a Service end.
    Service { namespace: String, name: String },
}

/// Pods by their labels and those of their namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PodPeer {
    pub(crate) namespaces: Namespaces,
    pub(crate) pods: Selector,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Namespaces {
    /// Any, and what stands in none (Calico only).
    Any,
    Named(String),
    Selected(Selector),
}

/// What has these labels, stands in these namespaces and runs as these service accounts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EntityPeer {
    pub(crate) namespaces: Namespaces,
    pub(crate) selector: Selector,
    pub(crate) service_accounts: Option<ServiceAccountMatch>,
}

/// Something with addresses that peers may select.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Member<'a> {
    Endpoint(&'a Endpoint),
    HostEndpoint(&'a HostEndpoint),
    NetworkSet(&'a NetworkSet),
    Node(&'a NodePeer),
    Domain(&'a str, &'a BTreeSet<IpAddr>),
    Slice(&'a EndpointSlice),
}

/// A label or a namespace without which a selector can't match: where to look for selectors.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Hint {
    Label(String, String),
    /// A label with this key.
    Key(String),
    Namespace(String),
    None,
}

/// Labels that members inherit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owners<'a> {
    pub(crate) namespaces: &'a BTreeMap<String, Labels>,
    pub(crate) service_accounts: &'a BTreeMap<(String, String), ServiceAccount>,
    pub(crate) profiles: &'a BTreeMap<String, Profile>,
}

/// A member with the labels that Calico's selectors see, made when they are first asked for.
pub(crate) struct Asked<'a> {
    pub(crate) member: Member<'a>,
    pub(crate) owners: Owners<'a>,
    labels: OnceCell<Labels>,
}

/// The labels of a namespace with its name, as Kubernetes gives them.
pub(crate) fn with_name(mut labels: Labels, namespace: &str) -> Labels {
    labels.insert(NAME_LABEL.to_owned(), namespace.to_owned());
    labels
}

impl<'a> Owners<'a> {
    fn namespace(&self, name: &str) -> Cow<'a, Labels> {
        match self.namespaces.get(name) {
            Some(labels) => Cow::Borrowed(labels),
            None => Cow::Owned(with_name(Labels::new(), name)),
        }
    }
}

impl<'a> Member<'a> {
    /// Single addresses.
    pub(crate) fn ips(self) -> impl Iterator<Item = IpAddr> + 'a {
        let (list, set, nets): (&[IpAddr], Option<&BTreeSet<IpAddr>>, &[IpNet]) = match self {
            Self::Endpoint(endpoint) => (&endpoint.ips, None, &[]),
            Self::HostEndpoint(endpoint) => (&endpoint.expected_ips, None, &[]),
            Self::NetworkSet(set) => (&[], None, &set.nets),
            Self::Node(node) => (&[], Some(&node.addresses), &[]),
            Self::Domain(_, addresses) => (&[], Some(addresses), &[]),
            Self::Slice(slice) => (&[], Some(&slice.addresses), &[]),
        };
        let single = nets.iter().filter(|net| is_single(net)).map(IpNet::addr);
        list.iter()
            .chain(set.into_iter().flatten())
            .copied()
            .chain(single)
    }

    /// Prefixes that are more than one address.
    pub(crate) fn wide(self) -> impl Iterator<Item = &'a IpNet> {
        let nets = match self {
            Self::NetworkSet(set) => set.nets.as_slice(),
            _ => &[],
        };
        nets.iter().filter(|net| !is_single(net))
    }

    /// Ports that it has by name.
    pub(crate) fn ports(self) -> &'a [NamedPort] {
        match self {
            Self::Endpoint(endpoint) => &endpoint.ports,
            Self::HostEndpoint(endpoint) => &endpoint.ports,
            Self::Slice(slice) => &slice.ports,
            Self::NetworkSet(_) | Self::Node(_) | Self::Domain(..) => &[],
        }
    }

    /// True where selectors of peers put the same into sets for both.
    pub(crate) fn same_keys(self, other: Member<'_>) -> bool {
        self.ips().eq(other.ips()) && self.wide().eq(other.wide()) && self.ports() == other.ports()
    }

    pub(crate) fn namespace(self) -> Option<&'a str> {
        match self {
            Self::Endpoint(endpoint) => Some(&endpoint.namespace),
            Self::NetworkSet(set) => set.namespace.as_deref(),
            Self::Slice(slice) => Some(&slice.namespace),
            Self::HostEndpoint(_) | Self::Node(_) | Self::Domain(..) => None,
        }
    }

    fn service_account(self) -> Option<&'a str> {
        match self {
            Self::Endpoint(endpoint) => endpoint.service_account.as_deref(),
            _ => None,
        }
    }
}

fn is_single(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

impl<'a> Asked<'a> {
    pub(crate) fn new(member: Member<'a>, owners: Owners<'a>) -> Self {
        Self {
            member,
            owners,
            labels: OnceCell::new(),
        }
    }

    /// Labels with those that profiles and Calico itself add.
    pub(crate) fn labels(&self) -> &Labels {
        self.labels.get_or_init(|| self.make_labels())
    }

    fn inherited(&self, profiles: &[Text]) -> impl Iterator<Item = (Text, Text)> {
        let profiles = profiles.iter();
        let known = profiles.filter_map(|name| self.owners.profiles.get(name.as_str()));
        known.flat_map(|profile| profile.labels_to_apply.clone())
    }

    fn make_labels(&self) -> Labels {
        let (profiles, own): (&[Text], &Labels) = match self.member {
            Member::Endpoint(endpoint) => (&endpoint.profiles, &endpoint.labels),
            Member::HostEndpoint(endpoint) => (&endpoint.profiles, &endpoint.labels),
            Member::NetworkSet(set) => (&[], &set.labels),
            Member::Node(_) | Member::Domain(..) | Member::Slice(_) => (&[], &Labels::new()),
        };
        let is_pod = matches!(self.member, Member::Endpoint(_));
        let added = [
            (CALICO_ORCHESTRATOR, is_pod.then_some("k8s")),
            (CALICO_NAMESPACE, self.member.namespace()),
            (CALICO_SERVICE_ACCOUNT, self.member.service_account()),
        ];
        let added = added.into_iter();
        let added = added.filter_map(|(key, value)| Some((key.into(), value?.into())));
        self.inherited(profiles)
            .chain(own.clone())
            .chain(added)
            .collect()
    }

    /// Every label that a selector may see, its own, inherited and added ones, some of them
    /// perhaps hidden by others.
    pub(crate) fn each_label(&self, mut visit: impl FnMut(&str, &str)) {
        let own = match self.member {
            Member::Endpoint(endpoint) => &endpoint.labels,
            Member::HostEndpoint(endpoint) => &endpoint.labels,
            Member::NetworkSet(set) => &set.labels,
            Member::Node(_) | Member::Domain(..) | Member::Slice(_) => return,
        };
        own.iter().for_each(|(key, value)| visit(key, value));
        let profiles: &[Text] = match self.member {
            Member::Endpoint(endpoint) => &endpoint.profiles,
            Member::HostEndpoint(endpoint) => &endpoint.profiles,
            Member::NetworkSet(_) | Member::Node(_) | Member::Domain(..) | Member::Slice(_) => &[],
        };
        for profile in profiles
            .iter()
            .filter_map(|name| self.owners.profiles.get(name.as_str()))
        {
            let labels = profile.labels_to_apply.iter();
            labels.for_each(|(key, value)| visit(key, value));
        }
        if matches!(self.member, Member::Endpoint(_)) {
            visit(CALICO_ORCHESTRATOR, "k8s");
        }
        if let Some(namespace) = self.member.namespace() {
            visit(CALICO_NAMESPACE, namespace);
        }
        if let Some(account) = self.member.service_account() {
            visit(CALICO_SERVICE_ACCOUNT, account);
        }
    }

    /// Whether it stands in such a namespace, with Calico's labels.
    pub(crate) fn is_in_namespace(&self, selector: &Selector) -> bool {
        let labels = self.member.namespace().map(|name| {
            let mut labels = self.owners.namespace(name).into_owned();
            labels.insert(CALICO_NAME.to_owned(), name.to_owned());
            labels
        });
        owner_matches(selector, labels.as_ref())
    }

    /// Whether it runs as such a service account.
    pub(crate) fn has_account(&self, selector: &Selector) -> bool {
        let account = self.member.service_account().zip(self.member.namespace());
        let labels = account.map(|(name, namespace)| {
            let key = (namespace.to_owned(), name.to_owned());
            let known = self.owners.service_accounts.get(&key);
            let mut labels = known.map(|known| known.labels.clone()).unwrap_or_default();
            labels.insert(CALICO_NAME.to_owned(), name.to_owned());
            labels
        });
        owner_matches(selector, labels.as_ref())
    }
}

/// A selector of namespaces or service accounts, asked about what may have none: `all()` is
/// whatever has one, `global()` what has none, and other tests see no labels there.
fn owner_matches(selector: &Selector, labels: Option<&Labels>) -> bool {
    match selector {
        Selector::All => labels.is_some(),
        Selector::Global => labels.is_none(),
        Selector::And(all) => all.iter().all(|one| owner_matches(one, labels)),
        Selector::Or(any) => any.iter().any(|one| owner_matches(one, labels)),
        Selector::Not(one) => !owner_matches(one, labels),
        test => match labels {
            Some(labels) => test.matches(labels),
            None => test.matches(&Labels::new()),
        },
    }
}

impl PeerSelector {
    /// True where members have ports with names.
    pub(super) fn has_ports(&self) -> bool {
        matches!(self, Self::Pods(_) | Self::Entities(_))
    }

    /// True where members may be prefixes.
    pub(crate) fn has_prefixes(&self) -> bool {
        matches!(self, Self::Entities(_))
    }

    /// True where the member is one of these. A pod whose labels nobody knows never is.
    pub(crate) fn matches(&self, asked: &Asked<'_>) -> bool {
        match (self, asked.member) {
            (Self::Pods(peer), Member::Endpoint(endpoint)) => {
                endpoint.labels_known && peer.matches(endpoint, asked.owners)
            }
            (Self::Entities(peer), member) => match member {
                Member::Endpoint(endpoint) => endpoint.labels_known && peer.matches(asked),
                Member::HostEndpoint(_) | Member::NetworkSet(_) => peer.matches(asked),
                Member::Node(_) | Member::Domain(..) | Member::Slice(_) => false,
            },
            (Self::Nodes(selector), Member::Node(node)) => selector.matches(&node.labels),
            (Self::Domains(patterns), Member::Domain(name, _)) => {
                patterns.iter().any(|pattern| domain_matches(pattern, name))
            }
            (Self::Service { namespace, name }, Member::Slice(slice)) => {
                slice.namespace == *namespace && slice.service == *name
            }
            _ => false,
        }
    }

    /// What it needs, to be found by.
    pub(crate) fn hint(&self) -> Hint {
        let of_namespaces = |namespaces: &Namespaces| match namespaces {
            Namespaces::Named(name) => Hint::Namespace(name.clone()),
            Namespaces::Any | Namespaces::Selected(_) => Hint::None,
        };
        let (selector, otherwise) = match self {
            Self::Pods(peer) => (&peer.pods, of_namespaces(&peer.namespaces)),
            Self::Entities(peer) => (&peer.selector, of_namespaces(&peer.namespaces)),
            Self::Service { namespace, .. } => return Hint::Namespace(namespace.clone()),
            Self::Nodes(_) | Self::Domains(_) => return Hint::None,
        };
        match (needed_label(selector), needed_key(selector)) {
            (Some((key, value)), _) => Hint::Label(key.clone(), value.clone()),
            (None, Some(key)) => Hint::Key(key.clone()),
            (None, None) => otherwise,
        }
    }
}

/// A label without which the selector does not match.
pub(crate) fn needed_label(selector: &Selector) -> Option<(&String, &String)> {
    match selector {
        Selector::Eq(key, value) => Some((key, value)),
        Selector::And(all) => all.iter().find_map(needed_label),
        Selector::In(key, values) if values.len() == 1 => Some((key, values.first()?)),
        _ => None,
    }
}

/// The key of a label without which the selector does not match.
fn needed_key(selector: &Selector) -> Option<&String> {
    match selector {
        Selector::Eq(key, _)
        | Selector::In(key, _)
        | Selector::Has(key)
        | Selector::StartsWith(key, _)
        | Selector::EndsWith(key, _)
        | Selector::Contains(key, _) => Some(key),
        Selector::And(all) => all.iter().find_map(needed_key),
        _ => None,
    }
}

impl PodPeer {
    fn matches(&self, endpoint: &Endpoint, owners: Owners<'_>) -> bool {
        let in_namespace = || match &self.namespaces {
            Namespaces::Named(name) => *name == endpoint.namespace,
            Namespaces::Any | Namespaces::Selected(Selector::All) => true,
            Namespaces::Selected(selector) => {
                selector.matches(&owners.namespace(&endpoint.namespace))
            }
        };
        self.pods.matches(&endpoint.labels) && in_namespace()
    }
}

impl EntityPeer {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        let in_namespace = match &self.namespaces {
            Namespaces::Any => true,
            Namespaces::Named(name) => asked.member.namespace() == Some(name),
            Namespaces::Selected(selector) => asked.is_in_namespace(selector),
        };
        in_namespace
            && self.selector.matches(asked.labels())
            && self.service_accounts.as_ref().is_none_or(|wanted| {
                let named = |name| wanted.names.is_empty() || wanted.names.contains(name);
                asked.member.service_account().is_some_and(named)
                    && wanted
                        .selector
                        .as_ref()
                        .is_none_or(|one| asked.has_account(one))
            })
    }
}

/// Whether a name falls under a pattern: itself, or one or more labels before it after `*.`.
pub fn domain_matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => name
            .strip_suffix(parent)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|labels| !labels.is_empty()),
        None => name == pattern,
    }
}
