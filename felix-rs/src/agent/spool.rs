//! Deletions that the CNI plugin kept on disk while the agent did not answer.
//!
//! A file `<container id>.<interface>.json` is one DEL [`Request`] as JSON, complete once it has
//! its name. It is taken up as soon as the agent may change anything, before any later ADD, and
//! removed when the deletion is in the journal.

use super::Agent;
use felix_core::{EndpointKey, Phase};
use model::cni::{Command, MAX_FRAME, Request};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

impl Agent {
    /// Carry out the deletions in the spool.
    pub(super) fn take_spool(&mut self) {
        if self.calc.phase() == Phase::Starting {
            return;
        }
        for path in files(&self.options.spool()) {
            match read(&path) {
                Ok(request) => {
                    tracing::info!(container = %request.container_id, "DEL from the spool");
                    self.remove_endpoint(&EndpointKey {
                        container_id: request.container_id,
                        ifname: request.ifname,
                    });
                    if let Err(error) = fs::remove_file(&path) {
                        tracing::warn!(file = %path.display(), %error, "stays in the spool");
                    }
                }
                Err(error) => set_aside(&path, &error),
            }
        }
    }
}

/// Complete requests, in the order of their names. A spool that is not there is empty.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(folder = %folder.display(), %error, "spool");
            }
            return Vec::new();
        }
    };
    let complete = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".json") && !name.starts_with('.')
    };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut paths: Vec<_> = paths.filter(complete).collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Result<Request, io::Error> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    // Nobody else writes here, but a pipe would be waited for.
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(invalid("not a file".to_owned()));
    }
    let mut text = Vec::new();
    File::open(path)?
        .take(MAX_FRAME as u64)
        .read_to_end(&mut text)?;
    let request: Request = serde_json::from_slice(&text)?;
    if request.command != Command::Del {
        return Err(invalid(format!("{:?} instead of DEL", request.command)));
    }
    Ok(request)
}

/// What is not a deletion is kept for a human, under a name that is not read again.
fn set_aside(path: &Path, error: &io::Error) {
    let aside = path.with_extension("json.bad");
    tracing::warn!(file = %path.display(), aside = %aside.display(), %error, "not a DEL");
    if let Err(error) = fs::rename(path, &aside) {
        tracing::warn!(file = %path.display(), %error, "not set aside");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_requests_are_taken_and_only_deletions_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).unwrap();
        };
        put("b.eth0.json", r#"{"version":1,"command":"ADD"}"#);
        put(".7.c.eth0.json", "{");
        put("d.eth0.json.bad", "{");
        put(
            "a.eth0.json",
            r#"{"version":1,"command":"DEL","container_id":"a","ifname":"eth0"}"#,
        );
        let found = files(folder.path());
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["a.eth0.json", "b.eth0.json"]);
        assert_eq!(read(&found[0]).unwrap().container_id, "a");
        let refused = read(&found[1]).unwrap_err();
        assert_eq!(refused.to_string(), "Add instead of DEL");
        set_aside(&found[1], &refused);
        assert_eq!(files(folder.path()), found[..1]);
        assert!(folder.path().join("b.eth0.json.bad").exists());
    }

    #[test]
    fn a_missing_spool_is_empty() {
        assert!(files(Path::new("/nonexistent/spool")).is_empty());
    }
}
