//! The rules and sets of one block.

use super::super::parts::{FAMILIES, daddr, lookup, rule, saddr};
use super::super::pod_sets::{Form, PodSet, Term, Terms, twin};
use super::super::ports::{PortRange, as_range, expand, merge, port_count, port_match};
use super::super::sets::size_for;
use super::guards::{self, Alternatives};
use super::{itself, local_sets};
use crate::hash::content_name;
use crate::intervals::Ranges;
use crate::ir::{Block, Clause, Direction, Guard, Peer, PeerSelector, Ports};
use crate::ruleset::{
    Element, Family, Field, KeyType, Part, Rule, Set, SetHeader, SetKind, Statement,
};
use std::collections::{BTreeMap, BTreeSet};

/// Up to so many ports of a peer become elements of peer and port; ranges that go beyond are
/// looked up one by one, so that a pod that joins a selector costs few elements.
const MAX_PORTS_OF_PEER: u128 = 16;
/// Up to so many ports of anyone become elements of one set.
const MAX_PORTS_OF_ANYONE: u128 = 64;
/// So many port ranges of anyone are compared without a set.
const FEW_RANGES: usize = 2;

/// What a block becomes.
#[derive(Debug, Default)]
pub(super) struct Laid {
    pub(super) rules: Vec<Rule>,
    pub(super) pod_sets: BTreeMap<String, PodSet>,
    pub(super) fixed: BTreeMap<String, Set>,
}

pub(super) struct BlockLayout<'a> {
    direction: Direction,
    /// Names the place of the block among all blocks.
    place: &'a str,
    /// What ends each rule.
    verdict: Vec<Statement>,
    laid: Laid,
    /// Further conditions of the clauses in hand: none, or some for each family.
    guarded: Option<BTreeSet<Guard>>,
    /// What goes into the sets of peers, by what they are looked up with.
    pods: BTreeMap<Kind, Terms>,
}

/// What a set of peers is looked up with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    AnyPort,
    Port,
    Only(Only),
}

/// Packets of one protocol, or of some of its ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Only {
    Range(PortRange),
    Protocol(u8),
}

/// Clauses by what they look up.
#[derive(Default)]
struct Sorted {
    anyone: BTreeSet<Ports>,
    itself: bool,
    selected: BTreeMap<PeerSelector, BTreeSet<Ports>>,
    addresses: BTreeMap<Family, BTreeMap<Ports, Vec<(u128, u128)>>>,
}

impl<'a> BlockLayout<'a> {
    pub(super) fn new(direction: Direction, place: &'a str, verdict: Vec<Statement>) -> Self {
        Self {
            direction,
            place,
            verdict,
            laid: Laid::default(),
            guarded: None,
            pods: BTreeMap::new(),
        }
    }

    pub(super) fn lay_out(mut self, block: &Block) -> Laid {
        let mut by_guards: BTreeMap<&BTreeSet<Guard>, Vec<&Clause>> = BTreeMap::new();
        for clause in &block.clauses {
            by_guards.entry(&clause.guards).or_default().push(clause);
        }
        for (guards, clauses) in by_guards {
            self.guarded = (!guards.is_empty()).then(|| guards.clone());
            self.pods.clear();
            self.add(sort(&clauses));
        }
        self.laid
    }

    fn add(&mut self, sorted: Sorted) {
        if sorted.anyone.contains(&Ports::Any) {
            self.rule(None, vec![]);
            return;
        }
        self.add_anyone(&sorted.anyone);
        let mut only = BTreeSet::new();
        for (peer, ports) in sorted.selected {
            self.add_peer(&peer, &ports, &mut only);
        }
        for of_family in sorted.addresses.values() {
            only.extend(of_family.keys().filter_map(only_of));
        }
        for family in FAMILIES {
            let none = BTreeMap::new();
            let addresses = sorted.addresses.get(&family).unwrap_or(&none);
            self.add_family(family, addresses, &only);
        }
        if sorted.itself {
            for (local, family) in local_sets() {
                let matches = itself(self.direction, local, family);
                self.laid
                    .rules
                    .push(rule(matches.into_iter().chain(self.verdict.clone())));
            }
        }
    }

