//! What a speaker says about itself.

use crate::bfd::{Report, State};
use crate::config::PeerKey;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// State of a speaker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeakerStatus {
    /// Our AS number, once configured.
    pub local_as: Option<u32>,
    /// Our BGP identifier, once configured.
    pub router_id: Option<Ipv4Addr>,
    /// The initial exchange is over: every configured peer has sent End-of-RIB or was given up on.
    pub converged: bool,
    /// Number of prefixes in the Loc-RIB.
    pub prefixes: usize,
    /// What is wrong with the listening socket, if anything.
    pub listen_error: Option<String>,
    /// The peers, by key.
    pub peers: Vec<PeerStatus>,
}

/// State of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Whose.
    pub key: PeerKey,
    /// Name of what asked for it.
    pub name: String,
    /// The state of RFC 4271 section 8.2.2: `Idle` to `Established`.
    pub state: String,
    /// Seconds in this state.
    pub since: u64,
    /// AS number that the peer has or must have; none while any is acceptable.
    pub remote_as: Option<u32>,
    /// Our address of the session, while there is one.
    pub local_address: Option<IpAddr>,
    /// BGP identifier of the peer, while Established.
    pub router_id: Option<Ipv4Addr>,
    /// Hold time in force, in seconds, while Established.
    pub hold_time: Option<u16>,
    /// Families agreed on, while Established.
    pub families: Vec<String>,
    /// Prefixes received and held, stale ones included.
    pub received: usize,
    /// Prefixes held since a session ended, waiting to be announced again.
    pub stale: usize,
    /// Prefixes announced to the peer.
    pub advertised: usize,
    /// UPDATE messages received in this session.
    pub updates_received: u64,
    /// Malformed attributes in them that did not end the session (RFC 7606).
    pub faults: u64,
    /// How often the session has been Established.
    pub established_count: u64,
    /// What BFD says about the path, while it watches it.
    pub bfd: Option<BfdStatus>,
    /// Why there is no session, or why the last one ended, in words.
    pub last_error: Option<String>,
    /// The last NOTIFICATION received, in words.
    pub last_notification_received: Option<String>,
    /// The last NOTIFICATION sent, in words.
    pub last_notification_sent: Option<String>,
}

/// What BFD says about the path to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdStatus {
    /// Our state.
    pub state: State,
    /// What the peer last said of its own.
    pub remote_state: State,
    /// Why we were last not up, in words.
    pub diagnostic: String,
    /// Why the peer was last not up.
    pub remote_diagnostic: String,
    /// The peer's BFD outlives its control plane (C bit).
    pub independent: bool,
    /// Interval at which we send, in milliseconds, before jitter.
    pub transmit_interval_ms: u64,
    /// Silence after which the path is taken for broken, in milliseconds; 0 before anything was
    /// heard.
    pub detection_time_ms: u64,
}

impl From<Report> for BfdStatus {
    fn from(report: Report) -> Self {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            state: report.state,
            remote_state: report.remote_state,
            diagnostic: report.diagnostic.to_string(),
            remote_diagnostic: report.remote_diagnostic.to_string(),
            independent: report.independent,
            transmit_interval_ms: milliseconds(report.transmit_interval),
            detection_time_ms: milliseconds(report.detection_time),
        }
    }
}

/// All that is known about one prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Where to.
    pub prefix: IpNet,
    /// Every path, the best one first.
    pub paths: Vec<PathStatus>,
}

/// One path to a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStatus {
    /// Name of the peer, or `local`.
    pub from: String,
    /// The peer; none for a local route.
    #[serde(default)]
    pub peer: Option<PeerKey>,
    /// Its next hop; none for a local route.
    pub next_hop: Option<IpAddr>,
    /// AS_PATH as text.
    pub as_path: String,
    /// LOCAL_PREF, if any.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, if any.
    pub med: Option<u32>,
    /// Communities of all kinds as text, those that import policy has added too.
    #[serde(default)]
    pub communities: Vec<String>,
    /// The peer's path identifier (RFC 7911); 0 without.
    #[serde(default)]
    pub path_id: u32,
    /// Kept from a session that has ended.
    pub stale: bool,
    /// Whether it is in use, and if not, what decided against it.
    pub verdict: String,
}

/// One path that a peer is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvertisedStatus {
    /// Where to.
    pub prefix: IpNet,
    /// Our path identifier (RFC 7911); 0 without.
    pub path_id: u32,
    /// The next hop that it is told.
    pub next_hop: IpAddr,
    /// AS_PATH as text.
    pub as_path: String,
    /// LOCAL_PREF, if any.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, if any.
    pub med: Option<u32>,
    /// Communities of all kinds as text.
    pub communities: Vec<String>,
}
