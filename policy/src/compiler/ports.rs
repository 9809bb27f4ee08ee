//! Port ranges of policies, merged, and as statements.

use crate::intervals::Ranges;
use crate::ir::Ports;
use crate::ruleset::Statement;
use model::Protocol;
use std::collections::{BTreeMap, BTreeSet};

/// Protocol, first and last port.
pub(super) type PortRange = (Protocol, u16, u16);

pub(super) fn as_range(ports: &Ports) -> Option<PortRange> {
    match ports {
        Ports::Range {
            protocol,
            first,
            last,
        } => Some((*protocol, *first, *last)),
        Ports::Any | Ports::Protocol(_) | Ports::Named { .. } | Ports::Own => None,
    }
}

/// The numeric ranges, merged where they touch.
pub(super) fn merge(ports: &BTreeSet<Ports>) -> Vec<PortRange> {
    let mut by_protocol: BTreeMap<Protocol, Vec<(u128, u128)>> = BTreeMap::new();
    for (protocol, first, last) in ports.iter().filter_map(as_range) {
        by_protocol
            .entry(protocol)
            .or_default()
            .push((first.into(), last.into()));
    }
    let narrow = |number| u16::try_from(number).unwrap_or(u16::MAX);
    let merged = by_protocol
        .into_iter()
        .map(|(protocol, all)| (protocol, Ranges::union(all)));
    merged
        .flat_map(|(protocol, all)| {
            let all: Vec<_> = all.iter().collect();
            all.into_iter()
                .map(move |(first, last)| (protocol, narrow(first), narrow(last)))
        })
        .collect()
}

pub(super) fn port_count(ranges: &[PortRange]) -> u128 {
    ranges
        .iter()
        .map(|(_, first, last)| u128::from(last - first) + 1)
        .sum()
}

pub(super) fn expand(ranges: &[PortRange]) -> impl Iterator<Item = (Protocol, u16)> + '_ {
    ranges
        .iter()
        .flat_map(|&(protocol, first, last)| (first..=last).map(move |port| (protocol, port)))
}

pub(super) fn port_match((protocol, first, last): PortRange) -> Vec<Statement> {
    let mut statements = vec![Statement::L4Proto(protocol.number())];
    if (first, last) != (0, u16::MAX) {
        statements.push(Statement::DportRange(first, last));
    }
    statements
}
