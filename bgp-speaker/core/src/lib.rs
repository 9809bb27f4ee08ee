//! BGP-4 without IO (RFC 4271, RFC 4760): wire format, session state machine, RIBs, decision.
//!
//! Bytes, ticks and configuration go in as values; bytes, connection requests, forwarding changes
//! and notices come out as values. Nothing here knows a socket, a clock or a source of randomness.

mod config;
mod speaker;
pub mod wire;

pub use config::{
    Export, FibChange, Import, LocalRoute, PeerConfig, PeerKey, Restart, SpeakerConfig, Stop,
};
pub use speaker::{PathStatus, PeerStatus, RouteStatus, SpeakerStatus};
