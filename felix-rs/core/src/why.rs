//! Why a connection is allowed or denied: the evaluator's verdict on a cluster, as this node knows
//! it or as a directory describes it.

use crate::cluster::Cluster;
use model::Protocol;
use policy::{EndpointId, Flow, Judgement, Party, Reason};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Where connections come from that nobody says more of: an ephemeral port.
const SOURCE_PORT: u16 = 40_000;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// A connection to judge, as a user names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// `namespace/pod`, or an address.
    pub source: String,
    /// `namespace/pod`, or an address (after destination NAT: a pod's, not a Service's).
    pub destination: String,
    /// `tcp/80`, `udp/53`, `sctp/5060`, `icmp`, or a protocol number.
    pub protocol: String,
}

/// The verdict for one address family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Address of the source; none where the pod has none yet.
    pub source: Option<IpAddr>,
    /// Address of the destination; none where the pod has none yet.
    pub destination: Option<IpAddr>,
    /// Both ends allow it.
    pub allowed: bool,
    /// What decided at the source.
    pub egress: EndVerdict,
    /// What decided at the destination.
    pub ingress: EndVerdict,
}

/// The verdict of one end, in words and in parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndVerdict {
    /// This end allows it.
    pub allowed: bool,
    /// What decided, in words.
    pub reason: String,
    /// The tier that decided.
    pub tier: Option<String>,
    /// The policies that decided, such as `NetworkPolicy/shop/api`: of a rule, its policy; at the
    /// end of a tier, all that apply.
    pub policies: Vec<String>,
    /// Place of the rule that decided in its policy's direction, from 0.
    pub rule: Option<usize>,
    /// Name of the rule that decided.
    pub rule_name: Option<String>,
    /// Rules that matched before and went on, in words.
    pub passed: Vec<String>,
    /// What would decide if all staged policies were in force, where they are about this end.
    pub staged: Option<StagedVerdict>,
}

/// What staged policies would say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedVerdict {
    /// This end would allow it.
    pub allowed: bool,
    /// What would decide, in words.
    pub reason: String,
}

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhyError {
    /// Neither a pod nor an address.
    #[error("{0:?} is no address, and no pod that is known (namespace/pod)")]
    Unknown(String),
    /// A pod that policies do not see.
    #[error("{0} is in the host's network: no policy is about it; name its node's address")]
    HostNetwork(String),
    /// Policy sees where a Service leads to.
    #[error(
        "{address} is an address of Service {service}: policy sees the pod that a connection is \
         translated to; name that pod, with its own port"
    )]
    Service {
        /// The address.
        address: IpAddr,
        /// `namespace/name`
        service: String,
    },
    /// Not a protocol.
    #[error("{0:?} is no protocol; such as tcp/80, udp/53, sctp/5060, icmp, 47")]
    Protocol(String),
    /// A protocol with ports, and none is named.
    #[error("{0} needs a port, such as {0}/80")]
    Port(String),
    /// One end has only IPv4 addresses and the other only IPv6 ones.
    #[error("{source_name} and {destination} have no address family in common")]
    Families {
        /// The source.
        source_name: String,
        /// The destination.
        destination: String,
    },
}

/// The verdicts of the connection, one for each address family that both ends have.
pub fn why(cluster: &Cluster, connection: &Connection) -> Result<Vec<Verdict>, WhyError> {
    let service = service(&connection.protocol)?;
    let sources = ends(cluster, &connection.source)?;
    let destinations = ends(cluster, &connection.destination)?;
    let evaluator = cluster.evaluator();
    let mut verdicts = Vec::new();
    for source in &sources {
        let same = |end: &&End| end.address.is_ipv4() == source.address.is_ipv4();
        for destination in destinations.iter().filter(same) {
            let flow = flow(cluster, source, destination, service);
            let decision = evaluator.verdict(&flow);
            let shown = |end: &End| (!cluster.is_stand_in(end.address)).then_some(end.address);
            verdicts.push(Verdict {
                source: shown(source),
                destination: shown(destination),
                allowed: decision.allowed,
                egress: EndVerdict::of(&decision.egress),
                ingress: EndVerdict::of(&decision.ingress),
            });
        }
    }
    if verdicts.is_empty() {
        return Err(WhyError::Families {
            source_name: connection.source.clone(),
            destination: connection.destination.clone(),
        });
    }
    Ok(verdicts)
}

