//! A listener that remembers, and waits for conditions.

use datastore::Directory;
use model::{Object, ObjectKey, Update};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Far longer than anything takes: reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Listener {
    updates: Receiver<Update>,
    pub(crate) known: BTreeMap<ObjectKey, Object>,
    pub(crate) unreadable: BTreeMap<String, String>,
    pub(crate) rejected: Vec<String>,
    pub(crate) deleted: Vec<ObjectKey>,
    pub(crate) applied: usize,
    pub(crate) in_sync: usize,
    pub(crate) lost: usize,
}

impl Listener {
    pub(crate) fn start(path: &Path) -> Self {
        Self::new(Directory::open(path).unwrap().watch().unwrap())
    }

    /// Listens from the start until all is said.
    pub(crate) fn in_sync(path: &Path) -> Self {
        let mut listener = Self::start(path);
        listener.until("in sync", |listener| listener.in_sync == 1);
        listener
    }

    pub(crate) fn new(mut updates: tokio::sync::mpsc::Receiver<Update>) -> Self {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            while let Some(update) = updates.blocking_recv() {
                if sender.send(update).is_err() {
                    return;
                }
            }
        });
        Self {
            updates: receiver,
            known: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            rejected: Vec::new(),
            deleted: Vec::new(),
            applied: 0,
            in_sync: 0,
            lost: 0,
        }
    }

    /// Takes updates until `condition` holds.
    pub(crate) fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            match self.updates.recv_timeout(PATIENCE) {
                Ok(update) => self.take(update),
                Err(error) => panic!("{what}: {error}; {} objects known", self.known.len()),
            }
        }
    }

    /// Waits until everything that was written before has been said.
    pub(crate) fn fence(&mut self, root: &Path) {
        let name = format!("fence-{}", self.applied);
        write(&root.join("zzz-fence.yaml"), &namespace(&name));
        self.until("fence", |listener| listener.knows(&name));
    }

    pub(crate) fn knows(&self, name: &str) -> bool {
        self.known.keys().any(|key| key.name == name)
    }

    /// The label `version` of a namespace.
    pub(crate) fn version(&self, name: &str) -> Option<&str> {
        self.known.values().find_map(|object| match object {
            Object::Namespace(found) if found.name == name => {
                found.labels.get("version").map(model::Text::as_str)
            }
            _ => None,
        })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.known.keys().map(ToString::to_string);
        names
            .filter(|name| !name.starts_with("Namespace/fence-"))
            .collect()
    }

    fn take(&mut self, update: Update) {
        match update {
            Update::Apply { object, .. } => {
                self.applied += 1;
                let before = self.known.insert(object.key(), object.clone());
                assert_ne!(before, Some(object), "said twice");
            }
            Update::Delete(key) => {
                assert!(self.known.remove(&key).is_some(), "{key} was never said");
                if !key.name.starts_with("fence-") {
                    self.deleted.push(key);
                }
            }
            Update::Reject { invalid, .. } => self.rejected.push(invalid.to_string()),
            Update::Unreadable { source, reason } => {
                self.unreadable.insert(source, reason);
            }
            Update::Readable { source } => {
                assert!(
                    self.unreadable.remove(&source).is_some(),
                    "{source} was readable"
                );
            }
            Update::InSync => self.in_sync += 1,
            Update::Lost { .. } => self.lost += 1,
        }
    }
}

pub(crate) fn namespace(name: &str) -> String {
    namespace_version(name, "1")
}

pub(crate) fn namespace_version(name: &str, version: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {{version: \
         \"{version}\"}}\n"
    )
}

/// Writes in place, as a shell's redirection does.
pub(crate) fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
