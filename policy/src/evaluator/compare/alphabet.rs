//! What policies can tell apart: networks, ports, kinds of pods.

use super::{PortOf, Service};
use crate::endpoint::Endpoint;
use crate::evaluator::Evaluator;
use crate::input::Policy;
use ipnet::IpNet;
use model::{CalicoPort, ClusterPeer, ClusterPort, NetworkPolicy, PolicyPeer, PortMatch, Protocol};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
const ICMP: u8 = 1;
/// Documentation prefixes (RFC 5737, RFC 3849): somebody outside, whom no rule is about.
const ELSEWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
];

#[derive(Debug, Default)]
pub(super) struct Alphabet {
    /// Networks that rules name, also by sets, services, nodes and domain names.
    networks: BTreeSet<IpNet>,
    /// First and last port of what rules name, with the protocol.
    ranges: BTreeSet<(u8, u16, u16)>,
    pub(super) services: BTreeSet<Service>,
    /// Addresses of no pod.
    pub(super) outside: BTreeSet<IpAddr>,
}

impl Alphabet {
    pub(super) fn of(before: &Evaluator, after: &Evaluator) -> Self {
        let mut alphabet = Self::default();
        for evaluator in [before, after] {
            alphabet.add(evaluator);
        }
        alphabet.name_services();
        let pods: BTreeSet<IpAddr> = [before, after]
            .into_iter()
            .flat_map(|evaluator| evaluator.endpoints.values())
            .flat_map(|pod| pod.ips.iter().copied())
            .collect();
        let first = |net: &IpNet| net.hosts().next().unwrap_or(net.addr());
        let narrow = alphabet.networks.iter().filter(|net| net.prefix_len() > 0);
        let outside: BTreeSet<IpAddr> = narrow.map(first).chain(ELSEWHERE).collect();
        alphabet.outside = outside.difference(&pods).copied().collect();
        alphabet
    }

    /// Everything about a pod that policies look at, as text to be compared.
    pub(super) fn kind_of(&self, pod: &Endpoint) -> String {
        let Endpoint {
            namespace,
            labels,
            ports,
            ips,
            labels_known,
            service_account,
            profiles,
            pod: _,
            local: _,
        } = pod;
        let networks: Vec<(bool, Vec<&IpNet>)> = ips
            .iter()
            .map(|ip| {
                let holding = self.networks.iter().filter(|net| net.contains(ip));
                (ip.is_ipv4(), holding.collect())
            })
            .collect();
        format!(
            "{:?}",
            (
                namespace,
                labels,
                ports,
                labels_known,
                service_account,
                profiles,
                networks
            )
        )
    }

    fn add(&mut self, evaluator: &Evaluator) {
        let sets = evaluator.network_sets.values().flat_map(|set| &set.nets);
        self.networks.extend(sets);
        let services = evaluator.slices.values().flat_map(|slice| &slice.addresses);
        let nodes = evaluator.nodes.values().flat_map(|node| &node.addresses);
        let domains = evaluator.domains.values().flatten();
        let hosts = evaluator
            .host_endpoints
            .values()
            .flat_map(|host| &host.expected_ips);
        let addresses = services.chain(nodes).chain(domains).chain(hosts);
        self.networks
            .extend(addresses.map(|address| IpNet::from(*address)));
        for slice in evaluator.slices.values() {
            let ports = slice.ports.iter();
            self.ranges
                .extend(ports.map(|p| (p.protocol.number(), p.port, p.port)));
        }
        for policy in evaluator.policies.values() {
            self.add_policy(policy, evaluator);
        }
    }

    fn add_policy(&mut self, policy: &Policy, evaluator: &Evaluator) {
        match policy {
            Policy::Kubernetes(policy) => self.add_kubernetes(policy, evaluator),
            Policy::StagedKubernetes(staged) => self.add_kubernetes(&staged.policy, evaluator),
            Policy::Cluster(policy) => {
                let rules = policy.ingress.iter().chain(&policy.egress);
                for rule in rules {
                    for peer in rule.peers.iter().flatten() {
                        if let ClusterPeer::Networks(networks) = peer {
                            self.networks.extend(networks);
                        }
                    }
                    for port in rule.protocols.iter().flatten() {
                        match port {
                            ClusterPort::Range {
                                protocol,
                                first,
                                last,
                            } => {
                                self.ranges.insert((protocol.number(), *first, *last));
                            }
                            ClusterPort::Named(name) => self.add_name(name, None, evaluator),
                        }
                    }
                }
            }
            Policy::Calico(policy) => {
                let rules = policy.ingress.iter().chain(&policy.egress).flatten();
                for rule in rules {
                    for entity in [&rule.source, &rule.destination] {
                        self.networks
                            .extend(entity.nets.iter().flatten().chain(&entity.not_nets));
                    }
                    let to = &rule.destination;
                    let protocol = rule.protocol.unwrap_or(Protocol::Tcp.number());
                    for port in to.ports.iter().flatten().chain(&to.not_ports) {
                        match port {
                            CalicoPort::Range(first, last) => {
                                self.ranges.insert((protocol, *first, *last));
                            }
                            CalicoPort::Named(name) => {
                                self.add_name(name, Some(protocol), evaluator);
                            }
                        }
                    }
                }
            }
        }
    }

    fn add_kubernetes(&mut self, policy: &NetworkPolicy, evaluator: &Evaluator) {
        let rules = policy.ingress.iter().chain(&policy.egress).flatten();
        for rule in rules {
            for peer in rule.peers.iter().flatten() {
                if let PolicyPeer::IpBlock { cidr, except } = peer {
                    self.networks.extend(except.iter().chain([cidr]));
                }
            }
            for port in rule.ports.iter().flatten() {
                let protocol = port.protocol.number();
                match &port.port {
                    PortMatch::Any => {}
                    PortMatch::Range(first, last) => {
                        self.ranges.insert((protocol, *first, *last));
                    }
                    PortMatch::Named(name) => self.add_name(name, Some(protocol), evaluator),
                }
            }
        }
    }

    /// The numbers that a name stands for anywhere.
    fn add_name(&mut self, name: &str, protocol: Option<u8>, evaluator: &Evaluator) {
        let pods = evaluator
            .endpoints
            .values()
            .flat_map(|pod| pod.ports.iter());
        let hosts = evaluator
            .host_endpoints
            .values()
            .flat_map(|host| &host.ports);
        let named = pods.chain(hosts).filter(|port| {
            port.name == name && protocol.is_none_or(|wanted| port.protocol.number() == wanted)
        });
        let ranges = named.map(|port| (port.protocol.number(), port.port, port.port));
        self.ranges.extend(ranges);
    }

    fn name_services(&mut self) {
        let mut services = BTreeSet::from([Service {
            protocol: ICMP,
            port: PortOf::None,
        }]);
        for protocol in PROTOCOLS.map(Protocol::number) {
            let of_protocol: Vec<_> = self
                .ranges
                .iter()
                .filter(|(p, _, _)| *p == protocol)
                .collect();
            for (_, first, last) in &of_protocol {
                for port in [*first, *last] {
                    services.insert(Service {
                        protocol,
                        port: PortOf::Number(port.max(1)),
                    });
                }
            }
            let is_named = |port: &u16| {
                of_protocol
                    .iter()
                    .any(|(_, first, last)| first <= port && port <= last)
            };
            // Not the port of VXLAN, that pods may not send to.
            let other = (1..=u16::MAX).find(|port| !is_named(port) && *port != 4789);
            services.extend(other.map(|port| Service {
                protocol,
                port: PortOf::Other(port),
            }));
        }
        self.services = services;
    }
}
