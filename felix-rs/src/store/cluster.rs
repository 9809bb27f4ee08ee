//! Writes to the API of a cluster: in the background, several at a time, none in the way of a pod.

use super::queue::Queue;
use super::services::{self, Told};
use super::{Api, Claim, LeaseRead, RETRY, Said, Write, owner_of};
use datastore::WriteError;
use datastore::kubernetes::{ClusterWriter, PodAddresses};
use ipnet::IpNet;
use model::{IpamBlock, Lease, Object, ObjectKey};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Writes on their way at a time.
const AT_ONCE: usize = 8;
/// A pod is annotated this long after it became Ready, so that nothing is asked of the API server
/// while it has pods to start.
const READY_DELAY: Duration = Duration::from_secs(2);
/// And this long after it has its addresses if it does not become Ready; one that is gone by then
/// costs nothing.
const POD_DELAY: Duration = Duration::from_secs(60);
/// What is held in a block is written this long after it changed, with what else changes meanwhile.
const BLOCK_DELAY: Duration = Duration::from_secs(10);
/// A write that takes longer is given up, and tried again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a write is about; what comes first is written first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Subject {
    Block(IpNet),
    Lease(String),
    Node,
    Defaults,
    Services,
    Object(ObjectKey),
    Status(ObjectKey),
    Allocations(IpNet),
}

/// What a write led to.
enum Done {
    Written,
    /// Of [`Write::Services`].
    Served(Told),
    Failed(WriteError),
}

/// Until the agent ends.
pub(super) fn run(
    api: &Api,
    node: &str,
    mut queue: mpsc::UnboundedReceiver<Write>,
    said: &mpsc::UnboundedSender<Said>,
) {
    let cluster = loop {
        match api.cluster() {
            Ok(cluster) => break cluster,
            // The reading side says so.
            Err(error) => tracing::debug!(%error, "nothing is written"),
        }
        if queue.is_closed() {
            return;
        }
        std::thread::sleep(RETRY);
    };
    let writer = ClusterWriter::new(cluster.clone(), cluster.namespace());
    let runtime = cluster.runtime().clone();
    runtime.block_on(async {
        let mut writes = Writes {
            writer,
            node: node.to_owned(),
            said: said.clone(),
            pending: Queue::new(node),
            tasks: JoinSet::new(),
            told: Told::new(),
        };
        writes.run(&mut queue).await;
    });
}

struct Writes {
    writer: ClusterWriter,
    node: String,
    said: mpsc::UnboundedSender<Said>,
    pending: Queue<Subject, Write>,
    tasks: JoinSet<(Subject, Write, Done)>,
    told: Told,
}

