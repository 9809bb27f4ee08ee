//! Which interface belongs to whom, and which chains its packets go to.

use super::base;
use super::groups::Slot;
use super::sets::Sets;
use crate::endpoint::{Endpoint, EndpointId};
use crate::ir::Direction;
use crate::ruleset::{Element, Part, Verdict};
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

    /// Puts the chain of a pod into its verdict map.
    pub(super) fn assign(slot: &Slot, chain: Option<&String>, sets: &mut Sets) {
        let (map, interface) = match slot {
            Slot::Pod(interface, Direction::Ingress) => (base::INGRESS, *interface),
            Slot::Pod(interface, Direction::Egress) => (base::EGRESS, *interface),
            Slot::OwnNode(interface) => (base::OWN_NODE, *interface),
            Slot::Host(..) => return,
        };
        let element = Element::exact(&[Part::Ifindex(interface)]);
        sets.assign(
            map,
            element,
            chain.map(|chain| Verdict::Jump(chain.clone())),
        );
    }
}
