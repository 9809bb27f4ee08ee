//! All sources of a cluster as one stream of updates.

use super::board::Board;
use super::client::Cluster;
use super::demand;
use super::reader::{Reader, Told};
use super::resource::{RESOURCES, Source};
use model::Update;
use std::sync::Arc;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// How many updates wait for a slow reader before the servers wait too.
const BACKLOG: usize = 1024;
/// How many answers of readers wait.
const TOLD: usize = 64;

impl Cluster {
    /// Says all that is in the cluster, then [`Update::InSync`], then every change, until the
    /// receiver is dropped. Where no server answers it says [`Update::Lost`], and when one does
    /// again what has changed and [`Update::InSync`]; what can't be read is [`Update::Unreadable`].
    /// `node` is the name of the node that asks, whose own pods it knows better.
    pub fn watch(&self, node: &str) -> Receiver<Update> {
        let (updates, receiver) = mpsc::channel(BACKLOG);
        let (told, tellings) = mpsc::channel(TOLD);
        let watch = Watch {
            cluster: self.clone(),
            node: node.into(),
            board: Board::default(),
            told,
            updates,
        };
        self.runtime().spawn(watch.run(tellings));
        receiver
    }
}

struct Watch {
    cluster: Cluster,
    node: Arc<str>,
    board: Board,
    told: Sender<(Arc<str>, Told)>,
    updates: Sender<Update>,
}

impl Watch {
    async fn run(mut self, mut tellings: Receiver<(Arc<str>, Told)>) {
        for resource in RESOURCES.iter().filter(|resource| resource.always) {
            self.follow(Source::all(resource));
        }
        loop {
            let told = tokio::select! {
                told = tellings.recv() => told,
                () = self.updates.closed() => return,
            };
            let Some((source, told)) = told else { return };
            let updates = match told {
                Told::Said(updates) => updates,
                Told::Health(health) => self.board.note(&source, health),
            };
            for update in updates {
                if let Update::Apply { object, .. } = &update {
                    for needed in demand::of(object, self.cluster.namespace()) {
                        self.follow(needed);
                    }
                }
                if self.updates.send(update).await.is_err() {
                    return;
                }
            }
        }
    }

    fn follow(&mut self, source: Source) {
        if !self.board.add(&source.to_string()) {
            return;
        }
        let reader = Reader {
            cluster: self.cluster.clone(),
            source,
            own: Arc::clone(&self.node),
            told: self.told.clone(),
        };
        self.cluster.runtime().spawn(reader.run());
    }
}
