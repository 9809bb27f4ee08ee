//! `projectcalico.org/v3` `NetworkPolicy`, `GlobalNetworkPolicy`, their staged forms and `Tier`.

use super::Body;
use super::calico_entity;
use super::calico_rule::{self, Place};
use super::network_policy::{self, Direction};
use super::reader::{Fields, Item, Problem};
use super::syntax;
use crate::Selector;
use crate::object::{
    CalicoAction, CalicoPolicy, CalicoRule, EntityRule, Object, Order, StagedAction,
    StagedKubernetesPolicy, Tier, TierDefault,
};
use serde_json::Value;
use std::sync::Arc;

const TYPES: &[(&str, Direction)] = &[
    ("Ingress", Direction::Ingress),
    ("Egress", Direction::Egress),
];
const BESIDE_DELETE: &str = "may not stand beside stagedAction Delete";
/// Tiers whose place and default action are given.
const FIXED_TIERS: &[(&str, f64, TierDefault)] = &[
    ("kube-admin", 1e3, TierDefault::Pass),
    ("default", 1e6, TierDefault::Deny),
    ("kube-baseline", 1e7, TierDefault::Pass),
];

pub(super) fn tier(body: &mut Body<'_>) -> Result<Object, Problem> {
    if syntax::label(&body.name).is_err() {
        return Err(body.metadata.problem("name", "must be an RFC 1123 label"));
    }
    let fixed = FIXED_TIERS.iter().find(|(name, ..)| *name == body.name);
    let mut spec = body.spec()?;
    let default_actions = [("Deny", TierDefault::Deny), ("Pass", TierDefault::Pass)];
    let order = order(&mut spec)?;
    let default_action = spec
        .take("defaultAction")
        .map(|item| item.one_of(&default_actions))
        .transpose()?;
    let tier = match fixed {
        None => Tier {
            name: body.name.clone(),
            order: order.unwrap_or(Order::LAST),
            default_action: default_action.unwrap_or(TierDefault::Deny),
        },
        Some((name, place, action)) => {
            let place = Order::new(*place).expect("invariant: the places are numbers");
            if order.is_some_and(|order| order != place) {
                let reason = format!("must be {} in tier {name}", place.value());
                return Err(spec.problem("order", &reason));
            }
            if default_action.is_some_and(|stated| stated != *action) {
                let reason = format!("must be {action:?} in tier {name}");
                return Err(spec.problem("defaultAction", &reason));
            }
            Tier {
                name: body.name.clone(),
                order: place,
                default_action: *action,
            }
        }
    };
    spec.warn_unknown(&mut body.warnings);
    Ok(Object::Tier(tier))
}

pub(super) fn policy(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    read(body, &mut spec, None).map(|policy| Object::CalicoPolicy(Arc::new(policy)))
}

pub(super) fn staged(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    let policy = match staged_action(&mut spec, &mut body.warnings)? {
        Staged::Set => read(body, &mut spec, Some(StagedAction::Set))?,
        Staged::Ignored => CalicoPolicy {
            ingress: None,
            egress: None,
            ..read(body, &mut spec, Some(StagedAction::Set))?
        },
        Staged::Delete => {
            let tier = tier_name(&mut spec)?;
            spec.refuse_unknown(BESIDE_DELETE)?;
            CalicoPolicy {
                staged: Some(StagedAction::Delete),
                tier,
                ..empty(body)
            }
        }
    };
    Ok(Object::CalicoPolicy(Arc::new(policy)))
}

pub(super) fn staged_kubernetes(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    let staged = staged_action(&mut spec, &mut body.warnings)?;
    if matches!(staged, Staged::Delete) {
        spec.refuse_unknown(BESIDE_DELETE)?;
    }
    let mut policy = network_policy::policy(body, &mut spec)?;
    if !matches!(staged, Staged::Set) {
        (policy.ingress, policy.egress) = (None, None);
    }
    let action = match staged {
        Staged::Delete => StagedAction::Delete,
        Staged::Set | Staged::Ignored => StagedAction::Set,
    };
    Ok(Object::StagedKubernetesPolicy(Arc::new(
        StagedKubernetesPolicy { action, policy },
    )))
}

/// What a staged policy asks for. One that is ignored stands there and decides nothing.
enum Staged {
    Set,
    Delete,
    Ignored,
}

