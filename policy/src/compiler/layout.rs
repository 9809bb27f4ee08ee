//! The chain and the sets of a policy set.
//!
//! Looked up in this order, and only where the policies have such a clause: ports that anyone may
//! use; then, for each family, peers with any port, peer and port, address ranges with any port,
//! and peers and address ranges of one port range. Whatever happens, a pod reaches itself.

use super::base::{self, FAMILIES, daddr, interval_set, lookup, rule, saddr};
use super::ports::{PortRange, as_range, expand, merge, port_count, port_match, range_kind};
use super::sets::{Sets, size_for};
use crate::endpoint::Endpoint;
use crate::hash::{base32, content_name};
use crate::intervals::Ranges;
use crate::ir::{self, Block, Direction, Peer, PodPeer, PolicySet, Ports};
use crate::ruleset::{
    Chain, Element, Family, Field, KeyType, Part, Rule, Set, SetHeader, SetKind, Statement, Verdict,
};
use model::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Up to so many ports of a peer become elements of peer and port; more of them are looked up
/// range by range, so that a pod that joins a selector costs few elements.
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
    /// Name of the chain; those of its sets begin with it.
    pub(super) chain: String,
    /// Rules; they name counted sets by base name.
    rules: Vec<Rule>,
    /// Counted sets by base name, with the types of their keys.
    pub(super) counted: BTreeMap<String, Vec<KeyType>>,
    /// Sets that never change.
    pub(super) fixed: BTreeMap<String, Set>,
    /// What the pods that match a selector add to counted sets.
    pub(super) terms: BTreeMap<PodPeer, Vec<Term>>,
}

/// Elements that each pod of a selector adds to a pair of sets, one a family.
#[derive(Debug, Clone)]
pub(super) struct Term {
    sets: [String; 2],
    key: TermKey,
}

#[derive(Debug, Clone)]
enum TermKey {
    Address,
    Ports(Vec<(u8, u16)>),
    Named(Protocol, String),
}

impl Term {
    /// The elements of `endpoint`, each with the base name of its set.
    pub(super) fn elements<'a>(
        &'a self,
        endpoint: &'a Endpoint,
    ) -> impl Iterator<Item = (&'a str, Element)> + 'a {
        let ports: Vec<(u8, u16)> = match &self.key {
            TermKey::Address => vec![],
            TermKey::Ports(ports) => ports.clone(),
            TermKey::Named(protocol, name) => ir::numbers(endpoint, *protocol, name)
                .map(|number| (protocol.number(), number))
                .collect(),
        };
        endpoint.ips.iter().flat_map(move |ip| {
            let set = self.sets[family_index(*ip)].as_str();
            let keys = match &self.key {
                TermKey::Address => vec![Element::exact(&[Part::Address(*ip)])],
                TermKey::Ports(_) | TermKey::Named(..) => ports
                    .iter()
                    .map(|(protocol, port)| {
                        let (protocol, port) = (Part::Proto(*protocol), Part::Port(*port));
                        Element::exact(&[Part::Address(*ip), protocol, port])
                    })
                    .collect(),
            };
            keys.into_iter().map(move |key| (set, key))
        })
    }
}

pub(super) fn family_index(ip: IpAddr) -> usize {
    usize::from(ip.is_ipv6())
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
            counted: BTreeMap::new(),
            fixed: BTreeMap::new(),
            terms: BTreeMap::new(),
        };
        for (number, block) in set.blocks.iter().enumerate() {
            let prefix = format!("{}{}", layout.chain, base32(number));
            BlockLayout {
                layout: &mut layout,
                direction: set.direction,
                prefix,
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
        [] => "labels of the pod are not known".to_owned(),
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
            let terms = self.terms(&ports, &mut ranges);
            self.layout.terms.entry(peer).or_default().extend(terms);
        }
        for of_family in sorted.addresses.values() {
            ranges.extend(of_family.keys().filter_map(as_range));
        }
        for (at, family) in FAMILIES.into_iter().enumerate() {
            let none = BTreeMap::new();
            let addresses = sorted.addresses.get(&family).unwrap_or(&none);
            self.add_family(at, family, addresses, &ranges);
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
            .map(|(protocol, port)| [Part::Proto(protocol), Part::Port(port)])
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
    fn terms(&mut self, ports: &BTreeSet<Ports>, large: &mut BTreeSet<PortRange>) -> Vec<Term> {
        if ports.contains(&Ports::Any) {
            return vec![Term {
                sets: self.counted("a", &[]),
                key: TermKey::Address,
            }];
        }
        let mut terms = vec![];
        let ranges = merge(ports);
        if port_count(&ranges) <= MAX_PORTS_OF_PEER {
            let spelt_out: Vec<_> = expand(&ranges).collect();
            if !spelt_out.is_empty() {
                terms.push(self.port_term(TermKey::Ports(spelt_out)));
            }
        } else {
            for range in ranges {
                large.insert(range);
                let sets = self.counted(&range_kind(range), &[]);
                terms.push(Term {
                    sets,
                    key: TermKey::Address,
                });
            }
        }
        for ports in ports {
            if let Ports::Named { protocol, name } = ports {
                terms.push(self.port_term(TermKey::Named(*protocol, name.clone())));
            }
        }
        terms
    }

    fn port_term(&mut self, key: TermKey) -> Term {
        Term {
            sets: self.counted("ap", &[KeyType::Proto, KeyType::Port]),
            key,
        }
    }

    /// A counted set for each family, keyed by the peer's address and `more`.
    fn counted(&mut self, kind: &str, more: &[KeyType]) -> [String; 2] {
        let names = ['4', '6'].map(|digit| format!("{}{kind}{digit}", self.prefix));
        for (name, family) in names.iter().zip(FAMILIES) {
            let key = [&[saddr(family).key_type()], more].concat();
            self.layout.counted.insert(name.clone(), key);
        }
        names
    }

    fn add_family(
        &mut self,
        at: usize,
        family: Family,
        addresses: &BTreeMap<Ports, Vec<(u128, u128)>>,
        ranges: &BTreeSet<PortRange>,
    ) {
        let address = self.peer_field(family);
        let digit = ['4', '6'][at];
        self.lookup_counted(family, format!("a{digit}"), &[address], None);
        let fields = [address, Field::L4Proto, Field::Dport];
        self.lookup_counted(family, format!("ap{digit}"), &fields, None);
        if let Some(any_port) = addresses.get(&Ports::Any) {
            self.lookup_addresses(family, format!("c{digit}"), any_port, None);
        }
        for &range in ranges {
            let kind = range_kind(range);
            self.lookup_counted(family, format!("{kind}{digit}"), &[address], Some(range));
            let (protocol, first, last) = range;
            if let Some(some) = addresses.get(&Ports::Range {
                protocol,
                first,
                last,
            }) {
                self.lookup_addresses(family, format!("c{kind}{digit}"), some, Some(range));
            }
        }
    }

    fn lookup_counted(
        &mut self,
        family: Family,
        kind: String,
        fields: &[Field],
        range: Option<PortRange>,
    ) {
        let name = format!("{}{kind}", self.prefix);
        if self.layout.counted.contains_key(&name) {
            self.peer_rule(family, range, Some(lookup(fields, name, false)));
        }
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
            let name = format!("{}{kind}", self.prefix);
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
