//! The emulator: how it is started, asked and ended.

use super::autopsy;
use super::kernel::Kernel;
use crate::lab::reaper::outliving;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The program.
const QEMU: &str = "qemu-system-x86_64";
/// A guest that is asked where it hangs tells its tasks and processors, and ends.
const PARAMETERS: &str =
    "console=ttyS0 quiet panic=-1 mitigations=off unknown_nmi_panic panic_print=0x41";
/// How long the monitor may take to answer.
const MONITOR: Duration = Duration::from_secs(10);
/// How long a guest may take to tell where it hangs, on a serial line.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// Ends the emulator (process group `$1`) and removes the shared directory `$2` after our own end, or
/// leaves it where it is told `keep`.
const REAPER: &str = r#"trap '' INT TERM HUP; read -r word; kill -9 "-$1" 2>/dev/null; [ "$word" = keep ] || rm -rf "$2""#;

/// The emulator, and what ends it when we end in whatever way.
pub(super) struct Emulator {
    process: Child,
    reaper: Child,
    dir: PathBuf,
}

impl Emulator {
    /// Boots a guest with `memory` (as QEMU takes it) and `processors` whose files, and whose way to
    /// us, lie in `dir`.
    pub(super) fn start(
        kernel: &Kernel,
        dir: &Path,
        memory: &str,
        processors: usize,
    ) -> Result<Self> {
        let log = File::create(dir.join("qemu.log")).context("log file")?;
        let monitor = dir.join("monitor");
        let _ = std::fs::remove_file(&monitor);
        let process = Command::new(QEMU)
            .args(["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "Nehalem"])
            .args(["-smp", &processors.to_string(), "-m", memory])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-serial", &format!("file:{}", console(dir).display())])
            .args([
                "-monitor",
                &format!("unix:{},server=on,wait=off", monitor.display()),
            ])
            .arg("-kernel")
            .arg(kernel.image())
            .arg("-initrd")
            .arg(dir.join("initramfs"))
            .args(["-append", PARAMETERS])
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
        let reaper = outliving(REAPER, &process.id().to_string(), dir)
            .context("the shell that ends the guest after us")?;
        Ok(Self {
            process,
            reaper,
            dir: dir.to_owned(),
        })
    }

    /// Whether it has ended.
    pub(super) fn ended(&mut self) -> Result<bool> {
        Ok(self.process.try_wait().context("the guest")?.is_some())
    }

    /// Ends the emulator; another will use the directory.
    pub(super) fn give_up(&mut self) -> Result<()> {
        if let Some(mut stdin) = self.reaper.stdin.take() {
            stdin.write_all(b"keep\n").context("the reaper")?;
        }
        self.reaper.wait().context("the reaper")?;
        self.process.wait().context("the guest")?;
        Ok(())
    }

    /// Where the processors of a guest that hangs stand, and, if its kernel still takes interrupts,
    /// what its tasks wait for. The guest has ended afterwards.
    pub(super) fn autopsy(&mut self) -> String {
        let asked = self
            .ask("info registers -a")
            .and_then(|registers| self.ask("nmi").map(|_| registers));
        let deadline = Instant::now() + LAST_WORDS;
        while Instant::now() < deadline && !self.ended().unwrap_or(true) {
            std::thread::sleep(super::PAUSE);
        }
        let said = std::fs::read_to_string(console(&self.dir)).unwrap_or_default();
        match asked {
            Ok(registers) => autopsy::digest(&registers, &said),
            Err(error) => format!("{error:#}\n{said}"),
        }
    }

    /// What QEMU's monitor says to `command`.
    fn ask(&self, command: &str) -> Result<String> {
        let mut monitor = UnixStream::connect(self.dir.join("monitor")).context("the monitor")?;
        monitor
            .set_read_timeout(Some(Duration::from_millis(500)))
            .context("the monitor")?;
        writeln!(monitor, "{command}").context("the monitor")?;
        let (mut said, mut chunk) = (Vec::new(), [0; 4096]);
        let deadline = Instant::now() + MONITOR;
        // It greets, echoes, answers and waits for more; its prompt is what an answer ends with.
        while Instant::now() < deadline && said.windows(6).filter(|at| at == b"(qemu)").count() < 2
        {
            match monitor.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => said.extend_from_slice(&chunk[..length]),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error).context("the monitor"),
            }
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Both end by what the reaper does; nothing is left to report.
        drop(self.reaper.stdin.take());
        let _ = self.reaper.wait();
        let _ = self.process.wait();
    }
}

/// The guest's console.
pub(super) fn console(dir: &Path) -> PathBuf {
    dir.join("console")
}
