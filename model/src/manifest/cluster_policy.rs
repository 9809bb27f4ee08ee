//! `policy.networking.k8s.io/v1alpha2` `ClusterNetworkPolicy`.
//!
//! What is not understood fails closed as the API's types ask for: a rule with an unknown peer,
//! protocol or field matches nothing if it accepts, and denies everything if it denies or passes.
//! A value that is wrong makes the whole policy invalid.

use super::Body;
use super::label_selector;
use super::network_policy::Direction;
use super::reader::{Fields, Item, Problem};
use super::syntax;
use crate::Selector;
use crate::object::{
    ClusterAction, ClusterNetworkPolicy, ClusterPeer, ClusterPods, ClusterPort, ClusterRule,
    ClusterTier, Object, Protocol,
};
use ipnet::IpNet;
use serde_json::Value;
use std::sync::Arc;

/// Rules in one direction, peers and protocols of a rule, networks and domain names of a peer.
const MOST: usize = 25;
const MOST_PRIORITY: i64 = 1000;
const LONGEST_NAME: usize = 100;
const TIERS: &[(&str, ClusterTier)] = &[
    ("Admin", ClusterTier::Admin),
    ("Baseline", ClusterTier::Baseline),
];
const ACTIONS: &[(&str, ClusterAction)] = &[
    ("Accept", ClusterAction::Accept),
    ("Deny", ClusterAction::Deny),
    ("Pass", ClusterAction::Pass),
];

pub(super) fn read(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    let warnings = &mut body.warnings;
    let policy = ClusterNetworkPolicy {
        name: body.name.clone(),
        tier: spec.need("tier")?.one_of(TIERS)?,
        priority: spec.need("priority")?.integer(0..=MOST_PRIORITY)?,
        subject: subject(&mut spec)?,
        ingress: rules(&mut spec, Direction::Ingress, warnings)?,
        egress: rules(&mut spec, Direction::Egress, warnings)?,
    };
    spec.warn_unknown(warnings);
    Ok(Object::ClusterNetworkPolicy(Arc::new(policy)))
}

/// What to enforce for a policy that can't be read: it denies its pods everything in the directions
/// that it has rules for. None where it is not known which pods those are: to deny all pods
/// everything would turn a typo into an outage of the cluster.
pub(super) fn fallback(document: &Value, name: &str) -> Option<Object> {
    let mut spec = Item::root(document.get("spec")?).fields().ok()?;
    let deny = |direction| {
        let rules = document["spec"].get(direction).unwrap_or(&Value::Null);
        let nothing = rules.is_null() || rules.as_array().is_some_and(Vec::is_empty);
        let deny = ClusterRule {
            name: None,
            action: ClusterAction::Deny,
            peers: None,
            protocols: None,
        };
        if nothing { Vec::new() } else { vec![deny] }
    };
    Some(Object::ClusterNetworkPolicy(Arc::new(
        ClusterNetworkPolicy {
            name: name.to_owned(),
            tier: spec
                .need("tier")
                .and_then(|item| item.one_of(TIERS))
                .unwrap_or(ClusterTier::Admin),
            priority: spec
                .need("priority")
                .and_then(|item| item.integer(0..=MOST_PRIORITY))
                .unwrap_or(0),
            subject: subject(&mut spec).ok()?,
            ingress: deny("ingress"),
            egress: deny("egress"),
        },
    )))
}

fn subject(spec: &mut Fields<'_>) -> Result<ClusterPods, Problem> {
    let mut fields = spec.need("subject")?.fields()?;
    let mut unknown = Vec::new();
    let pods = pods(&mut fields, &mut unknown)?;
    unknown.extend(fields.unknown());
    match (pods, unknown.into_iter().next()) {
        (_, Some(field)) => Err(Problem {
            field,
            reason: "unknown field, so it is not known which pods are selected".to_owned(),
        }),
        (Some(pods), None) => Ok(pods),
        (None, None) => Err(fields.problem("", "must have namespaces or pods")),
    }
}

