//! The objects of all files -> [`Update`]s. Pure: no file is read here.
//!
//! Where two files define one object, the first in the order of paths counts, users' files before
//! those of agents. What is said is
//! always the difference to what was said before, so that it never depends on the order of events.

use crate::STATE;
use crate::document::{Contents, Said};
use model::{ObjectKey, Update};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file that defines an object, in the order in which definitions count.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    by_agent: bool,
    path: PathBuf,
}

impl Place {
    fn new(path: &Path) -> Self {
        Self {
            by_agent: path.starts_with(STATE),
            path: path.to_owned(),
        }
    }
}

/// Everything that is in the directory, and everything that was said about it.
#[derive(Debug, Default)]
pub(crate) struct Index {
    files: BTreeMap<PathBuf, Contents>,
    definitions: BTreeMap<ObjectKey, BTreeSet<Place>>,
    said: BTreeMap<ObjectKey, Arc<Said>>,
    unreadable: BTreeMap<PathBuf, String>,
    touched: BTreeSet<ObjectKey>,
    touched_files: BTreeSet<PathBuf>,
}

impl Index {
    /// The file holds `contents`, or is gone. While part of it can't be recognised, the objects
    /// that it held before and that are not in the readable part stay.
    pub(crate) fn set(&mut self, path: &Path, contents: Option<Contents>) {
        let before = self.files.remove(path);
        for entry in before.iter().flat_map(|contents| &contents.entries) {
            self.touched.insert(entry.key.clone());
            if let Some(places) = self.definitions.get_mut(&entry.key) {
                places.remove(&Place::new(path));
            }
        }
        self.touched_files.insert(path.to_owned());
        let Some(mut contents) = contents else { return };
        if let (false, Some(before)) = (contents.problems.is_empty(), before) {
            let keys: BTreeSet<_> = contents.entries.iter().map(|e| e.key.clone()).collect();
            let kept = before
                .entries
                .into_iter()
                .filter(|entry| !keys.contains(&entry.key));
            contents.entries.extend(kept);
        }
        for entry in &contents.entries {
            self.touched.insert(entry.key.clone());
            self.definitions
                .entry(entry.key.clone())
                .or_default()
                .insert(Place::new(path));
        }
        self.files.insert(path.to_owned(), contents);
    }

    /// Whether the file defines any object.
    pub(crate) fn defines_any(&self, path: &Path) -> bool {
        self.files
            .get(path)
            .is_some_and(|contents| !contents.entries.is_empty())
    }

    /// The known files below `folder`.
    pub(crate) fn files_below(&self, folder: &Path) -> Vec<PathBuf> {
        self.files
            .keys()
            .filter(|path| path.starts_with(folder))
            .cloned()
            .collect()
    }

    /// What has changed since the last call: objects that exist before objects that are gone, so
    /// that an object that was renamed is never missing.
    pub(crate) fn changes(&mut self) -> Vec<Update> {
        let mut changes = Vec::new();
        let mut gone = Vec::new();
        for key in std::mem::take(&mut self.touched) {
            let definitions = self.definitions.get(&key);
            self.touched_files.extend(
                definitions
                    .into_iter()
                    .flatten()
                    .map(|place| place.path.clone()),
            );
            match self.definition(&key) {
                Some(said) if self.said.get(&key) == Some(&said) => {}
                Some(said) => {
                    changes.push(update(&said));
                    self.said.insert(key, said);
                }
                None => {
                    self.definitions.remove(&key);
                    if self.said.remove(&key).is_some() {
                        gone.push(Update::Delete(key));
                    }
                }
            }
        }
        changes.extend(gone);
        for path in std::mem::take(&mut self.touched_files) {
            changes.extend(self.readability(path));
        }
        changes
    }

    /// What counts for an object: its first definition in the first file that has one.
    fn definition(&self, key: &ObjectKey) -> Option<Arc<Said>> {
        let contents = self.files.get(&self.definitions.get(key)?.first()?.path)?;
        let entry = contents.entries.iter().find(|entry| entry.key == *key)?;
        Some(Arc::clone(&entry.said))
    }

    fn readability(&mut self, path: PathBuf) -> Option<Update> {
        let source = path.display().to_string();
        let problems = self.problems(&path);
        if problems.is_empty() {
            return self
                .unreadable
                .remove(&path)
                .map(|_| Update::Readable { source });
        }
        let reason = problems.join("; ");
        if self.unreadable.get(&path) == Some(&reason) {
            return None;
        }
        self.unreadable.insert(path, reason.clone());
        Some(Update::Unreadable { source, reason })
    }

    /// What is wrong with a file: what it says itself, and its objects that others define.
    fn problems(&self, path: &Path) -> Vec<String> {
        let Some(contents) = self.files.get(path) else {
            return Vec::new();
        };
        let mut problems = contents.problems.clone();
        let mut seen = BTreeSet::new();
        for entry in &contents.entries {
            let places = self.definitions.get(&entry.key);
            let first = places
                .and_then(BTreeSet::first)
                .map(|place| place.path.as_path());
            let again = !seen.insert(&entry.key);
            match first {
                Some(first) if first != path => problems.push(format!(
                    "{} is defined in {} already",
                    entry.key,
                    first.display()
                )),
                _ if again => problems.push(format!("{} is defined twice", entry.key)),
                _ => {}
            }
        }
        problems
    }
}

fn update(said: &Said) -> Update {
    match said {
        Said::Apply { object, warnings } => Update::Apply {
            object: object.clone(),
            warnings: warnings.clone(),
        },
        Said::Reject { invalid, fallback } => Update::Reject {
            invalid: invalid.clone(),
            fallback: fallback.clone(),
        },
    }
}

#[cfg(test)]
mod tests;
