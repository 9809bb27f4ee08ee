//! One measurement: a feeder announces prefixes to a daemon, and sinks count what arrives. All of
//! it is one process with one clock.

use super::daemon::{self, Daemon, Kind, Peer};
use super::session::{End, Session};
use super::usage::Usage;
use super::wire::{self, Announcer, NOTIFICATION, Said, UPDATE};
use crate::lab::link;
use crate::lab::{Lab, Netns};
use anyhow::{Context, Result, bail, ensure};
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// The feeder's AS number; those of sinks follow.
const FEEDER_ASN: u32 = 65001;
const FEEDER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// Octets that a sink reads at a time.
const BUFFER: usize = 1 << 18;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(200);
/// Between two single routes, so that each finds an idle daemon.
const PAUSE: Duration = Duration::from_millis(10);

/// What is fed, and to how many it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) prefixes: u32,
    /// Prefixes with each attribute set.
    pub(super) per_set: u32,
    pub(super) sinks: u8,
    /// Routes announced one by one when the table is there.
    pub(super) singles: u32,
}

/// What came out.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// From the first octet until the slowest sink has everything, in seconds.
    pub(super) converge: f64,
    /// Processor time of the daemon in that time, in seconds.
    pub(super) cpu: f64,
    /// The daemon's greatest resident memory, in MiB.
    pub(super) peak: f64,
    /// From announcing one route until the slowest sink has it, in milliseconds.
    pub(super) singles: Vec<f64>,
    /// From the first octet until the slowest sink has nothing, in seconds.
    pub(super) withdraw: f64,
}

/// What a sink tells, and when it was so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// It has had every prefix of the table.
    Full,
    /// It has been told this prefix, which is not of the table.
    Single(u32),
    /// Everything has been withdrawn again.
    Empty,
    /// The session has ended.
    Closed,
}

/// The daemon's namespace and ours, joined by a wire.
#[derive(Debug)]
pub(super) struct Stage {
    lab: Lab,
    pub(super) daemon: Netns,
    pub(super) tester: Netns,
}

impl Stage {
    pub(super) fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let (daemon, tester) = (lab.netns("daemon")?, lab.netns("tester")?);
        let end = |netns, addresses| link::End {
            netns,
            interface: "eth0",
            addresses,
        };
        lab.wire(
            &end(&daemon, &["10.99.0.1/16"]),
            &end(&tester, &["10.99.0.2/16"]),
        )?;
        let stage = Self {
            lab,
            daemon,
            tester,
        };
        stage.add_addresses((0..32).map(sink_address))?;
        Ok(stage)
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// More addresses to connect from.
    pub(super) fn add_addresses(&self, all: impl Iterator<Item = Ipv4Addr>) -> Result<()> {
        self.tester
            .ip(all.map(|address| format!("addr add {address}/16 dev eth0")))
    }

    /// Starts a daemon and measures it.
    pub(super) fn measure(&self, kind: Kind, shape: &Shape) -> Result<Outcome> {
        let mut peers = vec![peer(FEEDER, FEEDER_ASN)];
        peers.extend((0..shape.sinks).map(|k| peer(sink_address(k), sink_asn(k))));
        let mut daemon = Daemon::start(kind, &self.lab, &self.daemon, &peers)?;
        let pids = daemon.pids();
        let measured = self
            .tester
            .within(|| Run::start(shape, &pids)?.measure(&pids))?;
        daemon.expect_running()?;
        measured.with_context(|| kind.name())
    }
}

fn sink_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 1, number + 1)
}

fn sink_asn(number: u8) -> u32 {
    FEEDER_ASN + 1 + u32::from(number)
}

fn peer(address: Ipv4Addr, asn: u32) -> Peer {
    Peer {
        address,
        asn,
        hold_time: daemon::HOLD_TIME,
        told_all: true,
    }
}

/// All sessions of a measurement.
struct Run<'a> {
    shape: &'a Shape,
    announcer: Announcer,
    feeder: Session,
    events: Receiver<(Event, Instant)>,
}

