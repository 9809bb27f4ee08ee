//! Sets of pods: which selectors put which elements into them.
//!
//! The name of such a set derives from its selectors and ports, so that policy sets which need
//! the same one share it, and a change of policies leaves it alone that does not concern it.

use super::base::saddr;
use super::sets::Sets;
use crate::endpoint::Endpoint;
use crate::hash::content_name;
use crate::intervals::family_of;
use crate::ir::{self, PodPeer};
use crate::ruleset::{Element, Family, KeyType, Part};
use model::Protocol;
use std::collections::{BTreeMap, BTreeSet};

/// What each selector puts into a set.
pub(super) type Terms = BTreeMap<PodPeer, BTreeSet<Term>>;

/// The addresses of the pods of some selectors, or their addresses and ports.
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

/// What is put in for every address of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Term {
    /// The address.
    Address,
    /// The address with this port.
    Port(Protocol, u16),
    /// The address with the pod's own ports of this name.
    NamedPort(Protocol, String),
}

impl PodSet {
    /// Base name, from the content.
    pub(super) fn base(&self) -> String {
        format!("s{}", content_name(self))
    }

    pub(super) fn key(&self) -> Vec<KeyType> {
        let address = saddr(self.family).key_type();
        match self.form {
            Form::Address => vec![address],
            Form::AddressAndPort => vec![address, KeyType::Proto, KeyType::Port],
        }
    }

    /// Adds to the references of what `peer` puts in for `endpoint`, or subtracts from them.
    pub(super) fn count(
        &self,
        base: &str,
        peer: &PodPeer,
        endpoint: &Endpoint,
        delta: i64,
        sets: &mut Sets,
    ) {
        for ip in &endpoint.ips {
            if family_of(*ip) != self.family {
                continue;
            }
            let address = Part::Address(*ip);
            let mut count = |parts: &[Part]| sets.count(base, Element::exact(parts), delta);
            for term in self.terms.get(peer).into_iter().flatten() {
                match term {
                    Term::Address => count(&[address]),
                    Term::Port(protocol, port) => {
                        count(&[address, Part::Proto(protocol.number()), Part::Port(*port)]);
                    }
                    Term::NamedPort(protocol, name) => {
                        for port in ir::numbers(endpoint, *protocol, name) {
                            count(&[address, Part::Proto(protocol.number()), Part::Port(port)]);
                        }
                    }
                }
            }
        }
    }
}

/// Sets of pods in use, by base name.
#[derive(Debug, Default)]
pub(super) struct PodSets {
    by_base: BTreeMap<String, (PodSet, usize)>,
}

impl PodSets {
    pub(super) fn get(&self, base: &str) -> Option<&PodSet> {
        self.by_base.get(base).map(|(set, _)| set)
    }

    /// One more policy set uses the set; true where it is the first.
    pub(super) fn add_user(&mut self, base: &str, set: &PodSet) -> bool {
        if let Some((_, users)) = self.by_base.get_mut(base) {
            *users += 1;
            return false;
        }
        self.by_base.insert(base.to_owned(), (set.clone(), 1));
        true
    }

    /// One policy set less uses the set; returns it where that was the last.
    pub(super) fn remove_user(&mut self, base: &str) -> Option<PodSet> {
        let (_, users) = self.by_base.get_mut(base)?;
        *users -= 1;
        if *users > 0 {
            return None;
        }
        self.by_base.remove(base).map(|(set, _)| set)
    }
}