fn staged_action(spec: &mut Fields<'_>, warnings: &mut Vec<String>) -> Result<Staged, Problem> {
    let Some(item) = spec.take("stagedAction") else {
        return Ok(Staged::Set);
    };
    let actions = [("Set", 0), ("Delete", 1), ("Learn", 2), ("Ignore", 3)];
    Ok(match item.one_of(&actions)? {
        1 => Staged::Delete,
        2 => {
            warnings.push(item.warning("Learn is not supported: evaluated as Set"));
            Staged::Set
        }
        3 => {
            warnings.push(item.warning("the policy is not evaluated"));
            Staged::Ignored
        }
        _ => Staged::Set,
    })
}

/// A policy that states nothing and selects everybody.
fn empty(body: &Body<'_>) -> CalicoPolicy {
    CalicoPolicy {
        namespace: (!body.namespace.is_empty()).then(|| body.namespace.clone()),
        name: body.name.clone(),
        staged: None,
        tier: "default".to_owned(),
        order: Order::LAST,
        selector: Selector::All,
        namespace_selector: None,
        service_account_selector: None,
        ingress: None,
        egress: None,
        do_not_track: false,
        pre_dnat: false,
        apply_on_forward: false,
    }
}

fn read(
    body: &mut Body<'_>,
    spec: &mut Fields<'_>,
    staged: Option<StagedAction>,
) -> Result<CalicoPolicy, Problem> {
    let empty = empty(body);
    let tier = tier_name(spec)?;
    let order = order(spec)?.unwrap_or(Order::LAST);
    let subject = subject(spec, empty.namespace.is_none())?;
    let host = host_flags(spec, empty.namespace.is_none())?;
    let directions = directions(spec)?;
    host.check(spec, &directions)?;
    let warnings = &mut body.warnings;
    let mut direction = |direction, name| {
        let place = Place {
            namespace: empty.namespace.as_deref(),
            direction,
        };
        let rules = calico_rule::rules(spec.take(name), place, warnings)?;
        let applies = directions.contains(&direction);
        if !applies && !rules.is_empty() {
            warnings.push(format!(
                "spec.{name}: ignored, since spec.types does not name it"
            ));
        }
        Ok(applies.then_some(rules))
    };
    let ingress = direction(Direction::Ingress, "ingress")?;
    let egress = direction(Direction::Egress, "egress")?;
    spec.ignore(&["performanceHints"]);
    spec.warn_unknown(warnings);
    Ok(CalicoPolicy {
        staged,
        tier,
        order,
        selector: subject.selector,
        namespace_selector: subject.namespace_selector,
        service_account_selector: subject.service_account_selector,
        ingress,
        egress,
        do_not_track: host.do_not_track,
        pre_dnat: host.pre_dnat,
        apply_on_forward: host.apply_on_forward,
        ..empty
    })
}

fn tier_name(spec: &mut Fields<'_>) -> Result<String, Problem> {
    let item = spec.take("tier").filter(|item| item.value() != "");
    item.map_or(Ok("default"), |item| item.check(syntax::label))
        .map(str::to_owned)
}

/// None where the manifest has none.
fn order(spec: &mut Fields<'_>) -> Result<Option<Order>, Problem> {
    let Some(item) = spec.take("order") else {
        return Ok(None);
    };
    let number = item.value().as_f64().filter(|number| number.is_finite());
    let order = number.and_then(Order::new);
    order.map(Some).ok_or_else(|| item.is_not("a number"))
}

struct Subject {
    selector: Selector,
    namespace_selector: Option<Selector>,
    service_account_selector: Option<Selector>,
}

fn subject(spec: &mut Fields<'_>, global: bool) -> Result<Subject, Problem> {
    Ok(Subject {
        selector: calico_entity::selector(spec, "selector")?.unwrap_or(Selector::All),
        namespace_selector: if global {
            calico_entity::selector(spec, "namespaceSelector")?
        } else {
            None
        },
        service_account_selector: calico_entity::selector(spec, "serviceAccountSelector")?,
    })
}

/// Flags that only host endpoints know.
#[derive(Default)]
struct HostFlags {
    do_not_track: bool,
    pre_dnat: bool,
    apply_on_forward: bool,
}

fn host_flags(spec: &mut Fields<'_>, global: bool) -> Result<HostFlags, Problem> {
    if !global {
        return Ok(HostFlags::default());
    }
    let mut flag = |name| spec.take(name).map_or(Ok(false), Item::boolean);
    Ok(HostFlags {
        do_not_track: flag("doNotTrack")?,
        pre_dnat: flag("preDNAT")?,
        apply_on_forward: flag("applyOnForward")?,
    })
}

