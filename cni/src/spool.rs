//! Deletions kept on disk while the agent is away.
//!
//! A file `<container id>.<interface>.json` is one DEL [`Request`] as JSON, complete once it has
//! its name; names that start with a dot are being written. The agent takes them up at its start.

use model::cni::Request;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The name of a request's file.
pub fn file_name(request: &Request) -> String {
    format!("{}.{}.json", request.container_id, request.ifname)
}

/// Keeps a deletion, atomically and durably. The same deletion again replaces the file.
pub fn write(directory: &Path, request: &Request) -> io::Result<PathBuf> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let name = file_name(request);
    let (path, partial) = (
        directory.join(&name),
        directory.join(format!(".{}.{name}", std::process::id())),
    );
    let written = write_new(&partial, request).and_then(|()| fs::rename(&partial, &path));
    if let Err(error) = written {
        // Best effort: the first error is the one to tell.
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    Ok(path)
}

/// Reads a file of the spool.
pub fn read(path: &Path) -> io::Result<Request> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn write_new(path: &Path, request: &Request) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(&serde_json::to_vec(request)?)?;
    file.sync_all()
}
