//! Ports of the node that lead to pods: who has them, and flows that still go elsewhere.

use super::{code, failed, pod_name};
use crate::agent::Agent;
use felix_core::LocalEndpoint;
use kernel::{Connection, Conntrack};
use model::cni::{Failure, Request};
use model::{HostPort, Protocol};
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Agent {
    /// No other pod has one of the ports that are asked for. Another sandbox of the same pod may:
    /// the later one gets the port.
    pub(super) fn host_ports_are_free(&self, request: &Request) -> Result<(), Failure> {
        for wanted in &request.host_ports {
            let holder = self.calc.local().values().find(|local| {
                let pod = &local.endpoint;
                let same_pod = pod.namespace == request.namespace && pod.pod == request.pod;
                !same_pod && pod.host_ports.iter().any(|held| overlap(held, wanted))
            });
            if let Some(holder) = holder {
                let message = format!(
                    "pod {}: hostPort {}/{} is taken by pod {}/{}",
                    pod_name(request),
                    wanted.host_port,
                    format!("{:?}", wanted.protocol).to_uppercase(),
                    holder.endpoint.namespace,
                    holder.endpoint.pod
                );
                let details = "it is free when that pod is gone";
                return Err(failed(code::INVALID_CONFIG, message, details));
            }
        }
        Ok(())
    }

    /// Flows that a UDP port of this pod received before it was there: tracked to the node itself,
    /// they would go on to be.
    pub(super) fn forget_flows_past(&self, local: &LocalEndpoint) {
        let node: BTreeSet<IpAddr> = self.calc.underlay().addresses().collect();
        forget(local, move |flow| {
            let translated = flow.reply.source != flow.original.destination;
            !translated && node.contains(&flow.original.destination)
        });
    }

    /// Flows to a UDP port of a pod that is gone: tracked, they would go on to its address.
    pub(super) fn forget_flows_of(&self, local: &LocalEndpoint) {
        let networks = local.endpoint.ip_networks.clone();
        let pod: BTreeSet<IpAddr> = networks.iter().map(ipnet::IpNet::addr).collect();
        forget(local, move |flow| pod.contains(&flow.reply.source));
    }
}

/// UDP has no end that is tracked. On a thread of its own: there may be many flows to look at.
fn forget(local: &LocalEndpoint, wanted: impl Fn(&Connection) -> bool + Send + 'static) {
    let ports: BTreeSet<u16> = local
        .endpoint
        .host_ports
        .iter()
        .filter(|port| port.protocol == Protocol::Udp)
        .map(|port| port.host_port)
        .collect();
    if ports.is_empty() {
        return;
    }
    let udp = Protocol::Udp.number();
    let delete = move || {
        let mut conntrack = Conntrack::open().map_err(|error| error.to_string())?;
        let flows = conntrack
            .connections(|flow| {
                let to = flow.original.ports.map(|(_, to)| to);
                flow.original.protocol == udp
                    && to.is_some_and(|port| ports.contains(&port))
                    && wanted(flow)
            })
            .map_err(|error| error.to_string())?;
        match conntrack.delete(&flows).first() {
            Some(error) => Err(error.to_string()),
            None => Ok(()),
        }
    };
    let thread = std::thread::Builder::new()
        .name("forget-flows".to_owned())
        .spawn(move || {
            if let Err(error) = delete() {
                tracing::warn!(%error, "flows to a host port are still tracked");
            }
        });
    if let Err(error) = thread {
        tracing::warn!(%error, "flows to a host port are still tracked");
    }
}

/// Whether a packet can be to both.
fn overlap(a: &HostPort, b: &HostPort) -> bool {
    let addresses = match (a.host_ip, b.host_ip) {
        (Some(a), Some(b)) => {
            a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
        }
        _ => true,
    };
    addresses && a.protocol == b.protocol && a.host_port == b.host_port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_overlap_where_one_packet_can_be_to_both() {
        let port = |ip: &str, protocol, host_port| HostPort {
            host_ip: (!ip.is_empty()).then(|| ip.parse().unwrap()),
            host_port,
            protocol,
            port: 80,
        };
        let tcp = |ip| port(ip, Protocol::Tcp, 8080);
        for (a, b, expected) in [
            (tcp(""), tcp("10.0.0.1"), true),
            (tcp("0.0.0.0"), tcp("10.0.0.1"), true),
            (tcp("10.0.0.1"), tcp("10.0.0.1"), true),
            (tcp("10.0.0.1"), tcp("10.0.0.2"), false),
            (tcp("0.0.0.0"), tcp("fd00::1"), false),
            (tcp(""), port("", Protocol::Udp, 8080), false),
            (tcp(""), port("", Protocol::Tcp, 8081), false),
        ] {
            assert_eq!(overlap(&a, &b), expected, "{a:?} {b:?}");
            assert_eq!(overlap(&b, &a), expected, "{b:?} {a:?}");
        }
    }
}
