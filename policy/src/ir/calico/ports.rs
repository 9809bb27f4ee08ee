//! Ports of a rule: numbers, ranges, names, those of Services, and those it spares.

use super::{Case, Scope, all_ports, everybody, selected};
use crate::intervals::Ranges;
use crate::ir::{Direction, End, Guard, Peer, PeerSelector, Place, Ports, numbers};
use model::{CalicoPort, CalicoRule, EntityRule, Protocol};
use std::collections::BTreeSet;

/// Destination ports of the clauses, with the conditions on both ends' ports.
pub(super) fn port_choices(
    rule: &CalicoRule,
    case: &Case,
    peer: &Peer,
    scope: Scope<'_>,
) -> Vec<(Ports, BTreeSet<Guard>)> {
    let Some(protocol) = case.protocol else {
        let ports = service_ports(case.ports.clone(), peer, scope);
        return Vec::from_iter(ports.map(|ports| (ports, BTreeSet::new())));
    };
    let mut shared = BTreeSet::new();
    shared.extend(unwanted_ports(&rule.source, End::Source, protocol, scope));
    shared.extend(unwanted_ports(
        &rule.destination,
        End::Destination,
        protocol,
        scope,
    ));
    let sources = source_choices(&rule.source, protocol, scope);
    let mut choices = vec![];
    for destination in destination_choices(&rule.destination, protocol, peer, scope) {
        for source in &sources {
            let mut guards = shared.clone();
            guards.extend(source.clone());
            guards.extend(destination.1.clone());
            choices.push((destination.0.clone(), guards));
        }
    }
    choices
}

/// The ports of a Service are those of its endpoints: a protocol without ports has none of them.
fn service_ports(ports: Ports, peer: &Peer, scope: Scope<'_>) -> Option<Ports> {
    let is_service = matches!(peer, Peer::Selected(PeerSelector::Service { .. }));
    match ports {
        Ports::Any if is_service && scope.direction == Direction::Egress => Some(Ports::Own),
        Ports::Protocol(_) if is_service && scope.direction == Direction::Egress => None,
        ports => Some(ports),
    }
}

fn ranges(ports: &[CalicoPort]) -> Ranges {
    Ranges::union(ports.iter().filter_map(|port| match port {
        CalicoPort::Range(first, last) => Some((u128::from(*first), u128::from(*last))),
        CalicoPort::Named(_) => None,
    }))
}

fn names(ports: &[CalicoPort]) -> impl Iterator<Item = &String> {
    ports.iter().filter_map(|port| match port {
        CalicoPort::Named(name) => Some(name),
        CalicoPort::Range(..) => None,
    })
}

/// True where named ports of this end are those of the pod that the policy selects.
fn is_own(end: End, scope: Scope<'_>) -> bool {
    end == End::Destination && scope.direction == Direction::Ingress && scope.place == Place::Pod
}

fn unwanted_ports(end: &EntityRule, side: End, protocol: Protocol, scope: Scope<'_>) -> Vec<Guard> {
    let mut numeric = ranges(&end.not_ports);
    let mut guards = vec![];
    for name in names(&end.not_ports) {
        if is_own(side, scope) {
            let own = numbers(scope.own_ports, protocol, name);
            let own = own.map(|number| (u128::from(number), u128::from(number)));
            numeric = Ranges::union(numeric.iter().chain(own));
        } else {
            guards.push(Guard::NamedPort {
                end: side,
                peer: everybody(),
                protocol,
                name: name.clone(),
                negate: true,
            });
        }
    }
    if !numeric.is_empty() {
        guards.push(Guard::Ports {
            end: side,
            ports: numeric,
            negate: true,
        });
    }
    guards
}

fn source_choices(end: &EntityRule, protocol: Protocol, scope: Scope<'_>) -> Vec<Vec<Guard>> {
    let Some(ports) = &end.ports else {
        return vec![vec![]];
    };
    let numeric = ranges(ports);
    let mut choices = vec![];
    if !numeric.is_empty() {
        choices.push(vec![Guard::Ports {
            end: End::Source,
            ports: numeric,
            negate: false,
        }]);
    }
    choices.extend(names(ports).map(|name| {
        vec![Guard::NamedPort {
            end: End::Source,
            peer: selected(end, scope).unwrap_or_else(everybody),
            protocol,
            name: name.clone(),
            negate: false,
        }]
    }));
    choices
}

fn destination_choices(
    end: &EntityRule,
    protocol: Protocol,
    peer: &Peer,
    scope: Scope<'_>,
) -> Vec<(Ports, Vec<Guard>)> {
    let Some(ports) = &end.ports else {
        let service = matches!(peer, Peer::Selected(PeerSelector::Service { .. }))
            && scope.direction == Direction::Egress;
        return match service {
            true => vec![(Ports::Own, vec![Guard::Protocol(protocol.number())])],
            false => vec![(all_ports(protocol), vec![])],
        };
    };
    let range = |first, last| Ports::Range {
        protocol,
        first,
        last,
    };
    let narrow = |number| u16::try_from(number).unwrap_or(u16::MAX);
    let numeric = ranges(ports);
    let mut choices: Vec<(Ports, Vec<Guard>)> = numeric
        .iter()
        .map(|(first, last)| (range(narrow(first), narrow(last)), vec![]))
        .collect();
    // What else has the pod's address, such as a network set, may be selected in its place.
    let own_end = is_own(End::Destination, scope) && selected(end, scope).is_none();
    for name in names(ports) {
        if own_end {
            let own = numbers(scope.own_ports, protocol, name);
            choices.extend(own.map(|number| (range(number, number), vec![])));
        } else if scope.direction == Direction::Egress {
            choices.push(named_of_peer(end, protocol, name, peer, scope));
        } else {
            let guard = named_guard(end, protocol, name, scope);
            choices.push((all_ports(protocol), vec![guard]));
        }
    }
    choices
}

/// The peer is looked up with its port at once where it is one that has ports.
fn named_of_peer(
    end: &EntityRule,
    protocol: Protocol,
    name: &str,
    peer: &Peer,
    scope: Scope<'_>,
) -> (Ports, Vec<Guard>) {
    match peer {
        Peer::Anyone => {}
        Peer::Selected(selector) if selector.has_ports() => {}
        _ => {
            let guard = named_guard(end, protocol, name, scope);
            return (all_ports(protocol), vec![guard]);
        }
    }
    let name = name.to_owned();
    (Ports::Named { protocol, name }, vec![])
}

fn named_guard(end: &EntityRule, protocol: Protocol, name: &str, scope: Scope<'_>) -> Guard {
    Guard::NamedPort {
        end: End::Destination,
        peer: selected(end, scope).unwrap_or_else(everybody),
        protocol,
        name: name.to_owned(),
        negate: false,
    }
}
