//! A command inside a guest kernel that has what this machine's kernel lacks.
//!
//! The guest is Debian's own kernel under QEMU without hardware help (TCG): slow, but it needs
//! nothing from the host, and user-mode Linux, which is faster, has no nf_tables `inet` family in
//! Debian's build. The guest's root is the host's file system over 9p, so the same binaries and
//! daemons run inside; only `/proc`, `/sys`, `/dev` and `/run` are its own. Output and exit status
//! come back through files of a directory that both sides see without caching.

mod initramfs;
mod kernel;

use anyhow::{Context, Result, bail};
use kernel::Kernel;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The emulator.
const QEMU: &str = "qemu-system-x86_64";
/// A guest that has not begun with its command after this long hangs: it takes 5 to 14 s. An
/// emulated pair of processors does now and then. The next one has twice the time, since a machine
/// may be as busy.
const BOOT: Duration = Duration::from_secs(60);
/// How long a guest may take to power off.
const POWER_OFF: Duration = Duration::from_secs(15);
/// Pause between two looks at the guest's output.
const PAUSE: Duration = Duration::from_millis(20);
/// Modules that nobody loads by asking for their features, and what rules and pools ask for: a
/// busy guest takes long to start a process for each when it is asked for.
const MODULES: &str = "af_packet ipip ip6_tunnel veth bridge dummy sch_netem vxlan nf_tables \
    nf_conntrack_netlink nfnetlink_log nfnetlink_queue nft_chain_nat nft_ct nft_fib_inet nft_limit \
    nft_log nft_masq nft_nat nft_queue nft_redir nft_reject_inet";
/// Packets that may wait for a processor between two interfaces: a guest that is starved itself drops
/// none of those that are counted.
const BACKLOG: u32 = 100_000;
/// Ends the emulator (process group `$1`) and removes the shared directory `$2` after our own end, or
/// leaves it where it is told `keep`.
const REAPER: &str = r#"trap '' INT TERM HUP; read -r word; kill -9 "-$1" 2>/dev/null; [ "$word" = keep ] || rm -rf "$2""#;

