//! The speaker.

mod status;

pub use status::{PathStatus, PeerStatus, RouteStatus, SpeakerStatus};
