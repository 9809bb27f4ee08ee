//! Which connections have another verdict in another cluster.
//!
//! Pods that no policy of either cluster can tell apart are asked as one; ports are those that
//! some policy names, and one of each protocol that none names; addresses are one of each network
//! that some policy names, those of nodes, and one elsewhere.

mod alphabet;

use super::Evaluator;
use super::decision::Decision;
use super::flow::{Direction, Flow, Party};
use crate::endpoint::{Endpoint, EndpointId};
use crate::input::PolicyKey;
use alphabet::Alphabet;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// Ephemeral, where a connection comes from.
const SOURCE_PORT: u16 = 40_000;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Connections whose verdict differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Who opens them.
    pub source: Peer,
    /// Who accepts them.
    pub destination: Peer,
    /// What they are.
    pub service: Service,
    /// They are of IPv4.
    pub ipv4: bool,
    /// The verdict of one.
    pub before: Decision,
    /// The verdict of the other.
    pub after: Decision,
}

/// One end, for all that are like it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Pods that policies can't tell apart.
    Pods(Vec<EndpointId>),
    /// An address of no pod.
    Address(IpAddr),
}

/// A protocol and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// L4 protocol number; 1 stands for ICMP of both families.
    pub protocol: u8,
    /// The destination port.
    pub port: PortOf,
}

/// A port of a [`Service`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortOf {
    /// The protocol has none.
    None,
    /// This one.
    Number(u16),
    /// Any that no policy names; this is one.
    Other(u16),
}

/// `tcp/80`, `udp/(other ports)`, `icmp`
impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            ICMP => f.write_str("icmp")?,
            6 => f.write_str("tcp")?,
            17 => f.write_str("udp")?,
            132 => f.write_str("sctp")?,
            other => write!(f, "{other}")?,
        }
        match self.port {
            PortOf::None => Ok(()),
            PortOf::Number(port) => write!(f, "/{port}"),
            PortOf::Other(_) => f.write_str("/(other ports)"),
        }
    }
}

/// Pods that are alike, in both clusters.
struct Class<'a> {
    ids: Vec<&'a EndpointId>,
    /// A policy that differs is about them, or they differ themselves.
    concerned: bool,
}

/// The connections between pods of both clusters, and between them and others, whose verdict
/// differs.
pub fn differences(before: &Evaluator, after: &Evaluator) -> Vec<Difference> {
    let alphabet = Alphabet::of(before, after);
    let classes = classes(before, after, &alphabet);
    let mut found = vec![];
    for (at, source) in classes.iter().enumerate() {
        for (other, destination) in classes.iter().enumerate() {
            if !source.concerned && !destination.concerned {
                continue;
            }
            let first = source.ids[0];
            let second = match (at == other, destination.ids.get(1)) {
                (false, _) => destination.ids[0],
                (true, Some(second)) => second,
                // A pod alone: what it sends to itself is not compared.
                (true, None) => continue,
            };
            for ipv4 in [true, false] {
                let ends = address(before, first, ipv4).zip(address(before, second, ipv4));
                let Some((from, to)) = ends else { continue };
                let ends = Ends {
                    source: (source.peer(), Party::Pod(first.clone(), from)),
                    destination: (destination.peer(), Party::Pod(second.clone(), to)),
                };
                ends.compare(before, after, &alphabet, &mut found);
            }
        }
        for outside in alphabet.outside.iter().filter(|_| source.concerned) {
            let Some(own) = address(before, source.ids[0], outside.is_ipv4()) else {
                continue;
            };
            let pod = (source.peer(), Party::Pod(source.ids[0].clone(), own));
            let other = (Peer::Address(*outside), Party::Address(*outside));
            let (out, back) = (
                Ends {
                    source: pod.clone(),
                    destination: other.clone(),
                },
                Ends {
                    source: other,
                    destination: pod,
                },
            );
            out.compare(before, after, &alphabet, &mut found);
            back.compare(before, after, &alphabet, &mut found);
        }
    }
    found
}

