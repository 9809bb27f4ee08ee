//! The Kubernetes API as a datastore.
//!
//! | file | what it holds |
//! |---|---|
//! | `client` | [`Cluster`]: requests to whichever API server answers |
//! | `connection` | kubeconfig or service account -> an HTTP/2 connection to one API server |
//! | `write` | [`ClusterWriter`]: what agents write |

mod client;
mod connection;
mod write;

pub use client::{ApiError, Cluster};
pub use connection::{ClusterOptions, ConnectError};
pub use write::{
    ClusterWriter, Defaults, Made, NodeStatus, PodAddresses, PoolDefaults, ServiceBlock,
};
