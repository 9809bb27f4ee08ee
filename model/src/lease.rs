//! The record of an election among agents.

use serde::{Deserialize, Serialize};

/// Who holds a lease. Whoever reads it judges by its own clock how long it has not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The node that holds it.
    pub holder: String,
    /// Changes with every renewal.
    pub renewals: u64,
}
