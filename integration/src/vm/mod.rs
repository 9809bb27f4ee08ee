//! A command inside a guest kernel that has what this machine's kernel lacks.
//!
//! The guest is Debian's own kernel under QEMU without hardware help (TCG): slow, but it needs
//! nothing from the host, and user-mode Linux, which is faster, has no nf_tables `inet` family in
//! Debian's build. The guest's root is the host's file system over 9p, so the same binaries and
//! daemons run inside; only `/proc`, `/sys`, `/dev` and `/run` are its own. Output and exit status
//! come back through files of a directory that both sides see without caching. So do the beats of
//! its processors: emulated ones stop now and then, and a guest that hangs says where, is ended, and
//! its command begins again in another.

mod autopsy;
mod emulator;
mod initramfs;
mod kernel;

use anyhow::{Context, Result, bail};
use emulator::{Emulator, console};
use kernel::Kernel;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Processors of a guest.
const PROCESSORS: usize = 2;
/// A guest that has not begun with its command after this long hangs: it takes 5 to 14 s.
const BOOT: Duration = Duration::from_secs(60);
/// Each processor of a guest says this often that it runs.
const BEAT: Duration = Duration::from_secs(5);
/// A processor that has not said so for this long hangs, however busy the machine is.
const STILL: Duration = Duration::from_secs(120);
/// A guest that hangs is ended, and its command begins again in another, this often.
const GUESTS: usize = 3;
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

