//! Which policy dropped it: packets that our table denied or logged, in words.

use super::Agent;
use felix_core::packet::Header;
use kernel::LoggedPacket;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The first bytes of a packet: IPv6 with extension headers, and the ports.
pub(super) const LENGTH: u32 = 128;
/// Packets in a second, for each place where packets are denied, and how many at once.
pub(super) const PER_SECOND: u32 = 5;
pub(super) const BURST: u32 = 10;
/// Lines kept for `ocicat drops`.
const KEPT: usize = 512;
/// Lines in a second altogether; the others are counted.
const LINES_PER_SECOND: u32 = 200;

/// A packet that was denied or logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DropLine {
    /// Seconds since 1970.
    pub(crate) at: u64,
    /// Pod, or address.
    pub(crate) source: String,
    /// Its address.
    pub(crate) source_address: IpAddr,
    /// Pod, or address.
    pub(crate) destination: String,
    /// Its address.
    pub(crate) destination_address: IpAddr,
    /// `tcp/80`
    pub(crate) flow: String,
    /// Direction, tier and policies.
    pub(crate) decided_by: String,
}

/// The last lines, and how many there were.
#[derive(Default)]
pub(super) struct Drops {
    pub(super) lines: VecDeque<DropLine>,
    pub(super) total: u64,
    /// Not shown, because there were too many.
    pub(super) lost: u64,
    second: Option<(Instant, u32)>,
}

impl Drops {
    /// Whether there is room for one more line in this second.
    fn admits(&mut self) -> bool {
        let now = Instant::now();
        let (start, count) = match self.second {
            Some((start, count)) if now.duration_since(start).as_secs() == 0 => (start, count + 1),
            _ => (now, 1),
        };
        self.second = Some((start, count));
        count <= LINES_PER_SECOND
    }
}

impl Agent {
    pub(super) fn on_logged(&mut self, packet: &LoggedPacket) {
        self.drops.total += 1;
        self.drops.lost += packet.lost;
        let Some(header) = Header::parse(&packet.bytes) else {
            return;
        };
        if !self.drops.admits() {
            self.drops.lost += 1;
            return;
        }
        let decided_by = match self.calc.explain(&packet.prefix) {
            Some(counted) => counted.to_string(),
            // The policy changed between the packet and this line.
            None => format!("a rule that is gone ({})", packet.prefix.trim()),
        };
        let name = |address: IpAddr| match self.calc.pod_at(address) {
            Some((namespace, pod)) => format!("{namespace}/{pod}"),
            None => address.to_string(),
        };
        let line = DropLine {
            at: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            source: name(header.source),
            source_address: header.source,
            destination: name(header.destination),
            destination_address: header.destination,
            flow: header.to_string(),
            decided_by,
        };
        tracing::info!(
            target: "ocicat::drops",
            source = %line.source,
            source_address = %line.source_address,
            destination = %line.destination,
            destination_address = %line.destination_address,
            flow = %line.flow,
            by = %line.decided_by,
            "policy"
        );
        if self.drops.lines.len() == KEPT {
            self.drops.lines.pop_front();
        }
        self.drops.lines.push_back(line);
    }
}
