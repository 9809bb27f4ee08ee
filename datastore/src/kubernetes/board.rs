//! How the sources are doing -> what is said of the datastore as a whole. Pure.
//!
//! | the source | in sync | said |
//! |---|---|---|
//! | has been listed, or is not installed | may be | |
//! | is refused, never listed | must not be: what it holds is unknown | `Lost` |
//! | is refused, listed before | may be | `Unreadable` until it can be read again |
//! | is not answered | is again once it is | `Lost` |

use model::Update;
use std::collections::{BTreeMap, BTreeSet};

/// How a source is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Health {
    /// All of it has been said, and changes are.
    Live,
    /// The server has no such collection.
    Missing,
    /// The server does not let us read it.
    Refused(String),
    /// The server does not answer, or does not know us.
    Unreachable(String),
}

#[derive(Debug, Default)]
struct Entry {
    health: Option<Health>,
    listed: bool,
}

impl Entry {
    /// Why the whole is not what the cluster has.
    fn blocks(&self) -> Option<&str> {
        match &self.health {
            Some(Health::Unreachable(reason)) => Some(reason),
            Some(Health::Refused(reason)) if !self.listed => Some(reason),
            _ => None,
        }
    }
}

/// All sources by name.
#[derive(Debug, Default)]
pub(super) struct Board {
    entries: BTreeMap<String, Entry>,
    unreadable: BTreeSet<String>,
    in_sync: bool,
    lost: Option<String>,
}

impl Board {
    /// A source of which nothing is known yet. False if it is there already.
    pub(super) fn add(&mut self, source: &str) -> bool {
        let before = self.entries.len();
        self.entries.entry(source.to_owned()).or_default();
        self.entries.len() > before
    }

    /// What is to be said now that a source is doing so.
    pub(super) fn note(&mut self, source: &str, health: Health) -> Vec<Update> {
        let mut said = self.readable(source, &health);
        let entry = self.entries.entry(source.to_owned()).or_default();
        entry.listed |= matches!(health, Health::Live | Health::Missing);
        entry.health = Some(health);
        match self.entries.values().find_map(Entry::blocks) {
            // What was not listed after the first view is a part of it that is unreadable.
            Some(_) if self.in_sync && !self.is_unreachable() => self.found(&mut said),
            Some(reason) if self.lost.as_deref() == Some(reason) => {}
            Some(reason) => {
                let reason = reason.to_owned();
                self.lost = Some(reason.clone());
                said.push(Update::Lost { reason });
            }
            None if self.in_sync || self.is_settled() => self.found(&mut said),
            None => {}
        }
        said
    }

    fn readable(&mut self, source: &str, health: &Health) -> Vec<Update> {
        let name = format!("{SOURCE}{source}");
        match health {
            Health::Refused(reason) => {
                self.unreadable.insert(source.to_owned());
                vec![Update::Unreadable {
                    source: name,
                    reason: reason.clone(),
                }]
            }
            Health::Live | Health::Missing if self.unreadable.remove(source) => {
                vec![Update::Readable { source: name }]
            }
            Health::Live | Health::Missing | Health::Unreachable(_) => Vec::new(),
        }
    }

    fn found(&mut self, said: &mut Vec<Update>) {
        if self.lost.take().is_some() || !self.in_sync {
            self.in_sync = true;
            said.push(Update::InSync);
        }
    }

    fn is_unreachable(&self) -> bool {
        let mut all = self.entries.values();
        all.any(|entry| matches!(entry.health, Some(Health::Unreachable(_))))
    }

    fn is_settled(&self) -> bool {
        self.entries.values().all(|entry| entry.listed)
    }
}

/// What the names of sources begin with in updates.
const SOURCE: &str = "kubernetes: ";

#[cfg(test)]
mod tests {
    use super::*;

    fn board(sources: &[&str]) -> Board {
        let mut board = Board::default();
        assert!(sources.iter().all(|source| board.add(source)));
        board
    }

    fn refused() -> Health {
        Health::Refused("list: forbidden".to_owned())
    }

    fn unreachable() -> Health {
        Health::Unreachable("connection refused".to_owned())
    }

    fn words(said: Vec<Update>) -> Vec<String> {
        let word = |update| match update {
            Update::InSync => "in sync".to_owned(),
            Update::Lost { reason } => format!("lost: {reason}"),
            Update::Unreadable { source, reason } => format!("{source}: {reason}"),
            Update::Readable { source } => format!("{source}: readable"),
            other => panic!("{other:?}"),
        };
        said.into_iter().map(word).collect()
    }

    #[test]
    fn in_sync_is_when_everything_has_been_listed_or_is_not_installed() {
        let mut board = board(&["pods", "tiers"]);
        assert!(board.note("pods", Health::Live).is_empty());
        // Asked for by an object that came first.
        board.add("services");
        assert!(board.note("tiers", Health::Missing).is_empty());
        assert_eq!(words(board.note("services", Health::Live)), ["in sync"]);
        assert!(board.note("pods", Health::Live).is_empty());
    }

    #[test]
    fn what_was_never_readable_is_no_reason_to_think_that_it_is_empty() {
        let mut board = board(&["pods", "tiers"]);
        board.note("pods", Health::Live);
        let said = words(board.note("tiers", refused()));
        assert_eq!(
            said,
            [
                "kubernetes: tiers: list: forbidden",
                "lost: list: forbidden"
            ]
        );
        assert!(board.note("pods", Health::Live).is_empty());
        let said = words(board.note("tiers", Health::Live));
        assert_eq!(said, ["kubernetes: tiers: readable", "in sync"]);
    }

    #[test]
    fn what_is_refused_later_leaves_the_rest_in_sync() {
        let mut board = board(&["pods", "tiers"]);
        board.note("pods", Health::Live);
        board.note("tiers", Health::Live);
        let said = words(board.note("tiers", refused()));
        assert_eq!(said, ["kubernetes: tiers: list: forbidden"]);
        assert!(board.add("services"));
        let said = words(board.note("services", refused()));
        assert_eq!(said, ["kubernetes: services: list: forbidden"]);
        let said = words(board.note("tiers", Health::Live));
        assert_eq!(said, ["kubernetes: tiers: readable"]);
    }

    #[test]
    fn a_server_that_is_away_is_said_once_and_all_sources_must_be_back() {
        let mut board = board(&["pods", "tiers"]);
        board.note("pods", Health::Live);
        board.note("tiers", Health::Live);
        let said = words(board.note("tiers", unreachable()));
        assert_eq!(said, ["lost: connection refused"]);
        assert!(board.note("pods", unreachable()).is_empty());
        assert!(board.note("tiers", Health::Live).is_empty());
        assert_eq!(words(board.note("pods", Health::Live)), ["in sync"]);
    }
}