/// The field `namespaces` or `pods`; none if neither is there.
fn pods(
    fields: &mut Fields<'_>,
    unknown: &mut Vec<String>,
) -> Result<Option<ClusterPods>, Problem> {
    let mut selector = |item: Item<'_>| {
        let (selector, not_understood) = label_selector::read(item)?;
        unknown.extend(not_understood);
        Ok(selector)
    };
    match (fields.take("namespaces"), fields.take("pods")) {
        (Some(_), Some(pods)) => Err(pods.problem("may not stand beside namespaces")),
        (Some(namespaces), None) => Ok(Some(ClusterPods {
            namespaces: selector(namespaces)?,
            pods: Selector::All,
        })),
        (None, Some(pods)) => {
            let mut fields = pods.fields()?;
            let namespaces = fields.take("namespaceSelector").map(&mut selector);
            let found = ClusterPods {
                namespaces: namespaces.transpose()?.unwrap_or(Selector::All),
                pods: selector(fields.need("podSelector")?)?,
            };
            unknown.extend(fields.unknown());
            Ok(Some(found))
        }
        (None, None) => Ok(None),
    }
}

fn rules(
    spec: &mut Fields<'_>,
    direction: Direction,
    warnings: &mut Vec<String>,
) -> Result<Vec<ClusterRule>, Problem> {
    let name = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let items = spec.take(name);
    let items = items.map_or(Ok(Vec::new()), |item| item.short_list(MOST))?;
    items
        .into_iter()
        .map(|item| rule(item, direction, warnings))
        .collect()
}

fn rule(
    item: Item<'_>,
    direction: Direction,
    warnings: &mut Vec<String>,
) -> Result<ClusterRule, Problem> {
    let mut fields = item.fields()?;
    let mut unknown = Vec::new();
    let action = fields.need("action")?.one_of(ACTIONS)?;
    let name = fields.take("name").map(rule_name).transpose()?;
    let peers = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let peers = peers_of(
        fields.need(peers)?,
        direction,
        action,
        &mut unknown,
        warnings,
    )?;
    let protocols = fields.take("protocols");
    let protocols = protocols
        .map(|item| protocols_of(item, &mut unknown))
        .transpose()?;
    unknown.extend(fields.unknown());
    check_named_ports(&fields, &peers, protocols.as_deref())?;
    if unknown.is_empty() {
        return Ok(ClusterRule {
            name,
            action,
            peers: Some(peers),
            protocols,
        });
    }
    let (action, peers, consequence) = match action {
        ClusterAction::Accept => (action, Some(Vec::new()), "this rule matches nothing"),
        ClusterAction::Deny | ClusterAction::Pass => {
            (ClusterAction::Deny, None, "this rule denies everything")
        }
    };
    let warning = |path| format!("{path}: not understood, so {consequence}");
    warnings.extend(unknown.into_iter().map(warning));
    Ok(ClusterRule {
        name,
        action,
        peers,
        protocols: None,
    })
}

fn rule_name(item: Item<'_>) -> Result<String, Problem> {
    let name = item.as_text()?;
    if name.chars().count() > LONGEST_NAME {
        return Err(item.problem(format!("is longer than {LONGEST_NAME} characters")));
    }
    Ok(name.to_owned())
}

fn peers_of(
    item: Item<'_>,
    direction: Direction,
    action: ClusterAction,
    unknown: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<Vec<ClusterPeer>, Problem> {
    let mut peers = Vec::new();
    for item in item.some_list(MOST)? {
        peers.extend(peer(item, direction, action, unknown, warnings)?);
    }
    Ok(peers)
}

/// None if nothing in it is understood, which `unknown` then says.
fn peer(
    item: Item<'_>,
    direction: Direction,
    action: ClusterAction,
    unknown: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<Option<ClusterPeer>, Problem> {
    let mut fields = item.fields()?;
    let mut found = Vec::new();
    found.extend(pods(&mut fields, unknown)?.map(ClusterPeer::Pods));
    if direction == Direction::Egress {
        if let Some(item) = fields.take("networks") {
            found.push(ClusterPeer::Networks(networks(item, warnings)?));
        }
        if let Some(item) = fields.take("nodes") {
            let (selector, not_understood) = label_selector::read(item)?;
            unknown.extend(not_understood);
            found.push(ClusterPeer::Nodes(selector));
        }
        if let Some(item) = fields.take("domainNames") {
            if action != ClusterAction::Accept {
                return Err(item.problem("may stand only in a rule that accepts"));
            }
            found.push(ClusterPeer::DomainNames(domain_names(item)?));
        }
    }
    if found.len() > 1 {
        return Err(fields.problem("", "must have one field only"));
    }
    let not_understood = fields.unknown();
    if found.is_empty() && not_understood.is_empty() {
        unknown.push(fields.path().to_owned());
    }
    unknown.extend(not_understood);
    Ok(found.pop())
}

fn networks(item: Item<'_>, warnings: &mut Vec<String>) -> Result<Vec<IpNet>, Problem> {
    let items = item.some_list(MOST)?;
    let network = |item: &Item<'_>| {
        let network: IpNet = item.parse("a CIDR such as \"10.0.0.0/8\"")?;
        if network != network.trunc() {
            let text = format!("{network} has host bits set, read as {}", network.trunc());
            warnings.push(item.warning(&text));
        }
        Ok(network.trunc())
    };
    items.iter().map(network).collect()
}

fn domain_names(item: Item<'_>) -> Result<Vec<String>, Problem> {
    let items = item.some_list(MOST)?;
    let name = |item: &Item<'_>| {
        let text = item.check(syntax::domain_name)?;
        let text = text.strip_suffix('.').unwrap_or(text);
        Ok(text.to_ascii_lowercase())
    };
    items.iter().map(name).collect()
}