/// What to run in, and within which bounds.
#[derive(Debug)]
pub struct Guest {
    /// Memory as QEMU takes it, such as `1536M`.
    pub memory: String,
    /// The guest is ended when it runs longer.
    pub limit: Duration,
    /// A command that says nothing for longer hangs.
    pub silence: Duration,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            memory: "1536M".to_owned(),
            limit: Duration::from_secs(1800),
            silence: Duration::from_secs(300),
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
            let console = std::fs::read_to_string(console(dir)).unwrap_or_default();
            format!("the guest died; its console:\n{console}")
        })?;
        status
            .trim()
            .parse()
            .with_context(|| format!("exit status {status:?}"))
    }

    /// Passes on what the command says until the guest has ended.
    fn boot_and_wait(&self, kernel: &Kernel, dir: &Path, output: &mut File) -> Result<Emulator> {
        let boot = || Emulator::start(kernel, dir, &self.memory, PROCESSORS);
        let (mut guest, mut guests) = (boot()?, 1);
        let mut watch = Watch::new(dir, BOOT, self.silence);
        let mut deadline = Instant::now() + self.limit;
        let mut done: Option<Instant> = None;
        loop {
            let ended = guest.ended()?;
            if copy(output)? {
                watch.said = Instant::now();
            }
            if dir.join("status").exists() {
                done.get_or_insert_with(Instant::now);
            }
            // What it has to say is said: a power-off that hangs says nothing about it.
            if ended || done.is_some_and(|since| since.elapsed() > POWER_OFF) {
                return Ok(guest);
            }
            if Instant::now() > deadline {
                let seconds = self.limit.as_secs();
                bail!("the guest was ended after {seconds} s; {}", guest.autopsy());
            }
            if done.is_none()
                && let Some(why) = watch.hangs()
            {
                let autopsy = guest.autopsy();
                if guests == GUESTS {
                    bail!("the guest hangs: {why}; {autopsy}");
                }
                eprintln!("lab: the guest hangs: {why}; another begins\n{autopsy}");
                guest.give_up()?;
                watch.forget()?;
                (guest, guests) = (boot()?, guests + 1);
                deadline = Instant::now() + self.limit;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Whether a guest still does something. An emulated pair of processors stops now and then, and
/// with one of them all that waits for it.
struct Watch {
    mark: PathBuf,
    begun: bool,
    started: Instant,
    patience: Duration,
    /// Where each processor says that it runs, how much it had said, and since when.
    beats: Vec<(PathBuf, u64, Instant)>,
    still: Duration,
    said: Instant,
    silence: Duration,
}

impl Watch {
    fn new(dir: &Path, patience: Duration, silence: Duration) -> Self {
        let now = Instant::now();
        Self {
            mark: dir.join("begun"),
            begun: false,
            started: now,
            patience,
            beats: (0..PROCESSORS)
                .map(|processor| (beat(dir, processor), 0, now))
                .collect(),
            still: STILL,
            said: now,
            silence,
        }
    }

    /// Why another guest is needed.
    fn hangs(&mut self) -> Option<String> {
        if !self.begun {
            if self.mark.exists() {
                self.begin();
                return None;
            }
            let waited = self.started.elapsed();
            return (waited > self.patience)
                .then(|| format!("it has not come up after {} s", waited.as_secs()));
        }
        for (processor, (path, length, since)) in self.beats.iter_mut().enumerate() {
            let now = std::fs::metadata(path).map_or(0, |file| file.len());
            if now != *length {
                (*length, *since) = (now, Instant::now());
            } else if since.elapsed() > self.still {
                let seconds = since.elapsed().as_secs();
                return Some(format!(
                    "processor {processor} does nothing since {seconds} s"
                ));
            }
        }
        let silent = self.said.elapsed();
        (silent > self.silence)
            .then(|| format!("its command has said nothing since {} s", silent.as_secs()))
    }

    /// Another guest begins; it has twice the time, since a machine may be as busy.
    fn forget(&mut self) -> Result<()> {
        let now = Instant::now();
        let stale = self.beats.iter().map(|(path, ..)| path);
        for path in stale.chain([&self.mark]) {
            if path.exists() {
                std::fs::remove_file(path).with_context(|| path.display().to_string())?;
            }
        }
        (self.started, self.begun, self.patience) = (now, false, self.patience * 2);
        Ok(())
    }

    /// Its command begins.
    fn begin(&mut self) {
        let now = Instant::now();
        (self.begun, self.said) = (true, now);
        for (_, length, since) in &mut self.beats {
            (*length, *since) = (0, now);
        }
    }
}

/// Where a processor of the guest says that it runs.
fn beat(dir: &Path, processor: usize) -> PathBuf {
    dir.join(format!("beat.{processor}"))
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
    let beats: String = (0..PROCESSORS)
        .map(|processor| {
            format!(
                "taskset -c {processor} sh -c 'while echo >>{}; do sleep {}; done' >/dev/null 2>&1 &\n",
                beat(dir, processor).display(),
                BEAT.as_secs()
            )
        })
        .collect();
    script.push_str(&format!(
        "export TMPDIR=/run/lab PATH=\"$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin\"\n\
         printf '#!/bin/sh\\nexec /sbin/modprobe -d {modules} \"$@\"\\n' >/run/modprobe\n\
         chmod +x /run/modprobe\necho /run/modprobe >/proc/sys/kernel/modprobe\n\
         /run/modprobe -aq {MODULES}\n\
         echo {BACKLOG} >/proc/sys/net/core/netdev_max_backlog\n\
         ip link set lo up\ncd {here}\n{beats}: >{dir}/begun\n\
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

/// Passes on what the guest has written since the last time; false if nothing.
fn copy(tail: &mut File) -> Result<bool> {
    let mut bytes = Vec::new();
    tail.read_to_end(&mut bytes).context("the guest's output")?;
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(&bytes)
        .and_then(|()| stdout.flush())
        .context("standard output")?;
    Ok(!bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Watch, beat, quoted};
    use std::time::Duration;

    #[test]
    fn a_guest_hangs_that_does_not_come_up_or_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let long = Duration::from_secs(3600);
        let mut watch = Watch::new(dir.path(), Duration::ZERO, long);
        assert!(watch.hangs().unwrap().contains("has not come up"));
        std::fs::write(dir.path().join("begun"), "").unwrap();
        std::fs::write(beat(dir.path(), 0), "\n").unwrap();
        assert_eq!((watch.hangs(), watch.hangs()), (None, None));
        watch.silence = Duration::ZERO;
        assert!(watch.hangs().unwrap().contains("said nothing"));
        // The next one is not taken for the one before.
        watch.forget().unwrap();
        assert!(watch.hangs().unwrap().contains("has not come up"));
        assert!(!beat(dir.path(), 0).exists());
    }

    #[test]
    fn a_processor_that_no_longer_says_so_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let long = Duration::from_secs(3600);
        let mut watch = Watch::new(dir.path(), long, long);
        std::fs::write(dir.path().join("begun"), "").unwrap();
        assert_eq!((watch.hangs(), watch.hangs()), (None, None));
        watch.still = Duration::ZERO;
        std::fs::write(beat(dir.path(), 0), "\n").unwrap();
        assert!(watch.hangs().unwrap().contains("processor 1 does nothing"));
        std::fs::write(beat(dir.path(), 1), "\n").unwrap();
        assert!(watch.hangs().unwrap().contains("processor 0 does nothing"));
    }

    #[test]
    fn words_reach_the_guest_as_they_are() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
