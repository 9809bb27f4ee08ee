//! Policy sets that local pods use.

use super::layout::Layout;
use crate::ir::PolicySet;
use std::collections::{BTreeMap, BTreeSet};

/// Policy sets in use, by chain.
#[derive(Debug, Default)]
pub(super) struct PolicySets {
    by_chain: BTreeMap<String, (Layout, usize)>,
}

impl PolicySets {
    /// One more interface and direction uses the policy set; true where it is the first.
    pub(super) fn add_user(&mut self, chain: &str, set: &PolicySet) -> bool {
        if let Some((_, users)) = self.by_chain.get_mut(chain) {
            *users += 1;
            return false;
        }
        self.by_chain
            .insert(chain.to_owned(), (Layout::new(set), 1));
        true
    }

    pub(super) fn remove_user(&mut self, chain: &str) {
        if let Some((_, users)) = self.by_chain.get_mut(chain) {
            *users -= 1;
        }
    }

    /// Takes those that nobody uses.
    pub(super) fn remove_unused(&mut self) -> Vec<Layout> {
        let unused = self.by_chain.extract_if(.., |_, (_, users)| *users == 0);
        unused.map(|(_, (layout, _))| layout).collect()
    }

    pub(super) fn get(&self, chain: &str) -> Option<&Layout> {
        self.by_chain.get(chain).map(|(layout, _)| layout)
    }

    /// Policy sets whose chains have to be rendered: new ones and those with a renamed set.
    pub(super) fn to_render<'a>(
        &'a self,
        new: &'a BTreeSet<String>,
        renamed: &'a BTreeSet<String>,
        all: bool,
    ) -> impl Iterator<Item = &'a Layout> {
        let layouts = self.by_chain.values().map(|(layout, _)| layout);
        layouts.filter(move |layout| {
            all || new.contains(&layout.chain)
                || renamed
                    .iter()
                    .any(|base| layout.pod_sets.contains_key(base))
        })
    }
}
