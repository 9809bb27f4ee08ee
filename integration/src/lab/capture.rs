//! Packet captures.

use super::{Lab, Netns, Process, process, wait};
use anyhow::{Result, bail};
use rustix::process::Signal;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A running tcpdump.
#[derive(Debug)]
pub struct Capture {
    file: PathBuf,
    process: Process,
}

impl Capture {
    /// Starts a capture of everything on `interface`; returns once packets are being taken.
    ///
    /// # Errors
    /// tcpdump does not start.
    pub fn start(lab: &Lab, netns: &Netns, interface: &str) -> Result<Self> {
        let dir = lab.subdir("captures")?;
        let name = format!(
            "{}-{interface}-{}",
            netns.name(),
            std::fs::read_dir(&dir)?.count()
        );
        let file = dir.join(format!("{name}.pcap"));
        let mut command = Command::new("tcpdump");
        command.args([
            "-Z",
            "root",
            "-n",
            "-U",
            "--immediate-mode",
            // Headers, and room in KiB for many of them: a transfer must not push packets out.
            "-s",
            "512",
            "-B",
            "16384",
            "-i",
            interface,
            "-w",
        ]);
        command.arg(&file);
        let mut process = Process::start(netns, &dir, &name, &mut command)?;
        wait::until(Duration::from_secs(60), "tcpdump to listen", || {
            let log = process.log();
            if log.contains("listening on") {
                return Ok(());
            }
            process
                .expect_running()
                .map_err(|error| format!("{error:#}"))?;
            Err(log)
        })?;
        Ok(Self { file, process })
    }

    /// Waits until tcpdump has taken what is in the kernel's ring: a signal to end drops it.
    fn drain(&self) -> Result<()> {
        let mut asked = 0;
        wait::until(Duration::from_secs(60), "tcpdump to read all", || {
            let log = self.process.log();
            if log.matches(" dropped by kernel").count() < asked {
                return Err(log);
            }
            let number = |of: &str| {
                let at = log.rfind(of)?;
                let number = log.get(..at)?.rsplit([' ', '\n']).next()?;
                number.parse::<u64>().ok()
            };
            match (number(" packets captured"), number(" packets received")) {
                (Some(taken), Some(seen)) if taken >= seen => return Ok(()),
                _ => asked += 1,
            }
            let signalled = self.process.signal(Signal::USR1);
            signalled.map_err(|error| format!("{error:#}"))?;
            Err(log)
        })
    }

    /// Ends the capture; the file is complete then.
    ///
    /// # Errors
    /// tcpdump has ended before.
    pub fn stop(mut self) -> Result<Recording> {
        if !self.process.is_running() {
            bail!("tcpdump ended early: {}", self.process.log());
        }
        self.drain()?;
        self.process.signal(Signal::INT)?;
        self.process.wait(Duration::from_secs(60))?;
        Ok(Recording {
            file: self.file.clone(),
        })
    }
}

/// A finished capture.
#[derive(Debug)]
pub struct Recording {
    file: PathBuf,
}

impl Recording {
    /// The pcap file.
    pub(super) fn file(&self) -> &std::path::Path {
        &self.file
    }

    /// The packets that match a filter of pcap-filter(7), one line each.
    ///
    /// # Errors
    /// The filter is not one.
    pub fn packets(&self, filter: &str) -> Result<Vec<String>> {
        let mut command = Command::new("tcpdump");
        command.args(["-n", "-t", "-r"]).arg(&self.file).arg(filter);
        Ok(process::run(&mut command)?
            .lines()
            .map(str::to_owned)
            .collect())
    }

    /// How many packets match a filter.
    ///
    /// # Errors
    /// The filter is not one.
    pub fn count(&self, filter: &str) -> Result<usize> {
        Ok(self.packets(filter)?.len())
    }
}
