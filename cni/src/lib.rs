//! The CNI plugin: a thin client of the node agent.
//!
//! Executed once per pod event, it reads the runtime's variables and configuration, opens the
//! pod's network namespace and a netlink socket inside it, passes both to the agent in one
//! request ([`model::cni`]), and prints what the agent answers in the terms of the CNI
//! specification (0.3.0 to 1.1.0). It holds no state, reads no other file and logs nothing.
//!
//! | module | what it does |
//! |---|---|
//! | [`run`] | from variables and standard input to standard output and exit code |
//! | [`frame`] | frames on the agent's socket |
//! | [`spool`] | deletions kept on disk while the agent is away |

mod agent;
mod chain;
mod config;
mod environment;
mod error;
mod field;
pub mod frame;
mod namespace;
mod plugin;
mod result;
pub mod spool;
mod sysctl;
mod times;
mod version;

pub use error::Error;
pub use plugin::{Output, run};
pub use version::SpecVersion;
