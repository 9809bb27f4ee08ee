//! Nothing is freed on one look.

use std::collections::BTreeMap;

/// What looks wrong, and since when without a break. Times are those of a clock that never jumps.
#[derive(Debug, Clone)]
pub struct Suspicions<K> {
    since: BTreeMap<K, u64>,
}

impl<K> Default for Suspicions<K> {
    fn default() -> Self {
        Self {
            since: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Suspicions<K> {
    /// One look. Answers what an earlier look saw too, at least `apart` ago, and every look since.
    pub fn observe(&mut self, seen: impl IntoIterator<Item = K>, now: u64, apart: u64) -> Vec<K> {
        let before = std::mem::take(&mut self.since);
        let keep = |key: K| {
            let since = before.get(&key).copied().unwrap_or(now);
            (key, since)
        };
        self.since = seen.into_iter().map(keep).collect();
        let old = |(key, since): (&K, &u64)| {
            let confirmed = before.contains_key(key) && now.saturating_sub(*since) >= apart;
            confirmed.then(|| key.clone())
        };
        self.since.iter().filter_map(old).collect()
    }

    /// When it was first seen, if the last look saw it.
    pub fn since(&self, key: &K) -> Option<u64> {
        self.since.get(key).copied()
    }

    /// What the last look saw.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.since.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_two_looks_saw_and_every_one_between_is_believed() {
        let mut suspicions = Suspicions::default();
        assert!(suspicions.observe(["a", "b"], 0, 10).is_empty());
        assert!(suspicions.observe(["a", "b"], 9, 10).is_empty());
        assert_eq!(suspicions.observe(["a"], 10, 10), ["a"]);
        assert_eq!(suspicions.observe(["a", "b"], 20, 10), ["a"]);
        assert_eq!(suspicions.since(&"b"), Some(20));
        assert!(suspicions.observe([], 30, 10).is_empty());
        assert!(suspicions.observe(["a"], 40, 0).is_empty());
    }
}
