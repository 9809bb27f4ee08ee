//! Rules of `projectcalico.org/v3` policies -> clauses.

mod ports;

use super::peer::{EntityPeer, Namespaces, PeerSelector};
use super::{Clause, Direction, End, Guard, IcmpMessage, Peer, Place, Ports, clause};
use crate::intervals::{self, Ranges};
use crate::ruleset::Family;
use ipnet::IpNet;
use model::{CalicoRule, EntityRule, IcmpMatch, IpVersion, NamedPort, Protocol, Selector};
use ports::port_choices;
use std::collections::BTreeSet;

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
const WITH_PORTS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// Where a rule stands.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The namespace of its policy.
    pub(super) namespace: Option<&'a str>,
    pub(super) direction: Direction,
    pub(super) place: Place,
    /// Ports of the endpoint that the policy selects.
    pub(super) own_ports: &'a [NamedPort],
}

/// Some packets of those that a rule speaks of: their protocol, if it is one, and guards that they
/// share.
struct Case {
    ports: Ports,
    /// Set where the protocol has ports.
    protocol: Option<Protocol>,
    guards: BTreeSet<Guard>,
}

/// The clauses of one rule.
pub(super) fn lower(rule: &CalicoRule, scope: Scope<'_>) -> Vec<Clause> {
    let mut clauses = vec![];
    for case in cases(rule) {
        let (peer_end, own_end) = match scope.direction {
            Direction::Ingress => (&rule.source, &rule.destination),
            Direction::Egress => (&rule.destination, &rule.source),
        };
        let (source, destination) = (End::Source, End::Destination);
        let (peer_side, own_side) = match scope.direction {
            Direction::Ingress => (source, destination),
            Direction::Egress => (destination, source),
        };
        let own = own_guards(own_end, own_side, scope);
        for (peer, mut guards) in peers(peer_end, peer_side, scope) {
            guards.extend(own.iter().cloned());
            guards.extend(case.guards.iter().cloned());
            for (ports, more) in port_choices(rule, &case, &peer, scope) {
                if let Some(mut found) = clause(peer.clone(), ports, everybody) {
                    found.guards = guards.union(&more).cloned().collect();
                    clauses.push(found);
                }
            }
        }
    }
    clauses
}

fn everybody() -> PeerSelector {
    PeerSelector::Entities(EntityPeer {
        namespaces: Namespaces::Any,
        selector: Selector::All,
        service_accounts: None,
    })
}

/// The rule's protocol, family and ICMP conditions, as cases that exclude each other or not: a
/// packet that is in one of them satisfies them.
fn cases(rule: &CalicoRule) -> Vec<Case> {
    let families = FAMILIES.into_iter().filter(|family| match rule.ip_version {
        None => true,
        Some(IpVersion::V4) => *family == Family::Ipv4,
        Some(IpVersion::V6) => *family == Family::Ipv6,
    });
    let of_families = rule.ip_version.is_some() || has_icmp(rule);
    let mut cases = vec![];
    match of_families {
        false => cases.extend(protocol_cases(rule, None)),
        true => families.for_each(|family| cases.extend(protocol_cases(rule, Some(family)))),
    }
    if let Some(unwanted) = rule.not_protocol {
        cases.retain(|case| number(&case.ports) != Some(unwanted));
        for case in cases
            .iter_mut()
            .filter(|case| number(&case.ports).is_none())
        {
            case.guards.insert(Guard::NotProtocol(unwanted));
        }
    }
    cases
}

fn number(ports: &Ports) -> Option<u8> {
    match ports {
        Ports::Protocol(number) => Some(*number),
        Ports::Range { protocol, .. } => Some(protocol.number()),
        Ports::Any | Ports::Named { .. } | Ports::Own => None,
    }
}

fn protocol_cases(rule: &CalicoRule, family: Option<Family>) -> Vec<Case> {
    let shared = BTreeSet::from_iter(family.map(Guard::Family));
    let case = |protocol: Option<u8>, more: &[Guard]| {
        let with_ports = WITH_PORTS
            .into_iter()
            .find(|p| Some(p.number()) == protocol);
        Case {
            ports: match (with_ports, protocol) {
                (Some(protocol), _) => all_ports(protocol),
                (None, Some(number)) => Ports::Protocol(number),
                (None, None) => Ports::Any,
            },
            protocol: with_ports,
            guards: shared.iter().chain(more).cloned().collect(),
        }
    };
    if let (true, protocol) = (has_icmp(rule), rule.protocol.or(family.map(icmp_of))) {
        let Some(protocol) = protocol else {
            return vec![];
        };
        let message = icmp_cases(rule, protocol).map(|guards| case(Some(protocol), &guards));
        let others = rule.icmp.is_none() && rule.protocol.is_none();
        let others = others.then(|| case(None, &[Guard::NotProtocol(protocol)]));
        return message.into_iter().chain(others).collect();
    }
    let ends = [&rule.source, &rule.destination];
    let wants_ports = ends.iter().any(|end| end.ports.is_some());
    let spares_ports = ends.iter().any(|end| !end.not_ports.is_empty());
    match rule.protocol {
        Some(protocol) => {
            let one = case(Some(protocol), &[]);
            let impossible = wants_ports && one.protocol.is_none();
            Vec::from_iter((!impossible).then_some(one))
        }
        None if wants_ports || spares_ports => {
            let mut cases: Vec<Case> = WITH_PORTS
                .iter()
                .map(|protocol| case(Some(protocol.number()), &[]))
                .collect();
            if !wants_ports {
                let others = WITH_PORTS.map(|protocol| Guard::NotProtocol(protocol.number()));
                cases.push(case(None, &others));
            }
            cases
        }
        None => vec![case(None, &[])],
    }
}

