//! What removes a lab after its end.

use anyhow::{Context, Result};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Waits for the end of its standard input, or the word `keep`. Ends only processes that run in
/// namespaces of the prefix, and those are ours: a namespace can't be entered by chance.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
word=
read -r word
[ "$word" = keep ] && exit 0
ours() { ip netns list 2>/dev/null | while read -r name _; do case "$name" in "$1"*) echo "$name";; esac; done; }
for try in 1 2 3 4 5; do
  left=
  for ns in $(ours "$1"); do
    pids=$(ip netns pids "$ns" 2>/dev/null)
    if [ -n "$pids" ]; then kill -9 $pids 2>/dev/null; left=yes; fi
  done
  [ -z "$left" ] && break
done
for ns in $(ours "$1"); do ip netns del "$ns" 2>/dev/null; done
rm -rf "$2"
"#;

/// A shell that runs `script` with this word and this directory, and that neither a signal to us nor
/// our end ends: then its input closes.
pub(crate) fn outliving(script: &str, word: &str, dir: &Path) -> std::io::Result<Child> {
    Command::new("sh")
        .args(["-c", script, "reaper", word])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

/// The running reaper; its input closes when the lab's process ends, however that happens.
#[derive(Debug)]
pub(super) struct Reaper {
    child: Child,
}

impl Reaper {
    /// Starts the reaper of all namespaces with `prefix`, and of `dir`.
    pub(super) fn start(prefix: &str, dir: &Path) -> Result<Self> {
        let child =
            outliving(SCRIPT, prefix, dir).context("the shell that cleans up after the lab")?;
        Ok(Self { child })
    }

    /// Cleans up now and waits for it, or lets everything stay.
    pub(super) fn finish(&mut self, keep: bool) {
        if let Some(mut stdin) = self.child.stdin.take()
            && keep
        {
            // A reaper that is gone cleans nothing up, which is what was asked for.
            let _ = stdin.write_all(b"keep\n");
        }
        let _ = self.child.wait();
    }
}

/// A lab with this file in its directory was left up on purpose.
pub(super) const KEPT: &str = "kept";

/// Which labs without an owner are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orphans {
    /// All but those that were left up on purpose.
    Lost,
    /// Those too.
    All,
}

/// Removes labs whose owner is gone: `oc<pid>x<n>-...` with no process of that id.
pub(super) fn remove_orphans(which: Orphans) {
    let Ok(entries) = std::fs::read_dir(super::netns::RUN_NETNS) else {
        return;
    };
    let mut prefixes: Vec<String> = entries
        .flatten()
        .filter_map(|entry| orphan_prefix(entry.file_name().to_str()?))
        .collect();
    prefixes.sort();
    prefixes.dedup();
    for prefix in prefixes {
        if which == Orphans::Lost && orphan_dir(&prefix).join(KEPT).exists() {
            continue;
        }
        if let Ok(mut reaper) = Reaper::start(&prefix, &orphan_dir(&prefix)) {
            reaper.finish(false);
        }
    }
}

fn orphan_prefix(name: &str) -> Option<String> {
    let (prefix, _) = name.split_once('-')?;
    let (pid, lab) = prefix.strip_prefix("oc")?.split_once('x')?;
    let pid: u32 = pid.parse().ok()?;
    lab.parse::<u32>().ok()?;
    (!Path::new(&format!("/proc/{pid}")).exists()).then(|| format!("{prefix}-"))
}

fn orphan_dir(prefix: &str) -> std::path::PathBuf {
    let temp = std::env::temp_dir();
    std::fs::read_dir(&temp)
        .into_iter()
        .flatten()
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map_or_else(|| temp.join(format!("{prefix}gone")), |entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::orphan_prefix;

    #[test]
    fn only_names_of_labs_with_a_dead_owner_are_orphans() {
        let alive = format!("oc{}x0-n1", std::process::id());
        for (name, expected) in [
            ("oc4194305x0-n1", Some("oc4194305x0-")), // above the greatest possible pid
            (alive.as_str(), None),
            ("oc12-n1", None),
            ("ocean-n1", None),
            ("cni-1234", None),
        ] {
            assert_eq!(orphan_prefix(name).as_deref(), expected, "{name}");
        }
    }
}
