//! Rules of `projectcalico.org/v3` policy.
//!
//! Every field of a rule narrows what it matches, so an unknown one fails closed: an `Allow` that
//! has one matches nothing, a `Deny` goes on without it, a `Pass` becomes a `Deny`. A value that is
//! wrong makes the whole policy invalid.

use super::calico_entity::entity;
use super::network_policy::Direction;
use super::reader::{Fields, Item, Problem};
use super::syntax;
use crate::object::{CalicoAction, CalicoRule, IcmpMatch, IpVersion};
use ipnet::IpNet;
use serde_json::Value;

/// More rules in one direction make a policy invalid, as in Calico.
pub(super) const MOST_RULES: usize = 1024;

const ACTIONS: &[(&str, CalicoAction)] = &[
    ("Allow", CalicoAction::Allow),
    ("Deny", CalicoAction::Deny),
    ("Log", CalicoAction::Log),
    ("Pass", CalicoAction::Pass),
];
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Protocols that Calico has names for, by `IPPROTO_*`.
pub(super) const PROTOCOL_NAMES: &[(&str, u8)] = &[
    ("TCP", 6),
    ("UDP", 17),
    ("ICMP", ICMP),
    ("ICMPv6", ICMPV6),
    ("SCTP", 132),
    ("UDPLite", 136),
];

/// Where a rule stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The policy's namespace; none for a global policy.
    pub(super) namespace: Option<&'a str>,
    pub(super) direction: Direction,
}

