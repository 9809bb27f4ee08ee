//! `projectcalico.org/v3` `WorkloadEndpoint`.

use super::Body;
use super::reader::{Fields, Item, Problem};
use crate::Text;
use crate::object::{HostPort, NamedPort, Object, Protocol, WorkloadEndpoint};
use ipnet::IpNet;
use std::net::IpAddr;

/// Protocols by the names that Kubernetes and Calico use.
pub(super) const PROTOCOLS: &[(&str, Protocol)] = &[
    ("TCP", Protocol::Tcp),
    ("UDP", Protocol::Udp),
    ("SCTP", Protocol::Sctp),
];

pub(super) fn read(body: &mut Body<'_>) -> Result<Object, Problem> {
    let labels = body.labels()?;
    let pod_uid = owner_uid(&mut body.metadata)?;
    let mut spec = body.spec()?;
    let text = |spec: &mut Fields<'_>, name| Ok(Text::from(spec.need(name)?.text()?));
    let networks = spec.need("ipNetworks")?;
    let (ports, host_ports) = ports(&mut spec)?;
    let endpoint = WorkloadEndpoint {
        namespace: body.namespace.as_str().into(),
        name: body.name.as_str().into(),
        node: text(&mut spec, "node")?,
        pod: text(&mut spec, "pod")?,
        pod_uid,
        container_id: text(&mut spec, "containerID")?,
        endpoint: text(&mut spec, "endpoint")?,
        interface_name: text(&mut spec, "interfaceName")?,
        mac: mac(&spec.need("mac")?)?,
        ip_networks: networks
            .list()?
            .iter()
            .map(host_network)
            .collect::<Result<_, _>>()?,
        labels,
        ports: ports.into(),
        host_ports,
    };
    spec.ignore(&[
        "orchestrator",
        "workload",
        "serviceAccountName",
        "profiles",
        "ipv4Gateway",
        "ipv6Gateway",
    ]);
    spec.unsupported(
        &["ipNATs", "allowSpoofedSourcePrefixes", "qosControls"],
        &mut body.warnings,
    );
    spec.warn_unknown(&mut body.warnings);
    Ok(Object::WorkloadEndpoint(Box::new(endpoint)))
}

/// The UID of the pod that owns the endpoint, as Kubernetes records ownership.
fn owner_uid(metadata: &mut Fields<'_>) -> Result<Option<Text>, Problem> {
    for owner in metadata
        .take("ownerReferences")
        .map_or(Ok(Vec::new()), Item::list)?
    {
        let mut owner = owner.fields()?;
        if owner.need("kind")?.text()? == "Pod" {
            return Ok(Some(owner.need("uid")?.text()?.into()));
        }
    }
    Ok(None)
}

/// Named ports, and ports of the node that lead here. An entry may be either or both.
fn ports(spec: &mut Fields<'_>) -> Result<(Vec<NamedPort>, Vec<HostPort>), Problem> {
    let (mut named, mut of_host) = (Vec::new(), Vec::new());
    for item in spec.take("ports").map_or(Ok(Vec::new()), Item::list)? {
        let mut entry = item.fields()?;
        let protocol = entry.need("protocol")?.one_of(PROTOCOLS)?;
        let port = entry.need("port")?.integer(1..=65535)?;
        let host_port = entry.take("hostPort").map(|item| item.integer(1..=65535));
        let host_ip = entry.take("hostIP").map(|item| item.parse("an IP address"));
        if let Some(host_port) = host_port.transpose()? {
            of_host.push(HostPort {
                host_ip: host_ip.transpose()?,
                host_port,
                protocol,
                port,
            });
            if let Some(name) = entry.take("name") {
                let name = name.text()?.to_owned();
                named.push(NamedPort {
                    name,
                    protocol,
                    port,
                });
            }
            continue;
        }
        let name = entry.need("name")?.text()?.to_owned();
        named.push(NamedPort {
            name,
            protocol,
            port,
        });
    }
    Ok((named, of_host))
}

/// A single address, with or without its prefix length.
fn host_network(item: &Item<'_>) -> Result<IpNet, Problem> {
    let wanted = "an address, alone or as /32 or /128";
    let network = match item.parse::<IpAddr>(wanted) {
        Ok(address) => IpNet::from(address),
        Err(_) => item.parse::<IpNet>(wanted)?,
    };
    if network.prefix_len() == network.max_prefix_len() {
        Ok(network)
    } else {
        Err(item.is_not(wanted))
    }
}

fn mac(item: &Item<'_>) -> Result<[u8; 6], Problem> {
    let wanted = "a MAC address such as \"0a:1b:2c:3d:4e:5f\"";
    let text: String = item.parse(wanted)?;
    let mut parts = text.split(':');
    let mut mac = [0; 6];
    for byte in &mut mac {
        let part = parts
            .next()
            .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
        *byte = part
            .and_then(|part| u8::from_str_radix(part, 16).ok())
            .ok_or_else(|| item.is_not(wanted))?;
    }
    if parts.next().is_some() {
        Err(item.is_not(wanted))
    } else {
        Ok(mac)
    }
}
