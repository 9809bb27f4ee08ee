//! `projectcalico.org/v3` `FelixConfiguration`.
//!
//! Most of its fields tune a data plane that is not this one: they are ignored with a warning. A
//! field that asks for protection which is not there makes the object invalid instead.

use super::Body;
use super::reader::{Fields, Item, Problem};
use super::syntax;
use crate::object::{
    EndpointToHostAction, FailsafePort, FelixConfiguration, NatOutgoingExclusions, Object,
    Protocol, ServiceLoopPrevention,
};
use serde_json::Value;

/// As in `ProtoPort`, and in lower case as in Felix's own files.
const PROTOCOLS: &[(&str, Protocol)] = &[
    ("TCP", Protocol::Tcp),
    ("UDP", Protocol::Udp),
    ("SCTP", Protocol::Sctp),
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("sctp", Protocol::Sctp),
];
const TO_HOST_ACTIONS: &[(&str, EndpointToHostAction)] = &[
    ("Drop", EndpointToHostAction::Drop),
    ("Accept", EndpointToHostAction::Accept),
    ("Return", EndpointToHostAction::Return),
];
const LOOP_PREVENTION: &[(&str, ServiceLoopPrevention)] = &[
    ("Drop", ServiceLoopPrevention::Drop),
    ("Reject", ServiceLoopPrevention::Reject),
    ("Disabled", ServiceLoopPrevention::Disabled),
];
const EXCLUSIONS: &[(&str, NatOutgoingExclusions)] = &[
    ("IPPoolsOnly", NatOutgoingExclusions::IpPoolsOnly),
    (
        "IPPoolsAndHostIPs",
        NatOutgoingExclusions::IpPoolsAndHostIps,
    ),
];
const MOST_MTU: i64 = 65535;
/// A VXLAN network identifier has 24 bits (RFC 7348 section 5).
const MOST_VNI: i64 = (1 << 24) - 1;

pub(super) fn read(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    refuse_encryption(&mut spec)?;
    let warnings = &mut body.warnings;
    let name = body.name.clone();
    if name != "default" && !name.starts_with("node.") {
        warnings.push(format!(
            "metadata.name: {name:?} is neither \"default\" nor \"node.\" and a node's name, so this is used by nobody"
        ));
    }
    let configuration = FelixConfiguration {
        name,
        failsafe_inbound_host_ports: failsafe(&mut spec, "failsafeInboundHostPorts")?,
        failsafe_outbound_host_ports: failsafe(&mut spec, "failsafeOutboundHostPorts")?,
        default_endpoint_to_host_action: spec
            .take("defaultEndpointToHostAction")
            .map(|item| item.one_of(TO_HOST_ACTIONS))
            .transpose()?,
        service_loop_prevention: spec
            .take("serviceLoopPrevention")
            .map(|item| item.one_of(LOOP_PREVENTION))
            .transpose()?,
        allow_ipip_packets_from_workloads: flag(&mut spec, "allowIPIPPacketsFromWorkloads")?,
        allow_vxlan_packets_from_workloads: flag(&mut spec, "allowVXLANPacketsFromWorkloads")?,
        external_nodes: spec
            .take("externalNodesList")
            .map(|item| {
                let items = item.list()?;
                let network = |item: &Item<'_>| syntax::network(item, warnings);
                items.iter().map(network).collect()
            })
            .transpose()?,
        nat_port_range: spec.take("natPortRange").map(port_range).transpose()?,
        nat_outgoing_address: text(&mut spec, "natOutgoingAddress", "an IPv4 address")?,
        nat_outgoing_exclusions: spec
            .take("natOutgoingExclusions")
            .map(|item| item.one_of(EXCLUSIONS))
            .transpose()?,
        ipip_mtu: integer(&mut spec, "ipipMTU", 0..=MOST_MTU)?,
        vxlan_mtu: integer(&mut spec, "vxlanMTU", 0..=MOST_MTU)?,
        vxlan_mtu_v6: integer(&mut spec, "vxlanMTUV6", 0..=MOST_MTU)?,
        vxlan_port: integer(&mut spec, "vxlanPort", 1..=65535)?,
        vxlan_vni: integer(&mut spec, "vxlanVNI", 1..=MOST_VNI)?,
        device_route_source_address: text(
            &mut spec,
            "deviceRouteSourceAddress",
            "an IPv4 address",
        )?,
        device_route_source_address_ipv6: text(
            &mut spec,
            "deviceRouteSourceAddressIPv6",
            "an IPv6 address",
        )?,
        log_prefix: spec
            .take("logPrefix")
            .map(Item::text)
            .transpose()?
            .map(str::to_owned),
    };
    let unknown = spec.unknown().into_iter();
    warnings.extend(unknown.map(|path| format!("{path}: not used here, ignored")));
    Ok(Object::FelixConfiguration(Box::new(configuration)))
}

