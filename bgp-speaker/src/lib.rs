//! A BGP speaker on its own thread: sockets and timers around [`bgp_core`].
//!
//! [`spawn`] starts it; a [`Handle`] configures and inspects it and never blocks; [`FibEvents`]
//! yields forwarding changes, merged per prefix for as long as the receiver is slow, so that a slow
//! receiver never delays a keepalive.

mod bfd;
mod connection;
mod discovery;
mod drops;
mod farewell;
mod file;
mod handle;
mod listen;
mod passwords;
mod runtime;
mod station;
mod sys;
mod watchers;

pub use bgp_core::{
    AdvertisedStatus, BfdStatus, Export, FibChange, FibNextHop, Import, LocalRoute, Operation,
    OperationError, Password, PathStatus, PeerConfig, PeerKey, PeerStatus, RemoteAs, RouteStatus,
    SpeakerConfig, SpeakerStatus, Stop, filter, wire::Family,
};
pub use file::{FileConfig, FileError, RuleError};
pub use handle::{FibEvent, FibEvents, Gone, Handle, Options, SpawnError, spawn};
pub use watchers::Monitoring;
