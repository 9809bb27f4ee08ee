//! Further conditions of a clause as statements.

use super::super::parts::{daddr, interval_set, lookup, saddr};
use super::super::pod_sets::{Form, PodSet, Term, twin};
use crate::hash::content_name;
use crate::intervals::Ranges;
use crate::ir::{End, Guard, IcmpMessage, PeerSelector};
use crate::ruleset::{Element, Family, Field, KeyType, Part, Set, SetHeader, SetKind, Statement};
use std::collections::{BTreeMap, BTreeSet};

/// The conditions of one family: a packet satisfies them where it satisfies one alternative. There
/// is none where no packet of the family can.
pub(super) struct Alternatives {
    pub(super) alternatives: Vec<Vec<Statement>>,
    pub(super) pod_sets: BTreeMap<String, PodSet>,
    pub(super) fixed: BTreeMap<String, Set>,
}

/// Of one guard.
enum Lowered {
    Always,
    Never,
    All(Vec<Statement>),
    Any(Vec<Statement>),
}

pub(super) fn lower(guards: &BTreeSet<Guard>, family: Family) -> Alternatives {
    let mut all = Alternatives {
        alternatives: vec![vec![]],
        pod_sets: BTreeMap::new(),
        fixed: BTreeMap::new(),
    };
    for guard in guards {
        match all.lower_one(guard, family) {
            Lowered::Always => {}
            Lowered::Never => all.alternatives.clear(),
            Lowered::All(statements) => {
                for alternative in &mut all.alternatives {
                    alternative.extend(statements.iter().cloned());
                }
            }
            Lowered::Any(statements) => {
                let before = std::mem::take(&mut all.alternatives);
                for alternative in before {
                    all.alternatives.extend(statements.iter().map(|statement| {
                        let mut longer = alternative.clone();
                        longer.push(statement.clone());
                        longer
                    }));
                }
            }
        }
    }
    all
}

/// A set of ranges of addresses, named by content.
pub(super) fn address_set(family: Family, ranges: &Ranges) -> (String, Set) {
    let digit = match family {
        Family::Ipv4 => '4',
        Family::Ipv6 => '6',
    };
    let name = format!("c{digit}{}", content_name(ranges));
    (name, interval_set(family, ranges))
}

impl Alternatives {
    fn lower_one(&mut self, guard: &Guard, family: Family) -> Lowered {
        match guard {
            Guard::Family(wanted) if *wanted == family => Lowered::Always,
            Guard::Family(_) => Lowered::Never,
            Guard::Protocol(number) => Lowered::All(vec![Statement::L4Proto(*number)]),
            Guard::NotProtocol(number) => {
                let element = Element::exact(&[Part::Proto(*number)]);
                let elements = [(element, None)].into();
                let name = format!("q{number:03}");
                self.fix(&name, KeyType::Proto, SetKind::Hash, elements);
                Lowered::All(vec![lookup(&[Field::L4Proto], name, true)])
            }
            Guard::Icmp {
                version,
                message,
                negate,
            } => Lowered::All(vec![icmp(*version, *message, *negate)]),
            Guard::Nets {
                end,
                v4,
                v6,
                negate,
            } => {
                let ranges = match family {
                    Family::Ipv4 => v4,
                    Family::Ipv6 => v6,
                };
                self.nets(field(*end, family), ranges, family, *negate)
            }
            Guard::Selected { end, peer, negate } => {
                let fields = [field(*end, family)];
                self.selected(
                    &fields,
                    peer,
                    family,
                    Form::Address,
                    &Term::Address,
                    *negate,
                )
            }
            Guard::ServicePort(peer) => {
                let address = daddr(family);
                let ports = [address, Field::L4Proto, Field::Dport];
                let own = Term::OwnPorts;
                self.selected(&ports, peer, family, Form::AddressAndPort, &own, false)
            }
            Guard::Ports { end, ports, negate } => self.ports(*end, ports, *negate),
            Guard::NamedPort {
                end,
                peer,
                protocol,
                name,
                negate,
            } => {
                let fields = [field(*end, family), Field::L4Proto, port_field(*end)];
                let term = Term::NamedPort(*protocol, name.clone());
                self.selected(&fields, peer, family, Form::AddressAndPort, &term, *negate)
            }
        }
    }

    fn nets(&mut self, field: Field, ranges: &Ranges, family: Family, negate: bool) -> Lowered {
        match (ranges.is_empty(), ranges.is_all(family), negate) {
            (true, _, true) | (_, true, false) => Lowered::Always,
            (true, _, false) | (_, true, true) => Lowered::Never,
            (false, false, _) => {
                let (name, set) = address_set(family, ranges);
                self.fixed.insert(name.clone(), set);
                Lowered::All(vec![lookup(&[field], name, negate)])
            }
        }
    }

    fn selected(
        &mut self,
        fields: &[Field],
        peer: &PeerSelector,
        family: Family,
        form: Form,
        term: &Term,
        negate: bool,
    ) -> Lowered {
        let set = PodSet {
            family,
            form,
            terms: [(peer.clone(), [term.clone()].into())].into(),
        };
        let base = set.base("");
        // Prefixes have no named ports.
        let prefixes = (set.has_twin() && form == Form::Address).then(|| twin(&base));
        self.pod_sets.insert(base.clone(), set);
        let names = [Some(base), prefixes].into_iter().flatten();
        let lookups = names.map(|name| lookup(fields, name, negate)).collect();
        match negate {
            true => Lowered::All(lookups),
            false => Lowered::Any(lookups),
        }
    }

    fn ports(&mut self, end: End, ports: &Ranges, negate: bool) -> Lowered {
        let part = |number| Part::Port(u16::try_from(number).unwrap_or(u16::MAX));
        let elements = ports
            .iter()
            .map(|(first, last)| (Element::range(part(first), part(last)), None));
        let name = format!("r{}", content_name(ports));
        self.fix(&name, KeyType::Port, SetKind::Interval, elements.collect());
        Lowered::All(vec![lookup(&[port_field(end)], name, negate)])
    }

    fn fix(
        &mut self,
        name: &str,
        key: KeyType,
        kind: SetKind,
        elements: BTreeMap<Element, Option<crate::ruleset::Verdict>>,
    ) {
        let header = SetHeader {
            key: vec![key],
            kind,
            verdict_map: false,
            size: None,
        };
        self.fixed.insert(name.to_owned(), Set { header, elements });
    }
}

fn icmp(version: Family, message: IcmpMessage, negate: bool) -> Statement {
    let IcmpMessage { icmp_type, code } = message;
    match (version, code, negate) {
        (Family::Ipv6, None, false) => Statement::Icmpv6Type {
            first: icmp_type,
            last: icmp_type,
        },
        _ => Statement::Icmp {
            family: version,
            icmp_type,
            code,
            negate,
        },
    }
}

fn field(end: End, family: Family) -> Field {
    match end {
        End::Source => saddr(family),
        End::Destination => daddr(family),
    }
}

fn port_field(end: End) -> Field {
    match end {
        End::Source => Field::Sport,
        End::Destination => Field::Dport,
    }
}
