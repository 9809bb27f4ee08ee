//! Files that are there whole or not at all. The caller holds the lock.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Longest file name that Linux takes.
const NAME_MAX: usize = 255;
const EXTENSION: &str = ".yaml";

/// Whether a file must survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    Synced,
    Unsynced,
}

/// What became of a file that was to be created.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Here,
    Occupied,
}

/// Gives `path` the text, unless it has it.
pub(super) fn replace(path: &Path, text: &str, durability: Durability) -> io::Result<()> {
    if fs::read(path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    let staged = stage(path, text, durability)?;
    fs::rename(&staged, path)?;
    sync_folder(path, durability)
}

/// Gives `path` the text unless something is there.
pub(super) fn create(path: &Path, text: &str) -> io::Result<Placed> {
    if path.symlink_metadata().is_ok() {
        return Ok(Placed::Occupied);
    }
    let staged = stage(path, text, Durability::Synced)?;
    let linked = fs::hard_link(&staged, path);
    fs::remove_file(&staged)?;
    match linked {
        Ok(()) => sync_folder(path, Durability::Synced).map(|()| Placed::Here),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Placed::Occupied),
        Err(error) => Err(error),
    }
}

/// Removes `path` if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(path, Durability::Synced),
    }
}

/// A hidden file with the text beside `path`. One that is there is what a killed writer left. It is
/// unlinked and never reused, since it may be a second link to an object's file.
fn stage(path: &Path, text: &str, durability: Durability) -> io::Result<PathBuf> {
    let staged = path.with_file_name(".staged");
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(&staged)?;
    file.write_all(text.as_bytes())?;
    if durability == Durability::Synced {
        file.sync_all()?;
    }
    Ok(staged)
}

fn sync_folder(path: &Path, durability: Durability) -> io::Result<()> {
    match path.parent() {
        Some(folder) if durability == Durability::Synced => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// `a_b.yaml` for parts that are Kubernetes names, which hold no `_`. Other characters become `%`
/// and their number, so that no name leads out of the folder; a name that is too long ends in a
/// hash of itself.
pub(super) fn file_name<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let parts: Vec<String> = parts.map(escaped).collect();
    let name = parts.join("_");
    if name.len() + EXTENSION.len() <= NAME_MAX {
        return format!("{name}{EXTENSION}");
    }
    let kept = NAME_MAX - EXTENSION.len() - 17;
    format!(
        "{}-{:016x}{EXTENSION}",
        &name[..kept],
        fnv1a(name.as_bytes())
    )
}

fn escaped(part: &str) -> String {
    let mut name = String::with_capacity(part.len());
    for (index, byte) in part.bytes().enumerate() {
        let leading_dot = index == 0 && byte == b'.';
        if byte.is_ascii_alphanumeric() || byte == b'-' || (byte == b'.' && !leading_dot) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    name
}

/// FNV-1a: a stable hash; collisions are caught by comparing the object that is found.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_stand_as_they_are_unless_they_are_too_long() {
        assert_eq!(
            file_name(["shop", "n1-k8s-a--b-eth0"].into_iter()),
            "shop_n1-k8s-a--b-eth0.yaml"
        );
        let long = file_name(["shop", &"a".repeat(253)].into_iter());
        let other = file_name(["shop", &format!("{}b", "a".repeat(252))].into_iter());
        assert_eq!((long.len(), other.len()), (NAME_MAX, NAME_MAX));
        assert_ne!(long, other);
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_its_folder(name in any::<String>()) {
            let file = file_name([name.as_str()].into_iter());
            prop_assert!(!file.contains('/') && !file.starts_with("..") && file.len() <= NAME_MAX);
        }

        #[test]
        fn different_short_names_have_different_files(a in ".{0,12}", b in ".{0,12}") {
            let file = |name: &str| file_name([name].into_iter());
            prop_assert_eq!(file(&a) == file(&b), a == b);
        }
    }
}
