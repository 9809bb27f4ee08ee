//! The folders of the directory and their inotify watches.

use crate::{STATE, STATUS};
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many buffers full of events are taken at once, so that a storm of them can't keep what is
/// already known from being looked at.
const MAX_BUFFERS: usize = 64;

/// Where something may have changed. Paths are relative to the root.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Files that were written, created, moved or removed.
    pub(crate) files: BTreeSet<PathBuf>,
    /// Folders that are gone.
    pub(crate) gone: BTreeSet<PathBuf>,
    /// Folders of which everything must be looked at again.
    pub(crate) rescan: BTreeSet<PathBuf>,
    /// The root itself was moved, removed or unmounted.
    pub(crate) root_gone: bool,
}

/// Watches every folder below a root.
pub(crate) struct Tree {
    root: PathBuf,
    identity: (u64, u64),
    inotify: Inotify,
    folders: HashMap<WatchDescriptor, PathBuf>,
    buffer: Vec<u8>,
}

impl Tree {
    /// Watches the root alone; [`Tree::scan`] goes below.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let mut tree = Self {
            root: root.to_owned(),
            identity: identity(root)?,
            inotify: Inotify::init().map_err(exhausted)?,
            folders: HashMap::new(),
            buffer: vec![0; 64 << 10],
        };
        tree.watch(Path::new(""))?;
        Ok(tree)
    }

    /// Whether another directory, or none, is at the root's path.
    pub(crate) fn is_replaced(&self) -> bool {
        !identity(&self.root).is_ok_and(|found| found == self.identity)
    }

    /// Watches `folder` and all below it; the manifests that are there.
    pub(crate) fn scan(&mut self, folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
        let mut files = BTreeSet::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            // Watched before it is listed, so that nothing falls between the two.
            match self
                .watch(&folder)
                .and_then(|()| self.list(&folder, &mut files, &mut folders))
            {
                Ok(()) => {}
                Err(error) if folder.as_os_str().is_empty() => return Err(error),
                Err(error) if vanished(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::warn!(folder = %folder.display(), "not permitted to read; skipped");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }

    /// Waits until something has changed, at most for `timeout`.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<Changes> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match poll(
            &mut [PollFd::new(&self.inotify, PollFlags::IN)],
            Some(&timeout),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut changes = Changes::default();
        for _ in 0..MAX_BUFFERS {
            if !self.take(&mut changes)? {
                break;
            }
        }
        Ok(changes)
    }

    /// Takes a buffer full of events; false if there was none.
    fn take(&mut self, changes: &mut Changes) -> io::Result<bool> {
        let events = match self.inotify.read_events(&mut self.buffer) {
            Ok(events) => events,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        for event in events {
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                changes.rescan.insert(PathBuf::new());
            } else if event.mask.contains(EventMask::IGNORED) {
                self.folders.remove(&event.wd);
            } else if let Some(folder) = self.folders.get(&event.wd) {
                note(folder, event.mask, event.name, changes);
            }
        }
        for folder in &changes.gone {
            forget(&mut self.folders, &self.inotify, folder);
        }
        Ok(true)
    }

    fn watch(&mut self, folder: &Path) -> io::Result<()> {
        let mask = WatchMask::ATTRIB
            | WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let watch = self
            .inotify
            .watches()
            .add(self.root.join(folder), mask)
            .map_err(exhausted)?;
        self.folders.insert(watch, folder.to_owned());
        Ok(())
    }

    fn list(
        &self,
        folder: &Path,
        files: &mut BTreeSet<PathBuf>,
        folders: &mut Vec<PathBuf>,
    ) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join(folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            // Links to folders are not followed: they may lead round in a circle.
            if entry.file_type()?.is_dir() {
                if is_watched(&path) {
                    folders.push(path);
                }
            } else if is_manifest(&path) {
                files.insert(path);
            }
        }
        Ok(())
    }
}

fn note(folder: &Path, mask: EventMask, name: Option<&OsStr>, changes: &mut Changes) {
    let Some(name) = name else {
        let gone = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT;
        changes.root_gone |= folder.as_os_str().is_empty() && mask.intersects(gone);
        return;
    };
    let path = folder.join(name);
    if mask.contains(EventMask::ISDIR) {
        if mask.intersects(EventMask::MOVED_FROM | EventMask::DELETE) {
            changes.rescan.remove(&path);
            changes.gone.insert(path);
        } else if is_watched(&path) {
            changes.rescan.insert(path);
        }
    } else if is_manifest(&path) {
        changes.files.insert(path);
    } else if name.as_encoded_bytes().starts_with(b"..") {
        // A mounted ConfigMap: its files are links through `..data`, which alone is replaced.
        changes.rescan.insert(folder.to_owned());
    }
}

/// Stops watching a folder that is gone, and all below it: it may live on elsewhere.
fn forget(folders: &mut HashMap<WatchDescriptor, PathBuf>, inotify: &Inotify, gone: &Path) {
    folders.retain(|watch, folder| {
        let keep = !folder.starts_with(gone);
        if !keep {
            // Fails where the kernel has dropped the watch by itself.
            let _ = inotify.watches().remove(watch.clone());
        }
        keep
    });
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Says in words what inotify's two limits are.
fn exhausted(error: io::Error) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull => "no inotify watch is left; raise fs.inotify.max_user_watches",
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            "no inotify instance is left; raise fs.inotify.max_user_instances"
        }
        _ => return error,
    };
    io::Error::other(advice)
}

fn vanished(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

pub(crate) fn is_watched(folder: &Path) -> bool {
    !is_hidden(folder) && folder != Path::new(STATE).join(STATUS)
}

/// Dot files, backups and other files of editors have other names.
pub(crate) fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    !is_hidden(path) && matches!(extension, Some("yaml" | "yml" | "json"))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_and_those_of_editors_are_no_manifests() {
        for name in ["a.yaml", "b.yml", "x/c.json", "a b.yaml", "é.yaml"] {
            assert!(is_manifest(Path::new(name)), "{name}");
        }
        for name in [
            ".a.yaml",
            "a.yaml~",
            ".a.yaml.swp",
            "#a.yaml#",
            "4913",
            "a.txt",
            "yaml",
        ] {
            assert!(!is_manifest(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn status_and_hidden_folders_are_not_watched() {
        assert!(is_watched(Path::new("state")) && is_watched(Path::new("team/status")));
        assert!(!is_watched(Path::new("state/status")) && !is_watched(Path::new("x/.git")));
    }
}