fn has_icmp(rule: &CalicoRule) -> bool {
    rule.icmp.is_some() || rule.not_icmp.is_some()
}

/// What a packet of the protocol has to satisfy; `None` where none can.
fn icmp_cases(rule: &CalicoRule, protocol: u8) -> Option<Vec<Guard>> {
    let mut guards = vec![];
    if let Some(wanted) = rule.icmp.filter(|message| *message != ANY_MESSAGE) {
        guards.push(icmp_guard(wanted, protocol, false)?);
    }
    match rule.not_icmp {
        Some(ANY_MESSAGE) => return None,
        Some(unwanted) => guards.extend(icmp_guard(unwanted, protocol, true)),
        None => {}
    }
    Some(guards)
}

fn icmp_of(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 1,
        Family::Ipv6 => 58,
    }
}

const ANY_MESSAGE: IcmpMatch = IcmpMatch {
    icmp_type: None,
    code: None,
};

/// `None` where the protocol has no such messages, or any of them is meant.
fn icmp_guard(message: IcmpMatch, protocol: u8, negate: bool) -> Option<Guard> {
    let version = FAMILIES
        .into_iter()
        .find(|family| icmp_of(*family) == protocol)?;
    let message = IcmpMessage {
        icmp_type: message.icmp_type?,
        code: message.code,
    };
    Some(Guard::Icmp {
        version,
        message,
        negate,
    })
}

fn all_ports(protocol: Protocol) -> Ports {
    Ports::Range {
        protocol,
        first: 0,
        last: u16::MAX,
    }
}

/// What an end's positive selectors select; none where it has none. In a namespaced policy a
/// `notSelector` alone is for what is in the policy's namespace.
fn selected(end: &EntityRule, scope: Scope<'_>) -> Option<PeerSelector> {
    let spares = scope.namespace.is_some() && end.not_selector.is_some();
    let selective = end.selector.is_some()
        || end.namespace_selector.is_some()
        || end.service_accounts.is_some()
        || spares;
    selective.then(|| {
        PeerSelector::Entities(EntityPeer {
            namespaces: match (&end.namespace_selector, scope.namespace) {
                (Some(selector), _) => Namespaces::Selected(selector.clone()),
                (None, Some(own)) => Namespaces::Named(own.to_owned()),
                (None, None) => Namespaces::Any,
            },
            selector: end.selector.clone().unwrap_or(Selector::All),
            service_accounts: end.service_accounts.clone(),
        })
    })
}

fn nets(nets: &[IpNet], end: End, negate: bool) -> Guard {
    let of = |family| {
        let of_family = nets
            .iter()
            .filter(|net| intervals::family_of(net.addr()) == family);
        Ranges::union(of_family.map(intervals::prefix_range))
    };
    Guard::Nets {
        end,
        v4: of(Family::Ipv4),
        v6: of(Family::Ipv6),
        negate,
    }
}

fn negations(end: &EntityRule, side: End) -> BTreeSet<Guard> {
    let mut guards = BTreeSet::new();
    if !end.not_nets.is_empty() {
        guards.insert(nets(&end.not_nets, side, true));
    }
    if let Some(selector) = &end.not_selector {
        let peer = PeerSelector::Entities(EntityPeer {
            namespaces: Namespaces::Any,
            selector: selector.clone(),
            service_accounts: None,
        });
        guards.insert(Guard::Selected {
            end: side,
            peer,
            negate: true,
        });
    }
    guards
}

/// Conditions on the endpoint's own end.
fn own_guards(end: &EntityRule, side: End, scope: Scope<'_>) -> BTreeSet<Guard> {
    let mut guards = negations(end, side);
    if let Some(wanted) = &end.nets {
        guards.insert(nets(wanted, side, false));
    }
    if let Some(service) = &end.services {
        let peer = PeerSelector::Service {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
        };
        guards.insert(match side {
            End::Source => Guard::Selected {
                end: side,
                peer,
                negate: false,
            },
            End::Destination => Guard::ServicePort(peer),
        });
    }
    if let Some(peer) = selected(end, scope) {
        guards.insert(Guard::Selected {
            end: side,
            peer,
            negate: false,
        });
    }
    guards
}

/// Who is at the other end, and what else holds there besides ports.
fn peers(end: &EntityRule, side: End, scope: Scope<'_>) -> Vec<(Peer, BTreeSet<Guard>)> {
    let mut guards = negations(end, side);
    let wanted_nets = end.nets.as_ref().map(|wanted| nets(wanted, side, false));
    let peer = match (&end.services, selected(end, scope)) {
        (Some(service), selected) => {
            guards.extend(selected.map(|peer| Guard::Selected {
                end: side,
                peer,
                negate: false,
            }));
            Some(PeerSelector::Service {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
            })
        }
        (None, selected) => selected,
    };
    match (peer, wanted_nets) {
        (Some(peer), wanted) => {
            guards.extend(wanted);
            vec![(Peer::Selected(peer), guards)]
        }
        (None, Some(Guard::Nets { v4, v6, .. })) => [(Family::Ipv4, v4), (Family::Ipv6, v6)]
            .map(|(family, ranges)| (Peer::Addresses(family, ranges), guards.clone()))
            .into(),
        (None, _) => vec![(Peer::Anyone, guards)],
    }
}
