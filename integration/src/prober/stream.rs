//! A TCP connection that goes on until it is told to end, in bursts.

use super::{Outcome, Poured, SIZE_PORT};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Octets of a burst, and the time between two.
const BURST: usize = 1 << 16;
const EVERY: Duration = Duration::from_millis(10);

/// The connections that this prober keeps busy.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<BTreeMap<u64, Pouring>>);

#[derive(Debug)]
struct Pouring {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Poured>>,
}

impl Streams {
    pub(super) fn start(&self, stream: u64, to: IpAddr, limit: Duration) -> Result<Outcome> {
        let connection = TcpStream::connect_timeout(&SocketAddr::new(to, SIZE_PORT), limit)?;
        connection.set_read_timeout(Some(limit))?;
        connection.set_write_timeout(Some(limit))?;
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || pour(connection, &until));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(stream, Pouring { stop, thread });
        Ok(Outcome::Flowing)
    }

    pub(super) fn stop(&self, stream: u64) -> Result<Outcome> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pouring = all.remove(&stream).context("no such stream")?;
        drop(all);
        pouring.stop.store(true, Ordering::Relaxed);
        let poured = pouring.thread.join().ok().context("the sender panicked")?;
        Ok(Outcome::Poured(poured?))
    }
}

fn pour(mut connection: TcpStream, until: &AtomicBool) -> Result<Poured> {
    let burst = vec![0; BURST];
    let mut poured = Poured::default();
    while !until.load(Ordering::Relaxed) {
        let began = Instant::now();
        let sent = poured.sent;
        connection
            .write_all(&burst)
            .with_context(|| format!("stalled after {sent} octets"))?;
        poured.sent += BURST;
        std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
    }
    connection.shutdown(Shutdown::Write)?;
    let mut count = String::new();
    connection.read_to_string(&mut count).context("no count")?;
    poured.arrived = count.parse().context("a count")?;
    Ok(poured)
}
