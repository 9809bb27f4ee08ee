//! What a daemon has taken of processors and memory, from `/proc`.

use anyhow::{Context, Result, bail};
use std::fs::{read_dir, read_to_string};
use std::time::{Duration, Instant};

/// Figures of a daemon's processes, summed up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    /// Seconds of processor time since the start.
    pub(super) cpu: f64,
    /// Resident memory, in MiB.
    pub(super) resident: f64,
    /// The most that has been resident, in MiB.
    pub(super) peak: f64,
}

impl Usage {
    /// Of these processes.
    pub(super) fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            for thread in read_dir(format!("/proc/{pid}/task")).context("the daemon")? {
                // The first number is the time on a processor, in nanoseconds.
                let counts = read_to_string(thread?.path().join("schedstat"))?;
                let time = counts.split_whitespace().next().context("schedstat")?;
                sum.cpu += time.parse::<f64>()? / 1e9;
            }
            let status = read_to_string(format!("/proc/{pid}/status")).context("the daemon")?;
            sum.resident += mebibytes(&status, "VmRSS:")?;
            sum.peak += mebibytes(&status, "VmHWM:")?;
        }
        Ok(sum)
    }

    /// Waits until the processes have done next to nothing for a while: an agent looks after its
    /// clock five times a second.
    pub(super) fn wait_idle(pids: &[u32]) -> Result<Self> {
        const QUIET: Duration = Duration::from_millis(250);
        const NEXT_TO_NOTHING: f64 = 0.005;
        let give_up = Instant::now() + Duration::from_secs(120);
        let (mut last, mut since) = (Self::of(pids)?, Instant::now());
        while since.elapsed() < QUIET {
            std::thread::sleep(Duration::from_millis(10));
            let now = Self::of(pids)?;
            if now.cpu > last.cpu + NEXT_TO_NOTHING {
                (last, since) = (now, Instant::now());
            }
            if Instant::now() > give_up {
                bail!("the daemon is never idle");
            }
        }
        Self::of(pids)
    }
}

fn mebibytes(status: &str, name: &str) -> Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("memory")?.parse::<f64>()? / 1024.0)
}