fn refuse_encryption(spec: &mut Fields<'_>) -> Result<(), Problem> {
    for name in FelixConfiguration::ENCRYPTION_FIELDS {
        if let Some(item) = spec.take(name) {
            let off = matches!(item.value(), Value::Bool(false)) || item.value() == "";
            if !off {
                return Err(item.problem("not supported: traffic between nodes is not encrypted"));
            }
        }
    }
    Ok(())
}

fn flag(spec: &mut Fields<'_>, name: &'static str) -> Result<Option<bool>, Problem> {
    spec.take(name).map(Item::boolean).transpose()
}

fn integer<T: TryFrom<i64>>(
    spec: &mut Fields<'_>,
    name: &'static str,
    range: std::ops::RangeInclusive<i64>,
) -> Result<Option<T>, Problem> {
    let item = spec.take(name);
    item.map(|item| item.integer(range)).transpose()
}

/// A value that the empty string stands for the absence of.
fn text<T: std::str::FromStr>(
    spec: &mut Fields<'_>,
    name: &'static str,
    what: &str,
) -> Result<Option<T>, Problem> {
    let item = spec.take(name).filter(|item| item.value() != "");
    item.map(|item| item.parse(what)).transpose()
}

fn failsafe(
    spec: &mut Fields<'_>,
    name: &'static str,
) -> Result<Option<Vec<FailsafePort>>, Problem> {
    let Some(item) = spec.take(name) else {
        return Ok(None);
    };
    let port = |item: Item<'_>| {
        let mut fields = item.fields()?;
        let port = FailsafePort {
            protocol: fields
                .take("protocol")
                .map_or(Ok(Protocol::Tcp), |item| item.one_of(PROTOCOLS))?,
            port: fields.need("port")?.integer(1..=65535)?,
            net: fields
                .take("net")
                .filter(|item| item.value() != "")
                .map(|item| syntax::exact_network(&item))
                .transpose()?,
        };
        // What narrows a port that stays open must not be lost.
        fields.refuse_unknown("unknown field")?;
        Ok(port)
    };
    item.list()?
        .into_iter()
        .map(port)
        .collect::<Result<_, _>>()
        .map(Some)
}

/// `0`, one port or `"first:last"`.
fn port_range(item: Item<'_>) -> Result<(u16, u16), Problem> {
    let what = "0, a port or a range such as \"32768:65535\"";
    let number = |text: &str| text.parse::<u16>().ok();
    let range = match item.value() {
        Value::Number(number) => number
            .as_u64()
            .and_then(|number| u16::try_from(number).ok())
            .map(|port| (port, port)),
        Value::String(text) => match text.split_once(':') {
            Some((first, last)) => number(first).zip(number(last)),
            None => number(text).map(|port| (port, port)),
        },
        _ => None,
    };
    range
        .filter(|(first, last)| first <= last && (*first > 0 || *last == 0))
        .ok_or_else(|| item.is_not(what))
}
