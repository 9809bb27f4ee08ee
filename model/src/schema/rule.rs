//! Rules of Calico's policies. Every field of a rule narrows what it matches: what is unknown is
//! kept, so that the reader can fail closed.

use super::build::{Schema, integer, integer_or_text, list, map_of, object, one_of, text};
use super::values::{cheap_network, label_or_empty, name, port, selector};

const ACTIONS: &[&str] = &["Allow", "Deny", "Log", "Pass"];
const PROTOCOL: &str = "^(TCP|UDP|ICMP|ICMPv6|SCTP|UDPLite|[0-9]{1,3})$";

/// Which way a rule looks.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

pub(super) fn rule(direction: Direction) -> Schema {
    let (services, wrong) = match direction {
        Direction::Ingress => ("destination", "an ingress rule names services in source"),
        Direction::Egress => ("source", "an egress rule names services in destination"),
    };
    let ports = |end: &str, field: &str| {
        format!("has(self.{end}) && has(self.{end}.{field}) && size(self.{end}.{field}) > 0")
    };
    let any_ports: Vec<String> = ["source", "destination"]
        .into_iter()
        .flat_map(|end| ["ports", "notPorts"].map(|field| ports(end, field)))
        .collect();
    let has_ports = protocol_is(&[("TCP", 6), ("UDP", 17), ("SCTP", 132)]);
    let (v4, v6) = (protocol_is(&[("ICMP", 1)]), protocol_is(&[("ICMPv6", 58)]));
    fields()
        .rule(
            &format!(
                "!({}) || has(self.protocol) && ({has_ports})",
                any_ports.join(" || ")
            ),
            "ports and notPorts need protocol TCP, UDP or SCTP",
        )
        .rule(
            &format!(
                "!(has(self.icmp) || has(self.notICMP)) || has(self.protocol) && ({v4} || {v6})"
            ),
            "icmp and notICMP need protocol ICMP or ICMPv6",
        )
        .rule(
            &format!(
                "!has(self.ipVersion) || !has(self.protocol) \
                 || !(self.ipVersion == 4 ? {v6} : {v4})"
            ),
            "ICMP is of IPv4, ICMPv6 is of IPv6",
        )
        .rule(
            &format!("!has(self.{services}) || !has(self.{services}.services)"),
            wrong,
        )
        .rule(
            "!has(self.destination) || !has(self.destination.services) \
             || (!has(self.destination.ports) || size(self.destination.ports) == 0) \
             && (!has(self.destination.notPorts) || size(self.destination.notPorts) == 0)",
            "ports and notPorts may not stand beside services: the Service says the ports",
        )
}

/// Whether the protocol is one of these, by name or number. Each is compared apart: to convert the
/// value first would cost, as the API server reckons, as if its text were as long as a request.
fn protocol_is(protocols: &[(&str, u8)]) -> String {
    let is = |(name, number): &(&str, u8)| {
        format!(
            "self.protocol == '{name}' || self.protocol == '{number}' || self.protocol == {number}"
        )
    };
    let all: Vec<String> = protocols.iter().map(is).collect();
    format!("({})", all.join(" || "))
}

/// A rule of a profile, of which nothing is required: what it says is refused by the reader.
pub(super) fn profile_rule() -> Schema {
    object([
        ("action", one_of(ACTIONS)),
        ("source", object([]).keeps_unknown()),
        ("destination", object([]).keeps_unknown()),
    ])
    .keeps_unknown()
}

fn fields() -> Schema {
    object([
        ("action", one_of(ACTIONS)),
        (
            "ipVersion",
            integer(4..=6).rule("self != 5", "must be 4 or 6"),
        ),
        (
            "protocol",
            protocol().about("A name, or a number from 1 to 255."),
        ),
        ("notProtocol", protocol()),
        ("icmp", icmp()),
        ("notICMP", icmp()),
        ("source", entity().about("Where packets come from.")),
        ("destination", entity().about("Where packets go.")),
        (
            "metadata",
            object([("annotations", map_of(text()))]).about("Words about the rule."),
        ),
        (
            "http",
            object([]).keeps_unknown().rule(
                "false",
                "http is not supported: to match HTTP takes a proxy",
            ),
        ),
    ])
    .required(&["action"])
    .keeps_unknown()
}

fn protocol() -> Schema {
    integer_or_text(1..=255, PROTOCOL)
}

fn icmp() -> Schema {
    object([("type", integer(0..=254)), ("code", integer(0..=255))])
        .keeps_unknown()
        .rule(
            "!has(self.code) || has(self.type)",
            "code needs a type that it is a code of",
        )
}

/// One end of a rule.
fn entity() -> Schema {
    let accounts = object([("names", list(name())), ("selector", selector())]).keeps_unknown();
    let service = object([("name", name()), ("namespace", label_or_empty())])
        .required(&["name"])
        .keeps_unknown();
    object([
        (
            "nets",
            list(cheap_network()).about("Addresses and prefixes."),
        ),
        ("notNets", list(cheap_network())),
        (
            "selector",
            selector().about("Endpoints and network sets, by label."),
        ),
        ("notSelector", selector()),
        (
            "namespaceSelector",
            selector().about("Their namespaces, by label; global() is what has none."),
        ),
        ("serviceAccounts", accounts),
        ("services", service.about("The endpoints of a Service.")),
        (
            "ports",
            list(port()).about("Numbers, ranges such as 80:90, names."),
        ),
        ("notPorts", list(port())),
    ])
    .keeps_unknown()
    .rule(
        "!has(self.services) || !has(self.nets) && !has(self.notNets) && !has(self.selector) \
         && !has(self.notSelector) && !has(self.namespaceSelector) && !has(self.serviceAccounts)",
        "services may stand beside ports only",
    )
}
