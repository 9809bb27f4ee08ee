//! A steady flow of numbered datagrams: who sends misses no number, who counts misses no gap.

use super::{FLOW_PORT, Outcome, Received, Sent};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Octets that may wait for the prober: seconds of flows.
const QUEUE: usize = 16 << 20;
/// After this silence what is missing counts as lost.
const SETTLED: Duration = Duration::from_millis(300);

/// The flows that this prober sends and receives.
#[derive(Debug)]
pub(super) struct Flows {
    sending: Mutex<BTreeMap<u64, Sender>>,
    arrivals: Arc<Arrivals>,
}

#[derive(Debug)]
struct Sender {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Sent>,
}

#[derive(Debug, Default)]
struct Arrivals {
    flows: Mutex<BTreeMap<u64, Counter>>,
    more: Condvar,
}

/// What has arrived of one flow.
#[derive(Debug, Default)]
struct Counter {
    seen: Vec<bool>,
    count: u64,
    duplicates: u64,
    last: Option<Instant>,
    longest_gap: Duration,
}

impl Flows {
    /// Counts what arrives from now on.
    pub(super) fn listen() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, FLOW_PORT))?;
        // A prober that is not scheduled for a while must not look like a network that loses.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE)?;
        let arrivals = Arc::new(Arrivals::default());
        let sink = Arc::clone(&arrivals);
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            loop {
                if let Ok(length) = socket.recv(&mut buffer)
                    && let Some((flow, number)) = decode(&buffer[..length])
                {
                    sink.lock()
                        .entry(flow)
                        .or_default()
                        .arrived(number, Instant::now());
                    sink.more.notify_all();
                }
            }
        });
        Ok(Self {
            sending: Mutex::default(),
            arrivals,
        })
    }

    pub(super) fn start(&self, flow: u64, to: IpAddr, rate: u32) -> Result<Outcome> {
        let any: IpAddr = if to.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, 0))?;
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || send(&socket, flow, to, rate, &until));
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        sending.insert(flow, Sender { stop, thread });
        Ok(Outcome::Flowing)
    }

    pub(super) fn stop(&self, flow: u64) -> Result<Outcome> {
        let sender = self
            .sending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&flow);
        let sender = sender.context("no such flow")?;
        sender.stop.store(true, Ordering::Relaxed);
        let sent = sender.thread.join().ok().context("the sender panicked")?;
        Ok(Outcome::Sent(sent))
    }

    pub(super) fn report(&self, flow: u64, sent: u64) -> Outcome {
        let mut flows = self.arrivals.lock();
        let (mut before, mut since) = (0, Instant::now());
        // Other flows may go on meanwhile.
        while since.elapsed() < SETTLED {
            let count = flows.get(&flow).map_or(0, |counter| counter.count);
            if count >= sent {
                break;
            }
            if count > before {
                (before, since) = (count, Instant::now());
            }
            let waited = self.arrivals.more.wait_timeout(flows, SETTLED);
            flows = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Outcome::Received(flows.entry(flow).or_default().report(sent))
    }
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Counter>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends by the clock, not by pauses: a kernel with coarse timers sends in small bursts, and the
/// rate stays.
fn send(socket: &UdpSocket, flow: u64, to: IpAddr, rate: u32, stop: &AtomicBool) -> Sent {
    let interval = Duration::from_secs(1) / rate.max(1);
    let mut next = Instant::now();
    let mut sent = Sent::default();
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = socket.send_to(&encode(flow, sent.count), (to, FLOW_PORT)) {
            sent.refused += 1;
            sent.last_error = Some(error.to_string());
        }
        sent.count += 1;
        next += interval;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    sent
}

fn encode(flow: u64, number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&flow.to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, u64)> {
    let (flow, number) = bytes.split_first_chunk()?;
    Some((
        u64::from_be_bytes(*flow),
        u64::from_be_bytes(number.try_into().ok()?),
    ))
}

impl Counter {
    fn arrived(&mut self, number: u64, now: Instant) {
        let Ok(index) = usize::try_from(number) else {
            return;
        };
        if self.seen.len() <= index {
            self.seen.resize(index + 1, false);
        }
        if std::mem::replace(&mut self.seen[index], true) {
            self.duplicates += 1;
            return;
        }
        self.count += 1;
        if let Some(last) = self.last.replace(now) {
            self.longest_gap = self.longest_gap.max(now.saturating_duration_since(last));
        }
    }

    fn report(&self, sent: u64) -> Received {
        let mut missing: Vec<(u64, u64)> = Vec::new();
        for number in 0..sent {
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            if self.seen.get(index).copied().unwrap_or(false) {
                continue;
            }
            match missing.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => missing.push((number, number)),
            }
        }
        Received {
            count: self.count,
            duplicates: self.duplicates,
            missing,
            longest_gap_us: u64::try_from(self.longest_gap.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_missing_ranges_duplicates_and_the_longest_gap() {
        let mut counter = Counter::default();
        let start = Instant::now();
        for (number, ms) in [(0, 0), (1, 1), (4, 9), (4, 10), (3, 11)] {
            counter.arrived(number, start + Duration::from_millis(ms));
        }
        let report = counter.report(7);
        assert_eq!(report.count, 4);
        assert_eq!(report.duplicates, 1);
        assert_eq!(report.missing, [(2, 2), (5, 6)]);
        assert_eq!(report.longest_gap_us, 8000);
    }

    #[test]
    fn datagrams_survive_encoding_and_foreign_ones_are_ignored() {
        assert_eq!(decode(&encode(7, u64::MAX)), Some((7, u64::MAX)));
        assert_eq!(decode(b"short"), None);
        assert_eq!(decode(&[0; 17]), None);
    }
}
