//! Labels of namespaces, pods and nodes.

use std::collections::BTreeMap;

/// Key to value, ordered so that iteration is deterministic.
pub type Labels = BTreeMap<String, String>;
