//! Proof that the feeder does not hold a daemon up: the same octets to somebody who only reads.

use super::cell::{Shape, Stage};
use super::wire::Announcer;
use super::{ROUNDS, daemon};
use crate::bench::report::Row;
use crate::bench::steal::Steal;
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

/// Seconds from the first octet until somebody in the daemon's place has read all of a table.
pub(super) fn row(stage: &Stage, shape: &Shape) -> Result<Row> {
    let announcer = Announcer {
        asn: 65001,
        ibgp: false,
        address: Ipv4Addr::new(10, 99, 0, 2),
    };
    let table = announcer.announce(0..shape.prefixes, shape.per_set);
    let listener = stage
        .daemon
        .within(|| TcpListener::bind((daemon::ADDRESS, daemon::DISCARD_PORT)))?
        .context("the discarding end")?;
    let steal = Steal::now();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let target = (daemon::ADDRESS, daemon::DISCARD_PORT);
        let mut feeder = stage.tester.within(|| TcpStream::connect(target))??;
        let (mut end, _) = listener.accept()?;
        let reading = std::thread::spawn(move || -> Result<(usize, Instant)> {
            let mut buffer = vec![0; 1 << 18];
            let mut octets = 0;
            loop {
                match end.read(&mut buffer)? {
                    0 => return Ok((octets, Instant::now())),
                    count => octets += count,
                }
            }
        });
        let start = Instant::now();
        feeder.write_all(&table)?;
        drop(feeder);
        let Ok(read) = reading.join() else {
            unreachable!("invariant: the reader does not panic")
        };
        let (octets, end) = read?;
        ensure!(octets == table.len(), "{octets} of {} octets", table.len());
        times.push((end - start).as_secs_f64());
    }
    Ok(Row::alone("feeder_1m_s", "s", &times, steal.share_since()))
}
