//! A command inside a guest kernel that has what this machine's kernel lacks.
//!
//! The guest is user-mode Linux (Debian's `user-mode-linux`): an ordinary process, no KVM. Its
//! root is the host's own file system by hostfs, so the same binaries and daemons run inside; only
//! `/proc`, `/sys`, `/dev` and `/run` are its own. Output and exit status come back through files
//! of a directory that both sides see.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where Debian's package keeps the modules of the guest's kernel.
const MODULES: &str = "/usr/lib/uml/modules";
/// The guest's kernel, a program.
const KERNEL: &str = "linux.uml";
/// Pause between two looks at the guest's output.
const PAUSE: Duration = Duration::from_millis(20);
/// Modules that the lab may want; what the guest's kernel does not have is passed over.
const WANTED: &str = "ipip ip6_tunnel sit veth bridge dummy vrf sch_netem nf_tables nft_ct nft_masq nft_nat \
    nft_chain_nat nft_log nft_limit nft_reject_ipv4 nft_reject_ipv6 nft_numgen nft_hash nf_conntrack_netlink af_packet";

/// Runs first in the guest, as process 1: `script DIR`.
const INIT: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
mkdir -p /dev/pts /dev/shm /run/netns /run/lock /run/lab
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
"#;

/// What to run, and within which bounds.
#[derive(Debug)]
pub struct Guest {
    /// Memory as the guest's kernel takes it, such as `1024M`.
    pub memory: String,
    /// The guest is ended when it runs longer.
    pub limit: Duration,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            memory: "1024M".to_owned(),
            limit: Duration::from_secs(1800),
        }
    }
}

impl Guest {
    /// Runs `command` in the guest, its output going to our standard output while it runs, and
    /// returns its exit status.
    ///
    /// # Errors
    /// The guest can't be started, died, or was ended at the limit.
    pub fn run(&self, command: &[String]) -> Result<u8> {
        link_modules()?;
        let dir = tempfile::Builder::new()
            .prefix("lab-vm-")
            .tempdir()
            .context("a directory")?;
        let output = dir.path().join("output");
        File::create(&output).context("output file")?;
        write_script(dir.path(), command)?;
        let mut guest = Running::start(self, dir.path())?;
        let deadline = Instant::now() + self.limit;
        let mut tail = File::open(&output).context("output file")?;
        loop {
            let ended = guest.kernel.try_wait().context("the guest")?.is_some();
            copy(&mut tail)?;
            if ended {
                break;
            }
            if Instant::now() > deadline {
                bail!("the guest was ended after {} s", self.limit.as_secs());
            }
            std::thread::sleep(PAUSE);
        }
        let console = || std::fs::read_to_string(dir.path().join("console")).unwrap_or_default();
        let status = std::fs::read_to_string(dir.path().join("status"))
            .with_context(|| format!("the guest died; its console:\n{}", console()))?;
        status
            .trim()
            .parse()
            .with_context(|| format!("exit status {status:?}"))
    }
}

/// The guest's kernel, and what ends it when we end in whatever way.
struct Running {
    kernel: Child,
    reaper: Child,
}

impl Running {
    fn start(guest: &Guest, dir: &Path) -> Result<Self> {
        let console = File::create(dir.join("console")).context("console file")?;
        let kernel = Command::new(KERNEL)
            .arg(format!("mem={}", guest.memory))
            .args([
                "root=none",
                "rootfstype=hostfs",
                "rootflags=/",
                "rw",
                "quiet",
            ])
            .args(["con=null", "con0=null,fd:1"])
            .arg(format!("uml_dir={}/", dir.display()))
            .arg(format!("init={}", dir.join("init").display()))
            .stdin(Stdio::null())
            .stdout(console.try_clone().context("console file")?)
            .stderr(console)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{KERNEL} (Debian's packages user-mode-linux and kmod)"))?;
        let reaper = Command::new("sh")
            .args([
                "-c",
                r#"trap '' INT TERM HUP; read -r _; kill -9 -- "-$1"; rm -rf "$2""#,
                "reaper",
            ])
            .arg(kernel.id().to_string())
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("the shell that ends the guest after us")?;
        Ok(Self { kernel, reaper })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The reaper ends what is left of the guest's process group; then both can be collected.
        drop(self.reaper.stdin.take());
        let _ = self.reaper.wait();
        let _ = self.kernel.wait();
    }
}

/// Whether this kernel can make IPIP devices.
///
/// # Errors
/// No namespace to try it in.
pub fn kernel_has_ipip() -> Result<bool> {
    // Without module tools the device either works or does not; the attempt below tells.
    let _ = Command::new("modprobe")
        .args(["-q", "ipip"])
        .stderr(Stdio::null())
        .status();
    let lab = crate::lab::Lab::new()?;
    Ok(lab
        .netns("try")?
        .ip(["link add try0 type ipip external"])
        .is_ok())
}

/// The guest looks for its modules where every Linux does.
fn link_modules() -> Result<()> {
    let hint = "install Debian's packages user-mode-linux and kmod";
    let mut versions = std::fs::read_dir(MODULES).with_context(|| format!("{MODULES}: {hint}"))?;
    let source = versions
        .next()
        .with_context(|| format!("{MODULES} is empty: {hint}"))??
        .path();
    let version = source.file_name().context("a version")?.to_owned();
    let link = Path::new("/lib/modules").join(&version);
    if !link.exists() {
        std::fs::create_dir_all("/lib/modules").context("/lib/modules")?;
        if let Err(error) = std::os::unix::fs::symlink(&source, &link)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(error).with_context(|| link.display().to_string());
        }
    }
    if !source.join("modules.dep.bin").exists() {
        crate::lab::process::run(Command::new("depmod").arg(&version))?;
    }
    Ok(())
}

fn write_script(dir: &Path, command: &[String]) -> Result<()> {
    let mut script = INIT.to_owned();
    for (name, value) in std::env::vars() {
        if name != "TMPDIR" && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            script.push_str(&format!("export {name}={}\n", quoted(&value)));
        }
    }
    let here = std::env::current_dir().context("current directory")?;
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    script.push_str(&format!(
        "export TMPDIR=/run/lab PATH=\"$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin\"\n\
         for module in {WANTED}; do modprobe -q \"$module\"; done\n\
         ip link set lo up\ncd {here}\n\
         {words} </dev/null >{dir}/output 2>&1\n\
         echo $? >{dir}/status\necho o >/proc/sysrq-trigger\nsleep 60\n",
        here = quoted(&here.to_string_lossy()),
        words = words.join(" "),
        dir = dir.display(),
    ));
    let path: PathBuf = dir.join("init");
    std::fs::write(&path, script).context("the guest's first script")?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).context("the guest's first script")
}

/// A word that a shell takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Passes on what the guest has written since the last time.
fn copy(tail: &mut File) -> Result<()> {
    let mut bytes = Vec::new();
    tail.read_to_end(&mut bytes).context("the guest's output")?;
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(&bytes)
        .and_then(|()| stdout.flush())
        .context("standard output")
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_reach_the_guest_as_they_are() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
