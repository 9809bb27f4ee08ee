//! System calls of an agent that fail: strace makes them, so that the agent is the one that a user
//! installs.

use super::{Agent, Lab, Process, wait};
use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long strace may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// More calls of a kind than one thread makes for anything that a test waits for.
pub const MOST: usize = 100;
/// So often in succession an operation is not reached when there are no more: an audit that comes
/// between shifts them.
const MISSES: usize = 3;

/// Which operation fails next.
#[derive(Debug)]
pub struct Walk {
    /// Its number.
    pub nth: usize,
    missed: usize,
    left: usize,
}

impl Walk {
    /// Begins with this one.
    pub fn from(nth: usize) -> Self {
        Self {
            nth,
            missed: 0,
            left: MOST,
        }
    }

    /// Goes on after an attempt in which it failed, or was not reached. Answers whether there may
    /// be more.
    ///
    /// # Errors
    /// There is no end of them.
    pub fn goes_on(&mut self, failed: bool) -> Result<bool> {
        if failed {
            (self.nth, self.missed) = (self.nth + 1, 0);
        } else {
            self.missed += 1;
        }
        self.left -= 1;
        if self.left == 0 {
            bail!("more than {MOST} calls");
        }
        Ok(self.missed < MISSES)
    }
}

/// What is made to fail.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The system call.
    pub call: &'static str,
    /// What it answers.
    pub errno: &'static str,
    /// What the system says about it.
    pub words: &'static str,
}

/// Requests to the kernel, and the parameters under `/proc/sys`.
pub const FAULTS: [Fault; 2] = [
    Fault {
        call: "sendto",
        errno: "ENOMEM",
        words: "Cannot allocate memory",
    },
    Fault {
        call: "openat",
        errno: "EROFS",
        words: "Read-only file system",
    },
];

impl Fault {
    /// The arguments with which strace makes calls of each thread fail: `when` in its language.
    fn arguments(self, when: &str, log: &Path) -> Vec<String> {
        let Self { call, errno, .. } = self;
        let words = ["-f", "-qq", "-o"].map(str::to_owned);
        let mut words = Vec::from(words);
        words.push(log.display().to_string());
        words.extend(["-e".to_owned(), format!("trace={call}")]);
        let inject = format!("inject={call}:error={errno}:when={when}");
        words.extend(["-e".to_owned(), inject]);
        words
    }
}

/// Whether strace is here; says so where it is not.
pub fn has_strace() -> bool {
    let found = Command::new("strace").arg("-V").output().is_ok();
    if !found {
        eprintln!("no strace: nothing tested");
    }
    found
}

/// A running strace.
#[derive(Debug)]
pub struct Injection {
    strace: Process,
    pid: u32,
    log: PathBuf,
    times: usize,
}

impl Injection {
    /// The `nth` call of each thread of the agent fails from now on.
    ///
    /// # Errors
    /// The agent does not run, or strace does not take hold of it.
    pub fn attach(lab: &Lab, agent: &Agent, fault: Fault, nth: usize) -> Result<Self> {
        Self::begin(lab, agent, fault, &nth.to_string(), 1)
    }

    /// The first call of each thread fails, and the `nth`, so that it is one of those that make good
    /// what the first did not do.
    ///
    /// # Errors
    /// The agent does not run, or strace does not take hold of it.
    pub fn attach_twice(lab: &Lab, agent: &Agent, fault: Fault, nth: usize) -> Result<Self> {
        let when = format!("1..{nth}+{}", nth - 1);
        Self::begin(lab, agent, fault, &when, 2)
    }

    fn begin(lab: &Lab, agent: &Agent, fault: Fault, when: &str, times: usize) -> Result<Self> {
        let pid = agent.pid()?;
        let log = lab.dir().join("strace");
        // A log of before must not be read as this one's.
        std::fs::write(&log, "")?;
        let mut command = Command::new("strace");
        command.args(fault.arguments(when, &log));
        command.args(["-p", &pid.to_string()]);
        let strace = Process::start(agent.netns(), lab.dir(), "strace-says", &mut command)?;
        let injection = Self {
            strace,
            pid,
            log,
            times,
        };
        wait::until(LIMIT, "strace to be attached", || {
            let traced = tracers(pid).map_err(|error| format!("{error:#}"))?;
            if !traced.is_empty() && traced.iter().all(|tracer| *tracer != 0) {
                Ok(())
            } else {
                Err(format!("{traced:?} {}", injection.strace.log()))
            }
        })?;
        Ok(injection)
    }

    /// Ends it; answers whether everything that was to fail did, in one thread at least.
    ///
    /// # Errors
    /// It does not end, or the agent has.
    pub fn detach(mut self) -> Result<bool> {
        self.strace.signal(Signal::INT)?;
        self.strace.wait(LIMIT)?;
        wait::until(LIMIT, "strace to be gone", || {
            let traced = tracers(self.pid).map_err(|error| format!("{error:#}"))?;
            match traced.iter().all(|tracer| *tracer == 0) {
                true => Ok(()),
                false => Err(format!("{traced:?}")),
            }
        })?;
        Ok(injections(&self.log)? >= self.times)
    }
}

/// A program that starts the agent's binary with a fault in it from its first call on, and the log
/// that [`was_injected`] reads.
///
/// # Errors
/// The file can't be written.
pub fn faulty_binary(
    lab: &Lab,
    binary: &Path,
    fault: Fault,
    nth: usize,
) -> Result<(PathBuf, PathBuf)> {
    let (script, log) = (lab.dir().join("faulty"), lab.dir().join("strace"));
    std::fs::write(&log, "")?;
    // As a grandchild, strace leaves the agent its process id and its signals.
    let arguments = fault.arguments(&nth.to_string(), &log).join(" ");
    let text = format!(
        "#!/bin/sh\nexec strace -D {arguments} {} \"$@\"\n",
        binary.display()
    );
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    Ok((script, log))
}

/// Whether a call failed because of strace.
///
/// # Errors
/// There is no such log.
pub fn was_injected(log: &Path) -> Result<bool> {
    Ok(injections(log)? > 0)
}

/// How many calls of one thread failed because of strace, of the thread with most of them.
fn injections(log: &Path) -> Result<usize> {
    let text = std::fs::read_to_string(log).context("strace's log")?;
    let mut by_thread: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("(INJECTED)")) {
        let thread = line.split_whitespace().next().unwrap_or_default();
        *by_thread.entry(thread).or_default() += 1;
    }
    Ok(by_thread.into_values().max().unwrap_or_default())
}

/// Who traces each thread of a process; 0 is nobody.
fn tracers(pid: u32) -> Result<Vec<u32>> {
    let mut tracers = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else {
            continue;
        };
        let line = status.lines().find_map(|l| l.strip_prefix("TracerPid:"));
        tracers.push(line.context("TracerPid")?.trim().parse()?);
    }
    Ok(tracers)
}
