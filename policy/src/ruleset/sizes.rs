//! Rulesets that differ in the declared sizes of sets only.

use super::{Ruleset, Statement};

impl Ruleset {
    /// True where both do the same and hold the same, with sets of other sizes at most: a set that
    /// has lost elements stays larger for a while than one made for those that it has.
    pub fn is_same_but_for_sizes(&self, other: &Self) -> bool {
        self.without_sizes() == other.without_sizes()
    }

    fn without_sizes(&self) -> Self {
        let mut plain = self.clone();
        plain.sets = self
            .sets
            .iter()
            .map(|(name, set)| {
                let mut set = set.clone();
                set.header.size = None;
                (self.without_size(name), set)
            })
            .collect();
        let chains = plain.chains.values_mut();
        let rules = chains.flat_map(|chain| &mut chain.rules);
        for statement in rules.flat_map(|rule| &mut rule.statements) {
            if let Statement::Lookup { set, .. } | Statement::VerdictMap { map: set, .. } =
                statement
            {
                *set = self.without_size(set);
            }
        }
        plain
    }

    /// The names of sets end with the logarithm of their size, where they have one.
    fn without_size(&self, name: &str) -> String {
        let sized = self
            .sets
            .get(name)
            .is_some_and(|set| set.header.size.is_some());
        match name.rsplit_once('_') {
            Some((base, digits)) if sized && digits.bytes().all(|b| b.is_ascii_digit()) => {
                base.to_owned()
            }
            _ => name.to_owned(),
        }
    }
}
