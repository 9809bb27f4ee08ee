//! Source NAT of what leaves the cluster.

use super::super::NetworkSets;
use super::super::parts::{FAMILIES, daddr, interval_set, lookup, rule, saddr};
use super::{IPPROTO_TCP, IPPROTO_UDP, POOLS, SOURCES};
use crate::hash::content_name;
use crate::intervals::{self, Ranges};
use crate::ruleset::{Family, Rule, Set, Statement};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Rules by family, and the sets that they look up.
pub(super) fn masquerade(network: &NetworkSets) -> (Vec<Rule>, BTreeMap<String, Set>) {
    let (mut rules, mut sets) = (vec![], BTreeMap::new());
    for (family, digit) in FAMILIES.into_iter().zip(['4', '6']) {
        let sources = ranges(&network.masquerade, family);
        let pools = ranges(&network.pools, family);
        if sources.is_empty() || pools.is_all(family) {
            continue;
        }
        let mut statements = vec![Statement::Family(family)];
        let kinds = [
            (SOURCES, &sources, saddr(family), false),
            (POOLS, &pools, daddr(family), true),
        ];
        for (name, ranges, field, negate) in kinds {
            if ranges.is_empty() || ranges.is_all(family) {
                continue;
            }
            let name = format!("{name}{digit}_{}", content_name(ranges));
            statements.push(lookup(&[field], name.clone(), negate));
            sets.insert(name, interval_set(family, ranges));
        }
        rules.extend(source_nat(network, family).map(|last| {
            let mut statements = statements.clone();
            statements.extend(last);
            rule(statements)
        }));
    }
    (rules, sets)
}

/// What is done to the source: by rules for protocols with ports first, where ports are chosen.
fn source_nat(
    network: &NetworkSets,
    family: Family,
) -> impl Iterator<Item = Vec<Statement>> + use<> {
    let address = network.nat_address.filter(|_| family == Family::Ipv4);
    let address = address.map(IpAddr::V4);
    let with_ports = network.nat_ports.map(|(first, last)| match address {
        Some(address) => Statement::Snat {
            address,
            ports: Some((first, last)),
        },
        None => Statement::MasqueradePorts { first, last },
    });
    let any = match address {
        Some(address) => Statement::Snat {
            address,
            ports: None,
        },
        None => Statement::Masquerade,
    };
    let of_protocol = with_ports.into_iter().flat_map(|nat| {
        let protocols = [IPPROTO_TCP, IPPROTO_UDP];
        protocols.map(|protocol| vec![Statement::L4Proto(protocol), nat.clone()])
    });
    of_protocol.chain([vec![any]])
}

/// Prefixes of a family.
pub(super) fn ranges(prefixes: &BTreeSet<IpNet>, family: Family) -> Ranges {
    let of_family = prefixes
        .iter()
        .filter(|p| intervals::family_of(p.addr()) == family);
    Ranges::union(of_family.map(intervals::prefix_range))
}
