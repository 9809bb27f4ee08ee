//! Objects as one stream of [`model::Update`], from a directory or from the API of a Kubernetes
//! cluster ([`kubernetes`]).
//!
//! Users put YAML or JSON anywhere below the directory. Agents write below `state/`:
//!
//! | path | what it holds |
//! |---|---|
//! | `state/workloadendpoints/<namespace>_<name>.yaml` | one `WorkloadEndpoint` |
//! | `state/ipamblocks/<name>.yaml` | one `IPAMBlock`; claimed by creating the file |
//! | `state/nodes/<name>.yaml` | one `Node` |
//! | `state/status/<node>/<Kind>_<namespace>_<name>.yaml` | what a node thinks of an object |
//! | `state/.leases/<name>.yaml` | who holds an election's [`Lease`](model::Lease); not watched |
//! | `state/.lock` | `flock`ed for every write, so that several agents can share the directory |
//!
//! | file | what it holds |
//! |---|---|
//! | `directory` | [`Directory`]: open, watch, writer |
//! | `filesystem` | which file systems can't be shared this way |
//! | `document` | the text of a file -> objects |
//! | `index` | the objects of all files -> `Update`s; pure |
//! | `load` | files read once, for commands |
//! | `kubernetes` | the API of a cluster |
//! | `tree` | the folders and their inotify watches |
//! | `watcher` | the thread that ties these together |
//! | `writer` | atomic, exclusive writes, and [`Status`] |

mod directory;
mod document;
mod filesystem;
mod index;
pub mod kubernetes;
mod load;
mod tree;
mod watcher;
mod writer;

pub use directory::{Directory, OpenError};
pub use document::documents;
pub use load::{load, load_text};
pub use writer::{Condition, Status, WriteError, Writer};

/// The folder below the directory where agents write.
const STATE: &str = "state";
/// The folder below [`STATE`] that holds no objects, so that nobody watches it.
const STATUS: &str = "status";
