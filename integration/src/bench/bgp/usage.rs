//! What a daemon has taken of processors and memory, from `/proc`.

use anyhow::{Context, Result, bail};
use std::fs::read_to_string;
use std::time::{Duration, Instant};

/// `USER_HZ`, which is the same on every architecture that we run on.
const TICKS: f64 = 100.0;

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
            let stat = read_to_string(format!("/proc/{pid}/stat")).context("the daemon")?;
            // The name may have blanks; utime and stime are the 12th and 13th field after it.
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
            let ticks = fields.split_whitespace().skip(11).take(2);
            sum.cpu += ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / TICKS;
            let status = read_to_string(format!("/proc/{pid}/status")).context("the daemon")?;
            sum.resident += mebibytes(&status, "VmRSS:")?;
            sum.peak += mebibytes(&status, "VmHWM:")?;
        }
        Ok(sum)
    }

    /// Waits until the processes have done nothing for a while.
    pub(super) fn wait_idle(pids: &[u32]) -> Result<Self> {
        const QUIET: Duration = Duration::from_millis(250);
        let give_up = Instant::now() + Duration::from_secs(120);
        let (mut last, mut since) = (Self::of(pids)?, Instant::now());
        while since.elapsed() < QUIET {
            std::thread::sleep(Duration::from_millis(10));
            let now = Self::of(pids)?;
            if now.cpu > last.cpu {
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
