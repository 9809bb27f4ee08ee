//! Which interface belongs to whom, and which chains its packets go to.
//!
//! The verdict maps lead from an interface to a chain of its own, whose one rule leads to the chain
//! of the group: an interface that comes to another group has that rule changed, and no verdict. A
//! packet under way would find neither the old verdict nor the new (`ruleset/stages.rs`).

use super::base;
use super::groups::Slot;
use super::parts::rule;
use super::sets::Sets;
use crate::endpoint::{Endpoint, EndpointId};
use crate::ir::Direction;
use crate::ruleset::{Chain, Element, Part, Statement, Verdict};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Dispatch {
    /// More than one owner only while the input contradicts itself.
    owners: BTreeMap<u32, BTreeSet<EndpointId>>,
}

impl Dispatch {
    /// An endpoint is another than before. Returns the interfaces that this concerns.
    pub(super) fn set_owner(
        &mut self,
        id: &EndpointId,
        old: Option<&Endpoint>,
        new: Option<&Endpoint>,
    ) -> BTreeSet<u32> {
        let interface = |endpoint: Option<&Endpoint>| endpoint.and_then(|e| e.local);
        if let Some(index) = interface(old)
            && let Some(owners) = self.owners.get_mut(&index)
        {
            owners.remove(id);
            if owners.is_empty() {
                self.owners.remove(&index);
            }
        }
        if let Some(index) = interface(new) {
            self.owners.entry(index).or_default().insert(id.clone());
        }
        interface(old).into_iter().chain(interface(new)).collect()
    }

    pub(super) fn owners(&self, interface: u32) -> impl Iterator<Item = &EndpointId> {
        self.owners.get(&interface).into_iter().flatten()
    }

    pub(super) fn interfaces(&self) -> impl Iterator<Item = u32> {
        self.owners.keys().copied()
    }

    /// Puts a pod into its verdict map. Answers the chain of its own, which leads to `group`, and
    /// what is in it.
    pub(super) fn assign(
        slot: &Slot,
        group: Option<&String>,
        sets: &mut Sets,
    ) -> Option<(String, Option<Chain>)> {
        let (map, interface) = match slot {
            Slot::Pod(interface, Direction::Ingress) => (base::INGRESS, *interface),
            Slot::Pod(interface, Direction::Egress) => (base::EGRESS, *interface),
            Slot::OwnNode(interface) => (base::OWN_NODE, *interface),
            Slot::Host(..) => return None,
        };
        let own = format!("{map}_if{interface}");
        let element = Element::exact(&[Part::Ifindex(interface)]);
        sets.assign(map, element, group.map(|_| Verdict::Jump(own.clone())));
        let chain = group.map(|group| Chain {
            hook: None,
            rules: vec![rule([Statement::Verdict(Verdict::Goto(group.clone()))])],
        });
        Some((own, chain))
    }
}
