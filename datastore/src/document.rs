//! The text of a file -> objects.

use model::manifest::{self, Parsed};
use model::{Invalid, Object, ObjectKey};
use serde_json::Value;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Larger files are refused rather than read into memory.
const MAX_BYTES: u64 = 64 << 20;

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Contents {
    /// Its objects, valid or not, in the order of the documents.
    pub(crate) entries: Vec<Entry>,
    /// What could not be recognised as an object. While there is any, the file may be missing
    /// objects that it had before.
    pub(crate) problems: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: ObjectKey,
    pub(crate) said: Arc<Said>,
}

/// What is said about one object.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    Apply {
        object: Object,
        warnings: Vec<String>,
    },
    Reject {
        invalid: Invalid,
        fallback: Option<Object>,
    },
}

/// What reading a file gave.
#[derive(Debug)]
pub(crate) enum Reading {
    /// No file is there, or nothing that is a file.
    Missing,
    /// No bytes: perhaps truncated by somebody who is about to write.
    Empty,
    /// Not YAML, or not readable: perhaps half-written.
    Broken(String),
    Contents(Contents),
}

/// Reads the file at `path`.
pub(crate) fn read(path: &Path) -> Reading {
    match text(path) {
        Ok(None) => Reading::Missing,
        Ok(Some(text)) if text.is_empty() => Reading::Empty,
        Ok(Some(text)) => parse(&text).map_or_else(Reading::Broken, Reading::Contents),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Reading::Missing,
        Err(error) => Reading::Broken(error.to_string()),
    }
}

fn text(path: &Path) -> io::Result<Option<String>> {
    // Looked at before it is opened, since opening a FIFO would wait for a writer.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Ok(None);
    }
    if metadata.len() > MAX_BYTES {
        return Err(io::Error::other(format!(
            "larger than {} MiB",
            MAX_BYTES >> 20
        )));
    }
    fs::read_to_string(path).map(Some)
}

/// The documents of a text, of whatever kind; the error says why it is not YAML, with the line.
pub fn documents(text: &str) -> Result<Vec<Value>, String> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
        // JSON has no NaN: as text it is the mistake of one field, not of the whole file.
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        budget: serde_saphyr::budget! {
            max_documents: 1 << 20,
            max_events: 1 << 26,
            max_nodes: 1 << 26,
        },
    };
    serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| error.to_string().replace('\n', " "))
}

/// Splits `text` into documents and reads each.
pub(crate) fn parse(text: &str) -> Result<Contents, String> {
    let documents = documents(text)?;
    let several = documents.len() > 1;
    let mut contents = Contents::default();
    for (index, document) in documents.iter().enumerate() {
        let place = if several {
            format!("document {}: ", index + 1)
        } else {
            String::new()
        };
        add(document, &place, &mut contents);
    }
    Ok(contents)
}

/// Adds one document, or each item if it is a list of Kubernetes objects.
fn add(document: &Value, place: &str, contents: &mut Contents) {
    if document.is_null() {
        return;
    }
    let is_list = document["kind"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("List"));
    if let (true, Some(items)) = (is_list, document["items"].as_array()) {
        for (index, item) in items.iter().enumerate() {
            add(item, &format!("{place}items[{index}]: "), contents);
        }
        return;
    }
    let (key, said) = match manifest::parse(document) {
        Ok(Parsed::Valid { object, warnings }) => (object.key(), Said::Apply { object, warnings }),
        Ok(Parsed::Invalid { invalid, fallback }) => {
            (invalid.object.clone(), Said::Reject { invalid, fallback })
        }
        Ok(Parsed::Ignored { kind, reason }) => {
            tracing::warn!(kind, "{place}{reason}; ignored");
            return;
        }
        Err(error) => return contents.problems.push(format!("{place}{error}")),
    };
    contents.entries.push(Entry {
        key,
        said: Arc::new(said),
    });
}

#[cfg(test)]
mod tests;
