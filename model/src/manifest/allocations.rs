//! Who holds which address of an `IPAMBlock`.

use crate::object::{Allocation, BlockAllocations, IpamBlock};
use serde_json::Value;
use std::collections::BTreeSet;

/// What the document of the block says is held; none where its lists contradict each other or the
/// size of the block. An address that is held and listed as free too is held.
pub fn block_allocations(block: &IpamBlock, document: &Value) -> Option<BlockAllocations> {
    let spec = document.get("spec")?;
    let holders = list(spec, "attributes")?.iter().map(allocation);
    let holders: Vec<Allocation> = holders.collect();
    let places = list(spec, "allocations")?;
    if places.len() > block.size() as usize {
        return None;
    }
    let mut allocations = BlockAllocations {
        sequence: spec["sequenceNumber"].as_u64().unwrap_or(0),
        ..BlockAllocations::default()
    };
    for (ordinal, place) in (0_u32..).zip(places).filter(|(_, place)| !place.is_null()) {
        let holder = usize::try_from(place.as_u64()?).ok()?;
        allocations
            .held
            .insert(ordinal, holders.get(holder)?.clone());
        let at = spec["sequenceNumberForAllocation"][ordinal.to_string()].as_u64();
        allocations.taken_at.extend(at.map(|at| (ordinal, at)));
    }
    let mut seen = BTreeSet::new();
    for ordinal in list(spec, "unallocated")? {
        let ordinal = u32::try_from(ordinal.as_u64()?).ok()?;
        let free = ordinal < block.size() && !allocations.held.contains_key(&ordinal);
        if free && seen.insert(ordinal) {
            allocations.free.push(ordinal);
        }
    }
    // What neither list names is free.
    let forgotten =
        (0..block.size()).filter(|n| !seen.contains(n) && !allocations.held.contains_key(n));
    allocations.free.extend(forgotten);
    Some(allocations)
}

/// The elements; none of them where the field is absent.
fn list<'a>(spec: &'a Value, name: &str) -> Option<&'a [Value]> {
    match spec.get(name) {
        None | Some(Value::Null) => Some(&[]),
        Some(Value::Array(items)) => Some(items),
        Some(_) => None,
    }
}

fn allocation(attribute: &Value) -> Allocation {
    let secondary = attribute["secondary"].as_object().into_iter().flatten();
    let text = secondary.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    Allocation {
        handle: attribute["handle_id"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        attributes: text.collect(),
    }
}
