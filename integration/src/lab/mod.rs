//! A cluster of network namespaces that cleans up after itself.
//!
//! A [`Lab`] owns every namespace whose name starts with its prefix, and one directory. Nothing
//! of it outlives the lab: a *reaper*, a process in a group of its own, waits for the lab to end
//! in whatever way (drop, panic, Ctrl-C, SIGKILL) and then removes both. A lab that starts also
//! removes what was left by an owner that died together with its reaper.

pub mod agent;
pub mod bird;
pub mod capture;
pub mod fault;
pub mod frr;
pub mod kube_api;
pub mod link;
pub mod netns;
pub mod pod;
pub mod previous;
pub mod probe;
pub mod process;
pub(crate) mod reaper;
pub mod router;
pub mod store;
pub mod volley;
pub mod wait;
pub mod watch;
pub mod wire;

pub use agent::Agent;
pub use bird::Bird;
pub use capture::Capture;
pub use frr::Frr;
pub use kube_api::KubeApi;
pub use netns::Netns;
pub use pod::Pod;
pub use probe::Probe;
pub use process::Process;
pub use store::Store;
pub use volley::Volley;
pub use watch::Watch;

use anyhow::{Context, Result, bail};
use reaper::{Orphans, Reaper};
use std::cell::Cell;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts the labs of this process, so that tests in threads of one process do not meet.
static LABS: AtomicU32 = AtomicU32::new(0);

/// Namespaces and processes that live as long as this value.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    dir: PathBuf,
    reaper: Reaper,
    keep: Cell<bool>,
}

impl Lab {
    /// An empty lab. Needs root.
    ///
    /// # Errors
    /// Not root, or no directory for files.
    pub fn new() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("a lab makes network namespaces, which needs root: run it with sudo");
        }
        reaper::remove_orphans(Orphans::Lost);
        let prefix = format!(
            "oc{}x{}-",
            std::process::id(),
            LABS.fetch_add(1, Ordering::Relaxed)
        );
        let dir = tempfile::Builder::new()
            .prefix(&prefix)
            .permissions(Permissions::from_mode(0o711))
            .tempdir()
            .context("a directory for the lab's files")?
            .keep();
        let reaper = Reaper::start(&prefix, &dir)?;
        Ok(Self {
            prefix,
            dir,
            reaper,
            keep: Cell::new(false),
        })
    }

    /// What the names of the lab's namespaces start with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where logs, captures and configuration lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A directory below [`Lab::dir`], made if missing.
    ///
    /// # Errors
    /// It can't be made.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Creates a network namespace, as `ip netns add` does, with loopback up.
    ///
    /// # Errors
    /// The `ip` command's words.
    pub fn netns(&self, name: &str) -> Result<Netns> {
        let netns = Netns::named(&self.prefix, name);
        process::run(Command::new("ip").args(["netns", "add", netns.full_name()]))?;
        netns.ip(["link set lo up"])?;
        Ok(netns)
    }

    /// Leaves everything running after our end, until [`Lab::remove_kept`].
    ///
    /// # Errors
    /// The mark that spares it from the next lab can't be written.
    pub fn keep(&self) -> Result<()> {
        std::fs::write(self.dir.join(reaper::KEPT), "").context("the lab's directory")?;
        self.keep.set(true);
        Ok(())
    }

    /// Tells the reaper at once; for a kept lab that is never dropped.
    pub fn release(&mut self) {
        self.reaper.finish(self.keep.get());
    }

    /// Removes the labs that were left up by processes which have ended.
    pub fn remove_kept() {
        reaper::remove_orphans(Orphans::All);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.reaper.finish(self.keep.get());
    }
}
