//! `networking.k8s.io/v1` `NetworkPolicy`.
//!
//! A field that is not understood may be one that narrows what a rule allows. So inside a rule, a
//! peer or a port it fails closed: that part matches nothing, with a warning. A value that is wrong
//! makes the whole policy invalid, and then [`fallback`] denies what the policy isolates.

use super::Body;
use super::label_selector;
use super::reader::{Fields, Item, Problem};
use super::syntax;
use super::workload::PROTOCOLS;
use crate::Selector;
use crate::object::{
    NetworkPolicy, Object, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol,
};
use serde_json::Value;
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

pub(super) fn read(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    policy(body, &mut spec).map(|policy| Object::NetworkPolicy(Arc::new(policy)))
}

/// The policy that a `spec` describes, of which some fields may have been taken already.
pub(super) fn policy(body: &mut Body<'_>, spec: &mut Fields<'_>) -> Result<NetworkPolicy, Problem> {
    let warnings = &mut body.warnings;
    let pod_selector = pod_selector(spec)?;
    let directions = directions(spec)?;
    let mut direction = |direction, name, peers| {
        let rules = rules(spec.take(name), peers, warnings)?;
        let isolates = directions.contains(&direction);
        if !isolates && !rules.is_empty() {
            warnings.push(format!(
                "spec.{name}: ignored, since spec.policyTypes does not name it"
            ));
        }
        Ok(isolates.then_some(rules))
    };
    let ingress = direction(Direction::Ingress, "ingress", "from")?;
    let egress = direction(Direction::Egress, "egress", "to")?;
    spec.warn_unknown(warnings);
    let (namespace, name) = (body.namespace.clone(), body.name.clone());
    Ok(NetworkPolicy {
        namespace,
        name,
        pod_selector,
        ingress,
        egress,
    })
}

/// What to enforce for a policy that can't be read: the pods that it selects are isolated in its
/// directions and nothing is allowed. What can't be read of these is taken at its widest.
pub(super) fn fallback(document: &Value, namespace: &str, name: &str) -> Object {
    let spec = document.get("spec").unwrap_or(&Value::Null);
    let mut spec = Item::root(spec).fields().ok();
    let selector = spec
        .as_mut()
        .and_then(|spec| pod_selector(spec).ok())
        .unwrap_or(Selector::All);
    let directions = spec.as_mut().and_then(|spec| directions(spec).ok());
    let isolates = |direction| {
        directions
            .as_ref()
            .is_none_or(|named| named.contains(&direction))
            .then(Vec::new)
    };
    Object::NetworkPolicy(Arc::new(NetworkPolicy {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        pod_selector: selector,
        ingress: isolates(Direction::Ingress),
        egress: isolates(Direction::Egress),
    }))
}

fn pod_selector(spec: &mut Fields<'_>) -> Result<Selector, Problem> {
    let Some(item) = spec.take("podSelector") else {
        return Ok(Selector::All);
    };
    let (selector, unknown) = label_selector::read(item)?;
    match unknown.into_iter().next() {
        None => Ok(selector),
        Some(field) => Err(Problem {
            field,
            reason: "unknown field, so it is not known which pods are selected".to_owned(),
        }),
    }
}

fn directions(spec: &mut Fields<'_>) -> Result<Vec<Direction>, Problem> {
    let names = [
        ("Ingress", Direction::Ingress),
        ("Egress", Direction::Egress),
    ];
    let types = spec
        .take("policyTypes")
        .map_or(Ok(Vec::new()), Item::list)?;
    if !types.is_empty() {
        return types.iter().map(|item| item.one_of(&names)).collect();
    }
    let egress = spec.take("egress").map_or(Ok(Vec::new()), Item::list)?;
    Ok(if egress.is_empty() {
        vec![Direction::Ingress]
    } else {
        vec![Direction::Ingress, Direction::Egress]
    })
}

fn rules(
    item: Option<Item<'_>>,
    peers: &'static str,
    warnings: &mut Vec<String>,
) -> Result<Vec<PolicyRule>, Problem> {
    let items = item.map_or(Ok(Vec::new()), Item::list)?;
    items
        .into_iter()
        .map(|item| rule(item, peers, warnings))
        .collect()
}

fn rule(
    item: Item<'_>,
    peers: &'static str,
    warnings: &mut Vec<String>,
) -> Result<PolicyRule, Problem> {
    let mut fields = item.fields()?;
    let rule = PolicyRule {
        peers: alternatives(fields.take(peers), peer, warnings)?,
        ports: alternatives(fields.take("ports"), port, warnings)?,
    };
    Ok(if fails_closed(fields.unknown(), "rule", warnings) {
        PolicyRule {
            peers: Some(Vec::new()),
            ports: Some(Vec::new()),
        }
    } else {
        rule
    })
}

