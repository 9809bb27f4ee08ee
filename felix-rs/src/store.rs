//! The datastore's two ends: a thread that yields updates, and one that writes.
//!
//! Neither is ever waited for: an update that comes late is late, a write that fails is tried
//! again until something newer for the same object replaces it.

use datastore::{Directory, Status, WriteError, Writer};
use model::{IpamBlock, Object, ObjectKey, Update};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Time between attempts at a datastore that does not answer.
const RETRY: Duration = Duration::from_secs(1);
const UPDATES: usize = 1024;

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
}

/// Answer to [`Write::Claim`].
#[derive(Debug)]
pub(crate) struct Claim {
    /// The block that was asked for.
    pub(crate) block: IpamBlock,
    /// Who owns it now, or why nobody knows.
    pub(crate) owner: Result<String, String>,
}

/// Reads `path` on a thread of its own. A datastore that can't be opened is a
/// [`Update::Lost`], and is tried again.
pub(crate) fn watch(path: &Path) -> Result<mpsc::Receiver<Update>, std::io::Error> {
    let (updates, receiver) = mpsc::channel(UPDATES);
    let path = path.to_owned();
    std::thread::Builder::new()
        .name("datastore".into())
        .spawn(move || {
            let mut said = None;
            while !updates.is_closed() {
                let opened = Directory::open(&path).and_then(|directory| directory.watch());
                let reason = match opened {
                    Ok(mut stream) => {
                        said = None;
                        while let Some(update) = stream.blocking_recv() {
                            if updates.blocking_send(update).is_err() {
                                return;
                            }
                        }
                        format!("{}: no more updates", path.display())
                    }
                    Err(error) => error.to_string(),
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
    /// Starts the writer; answers to claims come out of the receiver.
    pub(crate) fn start(
        path: &Path,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Claim>), std::io::Error> {
        let (writes, queue) = blocking::channel();
        let (claims, answers) = mpsc::unbounded_channel();
        let mut pending = Pending {
            path: path.to_owned(),
            claims,
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
    path: PathBuf,
    claims: mpsc::UnboundedSender<Claim>,
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
            Write::Claim(block) => return self.claim(block.clone()),
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
            Write::Claim(_) => Ok(()),
        };
        result.map_err(|error| error.to_string())
    }

    fn claim(&mut self, block: IpamBlock) {
        let owner = self.writer().and_then(|writer| {
            match writer.create(&Object::IpamBlock(block.clone())) {
                Ok(()) => Ok(block.node.clone()),
                Err(WriteError::Exists { object, .. }) => match *object {
                    Object::IpamBlock(other) => Ok(other.node),
                    other => Err(format!("{} stands where a block should", other.key())),
                },
                Err(error) => Err(error.to_string()),
            }
        });
        // Nobody waits for it any more when the agent stops.
        let _ = self.claims.send(Claim { block, owner });
    }

    fn writer(&mut self) -> Result<Writer, String> {
        if let Some(writer) = &self.open {
            return Ok(writer.clone());
        }
        let directory = Directory::open(&self.path).map_err(|error| error.to_string())?;
        let writer = directory.writer();
        self.open = Some(writer.clone());
        Ok(writer)
    }
}
