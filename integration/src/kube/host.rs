//! What a cluster changes on the machine that carries it, and how that is taken back.

use crate::lab::process;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Kubelet writes all but the last two, and they have no namespaces; those are too small for three.
const SYSCTLS: [&str; 8] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
];
/// In the cluster's directory: what the sysctls were.
const SAVED: &str = "sysctls";
/// `statfs` of overlayfs (`OVERLAYFS_SUPER_MAGIC` in `linux/magic.h`).
const OVERLAYFS: i64 = 0x794c_7630;

/// Remembers the sysctls and raises two; an overlay can't carry overlays, so there the state is
/// kept in memory.
pub(super) fn prepare(dir: &Path, state: &Path) -> Result<()> {
    let mut saved = String::new();
    for name in SYSCTLS {
        let value = fs::read_to_string(Path::new("/proc/sys").join(name)).context(name)?;
        saved.push_str(&format!("{name} {}\n", value.trim()));
    }
    fs::write(dir.join(SAVED), saved).context("saved sysctls")?;
    for (name, value) in [
        ("fs/inotify/max_user_instances", "4096"),
        ("fs/inotify/max_user_watches", "524288"),
    ] {
        fs::write(Path::new("/proc/sys").join(name), value).context(name)?;
    }
    let kind = rustix::fs::statfs(state).context("state directory")?.f_type;
    if kind == OVERLAYFS {
        process::run(
            Command::new("mount")
                .args(["-t", "tmpfs", "tmpfs"])
                .arg(state),
        )?;
    }
    Ok(())
}

/// Gives the sysctls the values that they had.
pub(super) fn restore(dir: &Path, state: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("mounts")?;
    let state = state.display().to_string();
    if mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(state.as_str()))
    {
        process::run(Command::new("umount").arg(&state))?;
    }
    let Ok(saved) = fs::read_to_string(dir.join(SAVED)) else {
        return Ok(());
    };
    for (name, value) in saved.lines().filter_map(|line| line.split_once(' ')) {
        fs::write(Path::new("/proc/sys").join(name), value).with_context(|| name.to_owned())?;
    }
    Ok(())
}
