//! Atomic, exclusive writes below `state/`.
//!
//! Every write holds an exclusive `flock` on `state/.lock`, so that comparing and swapping are one
//! step among all agents that share the directory, and it makes its file whole before it gives it
//! its name, so that readers and crashes never see half of one.

mod atomic;
mod lease;
mod status;
#[cfg(test)]
mod tests;

pub use status::{Condition, Status};

use crate::STATE;
use crate::document::{self, Reading, Said};
use atomic::{Durability, Placed};
use model::manifest::{self, Parsed};
use model::{Kind, Lease, Object, ObjectKey};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Why an object or a status was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The object exists, perhaps written by another agent.
    #[error("{} exists already", object.key())]
    Exists {
        /// The object as it is.
        object: Box<Object>,
    },
    /// The object is not what the caller thought it was.
    #[error("{} was changed by somebody else", object.key())]
    Changed {
        /// The object as it is.
        object: Box<Object>,
    },
    /// There is no such object.
    #[error("{object} does not exist")]
    Missing {
        /// The object.
        object: ObjectKey,
    },
    /// Only users write this kind.
    #[error("{object}: agents do not write objects of this kind")]
    Kind {
        /// The object.
        object: ObjectKey,
    },
    /// The object would not be read back as it is.
    #[error("{object}: it can't be written: {reason}")]
    Unwritable {
        /// The object.
        object: ObjectKey,
        /// Why, in words.
        reason: String,
    },
    /// What is in the place of the object is not a manifest of it.
    #[error("{object}: {} holds something else: {reason}; remove it", path.display())]
    Occupied {
        /// The object.
        object: ObjectKey,
        /// The file in its place.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A lease is not what the caller thought it was.
    #[error("lease {name} was changed by somebody else")]
    LeaseChanged {
        /// Its name.
        name: String,
        /// The lease as it is; none if there is none.
        lease: Option<Lease>,
    },
    /// The Kubernetes API refused, or does not answer.
    #[error(transparent)]
    Api(#[from] crate::kubernetes::ApiError),
    /// Somebody else was faster again and again.
    #[error("{what}: changed by others again and again")]
    Contended {
        /// What was to be written.
        what: String,
    },
    /// The datastore did not answer in time.
    #[error("{what}: no answer in {seconds} s")]
    Slow {
        /// What was to be written.
        what: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was written, read or locked.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Writes objects and status. Every call opens what it needs, so that clones and other processes
/// exclude each other.
#[derive(Debug, Clone)]
pub struct Writer {
    state: PathBuf,
}

impl Writer {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            state: root.join(STATE),
        }
    }

    /// Writes the object, whether it exists or not. Does nothing if it is there as it is.
    pub fn put(&self, object: &Object) -> Result<(), WriteError> {
        let path = self.path(&object.key())?;
        let text = text(object)?;
        self.exclusively(&path, || atomic::replace(&path, &text, Durability::Synced))
    }

    /// Writes the object unless it exists: of several agents that try, exactly one succeeds.
    pub fn create(&self, object: &Object) -> Result<(), WriteError> {
        let key = object.key();
        let path = self.path(&key)?;
        let text = text(object)?;
        match self.exclusively(&path, || atomic::create(&path, &text))? {
            Placed::Here => Ok(()),
            Placed::Occupied => match read(&key, &path)? {
                Some(object) => Err(WriteError::Exists {
                    object: Box::new(object),
                }),
                // Deleted by somebody since.
                None => self.create(object),
            },
        }
    }

    /// Deletes the object if it exists and, where `expected` is given, if it is that.
    pub fn delete(&self, key: &ObjectKey, expected: Option<&Object>) -> Result<(), WriteError> {
        let path = self.path(key)?;
        let _lock = self.lock()?;
        if let Some(expected) = expected {
            match read(key, &path)? {
                None => return Ok(()),
                Some(found) if found == *expected => {}
                Some(found) => {
                    return Err(WriteError::Changed {
                        object: Box::new(found),
                    });
                }
            }
        }
        atomic::remove(&path).map_err(|source| WriteError::Io { path, source })
    }

    /// Writes `next` in the place of the object of the same key, if that is `expected`.
    pub fn swap(&self, expected: &Object, next: &Object) -> Result<(), WriteError> {
        let key = next.key();
        let path = self.path(&key)?;
        let text = text(next)?;
        let _lock = self.lock()?;
        match read(&key, &path)? {
            Some(found) if found == *expected => {}
            Some(found) => {
                return Err(WriteError::Changed {
                    object: Box::new(found),
                });
            }
            None => return Err(WriteError::Missing { object: key }),
        }
        atomic::replace(&path, &text, Durability::Synced)
            .map_err(|source| WriteError::Io { path, source })
    }

    /// Writes what a node thinks of an object, or removes it where there are no conditions. Does
    /// nothing if it is there as it is.
    pub fn put_status(&self, status: &Status) -> Result<(), WriteError> {
        let path = self.state.join(status.path());
        match status.text() {
            Some(text) => self.exclusively(&path, || {
                atomic::replace(&path, &text, Durability::Unsynced)
            }),
            None if path.exists() => {
                let _lock = self.lock()?;
                atomic::remove(&path).map_err(|source| WriteError::Io { path, source })
            }
            None => Ok(()),
        }
    }

    /// Makes the folder of `path`, takes the lock and writes.
    fn exclusively<T>(
        &self,
        path: &Path,
        write: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, WriteError> {
        let error = |source| WriteError::Io {
            path: path.to_owned(),
            source,
        };
        let _lock = self.lock()?;
        let folders: Vec<&Path> = path
            .ancestors()
            .skip(1)
            .take_while(|folder| *folder != self.state)
            .collect();
        for folder in folders.into_iter().rev() {
            make(folder).map_err(error)?;
        }
        write().map_err(error)
    }

    /// The lock of all writers, held until the file is dropped. It makes `state/` but nothing above
    /// that, so that a directory that is lost is not replaced by an empty one.
    fn lock(&self) -> Result<File, WriteError> {
        let path = self.state.join(".lock");
        let open = || {
            make(&self.state)?;
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(|source| WriteError::Io {
            path: path.clone(),
            source,
        })
    }

    fn path(&self, key: &ObjectKey) -> Result<PathBuf, WriteError> {
        let folder = match key.kind {
            Kind::WorkloadEndpoint => "workloadendpoints",
            Kind::IpamBlock => "ipamblocks",
            Kind::Node => "nodes",
            _ => {
                return Err(WriteError::Kind {
                    object: key.clone(),
                });
            }
        };
        let parts = key.namespace.iter().chain([&key.name]).map(String::as_str);
        Ok(self.state.join(folder).join(atomic::file_name(parts)))
    }
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// The object as YAML, checked to be read back as the same object.
fn text(object: &Object) -> Result<String, WriteError> {
    let unwritable = |reason| WriteError::Unwritable {
        object: object.key(),
        reason,
    };
    let document = manifest::to_manifest(object).ok_or_else(|| WriteError::Kind {
        object: object.key(),
    })?;
    match manifest::parse(&document) {
        Ok(Parsed::Valid { object: read, .. }) if read == *object => {}
        Ok(Parsed::Invalid { invalid, .. }) => return Err(unwritable(invalid.to_string())),
        Ok(_) => return Err(unwritable("it would be read back as another".to_owned())),
        Err(error) => return Err(unwritable(error.to_string())),
    }
    serde_saphyr::to_string(&document).map_err(|error| unwritable(error.to_string()))
}

/// The object that is in `path`, if there is a file.
fn read(key: &ObjectKey, path: &Path) -> Result<Option<Object>, WriteError> {
    let occupied = |reason: String| WriteError::Occupied {
        object: key.clone(),
        path: path.to_owned(),
        reason,
    };
    let contents = match document::read(path) {
        Reading::Missing => return Ok(None),
        Reading::Empty => return Err(occupied("it is empty".to_owned())),
        Reading::Broken(reason) => return Err(occupied(reason)),
        Reading::Contents(contents) => contents,
    };
    let entry = contents.entries.into_iter().find(|entry| entry.key == *key);
    match entry.as_ref().map(|entry| &*entry.said) {
        Some(Said::Apply { object, .. }) => Ok(Some(object.clone())),
        Some(Said::Reject { invalid, .. }) => Err(occupied(invalid.to_string())),
        None => Err(occupied(contents.problems.join("; "))),
    }
}