impl Writes {
    async fn run(&mut self, queue: &mut mpsc::UnboundedReceiver<Write>) {
        loop {
            while let Some((subject, write)) = self.pending.next(Instant::now(), AT_ONCE) {
                self.start(subject, write);
            }
            let due = self
                .pending
                .next_due()
                .filter(|_| self.tasks.len() < AT_ONCE);
            tokio::select! {
                write = queue.recv() => match write {
                    Some(write) => self.take(write),
                    None => return,
                },
                Some(done) = self.tasks.join_next() => match done {
                    Ok((subject, write, done)) => self.done(&subject, write, done),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                () = until(due) => {}
            }
        }
    }

    fn take(&mut self, write: Write) {
        let now = Instant::now();
        let (subject, due) = match &write {
            Write::Put(object) => (Subject::Object(object.key()), now + POD_DELAY),
            Write::Ready(key) => {
                let subject = Subject::Object(key.clone());
                return self.pending.hasten(&subject, now + READY_DELAY);
            }
            Write::Delete(key) => return self.pending.cancel(&Subject::Object(key.clone())),
            Write::Status(status) => match &status.object {
                Some(key) => (Subject::Status(key.clone()), now),
                None => return,
            },
            Write::Node(_) => (Subject::Node, now),
            Write::Defaults(_) => (Subject::Defaults, now),
            Write::Services(_) => (Subject::Services, now),
            Write::Allocations { block, .. } => {
                (Subject::Allocations(block.cidr), now + BLOCK_DELAY)
            }
            Write::Claim(block) | Write::Free(block) | Write::TakeOver { block, .. } => {
                (Subject::Block(block.cidr), now)
            }
            Write::ReadLease(name) | Write::SwapLease { name, .. } => {
                (Subject::Lease(name.clone()), now)
            }
            Write::NodeReport { name, .. } => {
                let kind = model::Kind::CalicoNodeStatus;
                (Subject::Status(ObjectKey::global(kind, name)), now)
            }
        };
        self.pending.push(subject, write, due);
    }

    fn start(&mut self, subject: Subject, write: Write) {
        let (writer, node, said) = (self.writer.clone(), self.node.clone(), self.said.clone());
        let told = match &write {
            Write::Services(_) => self.told.clone(),
            _ => Told::new(),
        };
        self.tasks.spawn(async move {
            let attempt = attempt(&writer, &node, &write, &told, &said);
            let done = tokio::time::timeout(PATIENCE, attempt).await;
            let done = done.unwrap_or_else(|_| Done::Failed(slow(&subject)));
            (subject, write, done)
        });
    }

    fn done(&mut self, subject: &Subject, write: Write, done: Done) {
        match done {
            Done::Written => self.pending.written(subject),
            Done::Served(told) => {
                self.told = told;
                self.pending.written(subject);
            }
            Done::Failed(error) => {
                if self.pending.failed(subject, write, Instant::now()) == 1 {
                    tracing::warn!(%error, "datastore: not written, will be tried again");
                } else {
                    tracing::debug!(%error, "datastore: still not written");
                }
            }
        }
    }
}

fn slow(subject: &Subject) -> WriteError {
    WriteError::Slow {
        what: format!("{subject:?}"),
        seconds: PATIENCE.as_secs(),
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Whoever asked for a block or a lease is answered here, also where that failed: it asks again.
async fn attempt(
    writer: &ClusterWriter,
    node: &str,
    write: &Write,
    told: &Told,
    said: &mpsc::UnboundedSender<Said>,
) -> Done {
    let result = match write {
        Write::Put(object) => match &**object {
            Object::WorkloadEndpoint(endpoint) => {
                writer.annotate_pod(&PodAddresses::of(endpoint)).await
            }
            other => Err(WriteError::Kind {
                object: other.key(),
            }),
        },
        Write::Status(status) => writer.put_status(status).await,
        Write::Node(status) => writer.put_node_status(status).await,
        Write::NodeReport { name, status } => writer.put_node_report(name, status).await,
        Write::Allocations { block, allocations } => {
            writer.put_allocations(block, allocations).await
        }
        Write::Free(block) => match writer.delete_block(block).await {
            // Somebody else's by now.
            Err(WriteError::Changed { .. }) => Ok(()),
            result => result,
        },
        Write::Defaults(defaults) => match writer.make_defaults(defaults).await {
            Ok(made) => {
                for note in &made.notes {
                    tracing::info!(%note, "defaults");
                }
                for object in &made.objects {
                    tracing::info!(%object, "made, since the cluster had none of the kind");
                }
                Ok(())
            }
            Err(error) => Err(error),
        },
        Write::Services(picture) => {
            return match services::serve(writer, node, picture, told).await {
                Ok(told) => Done::Served(told),
                Err(error) => Done::Failed(error),
            };
        }
        Write::Claim(block) => {
            let created = writer.create_block(block).await;
            answer_claim(said, block.clone(), created);
            Ok(())
        }
        Write::TakeOver { block, by } => {
            let next = IpamBlock {
                node: by.clone(),
                ..block.clone()
            };
            let swapped = writer.swap_block(block, &next).await;
            answer_claim(said, next, swapped);
            Ok(())
        }
        Write::ReadLease(name) => {
            let read = writer.lease(name).await.map(|lease| (lease, None));
            answer_lease(said, name, read);
            Ok(())
        }
        Write::SwapLease {
            name,
            expected,
            next,
            begun,
            duration,
        } => {
            let read = swap(writer, name, expected.as_ref(), next, *duration).await;
            answer_lease(
                said,
                name,
                read.map(|(lease, ours)| (lease, ours.then_some(*begun))),
            );
            Ok(())
        }
        Write::Delete(_) | Write::Ready(_) => Ok(()),
    };
    match result {
        Ok(()) => Done::Written,
        Err(error) => Done::Failed(error),
    }
}

async fn swap(
    writer: &ClusterWriter,
    name: &str,
    expected: Option<&Lease>,
    next: &Lease,
    duration: Duration,
) -> Result<(Option<Lease>, bool), WriteError> {
    match writer.swap_lease(name, expected, next, duration).await {
        Ok(()) => Ok((Some(next.clone()), true)),
        Err(WriteError::LeaseChanged { lease, .. }) => Ok((lease, false)),
        Err(error) => Err(error),
    }
}

fn answer_claim(
    said: &mpsc::UnboundedSender<Said>,
    block: IpamBlock,
    result: Result<(), WriteError>,
) {
    let owner = match result {
        Ok(()) => Ok(block.node.clone()),
        Err(WriteError::Exists { object } | WriteError::Changed { object }) => owner_of(*object),
        Err(error) => Err(error.to_string()),
    };
    // Nobody waits for it any more when the agent stops.
    let _ = said.send(Said::Claim(Claim { block, owner }));
}

fn answer_lease(
    said: &mpsc::UnboundedSender<Said>,
    name: &str,
    read: Result<(Option<Lease>, Option<u64>), WriteError>,
) {
    match read {
        Ok((lease, written)) => {
            let name = name.to_owned();
            let _ = said.send(Said::Lease(LeaseRead {
                name,
                lease,
                written,
            }));
        }
        Err(error) => tracing::debug!(lease = name, %error, "lease"),
    }
}
