//! Transactions in which a packet could be lost sight of, made in several.
//!
//! The kernel switches a packet over to a new generation lookup by lookup: it takes the rules of
//! the generation in which it entered the base chain, and the elements of the one in which it looks
//! them up (`nft_do_chain()` and `nft_genmask_cur()`). So a packet that is under way during a
//! commit may be sent by a new element to a new chain, which has no rules yet in its generation, or
//! find nothing in a map that its rules still name. Both let it through.

use super::{Element, Op};
use std::collections::{BTreeMap, BTreeSet};

/// The transactions, in this order, that these operations have to be committed in: first what
/// nothing leads to yet, then the change itself, and last what nothing leads to any more. None
/// where one will do, since no verdict is replaced and no verdict map removed.
pub fn stages(ops: &[Op]) -> Option<Vec<Vec<Op>>> {
    if !loses_packets(ops) {
        return None;
    }
    let named = |pick: fn(&Op) -> Option<&String>| -> BTreeSet<&String> {
        ops.iter().filter_map(pick).collect()
    };
    let new_sets = named(|op| match op {
        Op::AddSet(name, _) => Some(name),
        _ => None,
    });
    let new_chains = named(|op| match op {
        Op::AddChain(name, None) => Some(name),
        _ => None,
    });
    let gone_sets = named(|op| match op {
        Op::DeleteSet(name) => Some(name),
        _ => None,
    });
    let gone_chains = named(|op| match op {
        Op::DeleteChain(name) => Some(name),
        _ => None,
    });
    let mut stages = [vec![], vec![], vec![]];
    for op in ops {
        let stage = match op {
            Op::AddCounter(_) | Op::AddSet(..) | Op::AddChain(_, None) => 0,
            Op::AddElements(set, _) if new_sets.contains(set) => 0,
            Op::AddRules(chain, _) if new_chains.contains(chain) => 0,
            Op::AddChain(_, Some(_)) | Op::AddElements(..) | Op::AddRules(..) => 1,
            Op::DeleteElements(set, _) if !gone_sets.contains(set) => 1,
            Op::FlushChain(chain) if !gone_chains.contains(chain) => 1,
            Op::DeleteElements(..)
            | Op::FlushChain(_)
            | Op::DeleteChain(_)
            | Op::DeleteSet(_)
            | Op::DeleteCounter(_) => 2,
        };
        if let Some(stage) = stages.get_mut(stage) {
            stage.push(op.clone());
        }
    }
    Some(stages.into_iter().filter(|ops| !ops.is_empty()).collect())
}

/// An element of a verdict map gets another verdict, or a verdict map goes.
fn loses_packets(ops: &[Op]) -> bool {
    let mut removed: BTreeMap<&String, BTreeSet<&Element>> = BTreeMap::new();
    for op in ops {
        match op {
            // Verdicts are named when they go, too; other elements have none.
            Op::DeleteElements(map, elements) if matches!(elements.first(), Some((_, Some(_)))) => {
                let keys = elements.iter().map(|(key, _)| key);
                removed.entry(map).or_default().extend(keys);
            }
            Op::AddElements(map, elements) => {
                let Some(removed) = removed.get(map) else {
                    continue;
                };
                if elements.iter().any(|(key, _)| removed.contains(key)) {
                    return true;
                }
            }
            Op::DeleteSet(map) if removed.contains_key(map) => return true,
            _ => {}
        }
    }
    false
}