impl HostFlags {
    fn check(&self, spec: &Fields<'_>, directions: &[Direction]) -> Result<(), Problem> {
        if self.pre_dnat && self.do_not_track {
            return Err(spec.problem("preDNAT", "may not stand beside doNotTrack"));
        }
        if self.pre_dnat && directions.contains(&Direction::Egress) {
            return Err(spec.problem("preDNAT", "is for ingress only"));
        }
        if (self.pre_dnat || self.do_not_track) && !self.apply_on_forward {
            let reason = "must be true with preDNAT or doNotTrack";
            return Err(spec.problem("applyOnForward", reason));
        }
        Ok(())
    }
}

/// `types`, or what the rules say: Egress alone if there are egress rules only, both if there are
/// both, else Ingress.
fn directions(spec: &mut Fields<'_>) -> Result<Vec<Direction>, Problem> {
    let types = spec.take("types").map_or(Ok(Vec::new()), Item::list)?;
    let mut directions = Vec::new();
    for item in &types {
        let direction = item.one_of(TYPES)?;
        if directions.contains(&direction) {
            return Err(item.problem("is named twice"));
        }
        directions.push(direction);
    }
    if !directions.is_empty() {
        return Ok(directions);
    }
    let mut has = |name| {
        let list = spec.take(name).map_or(Ok(Vec::new()), Item::list);
        list.map(|list| !list.is_empty())
    };
    Ok(match (has("ingress")?, has("egress")?) {
        (false, true) => vec![Direction::Egress],
        (true, true) => vec![Direction::Ingress, Direction::Egress],
        (_, false) => vec![Direction::Ingress],
    })
}

/// What to enforce for a policy that can't be read: it denies its endpoints everything in its
/// directions. What can't be read of these is taken at its widest, except where a global policy
/// says nothing readable about its endpoints: to deny everybody everything would turn a typo into
/// an outage of the cluster, so nothing is put in force and the status says so.
pub(super) fn fallback(document: &Value, namespace: &str, name: &str) -> Option<Object> {
    let global = namespace.is_empty();
    let spec = document.get("spec").unwrap_or(&Value::Null);
    let mut spec = Item::root(spec).fields().ok();
    if global && spec.is_none() {
        return None;
    }
    let spec = &mut spec;
    let subject = fallback_subject(spec, global)?;
    let host = spec
        .as_mut()
        .and_then(|spec| host_flags(spec, global).ok())
        .unwrap_or_default();
    let directions = spec.as_mut().and_then(|spec| directions(spec).ok());
    let denies = |direction| {
        let named = directions.as_ref().is_none_or(|d| d.contains(&direction));
        named.then(|| vec![everything(CalicoAction::Deny)])
    };
    let order = spec.as_mut().map_or(Ok(None), order);
    Some(Object::CalicoPolicy(Arc::new(CalicoPolicy {
        namespace: (!global).then(|| namespace.to_owned()),
        name: name.to_owned(),
        staged: None,
        tier: spec
            .as_mut()
            .and_then(|spec| tier_name(spec).ok())
            .unwrap_or_else(|| "default".to_owned()),
        order: match order {
            Ok(stated) => stated.unwrap_or(Order::LAST),
            Err(_) => Order::FIRST,
        },
        selector: subject.selector,
        namespace_selector: subject.namespace_selector,
        service_account_selector: subject.service_account_selector,
        ingress: denies(Direction::Ingress),
        egress: denies(Direction::Egress).filter(|_| !host.pre_dnat),
        do_not_track: host.do_not_track && !host.pre_dnat,
        pre_dnat: host.pre_dnat,
        apply_on_forward: host.apply_on_forward || host.pre_dnat || host.do_not_track,
    })))
}

/// Each part that can be read; none if nothing that was stated can be.
fn fallback_subject(spec: &mut Option<Fields<'_>>, global: bool) -> Option<Subject> {
    let everybody = Subject {
        selector: Selector::All,
        namespace_selector: None,
        service_account_selector: None,
    };
    let Some(spec) = spec else {
        return Some(everybody);
    };
    let selector = calico_entity::selector(spec, "selector");
    let namespaces = if global {
        calico_entity::selector(spec, "namespaceSelector")
    } else {
        Ok(None)
    };
    let accounts = calico_entity::selector(spec, "serviceAccountSelector");
    let stated = [&selector, &namespaces, &accounts];
    let unreadable = stated.iter().any(|part| part.is_err());
    let narrowed = stated.iter().any(|part| matches!(part, Ok(Some(_))));
    if global && unreadable && !narrowed {
        return None;
    }
    Some(Subject {
        selector: selector.ok().flatten().unwrap_or(Selector::All),
        namespace_selector: namespaces.ok().flatten(),
        service_account_selector: accounts.ok().flatten(),
    })
}

fn everything(action: CalicoAction) -> CalicoRule {
    CalicoRule {
        action,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: EntityRule::default(),
        destination: EntityRule::default(),
    }
}
