//! BGP-4 without IO (RFC 4271, RFC 4760): wire format, session state machine, RIBs, decision.
//!
//! Octets, ticks and configuration go in as values; octets, connection requests, forwarding
//! changes and notices come out as values. Nothing here knows a socket, a clock or a source of
//! randomness. [`Speaker`] is the whole; [`wire`] stands on its own.

pub mod bfd;
mod config;
pub mod filter;
pub mod monitoring;
mod rib;
mod session;
mod speaker;
pub mod wire;

pub use config::{
    AddPath, Decision, DynamicPeers, Excess, Export, FibChange, FibNextHop, Import, LocalRoute,
    NextHopMode, Password, PasswordError, PeerConfig, PeerKey, PrefixLimit, RemoteAs, Restart,
    Role, SpeakerConfig, Stop,
};
pub use speaker::{
    AdvertisedStatus, BfdStatus, ConnectionId, Notice, Operation, OperationError, Output,
    PathStatus, PeerId, PeerStatus, Rejected, RouteStatus, Severity, SocketOptions, Speaker,
    SpeakerStatus, WatchedPath,
};
