//! The Kubernetes API as a datastore.
//!
//! | file | what it holds |
//! |---|---|
//! | `client` | [`Cluster`]: requests to whichever API server answers |
//! | `connection` | kubeconfig or service account -> an HTTP/2 connection to one API server |
//! | `gate` | who asks first, so that all share that connection |
//! | `resource` | what is read, and what of it is kept |
//! | `slim` | reading only what is kept |
//! | `item`, `workload` | an object of the API -> updates; a Pod -> its workload endpoint |
//! | `follow` | lists and watches: what to ask, and what follows from the answers; pure |
//! | `reader` | the task that does so for one collection |
//! | `board` | how collections are doing -> in sync, lost, unreadable; pure |
//! | `demand` | what an object makes it necessary to read |
//! | `watch` | all of them as one stream |
//! | `backoff` | pauses between attempts |
//! | `write` | [`ClusterWriter`]: what agents write |

mod backoff;
mod board;
mod client;
mod connection;
mod demand;
mod follow;
mod gate;
mod item;
mod reader;
mod resource;
mod slim;
mod watch;
mod workload;
mod write;

pub use client::{ApiError, Cluster};
pub use connection::{ClusterOptions, ConnectError};
pub use hyper::Method;
pub use write::{
    ClusterWriter, Defaults, Made, NodeStatus, PodAddresses, PoolDefaults, ServiceBlock,
};
