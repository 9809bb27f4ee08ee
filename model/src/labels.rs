//! Labels of namespaces, pods and nodes.

use crate::Text;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

/// Key to value, in the order of the keys. A copy shares them until one of the two changes: the
/// pods of a Deployment have the same labels, and what knows a pod knows its labels.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(Text, Text)]>);

impl Labels {
    /// No labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Text> {
        let at = self.find(key).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Whether the key has a value.
    pub fn contains_key(&self, key: &str) -> bool {
        self.find(key).is_ok()
    }

    /// Keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&Text, &Text)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &Text> {
        self.0.iter().map(|(key, _)| key)
    }

    /// Gives the key this value; returns the one that it had.
    pub fn insert(&mut self, key: impl Into<Text>, value: impl Into<Text>) -> Option<Text> {
        let (key, value) = (key.into(), value.into());
        match self.find(&key) {
            Ok(at) => {
                let slot = Arc::make_mut(&mut self.0).get_mut(at);
                slot.map(|(_, old)| std::mem::replace(old, value))
            }
            Err(at) => {
                let mut all = self.0.to_vec();
                all.insert(at, (key, value));
                self.0 = all.into();
                None
            }
        }
    }

    /// Takes the key away; returns the value that it had.
    pub fn remove(&mut self, key: &str) -> Option<Text> {
        let at = self.find(key).ok()?;
        let mut all = self.0.to_vec();
        let (_, value) = all.remove(at);
        self.0 = all.into();
        Some(value)
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|(known, _)| known.as_str().cmp(key))
    }

    /// How many hold these very labels.
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

/// The value of a key that is known to be there.
///
/// # Panics
/// It is not.
impl Index<&str> for Labels {
    type Output = Text;

    fn index(&self, key: &str) -> &Text {
        self.get(key).expect("invariant: the label is there")
    }
}

/// As a map prints.
impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Into<Text>, V: Into<Text>> FromIterator<(K, V)> for Labels {
    /// Of a key that comes twice, the later value.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(all: I) -> Self {
        let all = all.into_iter().map(|(k, v)| (k.into(), v.into()));
        let sorted: BTreeMap<Text, Text> = all.collect();
        if sorted.is_empty() {
            return Self::default();
        }
        Self(sorted.into_iter().collect())
    }
}

impl<K: Into<Text>, V: Into<Text>> Extend<(K, V)> for Labels {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, more: I) {
        let more = more.into_iter().map(|(k, v)| (k.into(), v.into()));
        *self = self.0.iter().cloned().chain(more).collect();
    }
}

impl<const N: usize> From<[(String, String); N]> for Labels {
    fn from(all: [(String, String); N]) -> Self {
        all.into_iter().collect()
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(all: BTreeMap<String, String>) -> Self {
        all.into_iter().collect()
    }
}

impl IntoIterator for Labels {
    type Item = (Text, Text);
    type IntoIter = std::vec::IntoIter<(Text, Text)>;

    fn into_iter(self) -> Self::IntoIter {
        Vec::from(&*self.0).into_iter()
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a Text, &'a Text);
    type IntoIter = std::iter::Map<
        std::slice::Iter<'a, (Text, Text)>,
        fn(&'a (Text, Text)) -> (&'a Text, &'a Text),
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::<Text, Text>::deserialize(deserializer).map(|all| all.into_iter().collect())
    }
}
