//! The datastore's two ends: a thread that yields updates, and one that writes.
//!
//! Neither is ever waited for: an update that comes late is late, a write that fails is tried
//! again until something newer for the same object replaces it.

use datastore::kubernetes::{Cluster, ClusterOptions, ConnectError};
use datastore::{Directory, Status, WriteError, Writer};
use model::{IpamBlock, Lease, Object, ObjectKey, Update};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc as blocking};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Time between attempts at a datastore that does not answer.
const RETRY: Duration = Duration::from_secs(1);
const UPDATES: usize = 1024;

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
    },
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

/// Reads the source for this node, on a thread of its own. A datastore that can't be opened is a
/// [`Update::Lost`], and is tried again.
pub(crate) fn watch(source: &Source, node: &str) -> Result<mpsc::Receiver<Update>, std::io::Error> {
    let (updates, receiver) = mpsc::channel(UPDATES);
    let (source, node) = (source.clone(), node.to_owned());
    std::thread::Builder::new()
        .name("datastore".into())
        .spawn(move || {
            let mut said = None;
            while !updates.is_closed() {
                let reason = match source.watch(&node) {
                    Ok(mut stream) => {
                        said = None;
                        while let Some(update) = stream.blocking_recv() {
                            if updates.blocking_send(update).is_err() {
                                return;
                            }
                        }
                        format!("{source}: no more updates")
                    }
                    Err(reason) => reason,
                };
                if said.as_ref() != Some(&reason) {
                    said = Some(reason.clone());
                    if updates.blocking_send(Update::Lost { reason }).is_err() {
                        return;
                    }
                }
                std::thread::sleep(RETRY);
            }
        })?;
    Ok(receiver)
}

/// Writes in the background.
pub(crate) struct Store {
    writes: blocking::Sender<Write>,
}

impl Store {
    /// Starts the writer; its answers come out of the receiver.
    pub(crate) fn start(
        source: &Source,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Said>), std::io::Error> {
        let (writes, queue) = blocking::channel();
        let (said, answers) = mpsc::unbounded_channel();
        let mut pending = Pending {
            source: source.clone(),
            said,
            open: None,
            failed: BTreeMap::new(),
        };
        std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || pending.run(&queue))?;
        Ok((Self { writes }, answers))
    }

    /// Have this written soon.
    pub(crate) fn write(&self, write: Write) {
        // The writer ends only with this value.
        let _ = self.writes.send(write);
    }
}

/// What is written about: a newer write about the same replaces an older one that failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Object(ObjectKey),
    Status(Option<ObjectKey>),
}

struct Pending {
    source: Source,
    said: mpsc::UnboundedSender<Said>,
    open: Option<Writer>,
    failed: BTreeMap<Subject, Write>,
}

