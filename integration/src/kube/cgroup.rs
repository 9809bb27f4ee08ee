//! A cgroup for each machine, on hierarchies of version 1, version 2, or both.

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, mount};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the hierarchies are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// Where a machine's daemons are, so that its own cgroup has children only (version 2 insists).
const LEAF: &str = "machine";

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    path: PathBuf,
    /// Options that mount it again; none for version 2.
    controllers: Option<String>,
}

/// The hierarchies of this mount namespace.
pub(super) fn hierarchies() -> Result<Vec<Hierarchy>> {
    Ok(parse(
        &fs::read_to_string("/proc/mounts").context("mounts")?,
    ))
}

/// Of `/proc/mounts`, those of the usual place: elsewhere are copies.
fn parse(mounts: &str) -> Vec<Hierarchy> {
    const FLAGS: [&str; 8] = [
        "rw",
        "ro",
        "nosuid",
        "nodev",
        "noexec",
        "relatime",
        "noatime",
        "nsdelegate",
    ];
    let mut found = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(path), Some(kind), Some(options)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if !path.starts_with(ROOT) || !kind.starts_with("cgroup") {
            continue;
        }
        let mut controllers: Vec<&str> = options
            .split(',')
            .filter(|word| !FLAGS.contains(word) && !word.contains("agent="))
            .collect();
        if controllers.iter().any(|word| word.starts_with("name=")) {
            controllers.insert(0, "none");
        }
        found.push(Hierarchy {
            path: PathBuf::from(path),
            controllers: (kind == "cgroup").then(|| controllers.join(",")),
        });
    }
    found
}

/// Makes a cgroup below the root of each hierarchy, with every controller switched on for it.
pub(super) fn make(relative: &Path) -> Result<()> {
    for tree in hierarchies()? {
        let mut path = tree.path.clone();
        for part in relative {
            let parent = path.clone();
            path.push(part);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
            match tree.controllers {
                Some(_) => inherit_cpuset(&parent, &path)?,
                None => delegate(&parent),
            }
        }
    }
    Ok(())
}

/// A cpuset of version 1 takes nobody before it has processors and memory.
fn inherit_cpuset(parent: &Path, path: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = path.join(file);
        let Ok(text) = fs::read_to_string(&own) else {
            continue;
        };
        if text.trim().is_empty() {
            let inherited = fs::read_to_string(parent.join(file)).context(file)?;
            fs::write(&own, inherited.trim()).with_context(|| own.display().to_string())?;
        }
    }
    Ok(())
}

/// Version 2: the children of `path` get its controllers; one that can't be had is left out.
fn delegate(path: &Path) {
    let all = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
    for controller in all.split_whitespace() {
        let _ = fs::write(
            path.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
}

/// The files that take a process into the cgroup, one a hierarchy.
pub(super) fn procs(relative: &Path) -> Result<Vec<PathBuf>> {
    let trees = hierarchies()?;
    Ok(trees
        .iter()
        .map(|tree| tree.path.join(relative).join("cgroup.procs"))
        .collect())
}

/// Version 2: moves the process that waits for a machine's first into the machine's leaf, since
/// only a cgroup without processes of its own hands controllers to its children.
pub(super) fn settle(relative: &Path, waiter: u32) -> Result<()> {
    for tree in hierarchies()?.iter().filter(|t| t.controllers.is_none()) {
        let own = tree.path.join(relative);
        fs::write(own.join(LEAF).join("cgroup.procs"), waiter.to_string())
            .with_context(|| own.display().to_string())?;
        delegate(&own);
    }
    Ok(())
}

/// In a machine: mounts the hierarchies afresh, so that they begin at its own cgroup.
pub(super) fn mount_own(trees: &[Hierarchy]) -> Result<()> {
    let on = |source: &str, kind: &str, path: &Path, options: &str| {
        fs::create_dir_all(path).with_context(|| path.display().to_string())?;
        let options = std::ffi::CString::new(options).context("mount options")?;
        mount(
            source,
            path,
            kind,
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .with_context(|| format!("{kind} on {}", path.display()))
    };
    if trees.iter().all(|tree| tree.path != Path::new(ROOT)) {
        on("tmpfs", "tmpfs", Path::new(ROOT), "mode=755")?;
    }
    for tree in trees {
        match &tree.controllers {
            Some(controllers) => on("cgroup", "cgroup", &tree.path, controllers)?,
            None => on("cgroup2", "cgroup2", &tree.path, "")?,
        }
    }
    Ok(())
}

/// In a machine: process 1 and all that it starts are in the leaf.
pub(super) fn enter_leaf(trees: &[Hierarchy]) -> Result<()> {
    for tree in trees {
        let leaf = tree.path.join(LEAF);
        fs::create_dir_all(&leaf).with_context(|| leaf.display().to_string())?;
        if tree.controllers.is_some() {
            inherit_cpuset(&tree.path, &leaf)?;
        }
        fs::write(leaf.join("cgroup.procs"), "0").with_context(|| leaf.display().to_string())?;
    }
    Ok(())
}

/// Removes the cgroup with all below it.
///
/// # Errors
/// Something in it runs, if only for a moment yet.
pub(super) fn remove(relative: &Path) -> Result<()> {
    for tree in hierarchies()? {
        let path = tree.path.join(relative);
        remove_tree(&path);
        ensure!(!path.exists(), "{} is in use", path.display());
    }
    Ok(())
}

fn remove_tree(path: &Path) {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    // A cgroup with processes refuses, and whoever asked looks whether it is there.
    let _ = fs::remove_dir(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hierarchy_is_known_with_what_mounts_it_again() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0\n\
            cgroup /tmp/elsewhere cgroup rw,cpu 0 0\n";
        let found: Vec<(String, Option<String>)> = parse(mounts)
            .into_iter()
            .map(|tree| (tree.path.display().to_string(), tree.controllers))
            .collect();
        let expected = [
            ("/sys/fs/cgroup/cpu,cpuacct", Some("cpu,cpuacct")),
            ("/sys/fs/cgroup/systemd", Some("none,xattr,name=systemd")),
            ("/sys/fs/cgroup/unified", None),
        ];
        let expected: Vec<(String, Option<String>)> = expected
            .into_iter()
            .map(|(path, options)| (path.to_owned(), options.map(str::to_owned)))
            .collect();
        assert_eq!(found, expected);
    }
}
