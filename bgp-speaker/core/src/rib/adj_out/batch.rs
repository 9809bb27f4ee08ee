//! Changes on their way to messages: which prefixes go out with which attributes.

use super::{Offer, OfferId};
use crate::rib::Rib;
use crate::rib::pool::Pool;
use crate::rib::table::SlotId;
use crate::wire::{Family, Nlri, SessionParams, UpdateEncoder};
use std::sync::Arc;

/// Octets of messages that are handed out in one piece.
const RUN: usize = 64 * 1024;

/// Something to tell members, before encoding.
#[derive(Debug, Default)]
pub(super) struct Batch {
    withdrawn: Vec<SlotId>,
    announced: Vec<(OfferId, SlotId)>,
}

impl Batch {
    pub(super) fn withdraw(&mut self, slot: SlotId) {
        self.withdrawn.push(slot);
    }

    pub(super) fn announce(&mut self, offer: OfferId, slot: SlotId) {
        self.announced.push((offer, slot));
    }

    /// Runs of whole messages, prefixes with equal attributes together.
    pub(super) fn encode(
        mut self,
        rib: &Rib,
        offers: &Pool<Offer>,
        params: &SessionParams,
    ) -> Vec<Arc<[u8]>> {
        let mut runs = Runs::default();
        let encoder = UpdateEncoder::new(params);
        for family in [Family::IPV4, Family::IPV6] {
            for part in self.withdrawn.chunks(RUN / 8) {
                let nlri = nlri(rib, family, part.iter().copied());
                let written = encoder.withdraw(family, nlri, &mut runs.current);
                written.expect("invariant: withdrawals of a known family can be encoded");
                runs.cut();
            }
        }
        self.announced.sort_unstable();
        for same in self.announced.chunk_by(|a, b| a.0 == b.0) {
            let Some(offer) = same.first().and_then(|(id, _)| offers.get(*id)) else {
                continue;
            };
            for part in same.chunks(RUN / 8) {
                let slots = part.iter().map(|(_, slot)| *slot);
                let nlri = nlri(rib, offer.family, slots);
                let written = encoder.announce_encoded(
                    offer.family,
                    &offer.attributes,
                    nlri,
                    &mut runs.current,
                );
                written.expect("invariant: there was room when the offer was made");
                runs.cut();
            }
        }
        runs.finish()
    }
}

fn nlri(
    rib: &Rib,
    family: Family,
    slots: impl Iterator<Item = SlotId>,
) -> impl Iterator<Item = Nlri> {
    let prefixes = slots.map(move |slot| *rib.prefix(slot));
    prefixes
        .filter(move |prefix| Family::of(prefix) == family)
        .map(|prefix| Nlri { prefix, path_id: 0 })
}

/// Messages in pieces of about [`RUN`] octets.
#[derive(Debug, Default)]
struct Runs {
    current: Vec<u8>,
    done: Vec<Arc<[u8]>>,
}

impl Runs {
    fn cut(&mut self) {
        if self.current.len() >= RUN {
            self.done.push(self.current.as_slice().into());
            self.current.clear();
        }
    }

    fn finish(mut self) -> Vec<Arc<[u8]>> {
        if !self.current.is_empty() {
            self.done.push(self.current.into());
        }
        self.done
    }
}
