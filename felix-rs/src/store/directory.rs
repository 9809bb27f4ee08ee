//! Writes to a directory of YAML.

use super::{Claim, LeaseRead, RETRY, Said, Write, owner_of};
use datastore::{Directory, WriteError, Writer};
use model::{IpamBlock, Lease, Object, ObjectKey};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What is written about: a newer write about the same replaces an older one that failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Object(ObjectKey),
    Status(Option<ObjectKey>),
}

/// Writes to a directory, one after the other.
pub(super) struct Pending {
    path: PathBuf,
    said: mpsc::UnboundedSender<Said>,
    open: Option<Writer>,
    failed: BTreeMap<Subject, Write>,
}

impl Pending {
    pub(super) fn new(path: &Path, said: mpsc::UnboundedSender<Said>) -> Self {
        Self {
            path: path.to_owned(),
            said,
            open: None,
            failed: BTreeMap::new(),
        }
    }

    /// Until the agent ends.
    pub(super) fn run(&mut self, queue: &blocking::Receiver<Write>) {
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
                ..
            } => return self.lease(name, Some((expected.as_ref(), next, *begun))),
            // Said elsewhere in a directory, or of no use there.
            Write::Ready(_)
            | Write::Node(_)
            | Write::NodeReport { .. }
            | Write::Allocations { .. }
            | Write::Defaults(_)
            | Write::Services(_) => return,
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
            | Write::SwapLease { .. }
            | Write::Ready(_)
            | Write::Node(_)
            | Write::NodeReport { .. }
            | Write::Allocations { .. }
            | Write::Defaults(_)
            | Write::Services(_) => Ok(()),
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
        let directory = Directory::open(&self.path).map_err(|error| error.to_string())?;
        let writer = directory.writer();
        self.open = Some(writer.clone());
        Ok(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn pending(path: &Path) -> (Pending, mpsc::UnboundedReceiver<Said>) {
        let (said, answers) = mpsc::unbounded_channel();
        (Pending::new(path, said), answers)
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
            duration: Duration::ZERO,
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
