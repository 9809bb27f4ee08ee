//! Event streams of the kernel, with the time of every line.

use super::{Lab, Netns, wait};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// A line and when it came.
#[derive(Debug, Clone)]
pub struct Event {
    /// When it was read; of a packet, when it passed.
    pub at: Instant,
    /// What the monitor printed.
    pub line: String,
}

/// A running monitor.
#[derive(Debug)]
pub struct Watch {
    child: Child,
    events: Arc<Events>,
}

#[derive(Debug, Default)]
struct Events {
    lines: Mutex<Vec<Event>>,
    more: Condvar,
    /// What was changed to see whether the monitor runs: lines about it may still come.
    marker: OnceLock<&'static str>,
}

impl Watch {
    /// Watches routes of both families (`ip monitor route`).
    ///
    /// # Errors
    /// The monitor does not start.
    pub fn routes(_lab: &Lab, netns: &Netns) -> Result<Self> {
        Self::ip(netns, &["route"])
    }

    /// Watches links, addresses, neighbours and routes (`ip monitor`).
    ///
    /// # Errors
    /// The monitor does not start.
    pub fn network(_lab: &Lab, netns: &Netns) -> Result<Self> {
        Self::ip(netns, &["link", "address", "neigh", "route"])
    }

    fn ip(netns: &Netns, objects: &[&str]) -> Result<Self> {
        let watch = Self::start(netns, &[&["ip", "monitor"], objects].concat())?;
        let marker = "203.0.113.255";
        watch.wait_until_it_sees(marker, || {
            netns.ip([
                format!("route add blackhole {marker}"),
                format!("route del blackhole {marker}"),
            ])
        })?;
        Ok(watch)
    }

    /// Watches nf_tables (`nft monitor`).
    ///
    /// # Errors
    /// The monitor does not start.
    pub fn nft(_lab: &Lab, netns: &Netns) -> Result<Self> {
        let watch = Self::start(netns, &["nft", "monitor"])?;
        watch.wait_until_it_sees("lab_marker", || {
            netns
                .run(&["nft", "add table ip lab_marker; delete table ip lab_marker"])
                .map(drop)
        })?;
        Ok(watch)
    }

    /// Watches packets of `eth0` that a `tcpdump` filter takes; their times are those at which the
    /// kernel saw them. What passes before the monitor has started is not seen.
    ///
    /// # Errors
    /// The monitor does not start.
    pub fn packets(_lab: &Lab, netns: &Netns, filter: &str) -> Result<Self> {
        let tcpdump = [
            "tcpdump",
            "-lnqtt",
            "--immediate-mode",
            "-i",
            "eth0",
            filter,
        ];
        Self::start_with(netns, &tcpdump, seen_at)
    }

    fn start(netns: &Netns, args: &[&str]) -> Result<Self> {
        Self::start_with(netns, args, |_| Instant::now())
    }

    fn start_with(netns: &Netns, args: &[&str], at: fn(&str) -> Instant) -> Result<Self> {
        let mut command = Command::new(args[0]);
        command
            .args(&args[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = netns.spawn(&mut command)?;
        let stdout = child.stdout.take().context("the monitor's output")?;
        let events = Arc::new(Events::default());
        let sink = Arc::clone(&events);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sink
                    .marker
                    .get()
                    .is_some_and(|marker| line.contains(marker))
                {
                    continue;
                }
                sink.lock().push(Event {
                    at: at(&line),
                    line,
                });
                sink.more.notify_all();
            }
        });
        Ok(Self { child, events })
    }

    /// A monitor that has started does not say so: change something until it reports it, and
    /// forget what it reported.
    fn wait_until_it_sees(
        &self,
        marker: &'static str,
        mut change: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        wait::until(Duration::from_secs(60), "the monitor to report", || {
            change().map_err(|error| format!("{error:#}"))?;
            let seen = self
                .events
                .lock()
                .iter()
                .filter(|event| event.line.contains(marker))
                .count();
            if seen >= 2 {
                Ok(())
            } else {
                Err("nothing".to_owned())
            }
        })?;
        // The last change may still be on its way.
        let _ = self.events.marker.set(marker);
        self.wait_quiet(Duration::from_millis(60));
        self.events.lock().clear();
        Ok(())
    }

    /// Returns after `silence` without an event.
    pub fn wait_quiet(&self, silence: Duration) {
        let mut lines = self.events.lock();
        loop {
            let before = lines.len();
            let waited = self.events.more.wait_timeout(lines, silence);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
            if lines.len() == before {
                return;
            }
        }
    }

    /// Waits for a line for which `matches` is true, from the beginning of the watch.
    ///
    /// # Errors
    /// There is none within `limit`.
    pub fn wait_for(
        &self,
        limit: Duration,
        what: &str,
        matches: impl Fn(&str) -> bool,
    ) -> Result<Event> {
        let deadline = Instant::now() + limit;
        let mut lines = self.events.lock();
        loop {
            if let Some(event) = lines.iter().find(|event| matches(&event.line)) {
                return Ok(event.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no event within {:.1} s: {what}", limit.as_secs_f64());
            }
            let waited = self.events.more.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    /// Forgets the events so far.
    pub fn clear(&self) {
        self.events.lock().clear();
    }
}

/// The time of a line of `tcpdump -tt`; now, where it begins with none.
fn seen_at(line: &str) -> Instant {
    let now = Instant::now();
    let seconds = line.split(' ').next().and_then(|time| time.parse().ok());
    let age = || {
        let since_epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?;
        since_epoch.checked_sub(Duration::try_from_secs_f64(seconds?).ok()?)
    };
    age().and_then(|age| now.checked_sub(age)).unwrap_or(now)
}

impl Events {
    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended with its namespace.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