impl Pending {
    fn run(&mut self, queue: &blocking::Receiver<Write>) {
        let mut retry_at = None;
        loop {
            if self.failed.is_empty() {
                retry_at = None;
            } else {
                let due = *retry_at.get_or_insert_with(|| Instant::now() + RETRY);
                if Instant::now() >= due {
                    retry_at = None;
                    for (_, write) in std::mem::take(&mut self.failed) {
                        self.take(write);
                    }
                }
            }
            let wait = if self.failed.is_empty() {
                Duration::from_secs(3600)
            } else {
                RETRY
            };
            match queue.recv_timeout(wait) {
                Ok(write) => self.take(write),
                Err(blocking::RecvTimeoutError::Timeout) => {}
                Err(blocking::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, write: Write) {
        let subject = match &write {
            Write::Put(object) => Subject::Object(object.key()),
            Write::Delete(key) => Subject::Object(key.clone()),
            Write::Status(status) => Subject::Status(status.object.clone()),
            Write::Free(block) => Subject::Object(Object::IpamBlock(block.clone()).key()),
            Write::Claim(block) => return self.claim(block.clone()),
            Write::TakeOver { block, by } => return self.take_over(block.clone(), by.clone()),
            Write::ReadLease(name) => return self.lease(name, None),
            Write::SwapLease {
                name,
                expected,
                next,
                begun,
            } => return self.lease(name, Some((expected.as_ref(), next, *begun))),
        };
        match self.attempt(&write) {
            Ok(()) => {
                self.failed.remove(&subject);
            }
            Err(error) => {
                if self.failed.insert(subject, write).is_none() {
                    tracing::warn!(%error, "datastore: not written, will be tried again");
                }
            }
        }
    }

    fn attempt(&mut self, write: &Write) -> Result<(), String> {
        let writer = self.writer()?;
        let result = match write {
            Write::Put(object) => writer.put(object),
            Write::Delete(key) => writer.delete(key, None),
            Write::Status(status) => writer.put_status(status),
            Write::Free(block) => match writer.delete(
                &Object::IpamBlock(block.clone()).key(),
                Some(&Object::IpamBlock(block.clone())),
            ) {
                // Somebody else's by now.
                Err(WriteError::Changed { .. }) => Ok(()),
                result => result,
            },
            Write::Claim(_)
            | Write::TakeOver { .. }
            | Write::ReadLease(_)
            | Write::SwapLease { .. } => Ok(()),
        };
        result.map_err(|error| error.to_string())
    }

    fn take_over(&mut self, block: IpamBlock, by: String) {
        let next = IpamBlock {
            node: by,
            ..block.clone()
        };
        let swapped = self.writer().and_then(|writer| {
            let object = Object::IpamBlock;
            match writer.swap(&object(block), &object(next.clone())) {
                Ok(()) => Ok(next.node.clone()),
                Err(WriteError::Changed { object }) => owner_of(*object),
                Err(error) => Err(error.to_string()),
            }
        });
        let claim = Claim {
            block: next,
            owner: swapped,
        };
        // Nobody waits for it any more when the agent stops.
        let _ = self.said.send(Said::Claim(claim));
    }

    /// Reads the lease, or replaces it. A datastore that does not answer says nothing.
    fn lease(&mut self, name: &str, swap: Option<(Option<&Lease>, &Lease, u64)>) {
        let read = self.writer().and_then(|writer| {
            let Some((expected, next, begun)) = swap else {
                let read = writer.lease(name).map(|lease| (lease, None));
                return read.map_err(|error| error.to_string());
            };
            match writer.swap_lease(name, expected, next) {
                Ok(()) => Ok((Some(next.clone()), Some(begun))),
                Err(WriteError::LeaseChanged { lease, .. }) => Ok((lease, None)),
                Err(error) => Err(error.to_string()),
            }
        });
        match read {
            Ok((lease, written)) => {
                let name = name.to_owned();
                let read = LeaseRead {
                    name,
                    lease,
                    written,
                };
                let _ = self.said.send(Said::Lease(read));
            }
            Err(error) => tracing::warn!(lease = name, %error, "lease"),
        }
    }

    fn claim(&mut self, block: IpamBlock) {
        // A deletion of the same block that failed before is older than the claim.
        let key = Object::IpamBlock(block.clone()).key();
        self.failed.remove(&Subject::Object(key));
        let owner = self.writer().and_then(|writer| {
            match writer.create(&Object::IpamBlock(block.clone())) {
                Ok(()) => Ok(block.node.clone()),
                Err(WriteError::Exists { object, .. }) => owner_of(*object),
                Err(error) => Err(error.to_string()),
            }
        });
        // Nobody waits for it any more when the agent stops.
        let _ = self.said.send(Said::Claim(Claim { block, owner }));
    }

    fn writer(&mut self) -> Result<Writer, String> {
        if let Some(writer) = &self.open {
            return Ok(writer.clone());
        }
        let Source::Directory(path) = &self.source else {
            return Err("nothing is written to Kubernetes".to_owned());
        };
        let directory = Directory::open(path).map_err(|error| error.to_string())?;
        let writer = directory.writer();
        self.open = Some(writer.clone());
        Ok(writer)
    }
}

fn owner_of(object: Object) -> Result<String, String> {
    match object {
        Object::IpamBlock(block) => Ok(block.node),
        other => Err(format!("{} stands where a block should", other.key())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn pending(path: &Path) -> (Pending, mpsc::UnboundedReceiver<Said>) {
        let (said, answers) = mpsc::unbounded_channel();
        let pending = Pending {
            source: Source::Directory(path.to_owned()),
            said,
            open: None,
            failed: BTreeMap::new(),
        };
        (pending, answers)
    }

    fn block(node: &str) -> IpamBlock {
        IpamBlock {
            cidr: "10.244.0.0/26".parse().unwrap(),
            node: node.to_owned(),
        }
    }

    fn owner(answers: &mut mpsc::UnboundedReceiver<Said>) -> Result<String, String> {
        match answers.try_recv().unwrap() {
            Said::Claim(claim) => claim.owner,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_claim_overtakes_a_deletion_of_the_same_block_that_failed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("datastore");
        let (mut pending, mut answers) = pending(&path);
        pending.take(Write::Free(block("n1")));
        assert_eq!(pending.failed.len(), 1);
        std::fs::create_dir(&path).unwrap();
        pending.take(Write::Claim(block("n1")));
        assert!(pending.failed.is_empty());
        assert_eq!(owner(&mut answers), Ok("n1".to_owned()));
    }

    #[test]
    fn a_block_is_freed_or_taken_over_only_from_who_had_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mut pending, mut answers) = pending(folder.path());
        pending.take(Write::Claim(block("n1")));
        pending.take(Write::Free(block("n2")));
        let by = |node: &str| Write::TakeOver {
            block: block(node),
            by: "n3".to_owned(),
        };
        pending.take(by("n2"));
        pending.take(by("n1"));
        let owners: Vec<_> = (0..3).map(|_| owner(&mut answers)).collect();
        assert_eq!(owners, ["n1", "n1", "n3"].map(|node| Ok(node.to_owned())));
        pending.take(Write::Free(block("n3")));
        pending.take(Write::Claim(block("n1")));
        assert_eq!(owner(&mut answers), Ok("n1".to_owned()));
        assert!(pending.failed.is_empty());
    }

    #[test]
    fn a_lease_is_answered_with_what_it_is_and_whether_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let (mut pending, mut answers) = pending(folder.path());
        let lease = |holder: &str| Lease {
            holder: holder.to_owned(),
            renewals: 1,
        };
        let swap = |holder: &str, begun| Write::SwapLease {
            name: "ipam".to_owned(),
            expected: None,
            next: lease(holder),
            begun,
        };
        pending.take(Write::ReadLease("ipam".to_owned()));
        pending.take(swap("n1", 7));
        pending.take(swap("n2", 8));
        let mut said = || match answers.try_recv().unwrap() {
            Said::Lease(read) => (read.lease, read.written),
            other => panic!("{other:?}"),
        };
        assert_eq!(said(), (None, None));
        assert_eq!(said(), (Some(lease("n1")), Some(7)));
        assert_eq!(said(), (Some(lease("n1")), None));
    }
}
