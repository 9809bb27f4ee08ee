//! Leases: compared and swapped under the lock of all writers.

use super::atomic::{self, Durability};
use super::{WriteError, Writer, make};
use model::Lease;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const FOLDER: &str = ".leases";

impl Writer {
    /// The lease of this name, if anybody ever took it. One that can't be read is as good as none.
    pub fn lease(&self, name: &str) -> Result<Option<Lease>, WriteError> {
        read(&self.lease_path(name))
    }

    /// Replaces the lease by `next` if it is `expected` (none: if there is none). Of several agents
    /// that try, exactly one succeeds; the others learn what it is.
    pub fn swap_lease(
        &self,
        name: &str,
        expected: Option<&Lease>,
        next: &Lease,
    ) -> Result<(), WriteError> {
        let path = self.lease_path(name);
        let io = |source| WriteError::Io {
            path: path.clone(),
            source,
        };
        let _lock = self.lock()?;
        let lease = read(&path)?;
        if lease.as_ref() != expected {
            let name = name.to_owned();
            return Err(WriteError::LeaseChanged { name, lease });
        }
        make(&self.state.join(FOLDER)).map_err(io)?;
        let text = serde_saphyr::to_string(next).expect("invariant: a name and a number are YAML");
        // After a power cut nobody holds anything.
        atomic::replace(&path, &text, Durability::Unsynced).map_err(io)
    }

    fn lease_path(&self, name: &str) -> PathBuf {
        let file = atomic::file_name([name].into_iter());
        self.state.join(FOLDER).join(file)
    }
}

fn read(path: &Path) -> Result<Option<Lease>, WriteError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(serde_saphyr::from_str(&text).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(WriteError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}