impl<'a> Run<'a> {
    fn start(shape: &'a Shape, pids: &[u32]) -> Result<Self> {
        let (sender, events) = channel();
        for number in 0..shape.sinks {
            let session = session(sink_address(number), sink_asn(number))?;
            let (sender, shape) = (sender.clone(), *shape);
            std::thread::spawn(move || {
                // Nobody listens once the measurement has failed.
                let _ = sink(session, &shape, &sender);
                let _ = sender.send((Event::Closed, Instant::now()));
            });
        }
        let feeder = session(FEEDER, FEEDER_ASN)?;
        Usage::wait_idle(pids)?;
        Ok(Self {
            shape,
            announcer: Announcer {
                asn: FEEDER_ASN,
                ibgp: false,
                address: FEEDER,
            },
            feeder,
            events,
        })
    }

    fn measure(mut self, pids: &[u32]) -> Result<Outcome> {
        let Shape {
            prefixes, per_set, ..
        } = *self.shape;
        let table = self.announcer.announce(0..prefixes, per_set);
        let before = Usage::of(pids)?;
        let start = Instant::now();
        self.feeder.writer.write_all(&table)?;
        let full = self.wait_for(Event::Full)?;
        let after = Usage::of(pids)?;
        Usage::wait_idle(pids)?;
        let singles = self.singles()?;
        let all = wire::withdraw(0..prefixes + self.shape.singles);
        let withdrawing = Instant::now();
        self.feeder.writer.write_all(&all)?;
        let empty = self.wait_for(Event::Empty)?;
        Ok(Outcome {
            converge: (full - start).as_secs_f64(),
            cpu: after.cpu - before.cpu,
            peak: Usage::of(pids)?.peak,
            singles,
            withdraw: (empty - withdrawing).as_secs_f64(),
        })
    }

    fn singles(&mut self) -> Result<Vec<f64>> {
        let first = self.shape.prefixes;
        let mut times = Vec::new();
        for number in first..first + self.shape.singles {
            let update = self.announcer.announce(number..number + 1, 1);
            std::thread::sleep(PAUSE);
            let start = Instant::now();
            self.feeder.writer.write_all(&update)?;
            let seen = self.wait_for(Event::Single(number))?;
            times.push((seen - start).as_secs_f64() * 1e3);
        }
        Ok(times)
    }

    /// When the last of the sinks has told this.
    fn wait_for(&self, wanted: Event) -> Result<Instant> {
        let give_up = Instant::now() + PATIENCE;
        let mut last = Instant::now();
        for number in 0..self.shape.sinks {
            let left = give_up.saturating_duration_since(Instant::now());
            let Ok((event, at)) = self.events.recv_timeout(left) else {
                bail!("{wanted:?}: only {number} of {} sinks", self.shape.sinks);
            };
            ensure!(event == wanted, "{event:?} while waiting for {wanted:?}");
            last = if number == 0 { at } else { last.max(at) };
        }
        Ok(last)
    }
}

fn session(address: Ipv4Addr, asn: u32) -> Result<Session> {
    let end = End {
        address,
        asn,
        hold_time: daemon::HOLD_TIME,
        buffer: BUFFER,
    };
    Session::establish(&end, daemon::ADDRESS)
}

/// Counts until the session ends.
fn sink(mut session: Session, shape: &Shape, events: &Sender<(Event, Instant)>) -> Result<()> {
    let total = shape.prefixes + shape.singles;
    let mut held = vec![false; total as usize];
    let (mut count, mut full) = (0, false);
    while let Some((kind, body)) = session.reader.next()? {
        ensure!(kind != NOTIFICATION, "NOTIFICATION {body:02x?}");
        if kind != UPDATE {
            continue;
        }
        let mut single = None;
        let had = count;
        wire::read_update(body, |said| {
            let (number, now) = match said {
                Said::Announced(number) => (number, true),
                Said::Withdrawn(number) => (number, false),
            };
            let Some(held) = held.get_mut(number as usize) else {
                return;
            };
            if std::mem::replace(held, now) != now {
                count = if now { count + 1 } else { count - 1 };
                single = (now && number >= shape.prefixes)
                    .then_some(number)
                    .or(single);
            }
        })?;
        let now = Instant::now();
        if let Some(number) = single {
            events.send((Event::Single(number), now))?;
        }
        if !full && count == shape.prefixes {
            full = true;
            events.send((Event::Full, now))?;
        }
        if full && had > 0 && count == 0 {
            events.send((Event::Empty, now))?;
        }
    }
    Ok(())
}
