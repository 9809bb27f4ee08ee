//! Names in policies: what pods resolve is read as it passes.

use super::Agent;
use felix_core::packet::Header;
use kernel::LoggedPacket;
use policy::dns;

/// An answer over UDP with EDNS and its headers.
pub(super) const LENGTH: u32 = 4096;

impl Agent {
    /// A query of a pod, or an answer to one.
    pub(super) fn on_resolved(&mut self, packet: &LoggedPacket) {
        let Some(header) = Header::parse(&packet.bytes) else {
            return;
        };
        let (Some((source, destination)), Some(at)) = (header.ports, header.payload) else {
            return;
        };
        let payload = &packet.bytes[at..];
        let now = self.started.elapsed();
        match packet.prefix.trim() {
            dns::QUERY => self.calc.on_query(header.source, source, payload, now),
            dns::ANSWER => {
                let (server, pod) = (header.source, header.destination);
                self.calc.on_answer(server, pod, destination, payload, now);
            }
            _ => {}
        }
    }
}