pub(super) fn rules(
    item: Option<Item<'_>>,
    place: Place<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<CalicoRule>, Problem> {
    let items = item.map_or(Ok(Vec::new()), |item| item.short_list(MOST_RULES))?;
    let rules = items
        .into_iter()
        .filter_map(|item| rule(item, place, warnings).transpose());
    rules.collect()
}

/// None for an `Allow` that nothing can be known to match.
fn rule(
    item: Item<'_>,
    place: Place<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<CalicoRule>, Problem> {
    let mut fields = item.fields()?;
    if let Some(item) = fields.take("http") {
        return Err(item.problem("not supported: to match HTTP takes a proxy"));
    }
    let mut unknown = Vec::new();
    let action = fields.need("action")?.one_of(ACTIONS)?;
    let mut rule = CalicoRule {
        action,
        ip_version: fields.take("ipVersion").map(ip_version).transpose()?,
        protocol: fields.take("protocol").map(protocol).transpose()?,
        not_protocol: fields.take("notProtocol").map(protocol).transpose()?,
        icmp: match fields.take("icmp") {
            Some(item) => icmp(item, &mut unknown)?,
            None => None,
        },
        not_icmp: not_icmp(&mut fields)?,
        source: entity(&mut fields, "source", place, &mut unknown, warnings)?,
        destination: entity(&mut fields, "destination", place, &mut unknown, warnings)?,
    };
    fields.ignore(&["metadata"]);
    check_protocols(&rule, &fields)?;
    check_families(&rule, &fields)?;
    check_services(&rule, &fields, place.direction)?;
    unknown.extend(fields.unknown());
    if unknown.is_empty() {
        return Ok(Some(rule));
    }
    let (kept, consequence) = match action {
        CalicoAction::Allow => (false, "this rule matches nothing"),
        CalicoAction::Deny => (true, "this rule denies whatever the rest of it matches"),
        CalicoAction::Pass => (true, "this rule denies whatever the rest of it matches"),
        CalicoAction::Log => (true, "this rule logs whatever the rest of it matches"),
    };
    if action == CalicoAction::Pass {
        rule.action = CalicoAction::Deny;
    }
    let warning = |path| format!("{path}: unknown field, so {consequence}");
    warnings.extend(unknown.into_iter().map(warning));
    Ok(kept.then_some(rule))
}

fn ip_version(item: Item<'_>) -> Result<IpVersion, Problem> {
    match item.value().as_i64() {
        Some(4) => Ok(IpVersion::V4),
        Some(6) => Ok(IpVersion::V6),
        _ => Err(item.is_not("4 or 6")),
    }
}

/// A name, or a number from 1 to 255.
pub(super) fn protocol(item: Item<'_>) -> Result<u8, Problem> {
    let number = match item.value() {
        Value::Number(number) => number.as_u64().and_then(|n| u8::try_from(n).ok()),
        Value::String(text) => {
            let named = PROTOCOL_NAMES.iter().find(|(name, _)| name == text);
            named.map_or_else(|| syntax::digits(text), |(_, number)| Some(*number))
        }
        _ => None,
    };
    number
        .filter(|number| *number != 0)
        .ok_or_else(|| item.is_not("a protocol (TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6, 1 to 255)"))
}

fn icmp(item: Item<'_>, unknown: &mut Vec<String>) -> Result<Option<IcmpMatch>, Problem> {
    let mut fields = item.fields()?;
    let byte = |item: Item<'_>, most| item.integer::<u8>(0..=most);
    let icmp_type = fields.take("type").map(|i| byte(i, 254)).transpose()?;
    let code = fields.take("code").map(|i| byte(i, 255)).transpose()?;
    if code.is_some() && icmp_type.is_none() {
        return Err(fields.problem("code", "needs a type that it is a code of"));
    }
    unknown.extend(fields.unknown());
    Ok(Some(IcmpMatch { icmp_type, code }))
}

/// An unknown field in what is excluded could only widen the rule, so it can't be left out.
fn not_icmp(fields: &mut Fields<'_>) -> Result<Option<IcmpMatch>, Problem> {
    let Some(item) = fields.take("notICMP") else {
        return Ok(None);
    };
    let mut unknown = Vec::new();
    let excluded = icmp(item, &mut unknown)?;
    match unknown.into_iter().next() {
        None => Ok(excluded),
        Some(field) => Err(Problem {
            field,
            reason: "unknown field, so it is not known what is excluded".to_owned(),
        }),
    }
}

fn check_protocols(rule: &CalicoRule, fields: &Fields<'_>) -> Result<(), Problem> {
    let has_ports = rule.protocol.is_some_and(|p| matches!(p, 6 | 17 | 132));
    for (name, entity) in [("source", &rule.source), ("destination", &rule.destination)] {
        for (ports, stated) in [
            ("ports", entity.ports.is_some()),
            ("notPorts", !entity.not_ports.is_empty()),
        ] {
            if stated && !has_ports {
                let field = format!("{name}.{ports}");
                return Err(fields.problem(&field, "needs protocol TCP, UDP or SCTP"));
            }
        }
    }
    let is_icmp = matches!(rule.protocol, Some(ICMP | ICMPV6));
    for (name, stated) in [("icmp", rule.icmp), ("notICMP", rule.not_icmp)] {
        if stated.is_some() && !is_icmp {
            return Err(fields.problem(name, "needs protocol ICMP or ICMPv6"));
        }
    }
    Ok(())
}

fn check_families(rule: &CalicoRule, fields: &Fields<'_>) -> Result<(), Problem> {
    let Some(version) = rule.ip_version else {
        return Ok(());
    };
    for protocol in [rule.protocol, rule.not_protocol].into_iter().flatten() {
        match (protocol, version) {
            (ICMP, IpVersion::V6) => return Err(fields.problem("ipVersion", "ICMP is of IPv4")),
            (ICMPV6, IpVersion::V4) => {
                return Err(fields.problem("ipVersion", "ICMPv6 is of IPv6"));
            }
            _ => {}
        }
    }
    for (name, entity) in [("source", &rule.source), ("destination", &rule.destination)] {
        let lists = [
            ("nets", entity.nets.as_deref().unwrap_or_default()),
            ("notNets", entity.not_nets.as_slice()),
        ];
        for (list, nets) in lists {
            let other = nets
                .iter()
                .find(|net| matches!(net, IpNet::V4(_)) != (version == IpVersion::V4));
            if let Some(net) = other {
                let reason = format!("{net} is not of the rule's ipVersion");
                return Err(fields.problem(&format!("{name}.{list}"), &reason));
            }
        }
    }
    Ok(())
}

/// Services name what an egress rule goes to, with their ports, or what an ingress rule is from.
fn check_services(
    rule: &CalicoRule,
    fields: &Fields<'_>,
    direction: Direction,
) -> Result<(), Problem> {
    let wrong = match direction {
        Direction::Ingress => ("destination.services", rule.destination.services.is_some()),
        Direction::Egress => ("source.services", rule.source.services.is_some()),
    };
    if let (field, true) = wrong {
        let reason = format!(
            "may not stand in {} rule",
            match direction {
                Direction::Ingress => "an ingress",
                Direction::Egress => "an egress",
            }
        );
        return Err(fields.problem(field, &reason));
    }
    let to = &rule.destination;
    if to.services.is_some() && (to.ports.is_some() || !to.not_ports.is_empty()) {
        let reason = "may not stand beside ports or notPorts: the Service says the ports";
        return Err(fields.problem("destination.services", reason));
    }
    Ok(())
}
