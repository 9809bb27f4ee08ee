//! A cluster as policies see it: [`View`] is what is known, from an agent or from a directory, and
//! [`Cluster`] answers questions about it.

use crate::calc::Calc;
use crate::objects::Objects;
use crate::workloads::{id, seen, standing_at};
use model::{Kind, Object, Pod, Update, WorkloadEndpoint};
use policy::{Endpoint, EndpointId, Evaluator, NodePeer, Policy};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Reserved (RFC 1112, section 4): pods that have no address yet stand here one by one, so that
/// selectors find them and no address block of anybody's does.
const STAND_IN: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 0);

/// Everything that policies are about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Objects of the kinds that matter, without workload endpoints.
    pub objects: Vec<Object>,
    /// Pods with addresses; the interface index of those on the agent's own node.
    pub endpoints: Vec<(WorkloadEndpoint, Option<u32>)>,
    /// Addresses of nodes that their objects do not tell.
    pub node_addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    /// What domain names of policies resolve to, as this node's pods were told.
    pub domains: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl View {
    /// What an agent knows.
    pub fn of(calc: &Calc) -> Self {
        let objects = calc.objects().all().filter(|object| matters(object));
        let endpoints = calc.endpoints();
        let own = calc.underlay().addresses();
        Self {
            objects: objects.cloned().collect(),
            endpoints: endpoints
                .map(|(_, endpoint, local)| (endpoint.clone(), local))
                .collect(),
            node_addresses: BTreeMap::from([(calc.node().to_owned(), own.collect())]),
            domains: calc.resolved_names(),
        }
    }

    /// What objects in force say, of a directory for instance.
    pub fn of_objects(objects: &Objects) -> Self {
        let endpoints = objects.workload_endpoints();
        Self {
            objects: objects.all().filter(|o| matters(o)).cloned().collect(),
            endpoints: endpoints.map(|endpoint| (endpoint.clone(), None)).collect(),
            ..Self::default()
        }
    }

    /// The view after more updates. An object that is rejected keeps the version that is in force;
    /// where there is none, its fallback is.
    #[must_use]
    pub fn with(self, updates: Vec<Update>) -> Self {
        let mut objects = Objects::default();
        let known = self.objects.into_iter().map(|object| Update::Apply {
            object,
            warnings: vec![],
        });
        for update in known.chain(updates) {
            objects.apply(update);
        }
        let mut endpoints = self.endpoints;
        for endpoint in objects.workload_endpoints() {
            endpoints.retain(|(known, _)| id(known) != id(endpoint));
            endpoints.push((endpoint.clone(), None));
        }
        Self {
            objects: objects.all().filter(|o| matters(o)).cloned().collect(),
            endpoints,
            node_addresses: self.node_addresses,
            domains: self.domains,
        }
    }
}

/// Whether policies look at objects of this kind. Workload endpoints are told apart.
fn matters(object: &Object) -> bool {
    matches!(
        object.key().kind,
        Kind::Namespace
            | Kind::Pod
            | Kind::Node
            | Kind::NetworkPolicy
            | Kind::ServiceAccount
            | Kind::EndpointSlice
            | Kind::ClusterNetworkPolicy
            | Kind::Tier
            | Kind::CalicoNetworkPolicy
            | Kind::GlobalNetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy
            | Kind::StagedKubernetesNetworkPolicy
            | Kind::NetworkSet
            | Kind::GlobalNetworkSet
            | Kind::HostEndpoint
            | Kind::Profile
            | Kind::Service
            | Kind::FelixConfiguration
    )
}

/// A view, ready to be asked.
#[derive(Debug)]
pub struct Cluster {
    evaluator: Evaluator,
    pods: BTreeMap<EndpointId, Member>,
    nodes: BTreeMap<String, BTreeSet<IpAddr>>,
    in_host_network: BTreeSet<(String, String)>,
    /// `namespace/name` by the addresses that lead to the Service.
    services: BTreeMap<IpAddr, String>,
}

/// A pod, and where it runs, if that is known.
#[derive(Debug)]
struct Member {
    endpoint: Endpoint,
    node: Option<String>,
}

impl Cluster {
    /// The cluster of a view.
    pub fn new(view: &View) -> Self {
        let mut cluster = Self {
            evaluator: Evaluator::default(),
            pods: BTreeMap::new(),
            nodes: view.node_addresses.clone(),
            in_host_network: BTreeSet::new(),
            services: BTreeMap::new(),
        };
        for (name, addresses) in &view.domains {
            cluster.evaluator.set_domain(name, addresses.clone());
        }
        let mut objects = Objects::default();
        for object in &view.objects {
            cluster.tell(object);
            objects.apply(Update::Apply {
                object: object.clone(),
                warnings: vec![],
            });
        }
        for (endpoint, local) in &view.endpoints {
            if let Some(seen) = seen(endpoint, *local, &objects) {
                cluster.add(id(endpoint), seen, Some(endpoint.node.to_string()));
            }
        }
        cluster.add_pods_without_addresses(&objects);
        cluster
    }

