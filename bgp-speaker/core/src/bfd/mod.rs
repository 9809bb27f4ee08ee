//! Bidirectional Forwarding Detection (RFC 5880) in asynchronous mode, for single hops (RFC 5881)
//! and several (RFC 5883); no echo, no demand mode of our own, no authentication.
//!
//! [`Packet`] is the wire format, [`Session`] the state machine:
//! ```text
//! receive(Packet) ─┐              ┌─> transmit: Packet, when its time has come
//! configure, stop ─┼─> Session ───┼─> transition: a change of state
//! expiry (by now) ─┘              └─> next_deadline
//! ```
//! BFD runs in the process of the speaker and shares its fate, so the C bit is sent as 0
//! (RFC 5882 section 4.3).

mod packet;
mod session;

pub use packet::{Diagnostic, Packet, PacketError, State};
pub use session::{Profile, Report, Session, Transition};

/// Destination port of single-hop control packets (RFC 5881 section 4).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// Destination port of multihop control packets (RFC 5883 section 5).
pub const MULTIHOP_PORT: u16 = 4784;
/// Least source port (RFC 5881 section 4).
pub const FIRST_SOURCE_PORT: u16 = 49152;
/// TTL or hop limit of single-hop packets, sent and received (RFC 5881 section 5).
pub const SINGLE_HOP_TTL: u8 = 255;
