//! BFD of 50 ms x 3 between two of ours for ten minutes, while every processor is busy and both
//! processes take in and forget a million routes, again and again. Needs root and time:
//! `cargo test --release -p bgp-speaker --test bfd_flaps -- --ignored --nocapture`.

#![allow(clippy::unwrap_used)] // a test may panic

mod lab;

use lab::{Daemon, Lab, eventually};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Who announces: a file names a quarter of a million things at most.
const FEEDERS: u8 = 5;
/// Routes of each.
const EACH: u32 = 200_000;
const ALL: u32 = FEEDERS as u32 * EACH;
const LASTS: Duration = Duration::from_secs(600);
/// Between two looks at the logs and at what the hypervisor took.
const LOOK: Duration = Duration::from_millis(200);
/// More than this taken in the looks around a flap explains it.
const STOLEN: Duration = Duration::from_millis(50);
const BFD: &str = "bfd: { minTransmit: 50, minReceive: 50, multiplier: 3 }";

fn watched(address: &str, number: u32, more: &str) -> String {
    format!(
        "{{ name: peer, address: {address}, remoteAs: {number}, connectRetry: 1, {BFD}, {more} }}"
    )
}

/// The feeder of this number, as our speaker knows it.
fn fed_by(number: u8) -> String {
    format!(
        "{{ name: feeder{number}, address: 10.0.0.{0}, remoteAs: {1}, passive: true }}",
        number + 3,
        65010 + u32::from(number)
    )
}

/// The file of a feeder, with all of its routes or none.
fn feeder(number: u8, announces: bool) -> String {
    let own = number + 3;
    let mut text = format!(
        "localAs: {}\nrouterId: 192.0.2.{own}\nlistenPort: 0\nebgpRequiresPolicy: false\n\
         nextHopV4: 10.0.0.{own}\npeers:\n- {{ address: 10.0.0.1, remoteAs: 4200000001, \
         sourceAddress: 10.0.0.{own}, connectRetry: 1 }}\nnetworks:\n- 10.3.{own}.0/24\n",
        65010 + u32::from(number)
    );
    if announces {
        for index in 0..EACH {
            let address = std::net::Ipv4Addr::from((u32::from(20 + number) << 24) + index);
            writeln!(text, "- {address}/32").unwrap();
        }
    }
    text
}

/// The feeders, and what their files say of either kind.
struct Feeders {
    daemons: Vec<Daemon>,
    files: Vec<[String; 2]>,
}

impl Feeders {
    fn start(lab: &Lab) -> Self {
        let files: Vec<_> = (0..FEEDERS)
            .map(|number| [false, true].map(|announces| feeder(number, announces)))
            .collect();
        let mut daemons = Vec::new();
        for (number, files) in files.iter().enumerate() {
            let own = format!("10.0.0.{}/24", number + 3);
            lab.theirs.ip(&["addr", "add", &own, "dev", "eth0"]);
            let name = format!("feeder{number}");
            lab.write(&format!("{name}.yaml"), &files[0]);
            daemons.push(lab.their_speaker_called(&name));
        }
        Self { daemons, files }
    }

    fn announce(&self, lab: &Lab, all: bool) {
        let daemons = self.files.iter().zip(&self.daemons);
        for (number, (files, daemon)) in daemons.enumerate() {
            lab.write(&format!("feeder{number}.yaml"), &files[usize::from(all)]);
            daemon.signal("HUP");
        }
    }
}

/// What the hypervisor has taken so far of all processors: 10 ms steps.
fn stolen() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let ticks = stat.split_whitespace().nth(8).unwrap();
    Duration::from_millis(ticks.parse::<u64>().unwrap() * 10)
}

/// How often one side or the other has said that the path is down.
fn downs(lab: &Lab) -> usize {
    let both = ["log", "their.log"].map(|log| {
        let log = lab.read(log);
        let lines = log.lines().filter(|line| line.contains("BFD session with"));
        lines.filter(|line| line.contains("is down")).count()
    });
    both.iter().sum()
}

/// How many routes the other end has from us.
fn has(lab: &Lab, theirs: &Daemon) -> Option<u32> {
    theirs.signal("USR1");
    let log = lab.read("their.log");
    let status = log.rsplit("status:").next()?;
    let (_, count) = status.split_once("prefixes: ")?;
    let digits = count.find(|c: char| !c.is_ascii_digit());
    count[..digits.unwrap_or(count.len())].parse().ok()
}

/// Keeps every processor busy until it is dropped.
struct Busy {
    stop: Arc<AtomicBool>,
}

impl Busy {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self { stop }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "takes ten minutes and every processor"]
fn bfd_of_50_ms_does_not_flap_beside_a_million_routes_that_come_and_go_and_busy_processors() {
    let lab = Lab::new();
    lab.write(
        "their.yaml",
        &format!(
            "localAs: 65001\nrouterId: 192.0.2.2\nebgpRequiresPolicy: false\npeers:\n- {}\n",
            watched("10.0.0.1", 4_200_000_001, "passive: true")
        ),
    );
    let peers: Vec<_> = [watched("10.0.0.2", 65001, "export: All")]
        .into_iter()
        .chain((0..FEEDERS).map(fed_by))
        .collect();
    let _ours = lab.speaker(&peers.join("\n- "), false);
    let theirs = lab.their_speaker_of_file();
    let feeders = Feeders::start(&lab);
    eventually("the path is watched", || lab.read("log").contains("is up"));
    // One of each feeder, and two of ours.
    let few = u32::from(FEEDERS) + 2;
    eventually("what every feeder has always", || {
        has(&lab, &theirs) == Some(few)
    });
    let busy = Busy::start();
    let (mut flaps, mut explained, mut rounds) = (0, 0, 0);
    let (mut seen, mut taken, mut before) = (downs(&lab), stolen(), Duration::ZERO);
    let mut all = false;
    let began = Instant::now();
    while began.elapsed() < LASTS {
        if has(&lab, &theirs) == Some(if all { few + ALL } else { few }) {
            rounds += u32::from(all);
            all = !all;
            feeders.announce(&lab, all);
        }
        std::thread::sleep(LOOK);
        let now = stolen();
        let (here, recent) = (now - taken, before);
        let fresh = downs(&lab) - seen;
        if fresh > 0 && here + recent > STOLEN {
            explained += fresh;
        } else {
            flaps += fresh;
        }
        (seen, taken, before) = (seen + fresh, now, here);
    }
    drop(busy);
    println!(
        "{flaps} flaps, {explained} while the hypervisor had a processor; \
         {ALL} routes came {rounds} times and went again"
    );
    assert!(rounds > 0, "the routes never came");
    assert_eq!(flaps, 0);
}
