//! The directory datastore that the agents of a lab share.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A directory of YAML.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The store in `dir`, made if missing.
    ///
    /// # Errors
    /// It can't be made.
    pub fn new(dir: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self { dir })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Puts a file in place by an atomic rename; returns the time just before.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, name: &str, yaml: &str) -> Result<Instant> {
        let temporary = self.dir.join(format!(".{name}.tmp"));
        std::fs::write(&temporary, yaml).with_context(|| temporary.display().to_string())?;
        let before = Instant::now();
        std::fs::rename(&temporary, self.dir.join(name)).with_context(|| name.to_owned())?;
        Ok(before)
    }

    /// Text of a file.
    ///
    /// # Errors
    /// It is not there.
    pub fn read(&self, name: &str) -> Result<String> {
        std::fs::read_to_string(self.dir.join(name)).with_context(|| name.to_owned())
    }

    /// Removes a file; returns the time just before.
    ///
    /// # Errors
    /// It is not there.
    pub fn remove(&self, name: &str) -> Result<Instant> {
        let before = Instant::now();
        std::fs::remove_file(self.dir.join(name)).with_context(|| name.to_owned())?;
        Ok(before)
    }
}
