//! The image is the same for whoever builds it, and holds what it should.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `deploy/image` of these binaries, with this umask.
fn build(binaries: &Path, output: &Path, umask: &str) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/image");
    let said = Command::new("sh")
        .args(["-c", "umask $0; exec \"$@\"", umask])
        .arg(script)
        .arg("--binaries")
        .arg(binaries)
        .arg("--output")
        .arg(output)
        .output()
        .context("deploy/image")?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(
        said.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&said.stderr)
    );
    Ok(text)
}

/// Any static program, under both names.
fn binaries(folder: &Path) -> Result<PathBuf> {
    let found = ["/usr/bin/busybox", "/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let program = found.context("busybox (Debian's package busybox-static)")?;
    let binaries = folder.join("binaries");
    fs::create_dir_all(&binaries)?;
    for name in ["ocicat-node", "ocicat-cni"] {
        fs::copy(program, binaries.join(name))?;
    }
    Ok(binaries)
}

fn untar(archive: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let done = Command::new("tar")
        .arg("-xf")
        .arg(archive)
        .arg("-C")
        .arg(folder)
        .status()?;
    ensure!(done.success(), "tar -xf {}", archive.display());
    Ok(())
}

fn json(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(
        &fs::read(path).with_context(|| path.display().to_string())?,
    )?)
}

/// The file of a digest below an OCI layout.
fn blob(layout: &Path, descriptor: &Value) -> Result<PathBuf> {
    let digest = descriptor["digest"].as_str().context("digest")?;
    let path = layout.join("blobs").join(digest.replace(':', "/"));
    ensure!(
        descriptor["size"] == fs::metadata(&path)?.len(),
        "{descriptor}"
    );
    Ok(path)
}

#[test]
fn two_builds_of_the_same_binaries_are_the_same_bytes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (first, second) = (
        folder.path().join("first.tar"),
        folder.path().join("x/second.tar"),
    );
    let said = build(&binaries(folder.path())?, &first, "022")?;
    let again = build(&binaries(&folder.path().join("elsewhere"))?, &second, "077")?;
    ensure!(fs::read(&first)? == fs::read(&second)?, "{said}{again}");
    let digest = |text: &str| text.split("@sha256:").nth(1).map(str::to_owned);
    ensure!(
        digest(&said).is_some() && digest(&said) == digest(&again),
        "{said}{again}"
    );
    Ok(())
}

#[test]
fn the_image_has_two_programs_a_link_and_a_bill_of_materials() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("image.tar");
    build(&binaries(folder.path())?, &archive, "022")?;
    let (layout, root) = (folder.path().join("layout"), folder.path().join("root"));
    untar(&archive, &layout)?;
    let index = json(&layout.join("index.json"))?;
    let entry = &index["manifests"][0];
    ensure!(
        entry["annotations"]["io.containerd.image.name"]
            == concat!("localhost/ocicat-node:", env!("CARGO_PKG_VERSION"))
    );
    let manifest = json(&blob(&layout, entry)?)?;
    let config = json(&blob(&layout, &manifest["config"])?)?;
    ensure!(
        config["config"]["Entrypoint"][0] == "/bin/ocicat-node",
        "{config}"
    );
    untar(&blob(&layout, &manifest["layers"][0])?, &root)?;
    ensure!(root.join("bin/ocicat-node").is_file() && root.join("bin/ocicat-cni").is_file());
    ensure!(fs::read_link(root.join("bin/ocicat"))? == Path::new("ocicat-node"));
    let materials = json(&root.join("usr/share/ocicat/sbom.cdx.json"))?;
    let all = materials["components"].as_array().context("components")?;
    let names: Vec<&str> = all.iter().filter_map(|one| one["name"].as_str()).collect();
    ensure!(
        names.contains(&"felix-rs") && names.contains(&"tokio") && !names.contains(&""),
        "{names:?}"
    );
    let tokio = all
        .iter()
        .find(|one| one["name"] == "tokio")
        .context("tokio")?;
    ensure!(tokio["licenses"][0]["expression"] == "MIT", "{tokio}");
    ensure!(
        tokio["hashes"][0]["content"]
            .as_str()
            .is_some_and(|sum| sum.len() == 64),
        "{tokio}"
    );
    Ok(())
}

#[test]
fn a_program_that_is_linked_dynamically_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let binaries = binaries(folder.path())?;
    fs::copy("/bin/sh", binaries.join("ocicat-cni"))?;
    let refused = build(&binaries, &folder.path().join("image.tar"), "022");
    let text = refused
        .map(drop)
        .map_err(|error| error.to_string())
        .unwrap_err();
    ensure!(text.contains("ocicat-cni is not static"), "{text}");
    Ok(())
}
