//! Selectors that find nothing, and named ports that nobody has.

use super::super::Evaluator;
use super::super::calico::CalicoSubject;
use super::super::order::Active;
use super::{Check, Found};
use crate::endpoint::Endpoint;
use crate::evaluator::Direction;
use model::{
    CalicoPolicy, CalicoPort, ClusterNetworkPolicy, ClusterPeer, ClusterPort, NetworkPolicy,
    PolicyPeer, PortMatch, Protocol,
};

const DIRECTIONS: [(Direction, &str, &str); 2] = [
    (Direction::Ingress, "ingress", "from"),
    (Direction::Egress, "egress", "to"),
];

impl Evaluator {
    pub(super) fn lint_selectors(&self, policy: Active<'_>, found: &mut Found<'_>) {
        match policy {
            Active::Kubernetes(policy) => self.lint_kubernetes(policy, found),
            Active::Cluster(policy) => self.lint_cluster(policy, found),
            Active::Calico(policy) => self.lint_calico(policy, found),
        }
    }

    fn known_pods(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values().filter(|pod| pod.labels_known)
    }

    fn lint_kubernetes(&self, policy: &NetworkPolicy, found: &mut Found<'_>) {
        let own = &policy.namespace;
        let selected: Vec<&Endpoint> = self
            .known_pods()
            .filter(|pod| pod.namespace == *own && policy.pod_selector.matches(&pod.labels))
            .collect();
        if selected.is_empty() {
            let message = format!("no pod of namespace {own} matches");
            found(
                Check::SelectorMatchesNothing,
                "spec.podSelector".to_owned(),
                message,
            );
        }
        for (direction, name, peers_name) in DIRECTIONS {
            let rules = match direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            for (at, rule) in rules.iter().flatten().enumerate() {
                let mut peers: Vec<&Endpoint> = vec![];
                for (place, peer) in rule.peers.iter().flatten().enumerate() {
                    let PolicyPeer::Pods { namespaces, pods } = peer else {
                        continue;
                    };
                    let matching = self.known_pods().filter(|pod| {
                        let in_namespace = match namespaces {
                            None => pod.namespace == *own,
                            Some(selector) => {
                                selector.matches(&self.namespace_labels(&pod.namespace))
                            }
                        };
                        in_namespace && pods.matches(&pod.labels)
                    });
                    let before = peers.len();
                    peers.extend(matching);
                    if peers.len() == before {
                        let field = format!("spec.{name}[{at}].{peers_name}[{place}]");
                        found(Check::SelectorMatchesNothing, field, NO_POD.to_owned());
                    }
                }
                let destinations: Vec<&Endpoint> = match (direction, &rule.peers) {
                    (Direction::Ingress, _) => selected.clone(),
                    (Direction::Egress, Some(_)) => peers,
                    (Direction::Egress, None) => self.known_pods().collect(),
                };
                for (place, port) in rule.ports.iter().flatten().enumerate() {
                    if let PortMatch::Named(wanted) = &port.port
                        && !has_port(&destinations, wanted, Some(port.protocol))
                    {
                        let field = format!("spec.{name}[{at}].ports[{place}].port");
                        found(Check::NamedPortNobodyHas, field, nobody(wanted));
                    }
                }
            }
        }
    }

