//! The verdict of a flow, from the specifications and nothing of the compiler: the words of
//! `networking.k8s.io/v1`, `policy.networking.k8s.io/v1alpha2` and `projectcalico.org/v3`. Slow
//! and plain: it is what the compiler is measured against, and what explains a verdict.
//!
//! | file | what it holds |
//! |---|---|
//! | `flow` | what is judged: [`Flow`], [`Party`] |
//! | `decision` | the verdict and what decided: [`Decision`], [`Reason`] |
//! | `order` | policies in the order in which they are asked |
//! | `pods`, `hosts` | the way of a flow through the policies of a pod, and of a host endpoint |
//! | `lint`, `compare` | what is probably not meant; what differs between two clusters |
//! | `kubernetes`, `cluster`, `calico` | when a rule of each kind matches |
//!
//! Where the specifications leave a choice, this is ours:
//! - what a pod's own node sends to it is allowed, whatever policies say; what the pod sends to its
//!   node is allowed by Kubernetes' NetworkPolicy, and subject to the other kinds;
//! - a pod that reaches itself does so through a Service, for anything else never leaves the pod:
//!   Kubernetes' NetworkPolicy allows it, and it is subject to the other kinds;
//! - a named port of an egress rule is a port of the destination pod; it never matches an
//!   `ipBlock`, even one that holds the pod's address;
//! - a pod whose labels are not known is denied in both directions and matches no selector;
//! - where several pods hold one address, a peer matches if one of them does, and as the subject
//!   of policies each of them has to allow;
//! - policies of one tier and order go by name, then namespace, then kind; Kubernetes'
//!   NetworkPolicies are among them, at order 1000 of tier `default`, and a pod that they isolate
//!   does not leave the tier undecided, even if the tier would pass;
//! - policies of a tier that there is not come last, and the tier denies what they don't decide;
//! - host endpoints do not see what their node and its own pods send each other.

mod calico;
mod cluster;
mod compare;
mod decision;
mod flow;
mod hosts;
mod kubernetes;
mod lint;
mod order;
mod pods;

pub use compare::{Difference, Peer, PortOf, Service, differences};
pub use decision::{Action, Decision, Judgement, Reason, RuleRef};
pub use flow::{Direction, Flow, HostPath, Party};
pub use lint::{Check, Finding};

use crate::endpoint::{Endpoint, EndpointId};
use crate::input::{NodePeer, Policy, PolicyKey};
use model::{EndpointSlice, HostEndpoint, Labels, NetworkSet, Profile, ServiceAccount, Tier};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Knows the cluster and judges flows.
#[derive(Debug, Clone, Default)]
pub struct Evaluator {
    namespaces: BTreeMap<String, Labels>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    policies: BTreeMap<PolicyKey, Policy>,
    tiers: BTreeMap<String, Tier>,
    network_sets: BTreeMap<(Option<String>, String), NetworkSet>,
    host_endpoints: BTreeMap<String, HostEndpoint>,
    service_accounts: BTreeMap<(String, String), ServiceAccount>,
    slices: BTreeMap<(String, String), EndpointSlice>,
    nodes: BTreeMap<String, NodePeer>,
    profiles: BTreeMap<String, Profile>,
    domains: BTreeMap<String, BTreeSet<IpAddr>>,
    /// By node; none is all that say nothing of their own.
    failsafe: BTreeMap<Option<String>, hosts::FailsafePorts>,
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

impl Evaluator {
    /// A namespace has these labels, or is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        put(&mut self.namespaces, name.to_owned(), labels);
    }

    /// A pod looks like this, or is gone.
    pub fn set_endpoint(&mut self, id: &EndpointId, endpoint: Option<Endpoint>) {
        put(&mut self.endpoints, id.clone(), endpoint);
    }

    /// A policy says this, or is gone.
    pub fn set_policy(&mut self, key: &PolicyKey, policy: Option<Policy>) {
        put(&mut self.policies, key.clone(), policy);
    }

    /// A tier stands here, or is gone.
    pub fn set_tier(&mut self, name: &str, tier: Option<Tier>) {
        put(&mut self.tiers, name.to_owned(), tier);
    }

