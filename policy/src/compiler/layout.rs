//! The chain and the sets of a policy set.
//!
//! Looked up in this order, and only where the policies have such a clause: ports that anyone may
//! use; then, for each family, peers with any port, peer and port, address ranges with any port,
//! and peers and address ranges of one port range. Whatever happens, a pod reaches itself. For
//! ingress and IPv4:
//!
//! ```text
//! meta l4proto . th dport @ports return
//! ip saddr @pods return
//! ip saddr . meta l4proto . th dport @pods_and_ports return
//! ip saddr @ranges return
//! meta l4proto 17 th dport 1000-2000 ip saddr @pods return
//! oif . ip saddr @local4 iif . ip saddr @local4 return
//! counter drop
//! ```
//!
//! What is allowed returns instead of being accepted: after the egress chain of the source, the
//! ingress chain of the destination has its say.

use super::base::{self, FAMILIES, daddr, interval_set, lookup, rule, saddr};
use super::pod_sets::{Form, PodSet, Term, Terms};
use super::ports::{PortRange, as_range, expand, merge, port_count, port_match, range_kind};
use super::sets::{Sets, size_for};
use crate::hash::{base32, content_name};
use crate::intervals::Ranges;
use crate::ir::{Block, Direction, Peer, PodPeer, PolicySet, Ports};
use crate::ruleset::{
    Chain, Element, Family, Field, KeyType, Part, Rule, Set, SetHeader, SetKind, Statement, Verdict,
};
use std::collections::{BTreeMap, BTreeSet};

/// Up to so many ports of a peer become elements of peer and port; ranges that go beyond are
/// looked up one by one, so that a pod that joins a selector costs few elements.
const MAX_PORTS_OF_PEER: u128 = 16;
/// Up to so many ports of anyone become elements of one set.
const MAX_PORTS_OF_ANYONE: u128 = 64;
/// So many port ranges of anyone are compared without a set.
const FEW_RANGES: usize = 2;
/// `NFT_USERDATA_RULE_COMMENT` of nft holds this many bytes.
const MAX_COMMENT: usize = 127;

/// A policy set in terms of chain, rules and sets.
#[derive(Debug)]
pub(super) struct Layout {
    /// Name of the chain; those of its own sets begin with it.
    pub(super) chain: String,
    /// Rules; they name sets of pods, and those of all chains, by base name.
    rules: Vec<Rule>,
    /// Sets of pods by base name.
    pub(super) pod_sets: BTreeMap<String, PodSet>,
    /// Sets that never change.
    pub(super) fixed: BTreeMap<String, Set>,
}

/// Name of the chain of `set`.
pub(super) fn chain_name(set: &PolicySet) -> String {
    let letter = match set.direction {
        Direction::Ingress => 'i',
        Direction::Egress => 'e',
    };
    format!("{letter}{}", content_name(set))
}

impl Layout {
    pub(super) fn new(set: &PolicySet) -> Self {
        let mut layout = Self {
            chain: chain_name(set),
            rules: vec![],
            pod_sets: BTreeMap::new(),
            fixed: BTreeMap::new(),
        };
        for (number, block) in set.blocks.iter().enumerate() {
            let prefix = format!("{}{}", layout.chain, base32(number));
            let direction = set.direction;
            BlockLayout {
                layout: &mut layout,
                direction,
                prefix,
                pods: BTreeMap::new(),
            }
            .add(block);
        }
        layout.add_end(set);
        layout
    }

    /// The chain, with the names that the sets have.
    pub(super) fn render(&self, sets: &Sets) -> Chain {
        let mut rules = self.rules.clone();
        for statement in rules.iter_mut().flat_map(|rule| &mut rule.statements) {
            if let Statement::Lookup { set, .. } = statement
                && !self.fixed.contains_key(set)
            {
                *set = sets.name(set);
            }
        }
        Chain { hook: None, rules }
    }

