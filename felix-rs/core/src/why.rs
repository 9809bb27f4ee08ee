//! Why a connection is allowed or denied: the evaluator's verdict on what this node knows.

use crate::calc::Calc;
use crate::workloads::seen;
use ipnet::IpNet;
use model::{Object, Protocol};
use policy::{Decision, EndpointId, Evaluator, Flow, Party};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

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
    /// Address of the source.
    pub source: IpAddr,
    /// Address of the destination.
    pub destination: IpAddr,
    /// Both ends allow it.
    pub allowed: bool,
    /// What decided at the source.
    pub egress: String,
    /// What decided at the destination.
    pub ingress: String,
}

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhyError {
    /// Neither a pod nor an address.
    #[error("{0:?} is no address, and no pod that this node knows (namespace/pod)")]
    Unknown(String),
    /// Not a protocol.
    #[error("{0:?} is no protocol; such as tcp/80, udp/53, sctp/5060, icmp, 47")]
    Protocol(String),
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
pub fn why(calc: &Calc, connection: &Connection) -> Result<Vec<Verdict>, WhyError> {
    let (protocol, destination_port) = protocol(&connection.protocol)?;
    let sources = parties(calc, &connection.source)?;
    let destinations = parties(calc, &connection.destination)?;
    let evaluator = evaluator(calc);
    let mut verdicts = Vec::new();
    for source in &sources {
        let same = |party: &&Party| party.address().is_ipv4() == source.address().is_ipv4();
        for destination in destinations.iter().filter(same) {
            let flow = Flow {
                source: source.clone(),
                destination: destination.clone(),
                protocol,
                destination_port,
            };
            let Decision {
                allowed,
                egress,
                ingress,
            } = evaluator.verdict(&flow);
            verdicts.push(Verdict {
                source: source.address(),
                destination: destination.address(),
                allowed,
                egress: egress.to_string(),
                ingress: ingress.to_string(),
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

fn evaluator(calc: &Calc) -> Evaluator {
    let mut evaluator = Evaluator::default();
    for object in calc.objects().all() {
        match object {
            Object::Namespace(namespace) => {
                evaluator.set_namespace(&namespace.name, Some(namespace.labels.clone()));
            }
            Object::NetworkPolicy(policy) => {
                evaluator.set_policy(&policy.namespace, &policy.name, Some(policy.clone()));
            }
            _ => {}
        }
    }
    for (id, endpoint, local) in calc.endpoints() {
        evaluator.set_endpoint(id, seen(endpoint, local, calc.objects()));
    }
    evaluator
}

fn parties(calc: &Calc, text: &str) -> Result<Vec<Party>, WhyError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let own = calc.underlay().link_with_address(address).is_some();
        let party = if own {
            Party::OwnNode(address)
        } else {
            Party::Address(address)
        };
        return Ok(vec![party]);
    }
    let of_pod = |id: &EndpointId, net: &IpNet| Party::Pod(id.clone(), net.addr());
    let named = calc.endpoints().filter(|(_, endpoint, _)| {
        text.split_once('/') == Some((endpoint.namespace.as_str(), endpoint.pod.as_str()))
    });
    let parties: Vec<Party> = named
        .flat_map(|(id, endpoint, _)| endpoint.ip_networks.iter().map(move |net| of_pod(id, net)))
        .collect();
    if parties.is_empty() {
        return Err(WhyError::Unknown(text.to_owned()));
    }
    Ok(parties)
}

fn protocol(text: &str) -> Result<(u8, Option<u16>), WhyError> {
    let invalid = || WhyError::Protocol(text.to_owned());
    let (name, port) = match text.split_once('/') {
        Some((name, port)) => (name, Some(port.parse().map_err(|_| invalid())?)),
        None => (text, None),
    };
    let number = match name.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp.number(),
        "udp" => Protocol::Udp.number(),
        "sctp" => Protocol::Sctp.number(),
        "icmp" => 1,
        "icmpv6" => 58,
        number => number.parse().map_err(|_| invalid())?,
    };
    Ok((number, port))
}
