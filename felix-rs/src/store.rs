//! The datastore's two ends: what it says, and a thread that writes.
//!
//! Neither is ever waited for: an update that comes late is late, a write that fails is tried
//! again until something newer for the same object replaces it.

mod cluster;
mod directory;
mod queue;
mod services;
mod updates;

pub(crate) use services::ServicePicture;
pub(crate) use updates::Updates;

use datastore::kubernetes::{Cluster, ClusterOptions, ConnectError, Defaults, NodeStatus};
use datastore::{Directory, Status};
use model::{BlockAllocations, IpamBlock, Lease, Object, ObjectKey, Update};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc as blocking};
use std::time::Duration;
use tokio::sync::mpsc;

/// Time between attempts at a datastore that does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// What holds the cluster's objects.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A directory of YAML.
    Directory(PathBuf),
    /// The API of a Kubernetes cluster.
    Kubernetes(Api),
}

/// How the API of a cluster is reached, and the connection to it once there is one. Clones share
/// the connection.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    options: ClusterOptions,
    connected: Arc<Mutex<Option<Cluster>>>,
}

impl Api {
    /// Reads nothing yet.
    pub(crate) fn new(options: ClusterOptions) -> Self {
        Self {
            options,
            connected: Arc::default(),
        }
    }

    /// The cluster, connected to when it is first asked for.
    pub(crate) fn cluster(&self) -> Result<Cluster, ConnectError> {
        let mut connected = self
            .connected
            .lock()
            .expect("invariant: a thread that panics ends the process");
        if let Some(cluster) = &*connected {
            return Ok(cluster.clone());
        }
        let cluster = Cluster::connect(&self.options)?;
        Ok(connected.insert(cluster).clone())
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Kubernetes(_) => f.write_str("kubernetes"),
        }
    }
}

impl Source {
    fn watch(&self, node: &str) -> Result<mpsc::Receiver<Update>, String> {
        match self {
            Self::Directory(path) => Directory::open(path)
                .and_then(|directory| directory.watch())
                .map_err(|error| error.to_string()),
            Self::Kubernetes(api) => {
                let cluster = api.cluster().map_err(|error| error.to_string())?;
                Ok(cluster.watch(node))
            }
        }
    }
}

/// What to write.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// Create or replace an object of ours.
    Put(Box<Object>),
    /// The pod of this endpoint is Ready: what waited for that is written soon.
    Ready(ObjectKey),
    /// Remove an object of ours.
    Delete(ObjectKey),
    /// Say how an object, or the node, is doing.
    Status(Box<Status>),
    /// Claim a block; answered by a [`Claim`].
    Claim(IpamBlock),
    /// Delete a block if it is still this one's: given back, or of a node that is gone.
    Free(IpamBlock),
    /// Give a block to this node if it is still `block`'s; answered by a [`Claim`].
    TakeOver { block: IpamBlock, by: String },
    /// Say what a lease is; answered by a [`LeaseRead`].
    ReadLease(String),
    /// Replace a lease; answered by a [`LeaseRead`]. `begun` is handed back.
    SwapLease {
        name: String,
        expected: Option<Lease>,
        next: Lease,
        begun: u64,
        /// How long it holds without a renewal, for people who look at it.
        duration: Duration,
    },
    /// What the node says about itself on its Node object. Of a cluster only, as all below.
    Node(Box<NodeStatus>),
    /// Answer a `CalicoNodeStatus`.
    NodeReport {
        name: String,
        status: Box<serde_json::Value>,
    },
    /// Note what is held in a block of this node.
    Allocations {
        block: IpamBlock,
        allocations: BlockAllocations,
    },
    /// Make what a cluster needs to begin with.
    Defaults(Box<Defaults>),
    /// Give Services their addresses.
    Services(Box<ServicePicture>),
}

/// What the datastore says to what was asked of it.
#[derive(Debug)]
pub(crate) enum Said {
    /// Of a block.
    Claim(Claim),
    /// Of a lease.
    Lease(LeaseRead),
}

/// Answer to [`Write::ReadLease`] and [`Write::SwapLease`].
#[derive(Debug)]
pub(crate) struct LeaseRead {
    /// The lease.
    pub(crate) name: String,
    /// What it is.
    pub(crate) lease: Option<Lease>,
    /// It is what was to be written by a write begun then.
    pub(crate) written: Option<u64>,
}

/// Answer to [`Write::Claim`] and [`Write::TakeOver`].
#[derive(Debug)]
pub(crate) struct Claim {
    /// The block that was asked for.
    pub(crate) block: IpamBlock,
    /// Who owns it now, or why nobody knows.
    pub(crate) owner: Result<String, String>,
}

/// Writes in the background. Clones share the writer.
#[derive(Clone)]
pub(crate) struct Store {
    writes: Writes,
}

#[derive(Clone)]
enum Writes {
    Directory(blocking::Sender<Write>),
    Cluster(mpsc::UnboundedSender<Write>),
}

impl Store {
    /// Starts the writer of this node; its answers come out of the receiver.
    pub(crate) fn start(
        source: &Source,
        node: &str,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Said>), std::io::Error> {
        let (said, answers) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("writer".into());
        let writes = match source {
            Source::Directory(path) => {
                let (writes, queue) = blocking::channel();
                let mut pending = directory::Pending::new(path, said);
                thread.spawn(move || pending.run(&queue))?;
                Writes::Directory(writes)
            }
            Source::Kubernetes(api) => {
                let (writes, queue) = mpsc::unbounded_channel();
                let (api, node) = (api.clone(), node.to_owned());
                thread.spawn(move || cluster::run(&api, &node, queue, &said))?;
                Writes::Cluster(writes)
            }
        };
        Ok((Self { writes }, answers))
    }

    /// Whether it is the API of a cluster, where one agent looks after the whole.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.writes, Writes::Cluster(_))
    }

    /// Have this written soon.
    pub(crate) fn write(&self, write: Write) {
        // The writer ends only with this value.
        match &self.writes {
            Writes::Directory(writes) => drop(writes.send(write)),
            Writes::Cluster(writes) => drop(writes.send(write)),
        }
    }
}

fn owner_of(object: Object) -> Result<String, String> {
    match object {
        Object::IpamBlock(block) => Ok(block.node),
        other => Err(format!("{} stands where a block should", other.key())),
    }
}
