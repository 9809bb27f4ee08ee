//! A node of a full mesh: internal peers that each announce some prefixes, and one router that
//! hears of all of them.

use super::cell::Stage;
use super::daemon::{self, ASN, Daemon, Kind, Peer};
use super::session::{End, Session};
use super::usage::Usage;
use super::wire::{self, Announcer, KEEPALIVE, Said, UPDATE};
use anyhow::{Context, Result, bail, ensure};
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

/// Prefixes of each peer, as many as addresses in a block of a pool.
const EACH: u32 = 64;
/// In seconds; a third of it is the interval of keepalives (RFC 4271 section 10).
const HOLD_TIME: u16 = 9;
/// How much later than that a keepalive may come here: one thread of this process in a thousand.
const SLACK: Duration = Duration::from_millis(250);
/// How long keepalives are watched.
const WATCHED: Duration = Duration::from_secs(12);
/// Sessions are opened by so many threads.
const OPENERS: usize = 16;
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const ROUTER_ASN: u32 = 65001;
/// Octets of stack of a peer's thread.
const STACK: usize = 128 << 10;

/// What came out.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// From the first announcement until the router has been told everything, in seconds.
    pub(super) converge: f64,
    /// Resident memory with all sessions and prefixes, in MiB.
    pub(super) resident: f64,
    /// Resident memory without peers, in MiB.
    pub(super) base: f64,
    /// The longest that a peer heard nothing, in seconds.
    pub(super) silence: f64,
    /// Keepalives that came late.
    pub(super) late: usize,
}

/// What peers see of keepalives.
#[derive(Debug, Default)]
struct Seen {
    late: AtomicUsize,
    silence: Mutex<Duration>,
}

pub(super) fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 99, 4 + high, low)
}

/// A mesh of so many peers, each in a thread.
pub(super) fn measure(stage: &Stage, peers: u16) -> Result<Outcome> {
    let end = |address, asn, told_all| Peer {
        address,
        asn,
        hold_time: HOLD_TIME,
        told_all,
    };
    let empty = Daemon::start(Kind::Ours, stage.lab(), &stage.daemon, &[])?;
    let base = Usage::wait_idle(&empty.pids())?.resident;
    drop(empty);
    let mut all = vec![Peer {
        hold_time: daemon::HOLD_TIME,
        ..end(ROUTER, ROUTER_ASN, true)
    }];
    all.extend((0..peers).map(|number| end(address(number), ASN, false)));
    let mut daemon = Daemon::start(Kind::Ours, stage.lab(), &stage.daemon, &all)?;
    let pids = daemon.pids();
    let outcome = stage.tester.within(|| run(peers, base, &pids))?;
    daemon.expect_running()?;
    outcome
}

fn run(peers: u16, base: f64, pids: &[u32]) -> Result<Outcome> {
    let total = usize::from(peers) * EACH as usize;
    let (told, all_told) = channel();
    let router = establish(ROUTER, ROUTER_ASN, daemon::HOLD_TIME, 1 << 18)?;
    // Keeps the connection open for as long as this function runs.
    let _router = router.writer.try_clone()?;
    std::thread::spawn(move || observe(router, total, &told));
    let seen = Arc::new(Seen::default());
    let start_line = Arc::new(Barrier::new(usize::from(peers) + 1));
    open_all(peers, &start_line, &seen)?;
    start_line.wait();
    let start = Instant::now();
    let end = all_told
        .recv_timeout(Duration::from_secs(120))
        .context("the router was not told everything")?;
    seen.late.store(0, Ordering::Relaxed);
    std::thread::sleep(WATCHED);
    let silence = seen
        .silence
        .lock()
        .map_or(Duration::MAX, |silence| *silence);
    Ok(Outcome {
        converge: (end - start).as_secs_f64(),
        resident: Usage::of(pids)?.resident,
        base,
        silence: silence.as_secs_f64(),
        late: seen.late.load(Ordering::Relaxed),
    })
}

/// Opens all sessions, and leaves a thread with each.
fn open_all(peers: u16, start_line: &Arc<Barrier>, seen: &Arc<Seen>) -> Result<()> {
    let numbers: Vec<u16> = (0..peers).collect();
    let share = numbers.len().div_ceil(OPENERS);
    std::thread::scope(|scope| {
        let openers = numbers.chunks(share).map(|numbers| {
            scope.spawn(move || -> Result<()> {
                for number in numbers {
                    let session = establish(address(*number), ASN, HOLD_TIME, 0)?;
                    let (start_line, seen) = (Arc::clone(start_line), Arc::clone(seen));
                    let number = *number;
                    std::thread::Builder::new()
                        .stack_size(STACK)
                        .spawn(move || peer(number, session, &start_line, &seen))?;
                }
                Ok(())
            })
        });
        let openers: Vec<_> = openers.collect();
        openers.into_iter().try_for_each(|opener| {
            let Ok(opened) = opener.join() else {
                bail!("a thread that opens sessions has panicked")
            };
            opened
        })
    })
}

fn establish(address: Ipv4Addr, asn: u32, hold_time: u16, buffer: usize) -> Result<Session> {
    let end = End {
        address,
        asn,
        hold_time,
        buffer,
    };
    Session::establish(&end, daemon::ADDRESS)
}

/// Announces its prefixes when all are there, then answers every keepalive with one.
fn peer(number: u16, mut session: Session, start_line: &Barrier, seen: &Seen) -> Result<()> {
    let announcer = Announcer {
        asn: ASN,
        ibgp: true,
        address: address(number),
    };
    let first = u32::from(number) * EACH;
    let update = announcer.announce(first..first + EACH, EACH);
    let mut writer = session.writer.try_clone()?;
    // Opening takes longer than the hold time allows to be silent.
    let announcing = std::thread::scope(|scope| -> Result<()> {
        let waiting = scope.spawn(|| start_line.wait());
        while !waiting.is_finished() {
            writer.write_all(&wire::keepalive())?;
            std::thread::park_timeout(Duration::from_millis(500));
        }
        writer.write_all(&update)?;
        Ok(())
    });
    announcing?;
    let limit = Duration::from_secs(u64::from(HOLD_TIME) / 3) + SLACK;
    let mut last: Option<Instant> = None;
    while let Some((kind, _)) = session.reader.next()? {
        let now = Instant::now();
        if let Some(last) = last {
            let silence = now - last;
            seen.late
                .fetch_add(usize::from(silence > limit), Ordering::Relaxed);
            if let Ok(mut greatest) = seen.silence.lock() {
                *greatest = silence.max(*greatest);
            }
        }
        last = Some(now);
        if kind == KEEPALIVE {
            writer.write_all(&wire::keepalive())?;
        }
    }
    Ok(())
}

/// Tells when so many prefixes have been heard of.
fn observe(mut session: Session, total: usize, told: &Sender<Instant>) -> Result<()> {
    let mut held = vec![false; total];
    let mut count = 0;
    while let Some((kind, body)) = session.reader.next()? {
        if kind != UPDATE {
            continue;
        }
        wire::read_update(body, |said| {
            let (Said::Announced(number) | Said::Withdrawn(number)) = said;
            if let Some(held) = held.get_mut(number as usize) {
                let now = matches!(said, Said::Announced(_));
                count += usize::from(now && !*held);
                count -= usize::from(!now && *held);
                *held = now;
            }
        })?;
        if count == total {
            told.send(Instant::now())?;
        }
    }
    ensure!(count == total, "the session ended with {count} of {total}");
    Ok(())
}
