//! `projectcalico.org/v3` `BGPFilter`.
//!
//! Every field of a rule narrows which routes it matches, so an unknown one fails closed: a rule
//! that accepts and has one is left out, a rule that rejects goes on without it. A value that is
//! wrong makes the filter invalid, and [`fallback`] lets nothing pass.

use super::Body;
use super::bgp;
use super::reader::{Fields, Item, Problem};
use super::syntax;
use crate::object::{
    BgpFilter, BgpFilterAction, BgpFilterOperation, BgpFilterRule, BgpPeerType, MatchOperator,
    Object, PrefixMatch,
};
use ipnet::IpNet;

/// As Calico: the priority is a kernel metric below the largest 31-bit number.
const MOST_PRIORITY: i64 = (1 << 31) - 2;
const MOST_OPERATIONS: usize = 10;
const MOST_PREPENDED: usize = 10;
const ACTIONS: &[(&str, BgpFilterAction)] = &[
    ("Accept", BgpFilterAction::Accept),
    ("Reject", BgpFilterAction::Reject),
];
const OPERATORS: &[(&str, MatchOperator)] = &[
    ("Equal", MatchOperator::Equal),
    ("NotEqual", MatchOperator::NotEqual),
    ("In", MatchOperator::In),
    ("NotIn", MatchOperator::NotIn),
];
const PEER_TYPES: &[(&str, BgpPeerType)] = &[
    ("eBGP", BgpPeerType::External),
    ("iBGP", BgpPeerType::Internal),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

pub(super) fn read(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    let warnings = &mut body.warnings;
    let filter = BgpFilter {
        name: body.name.clone(),
        export_v4: rules(&mut spec, "exportV4", Family::V4, warnings)?,
        import_v4: rules(&mut spec, "importV4", Family::V4, warnings)?,
        export_v6: rules(&mut spec, "exportV6", Family::V6, warnings)?,
        import_v6: rules(&mut spec, "importV6", Family::V6, warnings)?,
    };
    spec.warn_unknown(warnings);
    Ok(Object::BgpFilter(Box::new(filter)))
}

/// A filter that lets nothing pass, for one that can't be read.
pub(super) fn fallback(name: &str) -> Object {
    let nothing = || vec![BgpFilterRule::every_route(BgpFilterAction::Reject)];
    Object::BgpFilter(Box::new(BgpFilter {
        name: name.to_owned(),
        export_v4: nothing(),
        import_v4: nothing(),
        export_v6: nothing(),
        import_v6: nothing(),
    }))
}

fn rules(
    spec: &mut Fields<'_>,
    name: &'static str,
    family: Family,
    warnings: &mut Vec<String>,
) -> Result<Vec<BgpFilterRule>, Problem> {
    let items = spec.take(name).map_or(Ok(Vec::new()), Item::list)?;
    let rules = items
        .into_iter()
        .filter_map(|item| rule(item, family, warnings).transpose());
    rules.collect()
}

fn rule(
    item: Item<'_>,
    family: Family,
    warnings: &mut Vec<String>,
) -> Result<Option<BgpFilterRule>, Problem> {
    let mut fields = item.fields()?;
    let mut unknown = Vec::new();
    let action = fields.need("action")?.one_of(ACTIONS)?;
    let rule = BgpFilterRule {
        action,
        prefix: prefix(&mut fields, family, &mut unknown)?,
        from_peers_only: fields
            .take("source")
            .filter(|item| item.value() != "")
            .map_or(Ok(false), |item| item.one_of(&[("RemotePeers", true)]))?,
        interface: fields
            .take("interface")
            .filter(|item| item.value() != "")
            .map(|item| item.check(syntax::interface_pattern))
            .transpose()?
            .map(str::to_owned),
        peer_type: fields
            .take("peerType")
            .filter(|item| item.value() != "")
            .map(|item| item.one_of(PEER_TYPES))
            .transpose()?,
        community: communities(&mut fields, &mut unknown)?,
        as_path_prefix: as_numbers(fields.take("asPathPrefix"), usize::MAX)?,
        priority: fields
            .take("priority")
            .map(|item| item.integer(1..=MOST_PRIORITY))
            .transpose()?,
        operations: operations(&mut fields, action)?,
    };
    unknown.extend(fields.unknown());
    if unknown.is_empty() {
        return Ok(Some(rule));
    }
    let (kept, consequence) = match action {
        BgpFilterAction::Accept => (false, "this rule is left out"),
        BgpFilterAction::Reject => (true, "this rule rejects whatever the rest of it matches"),
    };
    let warning = |path| format!("{path}: unknown field, so {consequence}");
    warnings.extend(unknown.into_iter().map(warning));
    Ok(kept.then_some(rule))
}

/// `cidr` and `matchOperator`, which need each other, and `prefixLength`, which needs both.
fn prefix(
    fields: &mut Fields<'_>,
    family: Family,
    unknown: &mut Vec<String>,
) -> Result<Option<PrefixMatch>, Problem> {
    let stated = |item: &Item<'_>| item.value() != "";
    let cidr = fields.take("cidr").filter(stated);
    let operator = fields.take("matchOperator").filter(stated);
    let lengths = fields.take("prefixLength");
    let (cidr, operator) = match (cidr, operator) {
        (Some(cidr), Some(operator)) => (cidr, operator),
        (Some(_), None) => return Err(fields.problem("matchOperator", "is required with cidr")),
        (None, Some(_)) => return Err(fields.problem("cidr", "is required with matchOperator")),
        (None, None) if lengths.is_some() => {
            return Err(fields.problem("cidr", "is required with prefixLength"));
        }
        (None, None) => return Ok(None),
    };
    let network = syntax::exact_network(&cidr)?;
    if matches!(network, IpNet::V4(_)) != (family == Family::V4) {
        return Err(cidr.problem(format!("{network} is not of this list's family")));
    }
    let mut found = PrefixMatch {
        cidr: network,
        operator: operator.one_of(OPERATORS)?,
        min_length: network.prefix_len(),
        max_length: network.max_prefix_len(),
    };
    if let Some(item) = lengths {
        let mut lengths = item.fields()?;
        let most = i64::from(network.max_prefix_len());
        if let Some(item) = lengths.take("min") {
            found.min_length = item.integer(0..=most)?;
        }
        if let Some(item) = lengths.take("max") {
            found.max_length = item.integer(0..=most)?;
        }
        if found.max_length < found.min_length {
            let reason = format!("{} is less than {}", found.max_length, found.min_length);
            return Err(lengths.problem("max", &reason));
        }
        unknown.extend(lengths.unknown());
    }
    Ok(Some(found))
}

fn communities(
    fields: &mut Fields<'_>,
    unknown: &mut Vec<String>,
) -> Result<Option<crate::Community>, Problem> {
    let Some(item) = fields.take("communities") else {
        return Ok(None);
    };
    let mut fields = item.fields()?;
    let values = fields.need("values")?;
    let wrong = values.problem("must have one value");
    let values = values.list()?;
    unknown.extend(fields.unknown());
    match values.as_slice() {
        [value] => bgp::community(value).map(Some),
        _ => Err(wrong),
    }
}

fn as_numbers(item: Option<Item<'_>>, most: usize) -> Result<Vec<u32>, Problem> {
    let items = item.map_or(Ok(Vec::new()), |item| item.short_list(most))?;
    items.iter().map(syntax::as_number).collect()
}

fn operations(
    fields: &mut Fields<'_>,
    action: BgpFilterAction,
) -> Result<Vec<BgpFilterOperation>, Problem> {
    let Some(item) = fields.take("operations") else {
        return Ok(Vec::new());
    };
    let items = item.short_list(MOST_OPERATIONS)?;
    if action == BgpFilterAction::Reject && !items.is_empty() {
        return Err(fields.problem("operations", "may stand only in a rule that accepts"));
    }
    items.into_iter().map(operation).collect()
}

fn operation(item: Item<'_>) -> Result<BgpFilterOperation, Problem> {
    let one = item.problem(
        "must have exactly one of addCommunity, removeCommunity, prependASPath, setPriority, \
         setLocalPreference, setMED",
    );
    let mut fields = item.fields()?;
    let mut found = Vec::new();
    let mut add = |name, read: fn(&Item<'_>) -> Result<BgpFilterOperation, Problem>, field| {
        let Some(item) = fields.take(name) else {
            return Ok(());
        };
        let mut inner = item.fields()?;
        found.push(read(&inner.need(field)?)?);
        inner.refuse_unknown("unknown field")
    };
    add(
        "addCommunity",
        |item| bgp::community(item).map(BgpFilterOperation::AddCommunity),
        "value",
    )?;
    add(
        "removeCommunity",
        |item| bgp::community(item).map(BgpFilterOperation::RemoveCommunity),
        "value",
    )?;
    add("prependASPath", prepend, "prefix")?;
    add(
        "setPriority",
        |item| {
            item.integer(1..=MOST_PRIORITY)
                .map(BgpFilterOperation::SetPriority)
        },
        "value",
    )?;
    add(
        "setLocalPreference",
        |item| number(item).map(BgpFilterOperation::SetLocalPreference),
        "value",
    )?;
    add(
        "setMED",
        |item| number(item).map(BgpFilterOperation::SetMed),
        "value",
    )?;
    if found.len() != 1 || !fields.unknown().is_empty() {
        return Err(one);
    }
    Ok(found.remove(0))
}

fn prepend(item: &Item<'_>) -> Result<BgpFilterOperation, Problem> {
    let numbers = as_numbers(Some(item.clone()), MOST_PREPENDED)?;
    if numbers.is_empty() {
        return Err(item.problem("needs at least one AS number"));
    }
    Ok(BgpFilterOperation::PrependAsPath(numbers))
}

fn number(item: &Item<'_>) -> Result<u32, Problem> {
    item.integer(0..=i64::from(u32::MAX))
}
