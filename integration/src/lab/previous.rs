//! The programs of an earlier state of this repository, for upgrades node by node and back.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// What nodes are upgraded from. A change of the journal, the snapshot or the socket's protocol has
/// to be understood by it, or to be refused by it in words.
pub const COMMIT: &str = "43c9eeccb4d10a0487f4fa0ab078dee3a18356ed";

/// Programs of [`COMMIT`].
#[derive(Debug, Clone)]
pub struct Previous {
    /// `ocicat-node`
    pub agent: PathBuf,
    /// `ocicat-cni`
    pub plugin: PathBuf,
}

static BUILD: Mutex<()> = Mutex::new(());

/// The programs, built in minutes where they are not there yet.
///
/// # Errors
/// This clone has no such commit, or it can't be built.
pub fn programs() -> Result<Previous> {
    let _one = BUILD
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the repository")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let folder = target
        .unwrap_or_else(|| repository.join("target"))
        .join("previous");
    let sources = folder.join(COMMIT);
    if !sources.join("Cargo.toml").is_file() {
        unpack(repository, &folder, &sources)?;
    }
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--quiet",
            "--locked",
            "-p",
            "felix-rs",
            "-p",
            "ocicat-cni",
        ])
        .current_dir(&sources)
        .env("CARGO_TARGET_DIR", &folder)
        .status()
        .context("cargo")?;
    if !status.success() {
        bail!("the programs of {COMMIT} can't be built: {status}");
    }
    let program = |name| folder.join("debug").join(name);
    Ok(Previous {
        agent: program("ocicat-node"),
        plugin: program("ocicat-cni"),
    })
}

/// Whole or not at all.
fn unpack(repository: &Path, folder: &Path, sources: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let unpacked = tempfile::tempdir_in(folder)?;
    let mut archive = Command::new("git")
        .arg("-C")
        .arg(repository)
        .args(["archive", "--format=tar", COMMIT])
        .stdout(Stdio::piped())
        .spawn()
        .context("git")?;
    let tar = Command::new("tar")
        .arg("-xC")
        .arg(unpacked.path())
        .stdin(archive.stdout.take().context("the archive")?)
        .status()
        .context("tar")?;
    if !archive.wait()?.success() || !tar.success() {
        bail!("this clone has no commit {COMMIT}: git fetch --unshallow");
    }
    std::fs::rename(unpacked.keep(), sources).context("the sources")
}
