//! The last in-sync view on disk, for a start without the datastore.
//!
//! Written whole to a temporary file and renamed, by a thread of its own, at most once in
//! [`QUIET`], and so rarely that encoding takes no more than a hundredth of the time; a torn or
//! foreign file is reported and ignored.

use model::{Object, Sharing};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const VERSION: u32 = 1;
const FILE: &str = "snapshot.json";
/// Views that follow each other within this time are written once.
pub(crate) const QUIET: Duration = Duration::from_millis(500);
/// A view is written at most once in so many times of what it took to encode the one before.
const RARELY: u32 = 100;
/// However large it is, a view is not older than this.
const SELDOM: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Snapshot {
    node: String,
    #[serde(deserialize_with = "shared")]
    objects: Vec<Object>,
}

/// Objects that hold what equal ones hold as soon as they are read: a large view is never in memory
/// with everything that it repeats.
fn shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Object>, D::Error> {
    struct Shared;
    impl<'de> Visitor<'de> for Shared {
        type Value = Vec<Object>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of objects")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
            let mut sharing = Sharing::default();
            let mut objects = Vec::new();
            while let Some(mut object) = all.next_element()? {
                sharing.share(&mut object);
                objects.push(object);
            }
            Ok(objects)
        }
    }
    deserializer.deserialize_seq(Shared)
}

/// What every version of the file begins with, whatever else it holds.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}: not a snapshot: {source}")]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{path}: version {version}; this agent reads {VERSION}")]
    Version { path: PathBuf, version: u32 },
    #[error("{path}: belongs to node {node}")]
    Node { path: PathBuf, node: String },
}

/// The objects of the last in-sync view; none where there never was one.
pub(crate) fn load(folder: &Path, node: &str) -> Result<Option<Vec<Object>>, LoadError> {
    let path = folder.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LoadError::Read { path, source }),
    };
    let unreadable = |source| LoadError::Parse {
        path: path.clone(),
        source,
    };
    let Head { version } = serde_json::from_slice(&text).map_err(unreadable)?;
    if version != VERSION {
        return Err(LoadError::Version { path, version });
    }
    let snapshot: Snapshot = serde_json::from_slice(&text).map_err(unreadable)?;
    if snapshot.node != node {
        return Err(LoadError::Node {
            path,
            node: snapshot.node,
        });
    }
    Ok(Some(snapshot.objects))
}

/// Writes views in the background.
pub(crate) struct Saver {
    views: Sender<Vec<Arc<Object>>>,
    /// What encoding the last view took, in microseconds.
    took: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Saver {
    pub(crate) fn start(folder: &Path, node: &str) -> Result<Self, std::io::Error> {
        let (views, queue) = channel();
        let (folder, node) = (folder.to_owned(), node.to_owned());
        let took = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&took);
        let thread = std::thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || run(&queue, &folder, &node, &told))?;
        Ok(Self {
            views,
            took,
            thread: Some(thread),
        })
    }

    /// How long to wait from one view to the next.
    pub(crate) fn pause(&self) -> Duration {
        pause_after(Duration::from_micros(self.took.load(Ordering::Relaxed)))
    }

    /// Have this view written soon.
    pub(crate) fn save(&self, objects: Vec<Arc<Object>>) {
        // The thread ends only with this value.
        let _ = self.views.send(objects);
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        let (closed, _) = channel();
        self.views = closed;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(RARELY).clamp(QUIET, SELDOM)
}

fn run(queue: &Receiver<Vec<Arc<Object>>>, folder: &Path, node: &str, took: &AtomicU64) {
    while let Ok(mut objects) = queue.recv() {
        let due = Instant::now() + QUIET;
        // Newer views take its place, but do not put it off.
        while let Ok(newer) = queue.recv_timeout(due.saturating_duration_since(Instant::now())) {
            objects = newer;
        }
        match write(folder, node, &objects) {
            Ok(encoding) => {
                let micros = u64::try_from(encoding.as_micros()).unwrap_or(u64::MAX);
                took.store(micros, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::error!(%error, folder = %folder.display(), "snapshot not written");
            }
        }
    }
}

/// Object by object, so that a large view is not held a second time as text. Returns how long it
/// took before the disk was waited for.
fn write(folder: &Path, node: &str, objects: &[Arc<Object>]) -> Result<Duration, std::io::Error> {
    let begun = Instant::now();
    let temporary = folder.join("snapshot.json.new");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&temporary)?);
    let node = serde_json::to_string(node)?;
    write!(file, r#"{{"version":{VERSION},"node":{node},"objects":["#)?;
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            file.write_all(b",")?;
        }
        serde_json::to_writer(&mut file, &**object)?;
    }
    file.write_all(b"]}")?;
    let file = file
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)?;
    let encoding = begun.elapsed();
    file.sync_all()?;
    std::fs::rename(&temporary, folder.join(FILE))?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(encoding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Labels, Namespace};

    fn objects() -> Vec<Object> {
        vec![Object::Namespace(Namespace {
            name: "shop".into(),
            labels: Labels::new(),
            annotations: model::Annotations::new(),
        })]
    }

    fn shared() -> Vec<Arc<Object>> {
        objects().into_iter().map(Arc::new).collect()
    }

    #[test]
    fn what_was_saved_last_is_there_when_the_saver_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let saver = Saver::start(folder.path(), "n1").unwrap();
        saver.save(vec![]);
        saver.save(shared());
        drop(saver);
        assert_eq!(load(folder.path(), "n1").unwrap(), Some(objects()));
    }

    #[test]
    fn a_view_that_takes_long_to_write_is_written_rarely_but_not_never() {
        let after = |millis| pause_after(Duration::from_millis(millis));
        assert_eq!(after(1), QUIET);
        assert_eq!(after(600), Duration::from_secs(60));
        assert_eq!(after(10_000), SELDOM);
    }

    #[test]
    fn views_that_keep_coming_do_not_keep_the_snapshot_from_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let saver = Saver::start(folder.path(), "n1").unwrap();
        let patience = Instant::now() + 40 * QUIET;
        while load(folder.path(), "n1").unwrap().is_none() {
            assert!(Instant::now() < patience, "not written");
            saver.save(shared());
            std::thread::sleep(QUIET / 50);
        }
    }

    #[test]
    fn a_snapshot_of_a_later_version_is_refused_by_its_number_whatever_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let later = r#"{"version": 2, "node": ["n1"], "kinds": {}}"#;
        std::fs::write(folder.path().join(FILE), later).unwrap();
        let error = load(folder.path(), "n1").unwrap_err().to_string();
        assert!(error.ends_with("version 2; this agent reads 1"), "{error}");
    }

    #[test]
    fn a_missing_snapshot_is_none_and_a_torn_or_foreign_one_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path(), "n1").unwrap(), None);
        write(folder.path(), "n1", &shared()).unwrap();
        let other = load(folder.path(), "n2").unwrap_err().to_string();
        assert!(
            other.ends_with("snapshot.json: belongs to node n1"),
            "{other}"
        );
        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(
            load(folder.path(), "n1")
                .unwrap_err()
                .to_string()
                .contains("not a snapshot")
        );
    }
}
