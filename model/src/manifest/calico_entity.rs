//! One end of a rule of `projectcalico.org/v3` policy.

use super::calico_rule::Place;
use super::reader::{Fields, Item, Problem};
use super::syntax;
use crate::Selector;
use crate::object::{CalicoPort, EntityRule, ServiceAccountMatch, ServiceMatch};
use ipnet::IpNet;
use serde_json::Value;

pub(super) fn entity(
    rule: &mut Fields<'_>,
    name: &'static str,
    place: Place<'_>,
    unknown: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<EntityRule, Problem> {
    let Some(item) = rule.take(name) else {
        return Ok(EntityRule::default());
    };
    let mut fields = item.fields()?;
    let nets = nets(&mut fields, "nets", warnings)?;
    let ports = ports(&mut fields, "ports")?;
    let entity = EntityRule {
        nets: (!nets.is_empty()).then_some(nets),
        not_nets: self::nets(&mut fields, "notNets", warnings)?,
        selector: selector(&mut fields, "selector")?,
        not_selector: selector(&mut fields, "notSelector")?,
        namespace_selector: namespace_selector(&mut fields)?,
        service_accounts: service_accounts(&mut fields, unknown)?,
        services: services(&mut fields, place, unknown)?,
        ports: (!ports.is_empty()).then_some(ports),
        not_ports: self::ports(&mut fields, "notPorts")?,
    };
    if entity.services.is_some() {
        let others = [
            "nets",
            "notNets",
            "selector",
            "notSelector",
            "namespaceSelector",
            "serviceAccounts",
        ];
        let empty = EntityRule {
            services: None,
            ports: None,
            not_ports: Vec::new(),
            ..entity.clone()
        } == EntityRule::default();
        if let (false, Some(other)) = (empty, others.iter().find(|name| fields.has(name))) {
            return Err(fields.problem("services", &format!("may not stand beside {other}")));
        }
    }
    unknown.extend(fields.unknown());
    Ok(entity)
}

fn nets(
    fields: &mut Fields<'_>,
    name: &'static str,
    warnings: &mut Vec<String>,
) -> Result<Vec<IpNet>, Problem> {
    let items = fields.take(name).map_or(Ok(Vec::new()), Item::list)?;
    let net = |item: &Item<'_>| syntax::network(item, warnings);
    items.iter().map(net).collect()
}

fn ports(fields: &mut Fields<'_>, name: &'static str) -> Result<Vec<CalicoPort>, Problem> {
    let items = fields.take(name).map_or(Ok(Vec::new()), Item::list)?;
    items.iter().map(port).collect()
}

fn port(item: &Item<'_>) -> Result<CalicoPort, Problem> {
    let what = "a port (1 to 65535), a range such as \"80:90\" or a name";
    let number = |text: &str| syntax::digits::<u16>(text).filter(|port| *port != 0);
    match item.value() {
        Value::Number(_) => item.integer(1..=65535).map(|p| CalicoPort::Range(p, p)),
        Value::String(text) => {
            if let Some((first, last)) = text.split_once(':') {
                let (Some(first), Some(last)) = (number(first), number(last)) else {
                    return Err(item.is_not(what));
                };
                if last < first {
                    return Err(item.problem(format!("{last} is less than {first}")));
                }
                return Ok(CalicoPort::Range(first, last));
            }
            if text.bytes().all(|b| b.is_ascii_digit()) {
                let port = number(text).ok_or_else(|| item.is_not(what))?;
                return Ok(CalicoPort::Range(port, port));
            }
            let inside = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            let good = text.len() <= 128 && text.bytes().all(inside);
            good.then(|| CalicoPort::Named(text.clone()))
                .ok_or_else(|| item.is_not(what))
        }
        _ => Err(item.is_not(what)),
    }
}

/// A selector of endpoints; an empty one is none.
pub(super) fn selector(
    fields: &mut Fields<'_>,
    name: &'static str,
) -> Result<Option<Selector>, Problem> {
    let Some(item) = fields.take(name) else {
        return Ok(None);
    };
    if item.value() == "" {
        return Ok(None);
    }
    let selector = item.selector()?;
    if mentions_global(&selector) {
        let reason = "global() may stand only in a namespaceSelector of a rule";
        return Err(item.problem(reason));
    }
    Ok(Some(selector))
}

fn namespace_selector(fields: &mut Fields<'_>) -> Result<Option<Selector>, Problem> {
    let Some(item) = fields.take("namespaceSelector") else {
        return Ok(None);
    };
    if item.value() == "" {
        return Ok(None);
    }
    let selector = item.selector()?;
    let combined = matches!(selector, Selector::And(_) | Selector::Or(_));
    if combined && mentions_global(&selector) {
        return Err(item.problem("global() may not be combined with other selectors"));
    }
    Ok(Some(selector))
}

fn mentions_global(selector: &Selector) -> bool {
    match selector {
        Selector::Global => true,
        Selector::And(parts) | Selector::Or(parts) => parts.iter().any(mentions_global),
        Selector::Not(inner) => mentions_global(inner),
        _ => false,
    }
}

fn service_accounts(
    fields: &mut Fields<'_>,
    unknown: &mut Vec<String>,
) -> Result<Option<ServiceAccountMatch>, Problem> {
    let Some(item) = fields.take("serviceAccounts") else {
        return Ok(None);
    };
    let mut fields = item.fields()?;
    let names = fields.take("names").map_or(Ok(Vec::new()), Item::list)?;
    let name = |item: &Item<'_>| item.check(syntax::subdomain).map(str::to_owned);
    let found = ServiceAccountMatch {
        names: names.iter().map(name).collect::<Result<_, _>>()?,
        selector: selector(&mut fields, "selector")?,
    };
    unknown.extend(fields.unknown());
    let states_nothing = found.names.is_empty() && found.selector.is_none();
    Ok((!states_nothing).then_some(found))
}

fn services(
    fields: &mut Fields<'_>,
    place: Place<'_>,
    unknown: &mut Vec<String>,
) -> Result<Option<ServiceMatch>, Problem> {
    let Some(item) = fields.take("services") else {
        return Ok(None);
    };
    let mut fields = item.fields()?;
    let name = fields.need("name")?.check(syntax::subdomain)?.to_owned();
    let namespace = match (fields.take("namespace"), place.namespace) {
        (Some(item), _) => item.check(syntax::label)?.to_owned(),
        (None, Some(own)) => own.to_owned(),
        (None, None) => {
            return Err(fields.problem("namespace", "is required in a global policy"));
        }
    };
    unknown.extend(fields.unknown());
    Ok(Some(ServiceMatch { namespace, name }))
}