    fn add_end(&mut self, set: &PolicySet) {
        for (at, family) in FAMILIES.into_iter().enumerate() {
            self.rules
                .push(itself(set.direction, base::LOCAL[at], family));
        }
        self.rules.push(Rule {
            statements: vec![Statement::Counter, Statement::Verdict(Verdict::Drop)],
            comment: Some(comment(&set.policies)),
        });
    }
}

/// A pod reaches itself through a Service: its packet comes back to its own interface. Where the
/// source is in question, it must also have come from there.
fn itself(direction: Direction, local: &str, family: Family) -> Rule {
    let of = |field, address| lookup(&[field, address], local.to_owned(), false);
    let own = match direction {
        Direction::Egress => vec![of(Field::Iif, daddr(family))],
        Direction::Ingress => {
            vec![of(Field::Oif, saddr(family)), of(Field::Iif, saddr(family))]
        }
    };
    let (family, allowed) = (
        Statement::Family(family),
        Statement::Verdict(Verdict::Return),
    );
    rule([family].into_iter().chain(own).chain([allowed]))
}

fn comment(policies: &[String]) -> String {
    let mut text = match policies {
        [] => "labels or owner not known".to_owned(),
        some => some.join(", "),
    };
    if text.len() > MAX_COMMENT {
        let end = (0..=MAX_COMMENT - 3)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push_str("...");
    }
    text
}

struct BlockLayout<'a> {
    layout: &'a mut Layout,
    direction: Direction,
    prefix: String,
    /// What goes into the sets of pods, by what they are looked up with.
    pods: BTreeMap<Kind, Terms>,
}

/// What a set of pods is looked up with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    AnyPort,
    Port,
    Range(PortRange),
}

/// Clauses by what they look up.
#[derive(Default)]
struct Sorted {
    anyone: BTreeSet<Ports>,
    pods: BTreeMap<PodPeer, BTreeSet<Ports>>,
    addresses: BTreeMap<Family, BTreeMap<Ports, Vec<(u128, u128)>>>,
}