    fn add_anyone(&mut self, ports: &BTreeSet<Ports>) {
        for port in ports {
            if let Ports::Protocol(number) = port {
                self.rule(None, vec![Statement::L4Proto(*number)]);
            }
        }
        let ranges = merge(ports);
        if ranges.len() <= FEW_RANGES || port_count(&ranges) > MAX_PORTS_OF_ANYONE {
            for range in ranges {
                self.rule(None, port_match(range));
            }
            return;
        }
        let elements: BTreeMap<_, _> = expand(&ranges)
            .map(|(protocol, port)| [Part::Proto(protocol.number()), Part::Port(port)])
            .map(|parts| (Element::exact(&parts), None))
            .collect();
        let name = format!("p{}", content_name(&ranges));
        let header = SetHeader {
            key: vec![KeyType::Proto, KeyType::Port],
            kind: SetKind::Hash,
            verdict_map: false,
            size: Some(size_for(elements.len())),
        };
        self.laid
            .fixed
            .insert(name.clone(), Set { header, elements });
        self.rule(
            None,
            vec![lookup(&[Field::L4Proto, Field::Dport], name, false)],
        );
    }

    /// What the members of one selector add. Ranges too large to be spelt out go to `large`.
    fn add_peer(
        &mut self,
        peer: &PeerSelector,
        ports: &BTreeSet<Ports>,
        large: &mut BTreeSet<Only>,
    ) {
        let mut add = |kind, terms: Vec<Term>| {
            if !terms.is_empty() {
                let of_kind = self.pods.entry(kind).or_default();
                of_kind.entry(peer.clone()).or_default().extend(terms);
            }
        };
        if ports.contains(&Ports::Any) {
            return add(Kind::AnyPort, vec![Term::Address]);
        }
        let mut left = MAX_PORTS_OF_PEER;
        for range in merge(ports) {
            let spelt_out = left.checked_sub(port_count(&[range]));
            left = spelt_out.unwrap_or(left);
            if spelt_out.is_some() {
                let ports = [range];
                let terms = expand(&ports).map(|(protocol, port)| Term::Port(protocol, port));
                add(Kind::Port, terms.collect());
            } else {
                large.insert(Only::Range(range));
                add(Kind::Only(Only::Range(range)), vec![Term::Address]);
            }
        }
        for port in ports {
            match port {
                Ports::Protocol(number) => {
                    large.insert(Only::Protocol(*number));
                    add(Kind::Only(Only::Protocol(*number)), vec![Term::Address]);
                }
                Ports::Named { protocol, name } => {
                    add(Kind::Port, vec![Term::NamedPort(*protocol, name.clone())]);
                }
                Ports::Own => add(Kind::Port, vec![Term::OwnPorts]),
                Ports::Any | Ports::Range { .. } => {}
            }
        }
    }

    fn add_family(
        &mut self,
        family: Family,
        addresses: &BTreeMap<Ports, Vec<(u128, u128)>>,
        only: &BTreeSet<Only>,
    ) {
        self.lookup_pods(family, Kind::AnyPort);
        self.lookup_pods(family, Kind::Port);
        if let Some(any_port) = addresses.get(&Ports::Any) {
            self.lookup_addresses(family, any_port, None);
        }
        for &only in only {
            self.lookup_pods(family, Kind::Only(only));
            let ports = match only {
                Only::Range((protocol, first, last)) => Ports::Range {
                    protocol,
                    first,
                    last,
                },
                Only::Protocol(number) => Ports::Protocol(number),
            };
            if let Some(some) = addresses.get(&ports) {
                self.lookup_addresses(family, some, Some(only));
            }
        }
    }

