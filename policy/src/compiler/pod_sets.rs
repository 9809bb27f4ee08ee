//! Sets of peers: which selectors put which elements into them.
//!
//! A set of one selector is named by its content: whoever needs it shares it. A set of several
//! belongs to one chain and is named by its place there, so that a policy more or less is some
//! elements more or less. Beside a set of what may have prefixes (network sets) stands a twin that
//! holds these.

use super::parts::saddr;
use super::sets::Sets;
use crate::hash::content_name;
use crate::intervals::{self, Ranges, family_of};
use crate::ir::{self, Member, PeerSelector};
use crate::ruleset::{Element, Family, KeyType, Part};
use ipnet::IpNet;
use model::Protocol;
use std::collections::{BTreeMap, BTreeSet};

/// What each selector puts into a set.
pub(super) type Terms = BTreeMap<PeerSelector, BTreeSet<Term>>;

/// The addresses of the members of some selectors, or their addresses and ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PodSet {
    pub(super) family: Family,
    pub(super) form: Form,
    pub(super) terms: Terms,
}

/// What the key of the set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Form {
    Address,
    AddressAndPort,
}

/// What is put in for every address of a member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Term {
    /// The address.
    Address,
    /// The address with this port.
    Port(Protocol, u16),
    /// The address with the member's own ports of this name.
    NamedPort(Protocol, String),
    /// The address with each of the member's own ports.
    OwnPorts,
}

/// Name of the twin of a set, which holds prefixes.
pub(super) fn twin(base: &str) -> String {
    format!("{base}w")
}

impl PodSet {
    /// Base name: from the content where whoever needs the set may share it, from `place`
    /// otherwise.
    pub(super) fn base(&self, place: &str) -> String {
        match self.terms.len() {
            0 | 1 => format!("s{}", content_name(self)),
            _ => format!("m{}", content_name(&(place, self.family, self.form))),
        }
    }

    pub(super) fn key(&self) -> Vec<KeyType> {
        let address = saddr(self.family).key_type();
        match self.form {
            Form::Address => vec![address],
            Form::AddressAndPort => vec![address, KeyType::Proto, KeyType::Port],
        }
    }

    /// True where members may be prefixes.
    pub(super) fn has_twin(&self) -> bool {
        self.terms.keys().any(PeerSelector::has_prefixes)
    }

    /// Adds to the references of what `peer` puts in for `member`, or subtracts from them.
    pub(super) fn count(
        &self,
        base: &str,
        peer: &PeerSelector,
        member: Member<'_>,
        delta: i64,
        sets: &mut Sets,
    ) {
        let terms = self.terms.get(peer).into_iter().flatten();
        terms.for_each(|term| self.count_term(base, term, member, delta, sets));
    }

    /// Adds to the references of what one term puts in, or subtracts from them.
    pub(super) fn count_term(
        &self,
        base: &str,
        term: &Term,
        member: Member<'_>,
        delta: i64,
        sets: &mut Sets,
    ) {
        for ip in member.ips().filter(|ip| family_of(*ip) == self.family) {
            let address = Part::Address(ip);
            let mut count = |parts: &[Part]| sets.count(base, Element::exact(parts), delta);
            let port = |protocol: Protocol, port: u16| {
                [address, Part::Proto(protocol.number()), Part::Port(port)]
            };
            match term {
                Term::Address => count(&[address]),
                Term::Port(protocol, number) => count(&port(*protocol, *number)),
                Term::NamedPort(protocol, name) => {
                    for number in ir::numbers(member.ports(), *protocol, name) {
                        count(&port(*protocol, number));
                    }
                }
                Term::OwnPorts => {
                    for own in member.ports() {
                        count(&port(own.protocol, own.port));
                    }
                }
            }
        }
    }

    /// The elements of the twin, given the prefixes that each selector's members have.
    pub(super) fn prefixes<'a>(
        &self,
        of: impl Fn(&PeerSelector) -> Vec<&'a IpNet>,
    ) -> BTreeSet<Element> {
        let mut by_port: BTreeMap<_, Vec<(u128, u128)>> = BTreeMap::new();
        for (peer, terms) in self.terms.iter().filter(|(peer, _)| peer.has_prefixes()) {
            let of_family = of(peer).into_iter();
            let of_family = of_family.filter(|net| family_of(net.addr()) == self.family);
            let ranges: Vec<_> = of_family.map(intervals::prefix_range).collect();
            for term in terms {
                let port = match term {
                    Term::Address => None,
                    Term::Port(protocol, port) => Some((*protocol, *port)),
                    Term::NamedPort(..) | Term::OwnPorts => continue,
                };
                by_port.entry(port).or_default().extend(&ranges);
            }
        }
        let address = |number| Part::Address(intervals::address(self.family, number));
        let mut elements = BTreeSet::new();
        for (port, ranges) in by_port {
            for (first, last) in Ranges::union(ranges).iter() {
                let mut parts = vec![(address(first), address(last))];
                if let Some((protocol, port)) = port {
                    let (protocol, port) = (Part::Proto(protocol.number()), Part::Port(port));
                    parts.extend([(protocol, protocol), (port, port)]);
                }
                elements.insert(Element::ranges(&parts));
            }
        }
        elements
    }
}

/// Sets of peers in use, by base name.
#[derive(Debug, Default)]
pub(super) struct PodSets {
    by_base: BTreeMap<String, (PodSet, usize)>,
}

impl PodSets {
    pub(super) fn get(&self, base: &str) -> Option<&PodSet> {
        self.by_base.get(base).map(|(set, _)| set)
    }

    /// One more chain uses the set, or the same with other selectors. Returns the set as it was
    /// before.
    pub(super) fn put(&mut self, base: &str, set: &PodSet) -> Option<PodSet> {
        if let Some((old, _)) = self.by_base.get_mut(base) {
            return Some(std::mem::replace(old, set.clone()));
        }
        self.by_base.insert(base.to_owned(), (set.clone(), 0));
        None
    }

    pub(super) fn add_user(&mut self, base: &str) {
        if let Some((_, users)) = self.by_base.get_mut(base) {
            *users += 1;
        }
    }

    /// One chain less uses the set; returns it where that was the last.
    pub(super) fn remove_user(&mut self, base: &str) -> Option<PodSet> {
        let (_, users) = self.by_base.get_mut(base)?;
        *users -= 1;
        if *users > 0 {
            return None;
        }
        self.by_base.remove(base).map(|(set, _)| set)
    }
}