    /// A network set holds this, or is gone.
    pub fn set_network_set(
        &mut self,
        namespace: Option<&str>,
        name: &str,
        set: Option<NetworkSet>,
    ) {
        let key = (namespace.map(str::to_owned), name.to_owned());
        put(&mut self.network_sets, key, set);
    }

    /// A host endpoint looks like this, or is gone.
    pub fn set_host_endpoint(&mut self, name: &str, endpoint: Option<HostEndpoint>) {
        put(&mut self.host_endpoints, name.to_owned(), endpoint);
    }

    /// A service account has these labels, or is gone.
    pub fn set_service_account(
        &mut self,
        namespace: &str,
        name: &str,
        account: Option<ServiceAccount>,
    ) {
        let key = (namespace.to_owned(), name.to_owned());
        put(&mut self.service_accounts, key, account);
    }

    /// A Service's connections end here, or the slice is gone.
    pub fn set_endpoint_slice(
        &mut self,
        namespace: &str,
        name: &str,
        slice: Option<EndpointSlice>,
    ) {
        let key = (namespace.to_owned(), name.to_owned());
        put(&mut self.slices, key, slice);
    }

    /// A node has these labels and addresses, or is gone.
    pub fn set_node(&mut self, name: &str, node: Option<NodePeer>) {
        put(&mut self.nodes, name.to_owned(), node);
    }

    /// A profile gives these labels, or is gone.
    pub fn set_profile(&mut self, name: &str, profile: Option<Profile>) {
        put(&mut self.profiles, name.to_owned(), profile);
    }

    /// What a name resolves to, in lower case without a final dot; empty where it is not known.
    pub fn set_domain(&mut self, name: &str, addresses: BTreeSet<IpAddr>) {
        let addresses = (!addresses.is_empty()).then_some(addresses);
        put(&mut self.domains, name.to_owned(), addresses);
    }

    /// Judges a new connection at both ends. Policies of hosts on the way are not asked: those
    /// are [`Self::host_judgement`]'s.
    pub fn verdict(&self, flow: &Flow) -> Decision {
        let egress = self.judge(Direction::Egress, flow);
        let ingress = self.judge(Direction::Ingress, flow);
        Decision {
            allowed: egress.allows() && ingress.allows(),
            egress,
            ingress,
        }
    }

    /// Judges at one end: of several pods at one address, the first that denies.
    fn judge(&self, direction: Direction, flow: &Flow) -> Judgement {
        let (party, peer) = match direction {
            Direction::Egress => (&flow.source, &flow.destination),
            Direction::Ingress => (&flow.destination, &flow.source),
        };
        let pods = match party {
            Party::OwnNode(_) => return Judgement::of(Reason::NoEndpoint),
            Party::Pod(id, _) => self.endpoints.get(id).into_iter().collect(),
            Party::Address(address) => self.holders(*address),
        };
        let judged = pods.iter().map(|pod| self.judge_pod(direction, pod, flow));
        let mut judged: Vec<Judgement> = judged.collect();
        if let Some(denial) = judged.iter().position(|one| !one.allows()) {
            return judged.swap_remove(denial);
        }
        if let Some(first) = judged.into_iter().next() {
            return first;
        }
        match self.host_endpoint_at(party.address()) {
            Some(host) if !matches!(peer, Party::OwnNode(_)) => {
                self.judge_host(host, direction, HostPath::Local, flow)
            }
            _ => Judgement::of(Reason::NoEndpoint),
        }
    }

    /// The pods that an address belongs to. Packets show addresses: as a peer, a pod is all of
    /// those.
    fn holders(&self, address: IpAddr) -> Vec<&Endpoint> {
        let holds = |pod: &&Endpoint| pod.ips.contains(&address);
        self.endpoints.values().filter(holds).collect()
    }

    /// The pods at an address that selectors may match.
    fn known_holders(&self, address: IpAddr) -> impl Iterator<Item = &Endpoint> {
        let holders = self.holders(address).into_iter();
        holders.filter(|pod| pod.labels_known)
    }

    /// Labels of a namespace; every namespace has its name as a label.
    fn namespace_labels(&self, name: &str) -> Labels {
        let mut labels = self.namespaces.get(name).cloned().unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        labels
    }
}