    fn lookup_pods(&mut self, family: Family, kind: Kind) {
        let Some(terms) = self.pods.get(&kind) else {
            return;
        };
        let address = self.peer_field(family);
        let (form, fields, only) = match kind {
            Kind::AnyPort => (Form::Address, vec![address], None),
            Kind::Port => (
                Form::AddressAndPort,
                vec![address, Field::L4Proto, Field::Dport],
                None,
            ),
            Kind::Only(only) => (Form::Address, vec![address], Some(only)),
        };
        let set = PodSet {
            family,
            form,
            terms: terms.clone(),
        };
        let place = content_name(&(self.place, kind, &self.guarded));
        let base = set.base(&place);
        let prefixes = set.has_twin().then(|| twin(&base));
        self.laid.pod_sets.insert(base.clone(), set);
        for name in [Some(base), prefixes].into_iter().flatten() {
            self.peer_rule(family, only, Some(lookup(&fields, name, false)));
        }
    }

    fn lookup_addresses(&mut self, family: Family, addresses: &[(u128, u128)], only: Option<Only>) {
        let addresses = Ranges::union(addresses.iter().copied());
        let lookup = (!addresses.is_all(family)).then(|| {
            let (name, set) = guards::address_set(family, &addresses);
            self.laid.fixed.insert(name.clone(), set);
            lookup(&[self.peer_field(family)], name, false)
        });
        self.peer_rule(family, only, lookup);
    }

    fn peer_field(&self, family: Family) -> Field {
        match self.direction {
            Direction::Ingress => saddr(family),
            Direction::Egress => daddr(family),
        }
    }

    fn peer_rule(&mut self, family: Family, only: Option<Only>, lookup: Option<Statement>) {
        let ports = match only {
            None => vec![],
            Some(Only::Range(range)) => port_match(range),
            Some(Only::Protocol(number)) => vec![Statement::L4Proto(number)],
        };
        self.rule(Some(family), ports.into_iter().chain(lookup).collect());
    }

    /// A rule for packets of one family, or of both.
    fn rule(&mut self, family: Option<Family>, matches: Vec<Statement>) {
        let families = match (family, &self.guarded) {
            (None, None) => {
                let statements = matches.into_iter().chain(self.verdict.clone());
                self.laid.rules.push(rule(statements));
                return;
            }
            (Some(family), _) => vec![family],
            (None, Some(_)) => FAMILIES.to_vec(),
        };
        for family in families {
            let none = BTreeSet::new();
            let guards = self.guarded.as_ref().unwrap_or(&none);
            let Alternatives {
                alternatives,
                pod_sets,
                fixed,
            } = guards::lower(guards, family);
            self.laid.pod_sets.extend(pod_sets);
            self.laid.fixed.extend(fixed);
            for conditions in alternatives {
                let statements = [Statement::Family(family)]
                    .into_iter()
                    .chain(matches.clone())
                    .chain(conditions)
                    .chain(self.verdict.clone());
                self.laid.rules.push(rule(statements));
            }
        }
    }
}

fn only_of(ports: &Ports) -> Option<Only> {
    match ports {
        Ports::Protocol(number) => Some(Only::Protocol(*number)),
        ports => as_range(ports).map(Only::Range),
    }
}

fn sort(clauses: &[&Clause]) -> Sorted {
    let mut sorted = Sorted::default();
    for clause in clauses {
        let ports = clause.ports.clone();
        match &clause.peer {
            Peer::Anyone => drop(sorted.anyone.insert(ports)),
            Peer::Itself => sorted.itself = true,
            Peer::Selected(peer) => {
                let of_peer = sorted.selected.entry(peer.clone()).or_default();
                of_peer.insert(ports);
            }
            Peer::Addresses(family, ranges) => {
                let of_family = sorted.addresses.entry(*family).or_default();
                of_family.entry(ports).or_default().extend(ranges.iter());
            }
        }
    }
    sorted
}