fn protocols_of(item: Item<'_>, unknown: &mut Vec<String>) -> Result<Vec<ClusterPort>, Problem> {
    let mut protocols = Vec::new();
    for item in item.some_list(MOST)? {
        protocols.extend(protocol(item, unknown)?);
    }
    Ok(protocols)
}

/// None if nothing in it is understood, which `unknown` then says.
fn protocol(item: Item<'_>, unknown: &mut Vec<String>) -> Result<Option<ClusterPort>, Problem> {
    let mut fields = item.fields()?;
    let mut found = Vec::new();
    for (name, protocol) in [
        ("tcp", Protocol::Tcp),
        ("udp", Protocol::Udp),
        ("sctp", Protocol::Sctp),
    ] {
        if let Some(item) = fields.take(name) {
            found.push(destination_port(item, protocol, unknown)?);
        }
    }
    if let Some(item) = fields.take("destinationNamedPort") {
        let name = item.check(syntax::port_name)?.to_owned();
        found.push(Some(ClusterPort::Named(name)));
    }
    if found.len() > 1 {
        return Err(fields.problem("", "must have one field only"));
    }
    let not_understood = fields.unknown();
    if found.is_empty() && not_understood.is_empty() {
        unknown.push(fields.path().to_owned());
    }
    unknown.extend(not_understood);
    Ok(found.pop().flatten())
}

/// `{destinationPort: {number | range}}`. At least one attribute must be stated, so where none is
/// seen there is one that this version does not know.
fn destination_port(
    item: Item<'_>,
    protocol: Protocol,
    unknown: &mut Vec<String>,
) -> Result<Option<ClusterPort>, Problem> {
    let mut fields = item.fields()?;
    let port = fields.take("destinationPort");
    let not_understood = fields.unknown();
    if port.is_none() && not_understood.is_empty() {
        unknown.push(fields.path().to_owned());
    }
    unknown.extend(not_understood);
    let Some(port) = port else {
        return Ok(None);
    };
    let mut fields = port.fields()?;
    let (first, last) = match (fields.take("number"), fields.take("range")) {
        (Some(_), Some(range)) => return Err(range.problem("may not stand beside number")),
        (Some(number), None) => {
            let port: u16 = number.integer(1..=65535)?;
            (port, port)
        }
        (None, Some(range)) => {
            let mut range = range.fields()?;
            let first: u16 = range.need("start")?.integer(1..=65535)?;
            let last: u16 = range.need("end")?.integer(1..=65535)?;
            if last <= first {
                let reason = format!("{last} is not greater than start {first}");
                return Err(range.problem("end", &reason));
            }
            unknown.extend(range.unknown());
            (first, last)
        }
        (None, None) => {
            let not_understood = fields.unknown();
            if not_understood.is_empty() {
                unknown.push(fields.path().to_owned());
            }
            unknown.extend(not_understood);
            return Ok(None);
        }
    };
    unknown.extend(fields.unknown());
    Ok(Some(ClusterPort::Range {
        protocol,
        first,
        last,
    }))
}

/// Networks, nodes and domain names have no named ports.
fn check_named_ports(
    fields: &Fields<'_>,
    peers: &[ClusterPeer],
    protocols: Option<&[ClusterPort]>,
) -> Result<(), Problem> {
    let named = |port: &ClusterPort| matches!(port, ClusterPort::Named(_));
    let pods = |peer: &ClusterPeer| matches!(peer, ClusterPeer::Pods(_));
    if protocols.unwrap_or_default().iter().any(named) && !peers.iter().all(pods) {
        let reason = "a destinationNamedPort may not stand beside networks, nodes or domainNames";
        return Err(fields.problem("protocols", reason));
    }
    Ok(())
}
