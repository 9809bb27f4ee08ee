//! What policies of `projectcalico.org/v3` select besides pods: `NetworkSet`, `GlobalNetworkSet`,
//! `HostEndpoint` and `Profile`.

use super::Body;
use super::reader::{Fields, Item, Problem};
use super::syntax;
use super::workload::PROTOCOLS;
use crate::object::{HostEndpoint, NamedPort, NetworkSet, Object, Profile, Protocol};
use std::net::IpAddr;

pub(super) fn network_set(body: &mut Body<'_>) -> Result<Object, Problem> {
    let labels = body.labels()?;
    let mut nets = Vec::new();
    if let Some(spec) = body.root.take("spec") {
        let mut spec = spec.fields()?;
        for item in spec.take("nets").map_or(Ok(Vec::new()), Item::list)? {
            nets.push(syntax::network(&item, &mut body.warnings)?);
        }
        spec.warn_unknown(&mut body.warnings);
    }
    Ok(Object::NetworkSet(NetworkSet {
        namespace: (!body.namespace.is_empty()).then(|| body.namespace.clone()),
        name: body.name.clone(),
        labels,
        nets,
    }))
}

pub(super) fn host_endpoint(body: &mut Body<'_>) -> Result<Object, Problem> {
    let labels = body.labels()?;
    let mut spec = body.spec()?;
    let interface_name = spec
        .take("interfaceName")
        .filter(|item| item.value() != "")
        .map(|item| match item.value().as_str() {
            Some("*") => Ok("*"),
            _ => item.check(syntax::interface),
        })
        .transpose()?
        .map(str::to_owned);
    let addresses = spec.take("expectedIPs");
    let endpoint = HostEndpoint {
        name: body.name.clone(),
        labels,
        node: spec.need("node")?.check(syntax::subdomain)?.to_owned(),
        interface_name,
        expected_ips: addresses
            .map_or(Ok(Vec::new()), Item::list)?
            .iter()
            .map(|item| item.parse::<IpAddr>("an IP address"))
            .collect::<Result<_, _>>()?,
        ports: ports(&mut spec)?,
        profiles: texts(&mut spec, "profiles")?
            .into_iter()
            .map(Into::into)
            .collect(),
    };
    if endpoint.interface_name.is_none() && endpoint.expected_ips.is_empty() {
        return Err(spec.problem("interfaceName", "is required, or expectedIPs"));
    }
    spec.warn_unknown(&mut body.warnings);
    Ok(Object::HostEndpoint(Box::new(endpoint)))
}

fn ports(spec: &mut Fields<'_>) -> Result<Vec<NamedPort>, Problem> {
    let ports = spec.take("ports").map_or(Ok(Vec::new()), Item::list)?;
    let port = |item: Item<'_>| {
        let mut port = item.fields()?;
        Ok(NamedPort {
            name: port
                .need("name")?
                .check(syntax::endpoint_port_name)?
                .to_owned(),
            protocol: port_protocol(port.need("protocol")?)?,
            port: port.need("port")?.integer(1..=65535)?,
        })
    };
    ports.into_iter().map(port).collect()
}

/// A protocol that has ports, by name or number.
pub(super) fn port_protocol(item: Item<'_>) -> Result<Protocol, Problem> {
    match item.value().as_i64() {
        Some(6) => Ok(Protocol::Tcp),
        Some(17) => Ok(Protocol::Udp),
        Some(132) => Ok(Protocol::Sctp),
        Some(_) => Err(item.is_not("a protocol with ports (TCP, UDP, SCTP)")),
        None => item.one_of(PROTOCOLS),
    }
}

fn texts(spec: &mut Fields<'_>, name: &'static str) -> Result<Vec<String>, Problem> {
    let items = spec.take(name).map_or(Ok(Vec::new()), Item::list)?;
    let text = |item: Item<'_>| item.text().map(str::to_owned);
    items.into_iter().map(text).collect()
}

pub(super) fn profile(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut profile = Profile {
        name: body.name.clone(),
        labels_to_apply: crate::Labels::new(),
    };
    if let Some(spec) = body.root.take("spec") {
        let mut spec = spec.fields()?;
        if let Some(item) = spec.take("labelsToApply") {
            profile.labels_to_apply = item.labels()?;
        }
        for name in ["ingress", "egress"] {
            allows_everything(&mut spec, name)?;
        }
        spec.warn_unknown(&mut body.warnings);
    }
    Ok(Object::Profile(profile))
}

/// Rules of profiles are a form of policy that Calico has left behind. The one that Calico itself
/// writes allows everything, which is what happens without a policy.
fn allows_everything(spec: &mut Fields<'_>, name: &'static str) -> Result<(), Problem> {
    for item in spec.take(name).map_or(Ok(Vec::new()), Item::list)? {
        let refused = item.problem("not supported: write a GlobalNetworkPolicy");
        let mut rule = item.fields()?;
        let allow = rule
            .take("action")
            .is_some_and(|item| item.value() == "Allow");
        let is_empty = |item: Item<'_>| item.value().as_object().is_some_and(|map| map.is_empty());
        let anywhere = ["source", "destination"]
            .into_iter()
            .all(|end| rule.take(end).is_none_or(is_empty));
        if !allow || !anywhere || !rule.unknown().is_empty() {
            return Err(refused);
        }
    }
    Ok(())
}
