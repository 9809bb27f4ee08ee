//! Which live connections the rules in force would not allow any more.
//!
//! The judge is the compiled table itself, interpreted for the connection's first packet: what the
//! kernel would say if the connection were opened now.

use crate::calc::Calc;
use ipnet::IpNet;
use model::names;
use policy::program::{Connection, Interface, Outcome, Packet, Program};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A connection as its first packet was in the forward hook: after destination NAT, before source
/// NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveFlow {
    /// L4 protocol (`IPPROTO_*`).
    pub protocol: u8,
    /// Who opened it.
    pub source: IpAddr,
    /// Who accepted it.
    pub destination: IpAddr,
    /// Source and destination port, of protocols that have ports.
    pub ports: Option<(u16, u16)>,
    /// Type and code, of ICMP and ICMPv6.
    pub icmp: Option<(u8, u8)>,
    /// Address and port that it was sent to before destination NAT, where that was another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_destination: Option<(IpAddr, Option<u16>)>,
}

/// `10.0.0.1:40000 -> 10.0.0.2:80 protocol 6`
impl fmt::Display for LiveFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            source,
            destination,
            ports,
            icmp: _,
            original_destination: _,
        } = self;
        match ports {
            Some((from, to)) => {
                let (source, destination) = (
                    SocketAddr::new(*source, *from),
                    SocketAddr::new(*destination, *to),
                );
                write!(f, "{source} -> {destination} protocol {protocol}")
            }
            None => write!(f, "{source} -> {destination} protocol {protocol}"),
        }
    }
}

/// Judges connections of this node's pods by the table as of the last [`Calc::resolve`].
pub struct Judge<'a> {
    calc: &'a Calc,
    program: Program<'a>,
    pods: BTreeMap<IpAddr, Interface>,
}

impl Calc {
    /// Addresses of which a connection is worth looking at: all of this node's own blocks, and
    /// outside of them those of its pods and of pods that it had.
    pub fn judged_addresses(&self) -> BTreeSet<IpNet> {
        let pods = self.local().values();
        let outside = |net: &&IpNet| !self.own_blocks().iter().any(|block| block.contains(*net));
        let outside = pods
            .flat_map(|pod| pod.endpoint.ip_networks.iter().filter(outside))
            .copied();
        let departed = self.departed().iter().map(|address| IpNet::from(*address));
        let blocks = self.own_blocks().iter().copied();
        blocks.chain(outside).chain(departed).collect()
    }

    /// A judge of what is in force.
    pub fn judge(&self) -> Judge<'_> {
        let pods = self.local().values().flat_map(|local| {
            let interface = Interface {
                index: local.ifindex,
                name: local.endpoint.interface_name.to_string(),
            };
            let addresses = local.endpoint.ip_networks.iter();
            addresses.map(move |net| (net.addr(), interface.clone()))
        });
        Judge {
            calc: self,
            program: Program::new(self.ruleset()),
            pods: pods.collect(),
        }
    }
}

impl Judge<'_> {
    /// True where the connection has to end: the rules deny it, or it is one of an address of ours
    /// that no pod has, so that the next pod with this address would inherit it.
    pub fn denies(&self, flow: &LiveFlow) -> bool {
        let pods = [flow.source, flow.destination].map(|address| self.pods.get(&address));
        if [flow.source, flow.destination]
            .iter()
            .any(|address| self.is_orphan(*address))
        {
            return true;
        }
        let [source, destination] = pods;
        if source.is_none() && destination.is_none() {
            return false;
        }
        let packet = Packet {
            iif: self.interface(flow.source, source),
            oif: self.interface(flow.destination, destination),
            source: flow.source,
            destination: flow.destination,
            original_destination: flow.original_destination,
            protocol: flow.protocol,
            ports: flow.ports,
            icmp: flow.icmp,
            connection: Connection::New,
            mark: 0,
        };
        if self.calc.was_resolved(flow.destination) {
            return false;
        }
        match self.program.run(&packet) {
            Ok(outcome) => matches!(outcome, Outcome::Dropped { .. }),
            // The compiler made the table; what it can't be asked about stays as it is.
            Err(_) => false,
        }
    }

    /// Where the packet passes; the node itself is no interface. Which one of the node's own it is
    /// matters only to the host endpoint of a single interface, and then is that by which the node
    /// would reach the address.
    fn interface(&self, address: IpAddr, pod: Option<&Interface>) -> Option<Interface> {
        if let Some(pod) = pod {
            return Some(pod.clone());
        }
        if self.is_own(address) {
            return None;
        }
        let names_interfaces = self.calc.has_host_endpoints_of_interfaces();
        let way = names_interfaces.then(|| self.calc.way_to(address));
        let link = way.flatten();
        Some(Interface {
            index: link.map_or(0, |link| link.ifindex),
            name: link.map_or_else(|| "uplink".to_owned(), |link| link.name.clone()),
        })
    }

    /// Whether the node itself has the address. The host end of every pod has the gateway's, and
    /// what the node says to a pod comes from there.
    fn is_own(&self, address: IpAddr) -> bool {
        address == IpAddr::V4(names::GATEWAY_V4)
            || address == IpAddr::V6(names::GATEWAY_V6)
            || self.calc.underlay().link_with_address(address).is_some()
    }

    fn is_orphan(&self, address: IpAddr) -> bool {
        let mut blocks = self.calc.own_blocks().iter();
        let ours =
            blocks.any(|block| block.contains(&address)) || self.calc.departed().contains(&address);
        ours && !self.pods.contains_key(&address) && !self.is_own(address)
    }
}

#[cfg(test)]
mod tests;
