//! What rules and sets are made of.

use super::sets::size_for;
use crate::hash::content_name;
use crate::intervals::{self, Ranges};
use crate::ruleset::{
    BaseHook, ChainType, Element, Family, Field, Hook, KeyType, Part, Rule, Set, SetHeader,
    SetKind, Statement, Verdict,
};
use model::Protocol;
use std::collections::BTreeMap;

pub(super) const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// A set of address ranges. Such sets never change: their names derive from their content.
pub(super) fn interval_set(family: Family, ranges: &Ranges) -> Set {
    let part = |number| Part::Address(intervals::address(family, number));
    let elements = ranges
        .iter()
        .map(|(first, last)| Element::range(part(first), part(last)));
    Set {
        header: SetHeader {
            key: vec![saddr(family).key_type()],
            kind: SetKind::Interval,
            verdict_map: false,
            size: None,
        },
        elements: elements.map(|element| (element, None)).collect(),
    }
}

/// A set of protocols and ports, named by content; none where there are no ports.
pub(super) fn port_set(ports: &[(Protocol, u16)]) -> Option<(String, Set)> {
    let elements: BTreeMap<_, _> = ports
        .iter()
        .map(|(protocol, port)| [Part::Proto(protocol.number()), Part::Port(*port)])
        .map(|parts| (Element::exact(&parts), None))
        .collect();
    let header = SetHeader {
        key: vec![KeyType::Proto, KeyType::Port],
        kind: SetKind::Hash,
        verdict_map: false,
        size: Some(size_for(elements.len())),
    };
    let name = format!("f{}", content_name(&ports));
    (!elements.is_empty()).then_some((name, Set { header, elements }))
}

pub(super) fn hook(hook: Hook, chain_type: ChainType, priority: i32) -> BaseHook {
    BaseHook {
        hook,
        chain_type,
        priority,
    }
}

pub(super) fn drop_rule(matches: impl IntoIterator<Item = Statement>) -> Rule {
    let drop = [Statement::Counter, Statement::Verdict(Verdict::Drop)];
    rule(matches.into_iter().chain(drop))
}

pub(super) fn accept(matches: impl IntoIterator<Item = Statement>) -> Rule {
    rule(
        matches
            .into_iter()
            .chain([Statement::Verdict(Verdict::Accept)]),
    )
}

pub(super) fn rule(statements: impl IntoIterator<Item = Statement>) -> Rule {
    Rule {
        statements: statements.into_iter().collect(),
        comment: None,
    }
}

pub(super) fn lookup(fields: &[Field], set: String, negate: bool) -> Statement {
    Statement::Lookup {
        fields: fields.to_vec(),
        set,
        negate,
    }
}

pub(super) fn saddr(family: Family) -> Field {
    match family {
        Family::Ipv4 => Field::Ipv4Saddr,
        Family::Ipv6 => Field::Ipv6Saddr,
    }
}

pub(super) fn daddr(family: Family) -> Field {
    match family {
        Family::Ipv4 => Field::Ipv4Daddr,
        Family::Ipv6 => Field::Ipv6Daddr,
    }
}
