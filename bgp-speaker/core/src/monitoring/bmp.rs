//! Messages of the BGP Monitoring Protocol, version 3 (RFC 7854): Adj-RIB-In before policy.

use super::{DownReason, Monitored, MonitoredEvent, MonitoredPeer, messages};
use std::net::IpAddr;
use std::time::Duration;

const VERSION: u8 = 3;
/// Octets of the common header (section 4.1).
const HEADER: usize = 6;
/// FSM event code of TcpConnectionFails (RFC 4271 section 8.1.4).
const TCP_CONNECTION_FAILS: u16 = 18;

/// Message types (section 4.1).
#[derive(Debug, Clone, Copy)]
enum Type {
    RouteMonitoring = 0,
    PeerDown = 2,
    PeerUp = 3,
    Initiation = 4,
    Termination = 5,
}

/// The first message on a connection (section 4.3): who we are.
pub fn initiation(name: &str, description: &str) -> Vec<u8> {
    let mut out = Vec::new();
    message(Type::Initiation, &mut out, |out| {
        tlv(1, description.as_bytes(), out);
        tlv(2, name.as_bytes(), out);
    });
    out
}

/// The last message on a connection (section 4.5): the session is administratively closed.
pub fn termination() -> Vec<u8> {
    let mut out = Vec::new();
    message(Type::Termination, &mut out, |out| tlv(1, &[0, 0], out));
    out
}

/// What happened at `time` since 1970, as one or several messages, appended to `out`.
pub fn encode(monitored: &Monitored, time: Duration, out: &mut Vec<u8>) {
    let peer = &monitored.peer;
    match &monitored.event {
        MonitoredEvent::Up {
            sent_open,
            received_open,
        } => message(Type::PeerUp, out, |out| {
            per_peer_header(peer, time, out);
            padded(peer.local.ip(), out);
            out.extend(peer.local.port().to_be_bytes());
            out.extend(peer.remote.port().to_be_bytes());
            out.extend_from_slice(sent_open);
            out.extend_from_slice(received_open);
        }),
        MonitoredEvent::Updates(updates) => {
            for update in messages(updates) {
                message(Type::RouteMonitoring, out, |out| {
                    per_peer_header(peer, time, out);
                    out.extend_from_slice(update);
                });
            }
        }
        MonitoredEvent::Down(reason) => message(Type::PeerDown, out, |out| {
            per_peer_header(peer, time, out);
            match reason {
                DownReason::Sent(notification) => {
                    out.push(1);
                    out.extend_from_slice(notification);
                }
                DownReason::Received(notification) => {
                    out.push(3);
                    out.extend_from_slice(notification);
                }
                // Whose doing it was, TCP does not tell: by the event of our state machine.
                DownReason::Lost => {
                    out.push(2);
                    out.extend(TCP_CONNECTION_FAILS.to_be_bytes());
                }
                DownReason::Deconfigured => out.push(5),
            }
        }),
    }
}

/// Common header and body.
fn message(kind: Type, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([VERSION, 0, 0, 0, 0, kind as u8]);
    body(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start + 1..start + HEADER - 1].copy_from_slice(&length.to_be_bytes());
}

/// Section 4.2.
fn per_peer_header(peer: &MonitoredPeer, time: Duration, out: &mut Vec<u8>) {
    const GLOBAL_INSTANCE: u8 = 0;
    const IPV6: u8 = 0x80;
    const LEGACY_AS_PATH: u8 = 0x20;
    let version = if peer.remote.is_ipv6() { IPV6 } else { 0 };
    let legacy = if peer.four_octet_as {
        0
    } else {
        LEGACY_AS_PATH
    };
    out.extend([GLOBAL_INSTANCE, version | legacy]);
    out.extend([0; 8]);
    padded(peer.remote.ip(), out);
    out.extend(peer.remote_as.to_be_bytes());
    out.extend(peer.router_id.octets());
    out.extend(super::mrt::seconds(time).to_be_bytes());
    out.extend(time.subsec_micros().to_be_bytes());
}

/// 16 octets; an IPv4 address is in the last four.
fn padded(address: IpAddr, out: &mut Vec<u8>) {
    if address.is_ipv4() {
        out.extend([0; 12]);
    }
    super::address(address, out);
}

fn tlv(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    out.extend(kind.to_be_bytes());
    out.extend((value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}