    fn lint_cluster(&self, policy: &ClusterNetworkPolicy, found: &mut Found<'_>) {
        let selected: Vec<&Endpoint> = self
            .known_pods()
            .filter(|pod| self.cluster_selects(&policy.subject, pod))
            .collect();
        if selected.is_empty() {
            found(
                Check::SelectorMatchesNothing,
                "spec.subject".to_owned(),
                NO_POD.to_owned(),
            );
        }
        for (direction, name, peers_name) in DIRECTIONS {
            let rules = match direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            for (at, rule) in rules.iter().enumerate() {
                let mut peers: Vec<&Endpoint> = vec![];
                for (place, peer) in rule.peers.iter().flatten().enumerate() {
                    let before = peers.len();
                    let nobody = match peer {
                        ClusterPeer::Pods(pods) => {
                            let all = self.known_pods();
                            peers.extend(all.filter(|pod| self.cluster_selects(pods, pod)));
                            (peers.len() == before).then_some(NO_POD)
                        }
                        ClusterPeer::Nodes(selector) => {
                            let mut nodes = self.nodes.values();
                            let any = nodes.any(|node| selector.matches(&node.labels));
                            (!any).then_some("no node matches")
                        }
                        ClusterPeer::Networks(_) | ClusterPeer::DomainNames(_) => None,
                    };
                    if let Some(message) = nobody {
                        let field = format!("spec.{name}[{at}].{peers_name}[{place}]");
                        found(Check::SelectorMatchesNothing, field, message.to_owned());
                    }
                }
                let destinations = if direction == Direction::Ingress {
                    &selected
                } else {
                    &peers
                };
                for (place, port) in rule.protocols.iter().flatten().enumerate() {
                    if let ClusterPort::Named(wanted) = port
                        && !has_port(destinations, wanted, None)
                    {
                        let field = format!("spec.{name}[{at}].protocols[{place}]");
                        found(Check::NamedPortNobodyHas, field, self::nobody(wanted));
                    }
                }
            }
        }
    }

    fn lint_calico(&self, policy: &CalicoPolicy, found: &mut Found<'_>) {
        let pods = self.known_pods().map(CalicoSubject::Pod);
        let hosts = self.host_endpoints.values().map(CalicoSubject::Host);
        let subjects: Vec<CalicoSubject<'_>> = pods.chain(hosts).collect();
        let is_for = |subject: &CalicoSubject<'_>| {
            let directions = [Direction::Ingress, Direction::Egress].into_iter();
            let mut applying = directions.filter(|d| self.calico_applies(policy, *subject, *d));
            applying.next().is_some()
        };
        let states_something = policy.ingress.is_some() || policy.egress.is_some();
        if states_something && !subjects.iter().any(is_for) {
            let message = "no pod and no host endpoint matches".to_owned();
            found(
                Check::SelectorMatchesNothing,
                "spec.selector".to_owned(),
                message,
            );
        }
        for (direction, name, _) in DIRECTIONS {
            let rules = match direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            for (at, rule) in rules.iter().flatten().enumerate() {
                let protocol = rule.protocol.unwrap_or(Protocol::Tcp.number());
                for (side, entity) in [("source", &rule.source), ("destination", &rule.destination)]
                {
                    let field = format!("spec.{name}[{at}].{side}");
                    if !self.calico_finds(entity, policy.namespace.as_deref()) {
                        let message = "no pod, host endpoint or network set matches".to_owned();
                        found(Check::SelectorMatchesNothing, field.clone(), message);
                    }
                    let ports = entity.ports.iter().flatten().chain(&entity.not_ports);
                    for port in ports {
                        if let CalicoPort::Named(wanted) = port
                            && !self.has_named_port(wanted, protocol)
                        {
                            let field = format!("{field}.ports");
                            found(Check::NamedPortNobodyHas, field, nobody(wanted));
                        }
                    }
                }
            }
        }
    }

    fn has_named_port(&self, name: &str, protocol: u8) -> bool {
        let pods = self.known_pods().flat_map(|pod| &pod.ports);
        let hosts = self.host_endpoints.values().flat_map(|host| &host.ports);
        let mut ports = pods.chain(hosts);
        ports.any(|port| port.name == name && port.protocol.number() == protocol)
    }
}

const NO_POD: &str = "no pod matches";

fn nobody(port: &str) -> String {
    format!("no pod in question has a port {port:?} of this protocol")
}

fn has_port(pods: &[&Endpoint], name: &str, protocol: Option<Protocol>) -> bool {
    let mut ports = pods.iter().flat_map(|pod| &pod.ports);
    ports.any(|port| port.name == name && protocol.is_none_or(|wanted| port.protocol == wanted))
}
