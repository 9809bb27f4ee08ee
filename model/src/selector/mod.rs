//! Selectors over [`Labels`]: one tree for Kubernetes label selectors and Calico's selector
//! expressions.
//!
//! [`Selector::parse_calico`] reads Calico's syntax and `Display` writes it.

mod display;
mod lexer;
mod parser;
#[cfg(test)]
mod tests;

pub use parser::{MAX_DEPTH, SelectorError, SelectorErrorKind};

use crate::{Labels, Text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A predicate over labels. A missing label is different from an empty one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Selector {
    /// Matches everything: `{}` in Kubernetes, `all()` in Calico.
    All,
    /// Matches nothing: what an unreadable selector is replaced with.
    None,
    /// Matches what has no namespace: Calico's `global()`.
    Global,
    /// `key == 'value'`
    Eq(String, String),
    /// `key != 'value'`; also true where the label is missing (as in Calico).
    Ne(String, String),
    /// `key in {'a', 'b'}`
    In(String, BTreeSet<String>),
    /// `key not in {'a', 'b'}`; also true where the label is missing.
    NotIn(String, BTreeSet<String>),
    /// `has(key)`
    Has(String),
    /// `key starts with 'value'`
    StartsWith(String, String),
    /// `key ends with 'value'`
    EndsWith(String, String),
    /// `key contains 'value'`
    Contains(String, String),
    /// `a && b`
    And(Vec<Selector>),
    /// `a || b`
    Or(Vec<Selector>),
    /// `!a`
    Not(Box<Selector>),
}

impl Selector {
    /// True where `labels` satisfy the selector.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = |key: &String| labels.get(key).map(Text::as_str);
        match self {
            Self::All => true,
            Self::None | Self::Global => false,
            Self::Eq(k, v) => value(k) == Some(v.as_str()),
            Self::Ne(k, v) => value(k) != Some(v.as_str()),
            Self::In(k, set) => value(k).is_some_and(|v| set.contains(v)),
            Self::NotIn(k, set) => !value(k).is_some_and(|v| set.contains(v)),
            Self::Has(k) => labels.contains_key(k),
            Self::StartsWith(k, v) => value(k).is_some_and(|l| l.starts_with(v.as_str())),
            Self::EndsWith(k, v) => value(k).is_some_and(|l| l.ends_with(v.as_str())),
            Self::Contains(k, v) => value(k).is_some_and(|l| l.contains(v.as_str())),
            Self::And(all) => all.iter().all(|s| s.matches(labels)),
            Self::Or(any) => any.iter().any(|s| s.matches(labels)),
            Self::Not(inner) => !inner.matches(labels),
        }
    }
}