impl EndVerdict {
    fn of(judgement: &Judgement) -> Self {
        let said = Self {
            allowed: judgement.allows(),
            reason: judgement.reason.to_string(),
            passed: judgement.passed.iter().map(ToString::to_string).collect(),
            staged: judgement.staged.as_ref().map(|reason| StagedVerdict {
                allowed: reason.allows(),
                reason: reason.to_string(),
            }),
            ..Self::default()
        };
        match &judgement.reason {
            Reason::Rule(rule) => Self {
                tier: Some(rule.tier.clone()),
                policies: vec![rule.policy.to_string()],
                rule: Some(rule.rule),
                rule_name: rule.name.clone(),
                ..said
            },
            Reason::EndOfTier { tier, policies } => Self {
                tier: Some(tier.clone()),
                policies: policies.iter().map(ToString::to_string).collect(),
                ..said
            },
            _ => said,
        }
    }
}

/// One end, as a user named it.
struct End {
    pod: Option<EndpointId>,
    address: IpAddr,
}

fn ends(cluster: &Cluster, text: &str) -> Result<Vec<End>, WhyError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        if let Some(service) = cluster.service_at(address) {
            let service = service.to_owned();
            return Err(WhyError::Service { address, service });
        }
        return Ok(vec![End { pod: None, address }]);
    }
    let Some((namespace, name)) = text.split_once('/') else {
        return Err(WhyError::Unknown(text.to_owned()));
    };
    let of_pod = |id: &EndpointId, address: IpAddr| End {
        pod: Some(id.clone()),
        address,
    };
    let named = cluster.pods_named(namespace, name);
    let ends: Vec<End> = named
        .flat_map(|(id, pod)| pod.ips.iter().map(move |address| of_pod(id, *address)))
        .collect();
    match ends.is_empty() {
        true if cluster.is_in_host_network(namespace, name) => {
            Err(WhyError::HostNetwork(text.to_owned()))
        }
        true => Err(WhyError::Unknown(text.to_owned())),
        false => Ok(ends),
    }
}

/// Protocol and destination port.
type Service = (u8, Option<u16>);

fn flow(cluster: &Cluster, source: &End, destination: &End, (protocol, port): Service) -> Flow {
    let party = |end: &End, other: &End| match &end.pod {
        Some(id) => Party::Pod(id.clone(), end.address),
        None if cluster.is_own_node(end.address, other.pod.as_ref(), other.address) => {
            Party::OwnNode(end.address)
        }
        None => Party::Address(end.address),
    };
    // `icmp` is said of both families.
    let (protocol, icmp) = match (protocol, source.address.is_ipv4()) {
        (ICMP | ICMPV6, true) => (ICMP, Some((8, 0))),
        (ICMP | ICMPV6, false) => (ICMPV6, Some((128, 0))),
        (other, _) => (other, None),
    };
    let (from, to) = (party(source, destination), party(destination, source));
    Flow {
        source_port: port.map(|_| SOURCE_PORT),
        icmp,
        ..Flow::new(from, to, protocol, port)
    }
}

fn service(text: &str) -> Result<Service, WhyError> {
    let invalid = || WhyError::Protocol(text.to_owned());
    let (name, port) = match text.split_once('/') {
        Some((name, port)) => {
            let port: u16 = port.parse().map_err(|_| invalid())?;
            (name, Some(port).filter(|port| *port != 0))
        }
        None => (text, None),
    };
    let with_ports = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(Protocol::number);
    let number = match name.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp.number(),
        "udp" => Protocol::Udp.number(),
        "sctp" => Protocol::Sctp.number(),
        "icmp" => ICMP,
        "icmpv6" => ICMPV6,
        number => number.parse().map_err(|_| invalid())?,
    };
    match (with_ports.contains(&number), port) {
        (true, None) => Err(WhyError::Port(name.to_owned())),
        (false, Some(_)) => Err(invalid()),
        _ => Ok((number, port)),
    }
}

#[cfg(test)]
mod tests;
