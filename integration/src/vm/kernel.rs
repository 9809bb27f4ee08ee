//! The guest's kernel: Debian's package, unpacked beside the host's own files, never installed.

use crate::lab::process::run;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where unpacked kernels are kept between runs.
const CACHE: &str = "/var/cache/ocicat-lab";
/// The package that depends on the current kernel.
const META: &str = "linux-image-amd64";

/// An unpacked kernel with its modules, and a busybox for the first process.
#[derive(Debug)]
pub(super) struct Kernel {
    root: PathBuf,
    version: String,
}

impl Kernel {
    /// The cached kernel, or a fresh download.
    pub(super) fn find_or_download() -> Result<Self> {
        if std::env::consts::ARCH != "x86_64" {
            bail!("the guest is made for x86_64 hosts only");
        }
        let root = Path::new(CACHE).join("kernel");
        if let Ok(kernel) = Self::at(&root) {
            return Ok(kernel);
        }
        // Unpacked aside and renamed, so that a broken download is never taken for a kernel.
        std::fs::create_dir_all(CACHE).context(CACHE)?;
        let aside = tempfile::tempdir_in(CACHE).context(CACHE)?;
        download(aside.path())
            .context("the guest's kernel can't be had from the package sources")?;
        let version = Self::at(&aside.path().join("root"))?.version;
        run(Command::new("depmod")
            .arg("-b")
            .arg(aside.path().join("root"))
            .arg(&version))?;
        match std::fs::rename(aside.path().join("root"), &root) {
            Ok(()) => {}
            // Another lab was faster.
            Err(_) if root.exists() => {}
            Err(error) => return Err(error).context(CACHE),
        }
        Self::at(&root)
    }

    fn at(root: &Path) -> Result<Self> {
        let mut versions = std::fs::read_dir(root.join("lib/modules")).context("no modules")?;
        let version = versions.next().context("no modules")??.file_name();
        let version = version.into_string().ok().context("version")?;
        Ok(Self {
            root: root.to_owned(),
            version,
        })
    }

    /// The directory under which `boot`, `lib/modules` and `bin/busybox` lie.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The bootable image.
    pub(super) fn image(&self) -> PathBuf {
        self.root
            .join("boot")
            .join(format!("vmlinuz-{}", self.version))
    }

    /// A program that needs no libraries.
    pub(super) fn busybox(&self) -> PathBuf {
        self.root.join("bin/busybox")
    }

    /// The files of `wanted` modules and of those that they need, in the order of loading.
    pub(super) fn modules(&self, wanted: &[&str]) -> Result<Vec<PathBuf>> {
        let dir = self.root.join("lib/modules").join(&self.version);
        let index = std::fs::read_to_string(dir.join("modules.dep")).context("modules.dep")?;
        Ok(loading_order(&index, wanted)?
            .into_iter()
            .map(|file| dir.join(file))
            .collect())
    }
}

fn download(dir: &Path) -> Result<()> {
    let depends = run(Command::new("apt-cache").args(["depends", META]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.with_context(|| format!("{META} depends on nothing: {depends}"))?;
    println!("downloading {package} and busybox-static for the guest (once, to {CACHE})");
    run(Command::new("apt-get")
        .args(["download", package, "busybox-static"])
        .current_dir(dir))?;
    for entry in std::fs::read_dir(dir)?.flatten() {
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "deb")
        {
            run(Command::new("dpkg-deb")
                .arg("-x")
                .arg(entry.path())
                .arg(dir.join("root")))?;
        }
    }
    Ok(())
}

/// `modules.dep` names what a module needs last-first.
fn loading_order(index: &str, wanted: &[&str]) -> Result<Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        let suffix = format!("/{name}.ko");
        let found = index.lines().filter_map(|line| line.split_once(':'));
        let (file, needs) = found
            .into_iter()
            .find(|(file, _)| file.ends_with(&suffix))
            .with_context(|| format!("the guest's kernel has no module {name}"))?;
        for file in needs.split_whitespace().rev().chain([file]) {
            if !order.iter().any(|known| known == file) {
                order.push(file.to_owned());
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::loading_order;

    #[test]
    fn modules_are_loaded_after_what_they_need_and_once() {
        let index = "k/ring.ko:\nk/virtio.ko: k/ring.ko\nk/pci.ko: k/legacy.ko k/virtio.ko k/ring.ko\nk/legacy.ko:\n";
        let order = loading_order(index, &["pci", "virtio"]).unwrap();
        assert_eq!(
            order,
            ["k/ring.ko", "k/virtio.ko", "k/legacy.ko", "k/pci.ko"]
        );
        assert!(loading_order(index, &["absent"]).is_err());
    }
}
