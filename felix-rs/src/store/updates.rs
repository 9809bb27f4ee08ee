//! What the datastore says, from the attempt at it that holds.

use super::{RETRY, Source};
use model::Update;
use tokio::sync::mpsc::Receiver;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

/// All that a datastore says to a node. Where it can't be opened, or ends, that is
/// [`Update::Lost`], and it is tried again.
pub(crate) struct Updates {
    source: Source,
    node: String,
    state: State,
    /// Why it was lost, as told last.
    told: Option<String>,
}

enum State {
    /// Files are read and a server may be asked for: not on this thread.
    Opening(JoinHandle<Result<Receiver<Update>, String>>),
    Open(Receiver<Update>),
    Failed {
        again: Instant,
    },
}

impl Updates {
    /// Begins to read for this node. Within a runtime only.
    pub(crate) fn of(source: Source, node: &str) -> Self {
        Self {
            state: open(&source, node),
            source,
            node: node.to_owned(),
            told: None,
        }
    }

    /// The next one. Nothing is lost where the caller stops to wait for it.
    pub(crate) async fn recv(&mut self) -> Update {
        loop {
            let reason = match &mut self.state {
                State::Open(stream) => match stream.recv().await {
                    Some(update) => return update,
                    None => format!("{}: no more updates", self.source),
                },
                State::Opening(opening) => match opening.await {
                    Ok(Ok(stream)) => {
                        self.told = None;
                        self.state = State::Open(stream);
                        continue;
                    }
                    Ok(Err(reason)) => reason,
                    Err(error) => error.to_string(),
                },
                State::Failed { again } => {
                    sleep_until(*again).await;
                    self.state = open(&self.source, &self.node);
                    continue;
                }
            };
            self.state = State::Failed {
                again: Instant::now() + RETRY,
            };
            if self.told.as_ref() != Some(&reason) {
                self.told = Some(reason.clone());
                return Update::Lost { reason };
            }
        }
    }

    /// The next one, where it is here already.
    pub(crate) fn try_recv(&mut self) -> Option<Update> {
        match &mut self.state {
            State::Open(stream) => stream.try_recv().ok(),
            _ => None,
        }
    }
}

fn open(source: &Source, node: &str) -> State {
    let (source, node) = (source.clone(), node.to_owned());
    State::Opening(spawn_blocking(move || source.watch(&node)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::Duration;

    /// The next update, by a caller that stops to wait again and again.
    async fn impatient(updates: &mut Updates) -> Update {
        loop {
            if let Ok(update) = tokio::time::timeout(Duration::from_millis(3), updates.recv()).await
            {
                return update;
            }
        }
    }

    fn directory(path: &Path) -> Updates {
        Updates::of(Source::Directory(path.to_owned()), "n1")
    }

    #[tokio::test]
    async fn a_datastore_that_is_not_there_is_lost_once_and_read_when_it_comes() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("store");
        let mut updates = directory(&path);
        let Update::Lost { reason } = impatient(&mut updates).await else {
            panic!("something was read");
        };
        assert!(reason.contains(path.to_str().unwrap()), "{reason}");
        std::fs::create_dir(&path).unwrap();
        let pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: pods}\n\
                    spec: {cidr: 10.244.0.0/16}\n";
        std::fs::write(path.join("pool.yaml"), pool).unwrap();
        let applied = impatient(&mut updates).await;
        assert!(matches!(applied, Update::Apply { .. }), "{applied:?}");
        let synced = impatient(&mut updates).await;
        assert!(matches!(synced, Update::InSync), "{synced:?}");
        assert!(updates.try_recv().is_none());
    }
}