/// What to run in, and within which bounds.
#[derive(Debug)]
pub struct Guest {
    /// Memory as QEMU takes it, such as `1536M`.
    pub memory: String,
    /// The guest is ended when it runs longer.
    pub limit: Duration,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            memory: "1536M".to_owned(),
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
        let kernel = Kernel::find_or_download()?;
        let dir = tempfile::Builder::new()
            .prefix("lab-vm-")
            .tempdir()
            .context("a directory")?;
        let dir = dir.path();
        let output = dir.join("output");
        File::create(&output).context("output file")?;
        write_script(dir, &kernel, command)?;
        initramfs::write(&dir.join("initramfs"), &kernel, dir)?;
        // Its end takes the directory with it.
        let _guest = self.boot_and_wait(
            &kernel,
            dir,
            &mut File::open(&output).context("output file")?,
        )?;
        let status = std::fs::read_to_string(dir.join("status")).with_context(|| {
            let console = std::fs::read_to_string(dir.join("console")).unwrap_or_default();
            format!("the guest died; its console:\n{console}")
        })?;
        status
            .trim()
            .parse()
            .with_context(|| format!("exit status {status:?}"))
    }

    /// Passes on what the command says until the guest has ended.
    fn boot_and_wait(&self, kernel: &Kernel, dir: &Path, output: &mut File) -> Result<Running> {
        let mut guest = Running::start(self, kernel, dir)?;
        let deadline = Instant::now() + self.limit;
        let (mut started, mut patience) = (Instant::now(), BOOT);
        let mut done: Option<Instant> = None;
        loop {
            let ended = guest.emulator.try_wait().context("the guest")?.is_some();
            copy(output)?;
            if dir.join("status").exists() {
                done.get_or_insert_with(Instant::now);
            }
            // What it has to say is said: a power-off that hangs says nothing about it.
            if ended || done.is_some_and(|since| since.elapsed() > POWER_OFF) {
                return Ok(guest);
            }
            let begun = dir.join("begun").exists();
            if Instant::now() > deadline {
                let console = std::fs::read_to_string(dir.join("console")).unwrap_or_default();
                let seconds = self.limit.as_secs();
                bail!(
                    "the guest was ended after {seconds} s, its command begun: {begun}; its console:\n{console}"
                );
            }
            if !begun && started.elapsed() > patience {
                eprintln!("lab: the guest does not come up; another begins");
                guest.give_up()?;
                guest = Running::start(self, kernel, dir)?;
                (started, patience) = (Instant::now(), patience * 2);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// The emulator, and what ends it when we end in whatever way.
struct Running {
    emulator: Child,
    reaper: Child,
}

impl Running {
    fn start(guest: &Guest, kernel: &Kernel, dir: &Path) -> Result<Self> {
        let console = dir.join("console");
        let log = File::create(dir.join("qemu.log")).context("log file")?;
        let emulator = Command::new(QEMU)
            .args([
                "-accel",
                "tcg,thread=multi,tb-size=512",
                "-cpu",
                "Nehalem",
                "-smp",
                "2",
            ])
            .args([
                "-m",
                &guest.memory,
                "-nodefaults",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-serial", &format!("file:{}", console.display())])
            .arg("-kernel")
            .arg(kernel.image())
            .arg("-initrd")
            .arg(dir.join("initramfs"))
            .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"])
            .args([
                "-fsdev",
                "local,id=root,path=/,security_model=none,multidevs=remap",
            ])
            .args(["-device", "virtio-9p-pci,fsdev=root,mount_tag=root"])
            .args([
                "-fsdev",
                &format!("local,id=share,path={},security_model=none", dir.display()),
            ])
            .args(["-device", "virtio-9p-pci,fsdev=share,mount_tag=share"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("log file")?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{QEMU} (Debian's package qemu-system-x86)"))?;
        let reaper = Command::new("sh")
            .args(["-c", REAPER, "reaper", &emulator.id().to_string()])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("the shell that ends the guest after us")?;
        Ok(Self { emulator, reaper })
    }

    /// Ends the emulator; another will use the directory.
    fn give_up(&mut self) -> Result<()> {
        if let Some(mut stdin) = self.reaper.stdin.take() {
            stdin.write_all(b"keep\n").context("the reaper")?;
        }
        self.reaper.wait().context("the reaper")?;
        self.emulator.wait().context("the guest")?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both end by what the reaper does; nothing is left to report.
        drop(self.reaper.stdin.take());
        let _ = self.reaper.wait();
        let _ = self.emulator.wait();
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

/// The guest's process 1. The kernel loads modules through the wrapper in `/run`, since the
/// host's `/lib/modules` is not the guest's.
fn write_script(dir: &Path, kernel: &Kernel, command: &[String]) -> Result<()> {
    let mut script = String::from(
        "#!/bin/sh\nmount -t proc proc /proc\nmount -t sysfs sys /sys\nmount -t devtmpfs dev /dev\n\
         mount -t tmpfs tmpfs /run\nmkdir -p /dev/pts /dev/shm /run/netns /run/lock /run/lab\n\
         mount -t devpts devpts /dev/pts\nmount -t tmpfs tmpfs /dev/shm\n",
    );
    for (name, value) in std::env::vars() {
        if name != "TMPDIR" && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            script.push_str(&format!("export {name}={}\n", quoted(&value)));
        }
    }
    let here = std::env::current_dir().context("current directory")?;
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    script.push_str(&format!(
        "export TMPDIR=/run/lab PATH=\"$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin\"\n\
         printf '#!/bin/sh\\nexec /sbin/modprobe -d {modules} \"$@\"\\n' >/run/modprobe\n\
         chmod +x /run/modprobe\necho /run/modprobe >/proc/sys/kernel/modprobe\n\
         /run/modprobe -aq {MODULES}\n\
         echo {BACKLOG} >/proc/sys/net/core/netdev_max_backlog\n\
         ip link set lo up\ncd {here}\n: >{dir}/begun\n\
         {words} </dev/null >>{dir}/output 2>&1\n\
         echo $? >{dir}/status\necho o >/proc/sysrq-trigger\nwhile :; do sleep 60; done\n",
        modules = kernel.root().display(),
        here = quoted(&here.to_string_lossy()),
        words = words.join(" "),
        dir = dir.display(),
    ));
    let path = dir.join("init");
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
