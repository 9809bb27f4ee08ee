//! Selectors that find nothing, and named ports that nobody has.

use super::super::Evaluator;
use super::super::calico::CalicoSubject;
use super::super::order::Active;
use super::{Check, Found};
use crate::endpoint::Endpoint;
use crate::evaluator::Direction;
use model::{
    CalicoPolicy, CalicoPort, CalicoRule, ClusterNetworkPolicy, ClusterPeer, ClusterPort,
    ClusterRule, NetworkPolicy, PolicyPeer, PolicyRule, PortMatch, Protocol,
};

const NO_POD: &str = "no pod matches";

/// A rule's place in the manifest.
struct Place {
    /// `spec.ingress[0]`
    rule: String,
    /// `from` or `to`
    peers: &'static str,
}

impl Place {
    fn new(direction: Direction, rule: usize) -> Self {
        let (name, peers) = match direction {
            Direction::Ingress => ("ingress", "from"),
            Direction::Egress => ("egress", "to"),
        };
        let rule = format!("spec.{name}[{rule}]");
        Self { rule, peers }
    }

    fn peer(&self, number: usize) -> String {
        format!("{}.{}[{number}]", self.rule, self.peers)
    }
}

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
        let is_selected =
            |pod: &&Endpoint| pod.namespace == *own && policy.pod_selector.matches(&pod.labels);
        let selected: Vec<&Endpoint> = self.known_pods().filter(is_selected).collect();
        if selected.is_empty() {
            let message = format!("no pod of namespace {own} matches");
            found(
                Check::SelectorMatchesNothing,
                "spec.podSelector".to_owned(),
                message,
            );
        }
        let directions = [
            (Direction::Ingress, &policy.ingress),
            (Direction::Egress, &policy.egress),
        ];
        for (direction, rules) in directions {
            for (at, rule) in rules.iter().flatten().enumerate() {
                let place = Place::new(direction, at);
                let peers = self.lint_peers(own, rule, &place, found);
                let destinations = match (direction, &rule.peers) {
                    (Direction::Ingress, _) => selected.clone(),
                    (Direction::Egress, Some(_)) => peers,
                    (Direction::Egress, None) => self.known_pods().collect(),
                };
                for (number, port) in rule.ports.iter().flatten().enumerate() {
                    if let PortMatch::Named(name) = &port.port
                        && !has_port(&destinations, name, Some(port.protocol))
                    {
                        let field = format!("{}.ports[{number}].port", place.rule);
                        found(Check::NamedPortNobodyHas, field, nobody(name));
                    }
                }
            }
        }
    }

    /// The pods that the rule's peers select.
    fn lint_peers(
        &self,
        own: &str,
        rule: &PolicyRule,
        place: &Place,
        found: &mut Found<'_>,
    ) -> Vec<&Endpoint> {
        let mut all: Vec<&Endpoint> = vec![];
        for (number, peer) in rule.peers.iter().flatten().enumerate() {
            let PolicyPeer::Pods { namespaces, pods } = peer else {
                continue;
            };
            let in_namespace = |pod: &Endpoint| match namespaces {
                None => pod.namespace == own,
                Some(selector) => selector.matches(&self.namespace_labels(&pod.namespace)),
            };
            let before = all.len();
            let known = self.known_pods();
            all.extend(known.filter(|pod| in_namespace(pod) && pods.matches(&pod.labels)));
            if all.len() == before {
                found(
                    Check::SelectorMatchesNothing,
                    place.peer(number),
                    NO_POD.to_owned(),
                );
            }
        }
        all
    }

    fn lint_cluster(&self, policy: &ClusterNetworkPolicy, found: &mut Found<'_>) {
        let is_selected = |pod: &&Endpoint| self.cluster_selects(&policy.subject, pod);
        let selected: Vec<&Endpoint> = self.known_pods().filter(is_selected).collect();
        if selected.is_empty() {
            found(
                Check::SelectorMatchesNothing,
                "spec.subject".to_owned(),
                NO_POD.to_owned(),
            );
        }
        let directions = [
            (Direction::Ingress, &policy.ingress),
            (Direction::Egress, &policy.egress),
        ];
        for (direction, rules) in directions {
            for (at, rule) in rules.iter().enumerate() {
                let place = Place::new(direction, at);
                let peers = self.lint_cluster_peers(rule, &place, found);
                let destinations = match direction {
                    Direction::Ingress => &selected,
                    Direction::Egress => &peers,
                };
                for (number, port) in rule.protocols.iter().flatten().enumerate() {
                    if let ClusterPort::Named(name) = port
                        && !has_port(destinations, name, None)
                    {
                        let field = format!("{}.protocols[{number}]", place.rule);
                        found(Check::NamedPortNobodyHas, field, nobody(name));
                    }
                }
            }
        }
    }

    /// The pods that the rule's peers select.
    fn lint_cluster_peers(
        &self,
        rule: &ClusterRule,
        place: &Place,
        found: &mut Found<'_>,
    ) -> Vec<&Endpoint> {
        let mut all: Vec<&Endpoint> = vec![];
        for (number, peer) in rule.peers.iter().flatten().enumerate() {
            let before = all.len();
            let message = match peer {
                ClusterPeer::Pods(pods) => {
                    let known = self.known_pods();
                    all.extend(known.filter(|pod| self.cluster_selects(pods, pod)));
                    (all.len() == before).then_some(NO_POD)
                }
                ClusterPeer::Nodes(selector) => {
                    let mut nodes = self.nodes.values();
                    let any = nodes.any(|node| selector.matches(&node.labels));
                    (!any).then_some("no node matches")
                }
                ClusterPeer::Networks(_) | ClusterPeer::DomainNames(_) => None,
            };
            if let Some(message) = message {
                found(
                    Check::SelectorMatchesNothing,
                    place.peer(number),
                    message.to_owned(),
                );
            }
        }
        all
    }

    fn lint_calico(&self, policy: &CalicoPolicy, found: &mut Found<'_>) {
        let pods = self.known_pods().map(CalicoSubject::Pod);
        let hosts = self.host_endpoints.values().map(CalicoSubject::Host);
        let is_for = |subject: CalicoSubject<'_>| {
            [Direction::Ingress, Direction::Egress]
                .into_iter()
                .any(|direction| self.calico_applies(policy, subject, direction))
        };
        let states_something = policy.ingress.is_some() || policy.egress.is_some();
        if states_something && !pods.chain(hosts).any(is_for) {
            let message = "no pod and no host endpoint matches".to_owned();
            found(
                Check::SelectorMatchesNothing,
                "spec.selector".to_owned(),
                message,
            );
        }
        let directions = [
            (Direction::Ingress, &policy.ingress),
            (Direction::Egress, &policy.egress),
        ];
        for (direction, rules) in directions {
            for (at, rule) in rules.iter().flatten().enumerate() {
                let place = Place::new(direction, at);
                self.lint_entities(policy.namespace.as_deref(), rule, &place, found);
            }
        }
    }

    fn lint_entities(
        &self,
        namespace: Option<&str>,
        rule: &CalicoRule,
        place: &Place,
        found: &mut Found<'_>,
    ) {
        let protocol = rule.protocol.unwrap_or(Protocol::Tcp.number());
        for (side, entity) in [("source", &rule.source), ("destination", &rule.destination)] {
            let field = format!("{}.{side}", place.rule);
            if !self.calico_finds(entity, namespace) {
                let message = "no pod, host endpoint or network set matches".to_owned();
                found(Check::SelectorMatchesNothing, field.clone(), message);
            }
            for port in entity.ports.iter().flatten().chain(&entity.not_ports) {
                if let CalicoPort::Named(name) = port
                    && !self.has_named_port(name, protocol)
                {
                    let field = format!("{field}.ports");
                    found(Check::NamedPortNobodyHas, field, nobody(name));
                }
            }
        }
    }

    fn has_named_port(&self, name: &str, protocol: u8) -> bool {
        let pods = self.known_pods().flat_map(|pod| pod.ports.iter());
        let hosts = self.host_endpoints.values().flat_map(|host| &host.ports);
        let mut ports = pods.chain(hosts);
        ports.any(|port| port.name == name && port.protocol.number() == protocol)
    }
}

fn nobody(port: &str) -> String {
    format!("no pod in question has a port {port:?} of this protocol")
}

fn has_port(pods: &[&Endpoint], name: &str, protocol: Option<Protocol>) -> bool {
    let mut ports = pods.iter().flat_map(|pod| pod.ports.iter());
    ports.any(|port| port.name == name && protocol.is_none_or(|wanted| port.protocol == wanted))
}
