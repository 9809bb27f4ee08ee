//! `Update`: the one input alphabet. Every datastore yields this and nothing else.

use crate::object::{Object, ObjectKey};
use serde::{Deserialize, Serialize};

/// One change of the datastore's state.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// The object exists with this content now (created or changed). `warnings` are fields that
    /// were not understood; they did not stop the object from being used.
    Apply {
        /// The whole object.
        object: Object,
        /// One sentence for each field that is ignored, each naming the field.
        warnings: Vec<String>,
    },
    /// The object exists but can't be used: what was in force for it stays in force. Where
    /// nothing was, `fallback` is used: for a policy, one that denies the directions that it isolates.
    Reject {
        /// What is wrong with which object.
        invalid: Invalid,
        /// What is put in force if this object was never valid before.
        fallback: Option<Object>,
    },
    /// The object is gone.
    Delete(ObjectKey),
    /// A source of objects can't be read, or part of it can't: what it said before stays in force.
    /// No object is named because none could be recognised. It replaces what was said about the
    /// same source before. Until then there may be objects that were never said, even after
    /// [`Update::InSync`]: what an earlier process enforced is not to be taken for gone.
    Unreadable {
        /// The source in the user's terms, such as the path of a file below the directory.
        source: String,
        /// All that is wrong with it, in words with line numbers where they are known.
        reason: String,
    },
    /// Nothing is wrong with a source any more that was [`Update::Unreadable`] before.
    Readable {
        /// The source, as it was named before.
        source: String,
    },
    /// Everything that existed at the start has been said.
    InSync,
    /// The datastore stopped answering; what was said before stays in force.
    Lost {
        /// Why, in words.
        reason: String,
    },
}

/// A user's mistake, as data: shown in the log, in the object's status and by the CLI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{object}: {field}{}{reason}", if field.is_empty() { "" } else { ": " })]
pub struct Invalid {
    /// Which object.
    pub object: ObjectKey,
    /// Path of the field, such as `spec.ingress[0].from[1].ipBlock.cidr`; empty for the whole object.
    pub field: String,
    /// What is wrong, in words that include the offending value.
    pub reason: String,
}