/// Absent and empty both mean anything. A list of which nothing could be understood stays a list,
/// empty, which matches nothing.
fn alternatives<T>(
    item: Option<Item<'_>>,
    read: fn(Item<'_>, &mut Vec<String>) -> Result<Option<T>, Problem>,
    warnings: &mut Vec<String>,
) -> Result<Option<Vec<T>>, Problem> {
    let items = item.map_or(Ok(Vec::new()), Item::list)?;
    if items.is_empty() {
        return Ok(None);
    }
    let understood = items
        .into_iter()
        .filter_map(|item| read(item, warnings).transpose());
    understood.collect::<Result<_, _>>().map(Some)
}

fn fails_closed(unknown: Vec<String>, part: &str, warnings: &mut Vec<String>) -> bool {
    let closed = !unknown.is_empty();
    let warning = |path| format!("{path}: unknown field, so this {part} matches nothing");
    warnings.extend(unknown.into_iter().map(warning));
    closed
}

fn peer(item: Item<'_>, warnings: &mut Vec<String>) -> Result<Option<PolicyPeer>, Problem> {
    let mut fields = item.fields()?;
    let mut unknown = Vec::new();
    let mut selector = |item: Item<'_>| {
        let (selector, not_understood) = label_selector::read(item)?;
        unknown.extend(not_understood);
        Ok(selector)
    };
    let pods = fields.take("podSelector").map(&mut selector).transpose()?;
    let namespaces = fields
        .take("namespaceSelector")
        .map(&mut selector)
        .transpose()?;
    let block = fields.take("ipBlock");
    if block.is_some() && (pods.is_some() || namespaces.is_some()) {
        return Err(fields.problem(
            "ipBlock",
            "may not stand beside podSelector or namespaceSelector",
        ));
    }
    let peer = match block {
        Some(block) => Some(ip_block(block, &mut unknown)?),
        None if pods.is_none() && namespaces.is_none() => None,
        None => Some(PolicyPeer::Pods {
            namespaces,
            pods: pods.unwrap_or(Selector::All),
        }),
    };
    unknown.extend(fields.unknown());
    if fails_closed(unknown, "peer", warnings) {
        return Ok(None);
    }
    let what = "must have podSelector, namespaceSelector or ipBlock";
    peer.map(Some).ok_or_else(|| fields.problem("", what))
}

fn ip_block(item: Item<'_>, unknown: &mut Vec<String>) -> Result<PolicyPeer, Problem> {
    let mut fields = item.fields()?;
    let network = |item: &Item<'_>| syntax::old_network(item).map(|network| network.trunc());
    let cidr = network(&fields.need("cidr")?)?;
    let mut except = Vec::new();
    for item in fields.take("except").map_or(Ok(Vec::new()), Item::list)? {
        let excluded = network(&item)?;
        if excluded == cidr || !cidr.contains(&excluded) {
            return Err(item.problem(format!("{excluded} is not a smaller part of {cidr}")));
        }
        except.push(excluded);
    }
    unknown.extend(fields.unknown());
    Ok(PolicyPeer::IpBlock { cidr, except })
}

fn port(item: Item<'_>, warnings: &mut Vec<String>) -> Result<Option<PolicyPort>, Problem> {
    let mut fields = item.fields()?;
    let protocol = fields
        .take("protocol")
        .map_or(Ok(Protocol::Tcp), |item| item.one_of(PROTOCOLS))?;
    let port = fields.take("port");
    let end = fields.take("endPort");
    let port = match (port, end) {
        (None, None) => PortMatch::Any,
        (None, Some(end)) => return Err(end.problem("needs a port that it is the end of")),
        (Some(port), end) if port.value().is_string() => {
            let name = port.check(syntax::port_name)?;
            if let Some(end) = end {
                return Err(end.problem(format!("may not stand beside the port name {name:?}")));
            }
            PortMatch::Named(name.to_owned())
        }
        (Some(port), end) => {
            let first: u16 = port.integer(1..=65535)?;
            let last = end
                .as_ref()
                .map_or(Ok(first), |end| end.integer(1..=65535))?;
            if let (Some(end), true) = (end, last < first) {
                return Err(end.problem(format!("{last} is less than port {first}")));
            }
            PortMatch::Range(first, last)
        }
    };
    let closed = fails_closed(fields.unknown(), "port", warnings);
    Ok((!closed).then_some(PolicyPort { protocol, port }))
}
