//! Which file systems can hold a directory that several agents share.

use std::io;
use std::path::Path;

/// `f_type` of statfs(2) of file systems that other machines write to: inotify does not see their
/// changes. Whatever is not here is taken to be local.
const UNSUITABLE: &[(u32, &str)] = &[
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x517b, "SMB"),
    (0x564c, "NCP"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x7375_7245, "Coda"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x4750_4653, "GPFS"),
];

/// The name of the file system that `path` lies on, if it is unsuitable.
pub(crate) fn unsuitable(path: &Path) -> io::Result<Option<&'static str>> {
    let found = rustix::fs::statfs(path)?;
    Ok(name(found.f_type as u32))
}

fn name(magic: u32) -> Option<&'static str> {
    UNSUITABLE
        .iter()
        .find(|(known, _)| *known == magic)
        .map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_file_systems_are_named_and_local_ones_are_suitable() {
        assert_eq!(name(0x6969), Some("NFS"));
        assert_eq!(name(0xff53_4d42), Some("CIFS"));
        assert_eq!(name(0x0102_1997), Some("9p"));
        let ext4_xfs_btrfs_tmpfs_overlay_hostfs = [
            0xef53,
            0x5846_5342,
            0x9123_683e,
            0x0102_1994,
            0x794c_7630,
            0x00c0_ffee,
        ];
        for magic in ext4_xfs_btrfs_tmpfs_overlay_hostfs {
            assert_eq!(name(magic), None);
        }
    }

    #[test]
    fn the_file_system_of_a_temporary_directory_is_suitable() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(unsuitable(directory.path()).unwrap(), None);
    }
}
