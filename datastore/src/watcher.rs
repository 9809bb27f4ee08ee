//! The thread that reads files as they change and says what that means.

use crate::STATE;
use crate::document::{self, Contents, Reading};
use crate::index::Index;
use crate::tree::{Changes, Tree};
use model::Update;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;

/// How long a file may be broken or empty before that is taken for what was meant.
const HALF_WRITTEN: Duration = Duration::from_millis(200);
/// How long a user's file may be missing before its objects are: some editors save a file by moving
/// the old one away first.
const MOVED_AWAY: Duration = Duration::from_millis(50);
/// How often to look whether the directory is still the same one and anybody still listens.
const AUDIT: Duration = Duration::from_secs(1);
/// How often to look whether a lost directory is back.
const RETURN: Duration = Duration::from_millis(200);

/// Why following a tree has ended.
enum End {
    /// Nobody listens any more.
    Closed,
    Lost(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

pub(crate) struct Watcher {
    root: PathBuf,
    updates: Sender<Update>,
    index: Index,
    /// Files whose state may be passing, and when it is believed.
    doubtful: BTreeMap<PathBuf, Instant>,
    /// A broken file keeps [`Update::InSync`] waiting until it is read or given up on.
    in_sync: bool,
    /// An empty directory in the place of a lost one is taken for a mount point whose file system
    /// is missing.
    lost: bool,
}

impl Watcher {
    pub(crate) fn new(root: &Path, updates: Sender<Update>) -> Self {
        Self {
            root: root.to_owned(),
            updates,
            index: Index::default(),
            doubtful: BTreeMap::new(),
            in_sync: false,
            lost: false,
        }
    }

    /// Runs until nobody listens any more.
    pub(crate) fn run(mut self, tree: Tree) {
        let mut tree: io::Result<Tree> = Ok(tree);
        loop {
            let end = match tree {
                Ok(tree) => self.follow(tree),
                Err(error) => End::Lost(error.to_string()),
            };
            let told = match end {
                End::Closed => return,
                End::Lost(reason) => self.lose(reason),
            };
            if told.is_err() || self.updates.is_closed() {
                return;
            }
            thread::sleep(RETURN);
            tree = Tree::open(&self.root);
        }
    }

    /// Says that the directory is lost, once for each time that it is.
    fn lose(&mut self, reason: String) -> Result<(), End> {
        if std::mem::replace(&mut self.lost, true) {
            return Ok(());
        }
        self.say(Update::Lost { reason })
    }

    fn follow(&mut self, tree: Tree) -> End {
        let Err(end) = self.until_end(tree);
        end
    }

    /// Says everything that is in the tree and every change of it.
    fn until_end(&mut self, mut tree: Tree) -> Result<Infallible, End> {
        let mut files = tree.scan(Path::new(""))?;
        let known = self.index.files_below(Path::new(""));
        if self.lost && files.is_empty() && !known.is_empty() {
            return Err(End::Lost(format!("{} is empty", self.root.display())));
        }
        self.lost = false;
        self.in_sync = false;
        self.doubtful.clear();
        files.extend(known);
        loop {
            self.read(files)?;
            if self.updates.is_closed() {
                return Err(End::Closed);
            }
            let changes = tree.wait(self.patience())?;
            if changes.root_gone || tree.is_replaced() {
                return Err(End::Lost(format!("{} is gone", self.root.display())));
            }
            files = self.dirty(&mut tree, changes)?;
        }
    }

    fn patience(&self) -> Duration {
        let next = self.doubtful.values().min();
        next.map_or(AUDIT, |at| {
            at.saturating_duration_since(Instant::now()).min(AUDIT)
        })
    }

    /// The files to read: those that changed, and those whose state is believed now.
    fn dirty(&self, tree: &mut Tree, changes: Changes) -> io::Result<BTreeSet<PathBuf>> {
        let mut files = changes.files;
        for folder in changes.gone.iter().chain(&changes.rescan) {
            files.extend(self.index.files_below(folder));
        }
        for folder in &changes.rescan {
            files.extend(tree.scan(folder)?);
        }
        let now = Instant::now();
        files.extend(
            self.doubtful
                .iter()
                .filter(|(_, at)| **at <= now)
                .map(|(p, _)| p.clone()),
        );
        Ok(files)
    }

    fn read(&mut self, files: BTreeSet<PathBuf>) -> Result<(), End> {
        for path in files {
            self.read_file(&path);
        }
        for update in self.index.changes() {
            self.say(update)?;
        }
        if !self.in_sync && self.doubtful.is_empty() {
            self.in_sync = true;
            self.say(Update::InSync)?;
        }
        Ok(())
    }

    fn read_file(&mut self, path: &Path) {
        let (contents, doubt) = match document::read(&self.root.join(path)) {
            Reading::Contents(contents) => (Some(contents), None),
            Reading::Broken(reason) => (
                Some(Contents {
                    entries: Vec::new(),
                    problems: vec![reason],
                }),
                Some(HALF_WRITTEN),
            ),
            Reading::Empty => (Some(Contents::default()), Some(HALF_WRITTEN)),
            Reading::Missing if path.starts_with(STATE) => (None, None),
            Reading::Missing => (None, Some(MOVED_AWAY)),
        };
        let harmless = contents
            .as_ref()
            .is_none_or(|contents| contents.problems.is_empty())
            && !self.index.defines_any(path);
        if let (Some(doubt), false) = (doubt, harmless) {
            let now = Instant::now();
            if *self.doubtful.entry(path.to_owned()).or_insert(now + doubt) > now {
                return;
            }
        }
        self.doubtful.remove(path);
        self.index.set(path, contents);
    }

    fn say(&self, update: Update) -> Result<(), End> {
        self.updates.blocking_send(update).map_err(|_| End::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::{TempDir, tempdir};
    use tokio::sync::mpsc::{Receiver, channel};

    const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";

    /// A watcher that has read `a.yaml` and what it said next.
    fn watcher() -> (TempDir, Watcher, Receiver<Update>) {
        let directory = tempdir().unwrap();
        let (sender, mut receiver) = channel(16);
        let mut watcher = Watcher::new(directory.path(), sender);
        fs::write(directory.path().join("a.yaml"), NAMESPACE).unwrap();
        read(&mut watcher);
        assert!(matches!(receiver.try_recv(), Ok(Update::Apply { .. })));
        assert!(matches!(receiver.try_recv(), Ok(Update::InSync)));
        (directory, watcher, receiver)
    }

    fn read(watcher: &mut Watcher) {
        assert!(watcher.read([PathBuf::from("a.yaml")].into()).is_ok());
    }

    /// Lets the time pass that a file's state is doubted.
    fn believe(watcher: &mut Watcher) {
        let at = watcher
            .doubtful
            .get_mut(Path::new("a.yaml"))
            .expect("doubtful");
        *at = Instant::now();
        read(watcher);
    }

    #[test]
    fn a_file_that_is_moved_away_and_written_again_is_never_gone() {
        let (directory, mut watcher, mut said) = watcher();
        let path = directory.path().join("a.yaml");
        fs::rename(&path, directory.path().join("a.yaml~")).unwrap();
        read(&mut watcher);
        assert!(watcher.patience() <= MOVED_AWAY);
        fs::write(&path, NAMESPACE).unwrap();
        read(&mut watcher);
        assert!(said.try_recv().is_err() && watcher.doubtful.is_empty());
        fs::remove_file(&path).unwrap();
        read(&mut watcher);
        assert!(said.try_recv().is_err());
        believe(&mut watcher);
        assert!(matches!(said.try_recv(), Ok(Update::Delete(_))));
    }

    #[test]
    fn a_broken_or_emptied_file_is_doubted_first_and_believed_then() {
        let (directory, mut watcher, mut said) = watcher();
        let path = directory.path().join("a.yaml");
        fs::write(&path, "a: [").unwrap();
        read(&mut watcher);
        assert!(said.try_recv().is_err());
        believe(&mut watcher);
        assert!(matches!(said.try_recv(), Ok(Update::Unreadable { .. })));
        fs::write(&path, "").unwrap();
        read(&mut watcher);
        assert!(said.try_recv().is_err());
        believe(&mut watcher);
        assert!(matches!(said.try_recv(), Ok(Update::Delete(_))));
        assert!(matches!(said.try_recv(), Ok(Update::Readable { .. })));
    }

    #[test]
    fn what_an_agent_removes_is_gone_at_once() {
        let (directory, mut watcher, mut said) = watcher();
        fs::create_dir_all(directory.path().join("state/nodes")).unwrap();
        let path = Path::new("state/nodes/n.yaml");
        let node = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n}\n";
        fs::write(directory.path().join(path), node).unwrap();
        assert!(watcher.read([path.to_owned()].into()).is_ok());
        assert!(matches!(said.try_recv(), Ok(Update::Apply { .. })));
        fs::remove_file(directory.path().join(path)).unwrap();
        assert!(watcher.read([path.to_owned()].into()).is_ok());
        assert!(matches!(said.try_recv(), Ok(Update::Delete(_))));
    }
}
