//! A question about a node, which its agent answers in the object's status.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Calico `CalicoNodeStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalicoNodeStatus {
    /// Its name.
    pub name: String,
    /// The node that is asked.
    pub node: String,
    /// What is asked.
    pub classes: BTreeSet<NodeStatusClass>,
    /// How often the answer is renewed, in seconds; 0 is never.
    pub update_period_seconds: u32,
}

/// What is asked about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeStatusClass {
    /// The BGP speaker itself.
    Agent,
    /// Its sessions.
    Bgp,
    /// Its routes.
    Routes,
}
