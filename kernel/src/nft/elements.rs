//! Elements of sets. A range in a set of one field is two elements on the wire, its first key and
//! the key after its last; in a concatenation it is one element with two keys.

use super::expression::{decode_verdict, encode_verdict};
use super::wire::{
    DATA_VALUE, ELEMENT_DATA, ELEMENT_FLAGS, ELEMENT_KEY, ELEMENT_KEY_END, INTERVAL_END,
    LIST_ELEMENT,
};
use crate::netlink::{Attributes, Encoder};
use policy::ruleset::{Element, SetHeader, SetKind, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// Most bytes of elements in one message: a list is one attribute, whose length is 16 bits.
const MESSAGE: usize = 48 << 10;

/// How ranges are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Exact,
    TwoElements,
    TwoKeys,
}

fn form(header: &SetHeader) -> Form {
    match (header.kind, header.key.len()) {
        (SetKind::Hash, _) => Form::Exact,
        (SetKind::Interval, 1) => Form::TwoElements,
        (SetKind::Interval, _) => Form::TwoKeys,
    }
}

/// One element and its verdict.
pub(super) type Entry = (Element, Option<Verdict>);

/// Splits elements so that each part fits into one message.
pub(super) fn parts(elements: &[Entry]) -> Vec<&[Entry]> {
    let mut parts = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (index, (element, verdict)) in elements.iter().enumerate() {
        let chain = match verdict {
            Some(Verdict::Jump(chain) | Verdict::Goto(chain)) => chain.len(),
            _ => 0,
        };
        let end = element.end.as_ref().map_or(0, |end| end.len());
        let this = 2 * (element.key.len() + end) + chain + 80;
        if size + this > MESSAGE && index > start {
            parts.push(&elements[start..index]);
            (start, size) = (index, 0);
        }
        size += this;
    }
    parts.push(&elements[start..]);
    parts
}

/// Appends one element, which may be two on the wire.
pub(super) fn encode(
    encoder: &mut Encoder,
    header: &SetHeader,
    element: &Element,
    verdict: Option<&Verdict>,
) {
    let end = element.end.as_deref().unwrap_or(&element.key);
    let key_end = (form(header) == Form::TwoKeys).then_some(end);
    encoder.nested(LIST_ELEMENT, |encoder| {
        encoder.nested(ELEMENT_KEY, |encoder| {
            encoder.attribute(DATA_VALUE, &element.key)
        });
        if let Some(end) = key_end {
            encoder.nested(ELEMENT_KEY_END, |encoder| {
                encoder.attribute(DATA_VALUE, end)
            });
        }
        if let Some(verdict) = verdict {
            encoder.nested(ELEMENT_DATA, |encoder| encode_verdict(encoder, verdict));
        }
    });
    if form(header) != Form::TwoElements {
        return;
    }
    // A range up to the last key there is has no end.
    if let Some(after) = next(end) {
        encoder.nested(LIST_ELEMENT, |encoder| {
            encoder.nested(ELEMENT_KEY, |encoder| encoder.attribute(DATA_VALUE, &after));
            encoder.be_u32(ELEMENT_FLAGS, INTERVAL_END);
        });
    }
}

/// Collects the elements of one set from their messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Collector {
    starts: BTreeMap<Element, Option<Verdict>>,
    ends: BTreeSet<Box<[u8]>>,
    malformed: bool,
}

impl Collector {
    /// Takes one list element.
    pub(super) fn push(&mut self, element: Attributes<'_>) {
        let key = |kind| element.inside(kind).find(DATA_VALUE).map(Box::<[u8]>::from);
        let Some(start) = key(ELEMENT_KEY) else {
            return self.malformed = true;
        };
        if element.be_u32(ELEMENT_FLAGS).unwrap_or(0) & INTERVAL_END != 0 {
            self.ends.insert(start);
            return;
        }
        let verdict = match element.find(ELEMENT_DATA) {
            None => None,
            Some(data) => match decode_verdict(Attributes(data)) {
                None => return self.malformed = true,
                verdict => verdict,
            },
        };
        self.starts.insert(
            Element {
                key: start,
                end: key(ELEMENT_KEY_END),
            },
            verdict,
        );
    }

    /// Number of elements on the wire.
    pub(super) fn len(&self) -> usize {
        self.starts.len() + self.ends.len()
    }

    /// The elements of a set with this header; `None` if some are not of our making.
    pub(super) fn finish(self, header: &SetHeader) -> Option<BTreeMap<Element, Option<Verdict>>> {
        let consistent = self
            .starts
            .values()
            .all(|v| v.is_some() == header.verdict_map);
        if self.malformed || !consistent {
            return None;
        }
        if form(header) != Form::TwoElements {
            return Some(self.starts);
        }
        let ends = &self.ends;
        let range = |(element, verdict): (Element, _)| {
            let after = ends.range::<[u8], _>((
                std::ops::Bound::Excluded(&element.key[..]),
                std::ops::Bound::Unbounded,
            ));
            let end = match after.into_iter().next() {
                Some(after) => previous(after),
                None => vec![0xff; element.key.len()].into(),
            };
            (
                Element {
                    key: element.key,
                    end: Some(end),
                },
                verdict,
            )
        };
        Some(self.starts.into_iter().map(range).collect())
    }
}

/// The key after this one, in network byte order; `None` after the last.
fn next(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    for byte in next.iter_mut().rev() {
        let (value, carry) = byte.overflowing_add(1);
        *byte = value;
        if !carry {
            return Some(next);
        }
    }
    None
}

/// The key before this one, which is not the first.
fn previous(key: &[u8]) -> Box<[u8]> {
    let mut previous = key.to_vec();
    for byte in previous.iter_mut().rev() {
        let (value, borrow) = byte.overflowing_sub(1);
        *byte = value;
        if !borrow {
            break;
        }
    }
    previous.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_after_a_key_carries_over_and_ends_at_the_last() {
        assert_eq!(next(&[10, 0, 0, 255]), Some(vec![10, 0, 1, 0]));
        assert_eq!(next(&[255; 16]), None);
        assert_eq!(previous(&[10, 0, 1, 0]), Box::from([10, 0, 0, 255]));
    }

    #[test]
    fn parts_are_small_enough_for_one_attribute_and_lose_nothing() {
        let chain = "c".repeat(200);
        let entry = |n: u32| {
            let key = n.to_be_bytes().to_vec().into();
            (
                Element { key, end: None },
                Some(Verdict::Jump(chain.clone())),
            )
        };
        let elements: Vec<_> = (0..5000).map(entry).collect();
        let parts = parts(&elements);
        assert!(parts.len() > 1);
        assert_eq!(parts.concat(), elements);
    }
}
