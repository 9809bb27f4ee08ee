//! The smallest first file system: what it takes to mount the host's.

use super::kernel::Kernel;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// What the guest needs before it sees the host's files.
const MODULES: [&str; 3] = ["virtio_pci", "9pnet_virtio", "9p"];
const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;

/// Writes the archive; its first process mounts the host's root, `share` without caching on top,
/// and goes on with `<share>/init`.
pub(super) fn write(path: &Path, kernel: &Kernel, share: &Path) -> Result<()> {
    let share = share.display();
    let init = format!(
        "#!/busybox sh\nfor module in /modules/*; do /busybox insmod $module; done\n\
         options=trans=virtio,version=9p2000.L,msize=262144\n\
         /busybox mount -t 9p -o $options,cache=loose root /root\n\
         /busybox mount -t 9p -o $options,cache=none share /root{share}\n\
         exec /busybox switch_root /root {share}/init\n"
    );
    let mut archive = Archive {
        out: BufWriter::new(File::create(path).context("initramfs")?),
        inode: 0,
    };
    for directory in ["root", "modules", "dev"] {
        archive.entry(directory, DIRECTORY, &[])?;
    }
    archive.entry("init", EXECUTABLE, init.as_bytes())?;
    archive.entry(
        "busybox",
        EXECUTABLE,
        &std::fs::read(kernel.busybox()).context("busybox")?,
    )?;
    for (position, module) in kernel.modules(&MODULES)?.iter().enumerate() {
        let bytes = std::fs::read(module).with_context(|| module.display().to_string())?;
        archive.entry(&format!("modules/{position:02}.ko"), EXECUTABLE, &bytes)?;
    }
    archive.entry("TRAILER!!!", 0, &[])?;
    archive.out.flush().context("initramfs")
}

/// A cpio archive in the `newc` format (the kernel's documentation, `early-userspace/buffer-format`).
struct Archive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len()).context("a file of 4 GiB")?;
        let name_size = u32::try_from(name.len() + 1).context("a name of 4 GiB")?;
        let links = 1;
        // inode, mode, uid, gid, links, mtime, size, devices (4), length of the name, checksum
        let fields = [
            self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0,
        ];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(name.as_bytes())?;
        self.pad(header.len() + name.len(), 1)?;
        self.out.write_all(content)?;
        self.pad(content.len(), 0)
    }

    /// Zeros up to the next multiple of four, at least `least` of them.
    fn pad(&mut self, written: usize, least: usize) -> Result<()> {
        let zeros = (written + least).next_multiple_of(4) - written;
        Ok(self.out.write_all(&[0; 4][..zeros])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_contents_are_aligned_to_four_bytes() {
        let mut archive = Archive {
            out: Vec::new(),
            inode: 0,
        };
        archive.entry("abc", EXECUTABLE, b"hello").unwrap();
        // 110 bytes of header, "abc" and a zero, two more zeros; "hello" and three zeros.
        assert_eq!(archive.out.len(), 116 + 8);
        assert_eq!(&archive.out[..6], b"070701");
        assert_eq!(&archive.out[110..116], b"abc\0\0\0");
        assert_eq!(&archive.out[116..], b"hello\0\0\0");
    }
}