    fn tell(&mut self, object: &Object) {
        let evaluator = &mut self.evaluator;
        if let Ok(policy) = Policy::try_from(object.clone()) {
            return evaluator.set_policy(&policy.key(), Some(policy));
        }
        match object.clone() {
            Object::Namespace(o) => evaluator.set_namespace(&o.name.clone(), Some(o.labels)),
            Object::Tier(o) => evaluator.set_tier(&o.name.clone(), Some(o)),
            Object::NetworkSet(o) => {
                let (namespace, name) = (o.namespace.clone(), o.name.clone());
                evaluator.set_network_set(namespace.as_deref(), &name, Some(o));
            }
            Object::HostEndpoint(o) => evaluator.set_host_endpoint(&o.name.clone(), Some(*o)),
            Object::ServiceAccount(o) => {
                let (namespace, name) = (o.namespace.clone(), o.name.clone());
                evaluator.set_service_account(&namespace, &name, Some(o));
            }
            Object::EndpointSlice(o) => {
                let (namespace, name) = (o.namespace.clone(), o.name.clone());
                evaluator.set_endpoint_slice(&namespace, &name, Some(*o));
            }
            Object::FelixConfiguration(o) => {
                let node = o.name.strip_prefix("node.");
                if node.is_some() || o.name == "default" {
                    let (inbound, outbound) = (
                        o.failsafe_inbound_host_ports,
                        o.failsafe_outbound_host_ports,
                    );
                    evaluator.set_failsafe(node, inbound, outbound);
                }
            }
            Object::Profile(o) => evaluator.set_profile(&o.name.clone(), Some(o)),
            Object::Node(o) => {
                let addresses = self.nodes.entry(o.name.clone()).or_default();
                addresses.extend(o.all_addresses());
                let peer = NodePeer {
                    labels: o.labels,
                    addresses: addresses.clone(),
                };
                evaluator.set_node(&o.name, Some(peer));
            }
            Object::Service(o) => {
                let name = format!("{}/{}", o.namespace, o.name);
                let addresses = [o.cluster_ips, o.external_ips, o.load_balancer_ips].concat();
                let named = addresses.into_iter().map(|address| (address, name.clone()));
                self.services.extend(named);
            }
            _ => {}
        }
    }

    fn add(&mut self, id: EndpointId, endpoint: Endpoint, node: Option<String>) {
        self.evaluator.set_endpoint(&id, Some(endpoint.clone()));
        self.pods.insert(id, Member { endpoint, node });
    }

    /// Pods of which nothing says an address: manifests of pods that do not run.
    fn add_pods_without_addresses(&mut self, objects: &Objects) {
        let known = |cluster: &Self, pod: &Pod| {
            cluster
                .pods_named(&pod.namespace, &pod.name)
                .next()
                .is_some()
        };
        let mut stand_in = u32::from(STAND_IN);
        for pod in objects.pods() {
            if pod.host_network {
                let name = (pod.namespace.to_string(), pod.name.to_string());
                self.in_host_network.insert(name);
            } else if !pod.finished && !known(self, pod) {
                stand_in += 1;
                let id = EndpointId(format!("{}/{}", pod.namespace, pod.name).into());
                let address = IpAddr::V4(stand_in.into());
                self.add(id, standing_at(pod, address), None);
            }
        }
    }

    /// The evaluator.
    pub fn evaluator(&self) -> &Evaluator {
        &self.evaluator
    }

    /// The interfaces of a pod.
    pub fn pods_named<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a EndpointId, &'a Endpoint)> {
        let named = self.pods.iter().filter(move |(_, member)| {
            member.endpoint.namespace == namespace && member.endpoint.pod == name
        });
        named.map(|(id, member)| (id, &member.endpoint))
    }

    /// A pod as a user names it: `namespace/name`.
    pub fn name_of(&self, id: &EndpointId) -> String {
        match self.pods.get(id) {
            Some(Member { endpoint, .. }) => format!("{}/{}", endpoint.namespace, endpoint.pod),
            None => id.to_string(),
        }
    }

    /// Whether there is a pod of this name that uses its node's network.
    pub fn is_in_host_network(&self, namespace: &str, name: &str) -> bool {
        self.in_host_network
            .contains(&(namespace.to_owned(), name.to_owned()))
    }

    /// The Service, `namespace/name`, that connections to this address are translated for.
    pub fn service_at(&self, address: IpAddr) -> Option<&str> {
        self.services.get(&address).map(String::as_str)
    }

    /// Whether the address only stands for a pod that has none.
    pub fn is_stand_in(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if v4.octets()[0] == STAND_IN.octets()[0])
    }

    /// Whether `address` is one of the node that the other end of a connection runs on: of this
    /// pod, or of one that holds `other`.
    pub fn is_own_node(&self, address: IpAddr, pod: Option<&EndpointId>, other: IpAddr) -> bool {
        let is_there = |member: &Member| {
            let node = member.node.as_ref().and_then(|node| self.nodes.get(node));
            node.is_some_and(|addresses| addresses.contains(&address))
        };
        match pod {
            Some(id) => self.pods.get(id).is_some_and(is_there),
            None => {
                let mut holders = self.pods.values();
                holders.any(|member| member.endpoint.ips.contains(&other) && is_there(member))
            }
        }
    }
}
