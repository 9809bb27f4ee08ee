//! Who shares a chain. Endpoints that the same policy set decides for are a group and share its
//! chains. A chain is named after one of its group's endpoints (the smallest class of like
//! endpoints), not after its content: policies come and go, and the chain and its large sets stay.

use super::Options;
use super::layout::Layout;
use crate::hash::content_name;
use crate::ir::{Direction, Place, PolicySet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What has a chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    /// The pod at the other end of this interface, forwarded packets.
    Pod(u32, Direction),
    /// The pod at the other end of this interface, packets to this node.
    OwnNode(u32),
    /// A host endpoint.
    Host(String, Direction, Place),
}

/// Content of a policy set, or all of an endpoint that policies can see, as a name.
pub(super) type ContentName = String;

/// A policy set for a slot.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) set: Arc<PolicySet>,
    pub(super) content: ContentName,
    /// Endpoints of the same class have the same policy sets.
    pub(super) class: ContentName,
}

#[derive(Debug, Default)]
pub(super) struct Groups {
    slots: BTreeMap<Slot, (ContentName, ContentName)>,
    groups: BTreeMap<ContentName, Group>,
    chains: BTreeMap<String, Layout>,
    touched: BTreeSet<ContentName>,
    /// Slots that may have another chain than before.
    moved: BTreeSet<Slot>,
}

#[derive(Debug)]
struct Group {
    set: Arc<PolicySet>,
    classes: BTreeMap<ContentName, BTreeSet<Slot>>,
    /// Name of its chain; empty before the first settlement.
    chain: String,
}

/// A chain that is another than before.
pub(super) struct Renewed {
    pub(super) name: String,
    pub(super) old: Option<Layout>,
}

impl Groups {
    /// A slot needs this policy set, or none.
    pub(super) fn assign(&mut self, slot: &Slot, wanted: Option<Wanted>) {
        let wants = wanted
            .as_ref()
            .map(|wanted| (&wanted.content, &wanted.class));
        let has = self.slots.get(slot);
        if has.map(|(content, class)| (content, class)) == wants {
            return;
        }
        self.moved.insert(slot.clone());
        if let Some((content, class)) = self.slots.remove(slot)
            && let Some(group) = self.groups.get_mut(&content)
        {
            if let Some(slots) = group.classes.get_mut(&class) {
                slots.remove(slot);
                if slots.is_empty() {
                    group.classes.remove(&class);
                }
            }
            self.touched.insert(content);
        }
        let Some(Wanted {
            set,
            content,
            class,
        }) = wanted
        else {
            return;
        };
        let group = self.groups.entry(content.clone()).or_insert_with(|| Group {
            set,
            classes: BTreeMap::new(),
            chain: String::new(),
        });
        group
            .classes
            .entry(class.clone())
            .or_default()
            .insert(slot.clone());
        self.touched.insert(content.clone());
        self.slots.insert(slot.clone(), (content, class));
    }

    /// Gives every group its chain. Returns the chains that are others than before, with what they
    /// were, and the chains that are gone.
    pub(super) fn settle(&mut self, options: &Options) -> (Vec<Renewed>, Vec<Layout>) {
        let mut released = BTreeSet::new();
        let mut claimed = BTreeMap::new();
        for content in std::mem::take(&mut self.touched) {
            let Some(group) = self.groups.get_mut(&content) else {
                continue;
            };
            let name = group.name();
            if name.as_deref() != Some(&group.chain) {
                if !group.chain.is_empty() {
                    released.insert(std::mem::take(&mut group.chain));
                }
                if let Some(name) = &name {
                    group.chain.clone_from(name);
                    claimed.insert(name.clone(), Arc::clone(&group.set));
                    self.moved.extend(group.classes.values().flatten().cloned());
                }
            }
            if name.is_none() {
                self.groups.remove(&content);
            }
        }
        let mut renewed = vec![];
        for (name, set) in claimed {
            let layout = Layout::new(&name, &set, options);
            let old = self.chains.insert(name.clone(), layout);
            released.remove(&name);
            renewed.push(Renewed { name, old });
        }
        let gone = released.iter().filter_map(|name| self.chains.remove(name));
        (renewed, gone.collect())
    }

    /// Lays all chains out anew.
    pub(super) fn lay_out_again(&mut self, options: &Options) -> Vec<Renewed> {
        let groups = self.groups.values();
        groups
            .map(|group| {
                let name = group.chain.clone();
                let layout = Layout::new(&name, &group.set, options);
                let old = self.chains.insert(name.clone(), layout);
                Renewed { name, old }
            })
            .collect()
    }

    /// Takes the slots that may have another chain than before.
    pub(super) fn take_moved(&mut self) -> BTreeSet<Slot> {
        std::mem::take(&mut self.moved)
    }

    /// The chain of a slot.
    pub(super) fn chain(&self, slot: &Slot) -> Option<&String> {
        let (content, _) = self.slots.get(slot)?;
        self.groups.get(content).map(|group| &group.chain)
    }

    pub(super) fn layout(&self, chain: &str) -> Option<&Layout> {
        self.chains.get(chain)
    }

    pub(super) fn layouts(&self) -> impl Iterator<Item = (&String, &Layout)> {
        self.chains.iter()
    }

    /// The slots that have a chain.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.keys()
    }
}

impl Group {
    fn name(&self) -> Option<String> {
        let class = self.classes.keys().next()?;
        let letter = match (self.set.place, self.set.direction) {
            (Place::Pod, Direction::Ingress) => 'i',
            (Place::Pod, Direction::Egress) => 'e',
            (Place::OwnNode, _) => 'o',
            (Place::Host | Place::HostForward | Place::PreDnat | Place::Untracked, _) => 'h',
        };
        let name = content_name(&(self.set.place, self.set.direction, class));
        Some(format!("{letter}{name}"))
    }
}
