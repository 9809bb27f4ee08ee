//! Files read once, without watching: for commands.

use crate::document::{self, Reading};
use crate::index::Index;
use crate::tree::{is_manifest, is_watched};
use model::Update;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a file, or every manifest below a directory, says. What can't be read is among the updates
/// ([`Update::Unreadable`]); the error is about `path` itself.
pub fn load(path: &Path) -> io::Result<Vec<Update>> {
    let mut index = Index::default();
    let mut updates = vec![];
    let files = if fs::metadata(path)?.is_dir() {
        let mut files = vec![];
        list(path, Path::new(""), &mut files)?;
        files
            .into_iter()
            .map(|file| (path.join(&file), file))
            .collect()
    } else {
        vec![(path.to_owned(), path.to_owned())]
    };
    for (place, name) in files {
        match document::read(&place) {
            Reading::Missing | Reading::Empty => {}
            Reading::Contents(contents) => index.set(&name, Some(contents)),
            Reading::Broken(reason) => updates.push(unreadable(&name, reason)),
        }
    }
    updates.extend(index.changes());
    Ok(updates)
}

/// What a text says; `source` is what it is called.
pub fn load_text(text: &str, source: &str) -> Vec<Update> {
    let mut index = Index::default();
    match document::parse(text) {
        Ok(contents) => index.set(Path::new(source), Some(contents)),
        Err(reason) => return vec![unreadable(Path::new(source), reason)],
    }
    index.changes()
}

fn unreadable(source: &Path, reason: String) -> Update {
    let source = source.display().to_string();
    Update::Unreadable { source, reason }
}

fn list(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = folder.join(entry.file_name());
        let is_folder = entry.file_type()?.is_dir();
        if is_folder && is_watched(&name) {
            list(root, &name, files)?;
        } else if !is_folder && is_manifest(&name) {
            files.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const POLICY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, \
                          metadata: {name: p, namespace: shop}, spec: {podSelector: {}}}\n";

    fn applied(updates: &[Update]) -> Vec<String> {
        let keys = updates.iter().filter_map(|update| match update {
            Update::Apply { object, .. } => Some(object.key().to_string()),
            _ => None,
        });
        keys.collect()
    }

    #[test]
    fn everything_below_a_directory_is_read_and_what_is_broken_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a/.hidden")).unwrap();
        for (name, text) in [
            ("a/p.yaml", POLICY),
            ("a/.hidden/q.yaml", POLICY),
            ("notes.txt", "no manifest"),
            ("broken.yaml", "{"),
        ] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let updates = load(directory.path()).unwrap();
        assert_eq!(applied(&updates), ["NetworkPolicy/shop/p"]);
        let broken = |update: &Update| matches!(update, Update::Unreadable { source, .. } if source == "broken.yaml");
        assert!(updates.iter().any(broken), "{updates:?}");
    }

    #[test]
    fn a_file_or_a_text_is_read_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy");
        fs::write(&path, POLICY).unwrap();
        assert_eq!(applied(&load(&path).unwrap()), ["NetworkPolicy/shop/p"]);
        assert_eq!(applied(&load_text(POLICY, "-")), ["NetworkPolicy/shop/p"]);
        assert!(load(&directory.path().join("missing")).is_err());
    }
}
