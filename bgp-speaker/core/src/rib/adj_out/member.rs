//! One peer of an update group: what it has still to be told.

use super::Told;
use crate::rib::slots::SlotSet;
use crate::rib::table::SlotId;
use crate::wire::Family;
use std::collections::VecDeque;
use std::sync::Arc;

/// Octets of messages that may wait for a member before it counts as behind.
pub(super) const QUEUE_LIMIT: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Member {
    messages: VecDeque<Arc<[u8]>>,
    octets: usize,
    /// Prefixes that it is to be told the state of.
    behind: SlotSet,
    /// Those of them that it holds an earlier state of.
    holds: SlotSet,
    /// To be sent as soon as the member is not behind.
    end_of_rib: Vec<Family>,
}

impl Member {
    /// One that holds nothing yet of what it is to be told.
    pub(super) fn new(behind: SlotSet) -> Self {
        Self {
            behind,
            ..Self::default()
        }
    }

    /// Whether it is to be told states rather than messages.
    pub(super) fn is_behind(&self) -> bool {
        !self.behind.is_empty() || self.octets > QUEUE_LIMIT
    }

    pub(super) fn has_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.messages.is_empty() && self.behind.is_empty() && self.end_of_rib.is_empty()
    }

    /// A prefix has changed, from something or nothing to something or nothing that the member is
    /// told. What it never heard of and is gone is forgotten, so that what a member is behind with
    /// is bounded by what there is and what it holds.
    pub(super) fn lag(&mut self, slot: SlotId, change: Told) {
        if self.behind.insert(slot) && change.before {
            self.holds.insert(slot);
        }
        if !change.after && !self.holds.contains(slot) {
            self.behind.remove(slot);
        }
    }

    /// The next prefix that it is behind with, and whether it holds anything of it.
    pub(super) fn next_behind(&mut self) -> Option<(SlotId, bool)> {
        let slot = self.behind.pop_first()?;
        Some((slot, self.holds.remove(slot)))
    }

    pub(super) fn needs(&self, slot: SlotId) -> bool {
        self.behind.contains(slot)
    }

    pub(super) fn push(&mut self, messages: &[Arc<[u8]>]) {
        for message in messages {
            self.octets += message.len();
            self.messages.push_back(Arc::clone(message));
        }
    }

    pub(super) fn pop(&mut self) -> Option<Arc<[u8]>> {
        let message = self.messages.pop_front()?;
        self.octets -= message.len();
        if self.messages.is_empty() {
            self.messages.shrink_to(16);
        }
        Some(message)
    }

    pub(super) fn has_messages(&self) -> bool {
        !self.messages.is_empty()
    }

    pub(super) fn mark_end_of_rib(&mut self, families: &[Family]) {
        self.end_of_rib.extend(families);
    }

    /// The markers that may be sent.
    pub(super) fn take_end_of_rib(&mut self) -> Vec<Family> {
        if self.behind.is_empty() {
            std::mem::take(&mut self.end_of_rib)
        } else {
            Vec::new()
        }
    }

    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        self.octets
    }
}
