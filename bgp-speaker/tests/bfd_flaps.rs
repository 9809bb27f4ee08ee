//! BFD of 50 ms x 3 between two of ours for ten minutes, while every processor is busy and both
//! processes exchange a million routes every ten seconds. Needs root and time:
//! `cargo test --release -p bgp-speaker --test bfd_flaps -- --ignored --nocapture`.

#![allow(clippy::unwrap_used)] // a test may panic

mod lab;

use lab::{Daemon, Lab, eventually};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A file names a quarter of a million things at most.
const ROUTES: u32 = 200_000;
/// Between two changes of all of them.
const ROUND: Duration = Duration::from_secs(2);
const LASTS: Duration = Duration::from_secs(600);
/// Between two looks at the logs and at what the hypervisor took.
const LOOK: Duration = Duration::from_millis(200);
/// More than this taken in the looks around a flap explains it.
const STOLEN: Duration = Duration::from_millis(50);
const BFD: &str = "bfd: { minTransmit: 50, minReceive: 50, multiplier: 3 }";

fn peer(address: &str, number: u32, more: &str) -> String {
    format!(
        "{{ name: peer, address: {address}, remoteAs: {number}, connectRetry: 1, {BFD}, {more} }}"
    )
}

/// A peer that announces all of them, by way of a filter of this name.
fn announcer(filter: &str) -> String {
    let mut text = format!(
        "localAs: 65001\nrouterId: 192.0.2.2\nebgpRequiresPolicy: false\nnextHopV4: 10.0.0.2\n\
         filters:\n  a: [{{ action: Accept, operations: [{{ addCommunity: '65001:1' }}] }}]\n  \
         b: [{{ action: Accept, operations: [{{ addCommunity: '65001:2' }}] }}]\n\
         peers:\n- {}\nnetworks:\n",
        peer(
            "10.0.0.1",
            4_200_000_001,
            &format!("exportFilters: [{filter}]")
        )
    );
    for number in 0..ROUTES {
        let address = std::net::Ipv4Addr::from((20 << 24) + number);
        writeln!(text, "- {address}/32").unwrap();
    }
    text
}

/// What the hypervisor has taken so far of all processors: 10 ms steps.
fn stolen() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let ticks = stat.split_whitespace().nth(8).unwrap();
    Duration::from_millis(ticks.parse::<u64>().unwrap() * 10)
}

fn all_downs(lab: &Lab) -> usize {
    ["log", "their.log"].map(|log| downs(lab, log)).iter().sum()
}

/// How often one side has said that the path is down.
fn downs(lab: &Lab, log: &str) -> usize {
    let log = lab.read(log);
    let lines = log.lines().filter(|line| line.contains("BFD session with"));
    lines.filter(|line| line.contains("is down")).count()
}

fn has_all(lab: &Lab, speaker: &Daemon) -> bool {
    let status = lab.status(speaker);
    status.contains("state: Established") && status.contains(&format!("prefixes: {}", ROUTES + 2))
}

#[test]
#[ignore = "takes ten minutes and every processor"]
fn bfd_of_50_ms_does_not_flap_beside_a_million_changes_of_routes_and_busy_processors() {
    let lab = Lab::new();
    let configs = ["a", "b"].map(announcer);
    lab.write("their.yaml", &configs[0]);
    let limits = "maxPrefixes: 2000000";
    let ours = lab.speaker(&peer("10.0.0.2", 65001, limits), false);
    let theirs = lab.their_speaker_of_file();
    eventually("the path is watched", || lab.read("log").contains("is up"));
    eventually("all routes", || has_all(&lab, &ours));
    let stop = Arc::new(AtomicBool::new(false));
    let cores = std::thread::available_parallelism().unwrap().get();
    let busy: Vec<_> = (0..cores)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let (mut flaps, mut explained, mut rounds) = (0, 0, 0);
    let (mut seen, mut taken, mut before) = (all_downs(&lab), stolen(), Duration::ZERO);
    let began = Instant::now();
    let mut round = Instant::now();
    while began.elapsed() < LASTS {
        if round.elapsed() > ROUND {
            rounds += 1;
            lab.write("their.yaml", &configs[rounds % 2]);
            theirs.signal("HUP");
            round = Instant::now();
        }
        std::thread::sleep(LOOK);
        let now = stolen();
        let (here, recent) = (now - taken, before);
        let fresh = all_downs(&lab) - seen;
        if fresh > 0 && here + recent > STOLEN {
            explained += fresh;
        } else {
            flaps += fresh;
        }
        (seen, taken, before) = (seen + fresh, now, here);
    }
    stop.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    println!(
        "{flaps} flaps, {explained} while the hypervisor had a processor, {rounds} times {ROUTES} routes"
    );
    assert_eq!(flaps, 0);
}
