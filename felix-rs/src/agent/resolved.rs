//! Names in policies: what pods resolve is read as it passes, and kept over a restart, so that
//! connections to names outlive the process.

use super::Agent;
use felix_core::Phase;
use felix_core::dns::Saved;
use felix_core::packet::Header;
use kernel::LoggedPacket;
use policy::dns;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An answer over UDP with EDNS and its headers.
pub(super) const LENGTH: u32 = 4096;

/// A name, and its addresses with the seconds that are left.
type Known<'a> = (&'a String, &'a BTreeMap<IpAddr, u64>);

const FILE: &str = "names.json";

/// The file, below the state directory.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// When it was written, in seconds since 1970.
    at: u64,
    names: Saved,
}

fn seconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Agent {
    /// What an earlier process knew. A file that can't be read costs what was in it.
    pub(super) fn restore_names(&mut self) {
        let path = self.options.state_dir.join(FILE);
        let Ok(text) = std::fs::read(&path) else {
            return;
        };
        match serde_json::from_slice::<Kept>(&text) {
            Ok(Kept { at, names }) => {
                let ago = Duration::from_secs(seconds_since_1970().saturating_sub(at));
                let now = self.started.elapsed();
                self.calc.restore_names(names, ago, now);
            }
            Err(error) => tracing::warn!(path = %path.display(), %error, "names are forgotten"),
        }
    }

    /// Forgets what is over, and writes down what changed.
    pub(super) fn keep_names(&mut self) {
        // Before that, no policy may be known that speaks of them.
        if self.calc.phase() != Phase::InSync {
            return;
        }
        let now = self.started.elapsed();
        self.calc.expire_names(now);
        let names = self.calc.save_names(now);
        let same = |(a, b): (Known<'_>, Known<'_>)| a.0 == b.0 && a.1.keys().eq(b.1.keys());
        let kept = &self.names_kept;
        if names.len() == kept.len() && names.iter().zip(kept).all(same) {
            return;
        }
        self.names_kept.clone_from(&names);
        let kept = Kept {
            at: seconds_since_1970(),
            names,
        };
        if let Err(error) = write(&self.options.state_dir, &kept) {
            tracing::warn!(%error, "names are not kept over a restart");
        }
    }

    /// A query of a pod, or an answer to one.
    pub(super) fn on_resolved(&mut self, packet: &LoggedPacket) {
        match packet.prefix.trim() {
            dns::QUERY => self.on_dns_query(&packet.bytes),
            dns::ANSWER => self.on_dns_answer(&packet.bytes),
            _ => {}
        }
    }

    pub(super) fn on_dns_query(&mut self, bytes: &[u8]) {
        let now = self.started.elapsed();
        if let Some((header, (port, _), payload)) = datagram(bytes) {
            self.calc.on_query(header.source, port, payload, now);
        }
    }

    /// An answer, whose query was seen before.
    pub(super) fn on_dns_answer(&mut self, bytes: &[u8]) {
        let now = self.started.elapsed();
        if let Some((header, (_, port), payload)) = datagram(bytes) {
            let (server, pod) = (header.source, header.destination);
            self.calc.on_answer(server, pod, port, payload, now);
        }
    }
}

/// Header, ports and payload.
fn datagram(bytes: &[u8]) -> Option<(Header, (u16, u16), &[u8])> {
    let header = Header::parse(bytes)?;
    let (ports, at) = (header.ports?, header.payload?);
    Some((header, ports, bytes.get(at..)?))
}

fn write(folder: &std::path::Path, kept: &Kept) -> std::io::Result<()> {
    let temporary = folder.join("names.json.new");
    std::fs::write(&temporary, serde_json::to_vec(kept)?)?;
    std::fs::rename(temporary, folder.join(FILE))
}