impl BlockLayout<'_> {
    fn add(mut self, block: &Block) {
        let sorted = sort(block);
        if sorted.anyone.contains(&Ports::Any) {
            self.rule([]);
            return;
        }
        self.add_anyone(&sorted.anyone);
        let mut ranges = BTreeSet::new();
        for (peer, ports) in sorted.pods {
            self.add_peer(&peer, &ports, &mut ranges);
        }
        for of_family in sorted.addresses.values() {
            ranges.extend(of_family.keys().filter_map(as_range));
        }
        for family in FAMILIES {
            let none = BTreeMap::new();
            let addresses = sorted.addresses.get(&family).unwrap_or(&none);
            self.add_family(family, addresses, &ranges);
        }
    }

    fn add_anyone(&mut self, ports: &BTreeSet<Ports>) {
        let ranges = merge(ports);
        if ranges.len() <= FEW_RANGES || port_count(&ranges) > MAX_PORTS_OF_ANYONE {
            for range in ranges {
                self.rule(port_match(range));
            }
            return;
        }
        let elements: BTreeMap<_, _> = expand(&ranges)
            .map(|(protocol, port)| [Part::Proto(protocol.number()), Part::Port(port)])
            .map(|parts| (Element::exact(&parts), None))
            .collect();
        let header = SetHeader {
            key: vec![KeyType::Proto, KeyType::Port],
            kind: SetKind::Hash,
            verdict_map: false,
            size: Some(size_for(elements.len())),
        };
        let name = format!("{}p", self.prefix);
        self.layout
            .fixed
            .insert(name.clone(), Set { header, elements });
        self.rule([lookup(&[Field::L4Proto, Field::Dport], name, false)]);
    }

    /// What the pods of one selector add. Ranges too large to be spelt out go to `large`.
    fn add_peer(
        &mut self,
        peer: &PodPeer,
        ports: &BTreeSet<Ports>,
        large: &mut BTreeSet<PortRange>,
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
                large.insert(range);
                add(Kind::Range(range), vec![Term::Address]);
            }
        }
        let named = ports.iter().filter_map(|ports| match ports {
            Ports::Named { protocol, name } => Some(Term::NamedPort(*protocol, name.clone())),
            Ports::Any | Ports::Range { .. } => None,
        });
        add(Kind::Port, named.collect());
    }

    fn add_family(
        &mut self,
        family: Family,
        addresses: &BTreeMap<Ports, Vec<(u128, u128)>>,
        ranges: &BTreeSet<PortRange>,
    ) {
        self.lookup_pods(family, Kind::AnyPort);
        self.lookup_pods(family, Kind::Port);
        if let Some(any_port) = addresses.get(&Ports::Any) {
            self.lookup_addresses(family, "c".to_owned(), any_port, None);
        }
        for &range in ranges {
            self.lookup_pods(family, Kind::Range(range));
            let (protocol, first, last) = range;
            if let Some(some) = addresses.get(&Ports::Range {
                protocol,
                first,
                last,
            }) {
                self.lookup_addresses(family, range_kind(range), some, Some(range));
            }
        }
    }

    fn lookup_pods(&mut self, family: Family, kind: Kind) {
        let Some(terms) = self.pods.get(&kind) else {
            return;
        };
        let address = self.peer_field(family);
        let (form, fields, range) = match kind {
            Kind::AnyPort => (Form::Address, vec![address], None),
            Kind::Port => (
                Form::AddressAndPort,
                vec![address, Field::L4Proto, Field::Dport],
                None,
            ),
            Kind::Range(range) => (Form::Address, vec![address], Some(range)),
        };
        let set = PodSet {
            family,
            form,
            terms: terms.clone(),
        };
        let base = set.base();
        self.layout.pod_sets.insert(base.clone(), set);
        self.peer_rule(family, range, Some(lookup(&fields, base, false)));
    }

    fn lookup_addresses(
        &mut self,
        family: Family,
        kind: String,
        addresses: &[(u128, u128)],
        range: Option<PortRange>,
    ) {
        let addresses = Ranges::union(addresses.iter().copied());
        let lookup = (!addresses.is_all(family)).then(|| {
            let name = format!("{}{kind}{}", self.prefix, digit(family));
            self.layout
                .fixed
                .insert(name.clone(), interval_set(family, &addresses));
            lookup(&[self.peer_field(family)], name, false)
        });
        self.peer_rule(family, range, lookup);
    }

    fn peer_field(&self, family: Family) -> Field {
        match self.direction {
            Direction::Ingress => saddr(family),
            Direction::Egress => daddr(family),
        }
    }

    fn peer_rule(&mut self, family: Family, range: Option<PortRange>, lookup: Option<Statement>) {
        let ports = range.map(port_match).unwrap_or_default();
        let family = [Statement::Family(family)];
        self.rule(family.into_iter().chain(ports).chain(lookup));
    }

    fn rule(&mut self, matches: impl IntoIterator<Item = Statement>) {
        let allowed = [Statement::Verdict(Verdict::Return)];
        self.layout
            .rules
            .push(rule(matches.into_iter().chain(allowed)));
    }
}

fn digit(family: Family) -> char {
    match family {
        Family::Ipv4 => '4',
        Family::Ipv6 => '6',
    }
}

fn sort(block: &Block) -> Sorted {
    let mut sorted = Sorted::default();
    for clause in &block.clauses {
        let ports = clause.ports.clone();
        match &clause.peer {
            Peer::Anyone => drop(sorted.anyone.insert(ports)),
            Peer::Pods(peer) => drop(sorted.pods.entry(peer.clone()).or_default().insert(ports)),
            Peer::Addresses(family, ranges) => {
                let of_family = sorted.addresses.entry(*family).or_default();
                of_family.entry(ports).or_default().extend(ranges.iter());
            }
        }
    }
    sorted
}