fn address(evaluator: &Evaluator, id: &EndpointId, ipv4: bool) -> Option<IpAddr> {
    let pod = evaluator.endpoints.get(id)?;
    pod.ips.iter().copied().find(|ip| ip.is_ipv4() == ipv4)
}

struct Ends {
    source: (Peer, Party),
    destination: (Peer, Party),
}

impl Ends {
    fn compare(
        &self,
        before: &Evaluator,
        after: &Evaluator,
        alphabet: &Alphabet,
        found: &mut Vec<Difference>,
    ) {
        let ipv4 = self.source.1.address().is_ipv4();
        for service in &alphabet.services {
            let flow = self.flow(*service, ipv4);
            let (before, after) = (before.verdict(&flow), after.verdict(&flow));
            if before.allowed != after.allowed {
                found.push(Difference {
                    source: self.source.0.clone(),
                    destination: self.destination.0.clone(),
                    service: *service,
                    ipv4,
                    before,
                    after,
                });
            }
        }
    }

    fn flow(&self, service: Service, ipv4: bool) -> Flow {
        let (source, destination) = (self.source.1.clone(), self.destination.1.clone());
        let (protocol, icmp) = match (service.protocol, ipv4) {
            (ICMP, true) => (ICMP, Some((8, 0))),
            (ICMP, false) => (ICMPV6, Some((128, 0))),
            (other, _) => (other, None),
        };
        let port = match service.port {
            PortOf::None => None,
            PortOf::Number(port) | PortOf::Other(port) => Some(port),
        };
        Flow {
            source_port: port.map(|_| SOURCE_PORT),
            icmp,
            ..Flow::new(source, destination, protocol, port)
        }
    }
}

impl Class<'_> {
    fn peer(&self) -> Peer {
        Peer::Pods(self.ids.iter().map(|id| (*id).clone()).collect())
    }
}

/// The pods of both clusters in classes.
fn classes<'a>(before: &'a Evaluator, after: &Evaluator, alphabet: &Alphabet) -> Vec<Class<'a>> {
    let changed = changed_policies(before, after);
    let only_policies = before.has_the_world_of(after);
    let both = before.endpoints.iter().filter_map(|(id, pod)| {
        let later = after.endpoints.get(id)?;
        let concerned = !only_policies
            || pod != later
            || is_about(before, pod, &changed)
            || is_about(after, later, &changed);
        Some((id, pod, later, concerned))
    });
    let mut classes: BTreeMap<String, Class<'a>> = BTreeMap::new();
    for (id, pod, later, concerned) in both {
        let alike = format!("{}{}", alphabet.kind_of(pod), alphabet.kind_of(later));
        let class = classes.entry(alike).or_insert(Class {
            ids: vec![],
            concerned,
        });
        class.ids.push(id);
        class.concerned |= concerned;
    }
    classes.into_values().collect()
}

fn is_about(evaluator: &Evaluator, pod: &Endpoint, changed: &BTreeSet<PolicyKey>) -> bool {
    let directions = [Direction::Egress, Direction::Ingress].into_iter();
    let mut policies = directions.flat_map(|direction| evaluator.policies_of(pod, direction));
    policies.any(|policy| changed.contains(&policy))
}

/// Policies that only one cluster has, or that say something else there.
fn changed_policies(before: &Evaluator, after: &Evaluator) -> BTreeSet<PolicyKey> {
    let keys = before.policies.keys().chain(after.policies.keys());
    let changed = keys.filter(|key| before.policies.get(*key) != after.policies.get(*key));
    changed.cloned().collect()
}

impl Evaluator {
    /// Whether everything but policies is the same.
    fn has_the_world_of(&self, other: &Self) -> bool {
        self.namespaces == other.namespaces
            && self.tiers == other.tiers
            && self.endpoints == other.endpoints
            && self.network_sets == other.network_sets
            && self.host_endpoints == other.host_endpoints
            && self.service_accounts == other.service_accounts
            && self.slices == other.slices
            && self.nodes == other.nodes
            && self.profiles == other.profiles
            && self.domains == other.domains
    }
}
