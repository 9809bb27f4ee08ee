//! The directory: opened once, watched and written to.

use crate::filesystem;
use crate::tree::Tree;
use crate::watcher::Watcher;
use crate::writer::Writer;
use model::Update;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use tokio::sync::mpsc;

/// How many updates wait for a slow reader before the watching thread waits too.
const BACKLOG: usize = 1024;

/// Why a directory can't be used as a datastore.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing is there.
    #[error("datastore {path}: there is no such directory; create it, or name another")]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("datastore {path}: this is not a directory")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// On this file system, changes by other machines are not seen or locks are not shared.
    #[error(
        "datastore {path}: it lies on {file_system}, where changes made elsewhere are not \
         notified and locks may not be shared; use a local file system (ext4, xfs, btrfs, tmpfs) \
         or bind-mount one"
    )]
    FileSystem {
        /// The directory.
        path: PathBuf,
        /// What the file system is called.
        file_system: &'static str,
    },
    /// It can't be watched, for instance because inotify has no room left.
    #[error("datastore {path}: it can't be watched: {source}")]
    Watch {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else, such as missing permissions.
    #[error("datastore {path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A directory of manifests. Opening it changes nothing.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory at `path`, if it is one and lies on a file system that can do what is needed.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        // Absolute, so that it stays the same one wherever the process goes.
        let path = std::path::absolute(path).map_err(|source| OpenError::Io {
            path: path.to_owned(),
            source,
        })?;
        match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(OpenError::NotADirectory { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::Missing { path });
            }
            Err(source) => return Err(OpenError::Io { path, source }),
        }
        match filesystem::unsuitable(&path) {
            Ok(None) => Ok(Self { path }),
            Ok(Some(file_system)) => Err(OpenError::FileSystem { path, file_system }),
            Err(source) => Err(OpenError::Io { path, source }),
        }
    }

    /// Starts a thread that says all that is in the directory, then [`Update::InSync`], then every
    /// change. It ends when the receiver is dropped. Where the directory vanishes it says
    /// [`Update::Lost`], and when it is back what has changed and [`Update::InSync`] again.
    pub fn watch(&self) -> Result<mpsc::Receiver<Update>, OpenError> {
        let watch = |source| OpenError::Watch {
            path: self.path.clone(),
            source,
        };
        let tree = Tree::open(&self.path).map_err(watch)?;
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let watcher = Watcher::new(&self.path, sender);
        thread::Builder::new()
            .name("datastore".to_owned())
            .spawn(move || watcher.run(tree))
            .map_err(watch)?;
        Ok(receiver)
    }

    /// Writes objects and status below `state/`.
    pub fn writer(&self) -> Writer {
        Writer::new(&self.path)
    }
}
