//! `projectcalico.org/v3` `WorkloadEndpoint`.

use super::Body;
use super::reader::{Fields, Item, Problem};
use crate::object::{NamedPort, Object, Protocol, WorkloadEndpoint};
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
    let text = |spec: &mut Fields<'_>, name| Ok(spec.need(name)?.text()?.to_owned());
    let networks = spec.need("ipNetworks")?;
    let endpoint = WorkloadEndpoint {
        namespace: body.namespace.clone(),
        name: body.name.clone(),
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
        ports: ports(&mut spec)?,
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
    Ok(Object::WorkloadEndpoint(endpoint))
}

/// The UID of the pod that owns the endpoint, as Kubernetes records ownership.
fn owner_uid(metadata: &mut Fields<'_>) -> Result<Option<String>, Problem> {
    for owner in metadata
        .take("ownerReferences")
        .map_or(Ok(Vec::new()), Item::list)?
    {
        let mut owner = owner.fields()?;
        if owner.need("kind")?.text()? == "Pod" {
            return Ok(Some(owner.need("uid")?.text()?.to_owned()));
        }
    }
    Ok(None)
}

fn ports(spec: &mut Fields<'_>) -> Result<Vec<NamedPort>, Problem> {
    let ports = spec.take("ports").map_or(Ok(Vec::new()), Item::list)?;
    let port = |item: Item<'_>| {
        let mut port = item.fields()?;
        Ok(NamedPort {
            name: port.need("name")?.text()?.to_owned(),
            protocol: port.need("protocol")?.one_of(PROTOCOLS)?,
            port: port.need("port")?.integer(1..=65535)?,
        })
    };
    ports.into_iter().map(port).collect()
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
