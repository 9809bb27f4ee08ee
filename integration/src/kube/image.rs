//! One-layer OCI images, packed without a container tool or a registry.

use crate::lab::process;
use anyhow::{Context, Result};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What an image is called and how it starts.
pub(super) struct Image<'a> {
    pub(super) name: &'a str,
    pub(super) entrypoint: &'a [&'a str],
    pub(super) env: &'a [&'a str],
}

/// Packs the folder that `fill` fills into an archive for `ctr images import`.
pub(super) fn pack(
    image: &Image<'_>,
    archive: &Path,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let work = tempfile::tempdir_in(archive.parent().unwrap_or(Path::new("."))).context("image")?;
    let (root, layout) = (work.path().join("root"), work.path().join("layout"));
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&root).context("image")?;
    fs::create_dir_all(&blobs).context("image")?;
    fill(&root)?;
    let layer = work.path().join("layer");
    tar(&root, &layer, &["."])?;
    let (layer, layer_size) = store(&blobs, &layer)?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": image.entrypoint, "Env": image.env},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
    });
    let (config, config_size) = store_json(&blobs, work.path(), &config)?;
    let oci = |kind: &str| format!("application/vnd.oci.image.{kind}");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": oci("manifest.v1+json"),
        "config": {"mediaType": oci("config.v1+json"), "digest": format!("sha256:{config}"), "size": config_size},
        "layers": [{"mediaType": oci("layer.v1.tar"), "digest": format!("sha256:{layer}"), "size": layer_size}],
    });
    let (manifest, size) = store_json(&blobs, work.path(), &manifest)?;
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": oci("manifest.v1+json"),
        "digest": format!("sha256:{manifest}"),
        "size": size,
        "annotations": {"io.containerd.image.name": image.name},
    }]});
    fs::write(layout.join("index.json"), index.to_string()).context("image")?;
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .context("image")?;
    let unfinished = work.path().join("archive");
    tar(&layout, &unfinished, &["oci-layout", "index.json", "blobs"])?;
    fs::rename(&unfinished, archive).with_context(|| archive.display().to_string())
}

/// Puts an executable into the image.
pub(super) fn add(root: &Path, file: &Path, name: &str) -> Result<()> {
    let to = root.join(name);
    fs::copy(file, &to).with_context(|| file.display().to_string())?;
    fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).with_context(|| name.to_owned())
}

/// Puts a shell with its tools into the image.
pub(super) fn add_busybox(root: &Path) -> Result<()> {
    let busybox = ["/usr/bin/busybox", "/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .context("busybox is not there (Debian's package busybox-static)")?;
    for folder in ["bin", "tmp", "etc", "uploads"] {
        fs::create_dir_all(root.join(folder)).context("image")?;
    }
    fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777)).context("image")?;
    add(root, Path::new(busybox), "bin/busybox")?;
    for applet in process::run(Command::new(busybox).arg("--list"))?.lines() {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet)).context("image")?;
        }
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").context("image")
}

fn tar(from: &Path, to: &Path, names: &[&str]) -> Result<()> {
    let mut command = Command::new("tar");
    command
        .args([
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mtime=@0",
            "--sort=name",
        ])
        .arg("-C")
        .arg(from)
        .arg("-cf")
        .arg(to)
        .args(names);
    process::run(&mut command).map(drop)
}

fn store_json(blobs: &Path, work: &Path, value: &serde_json::Value) -> Result<(String, u64)> {
    let file: PathBuf = work.join("json");
    fs::write(&file, value.to_string()).context("image")?;
    store(blobs, &file)
}

/// Moves a file among the blobs; its digest and size.
fn store(blobs: &Path, file: &Path) -> Result<(String, u64)> {
    let said = process::run(Command::new("sha256sum").arg(file))?;
    let digest = said.split(' ').next().unwrap_or_default().to_owned();
    let size = fs::metadata(file).context("blob")?.len();
    fs::rename(file, blobs.join(&digest)).context("blob")?;
    Ok((digest, size))
}
