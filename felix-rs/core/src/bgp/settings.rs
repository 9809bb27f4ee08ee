//! What a `BGPPeer` asks of its sessions -> the speaker's configuration of a peer.

use bgp_core::bfd::Profile;
use bgp_core::{AddPath, Excess, NextHopMode, PeerConfig, PrefixLimit, Role};
use model::{BfdProfile, BgpPeer, BgpRoleName, MaxPrefixes};
use std::num::NonZeroU8;
use std::time::Duration;

/// Paths to one prefix that a peer is told.
const PATHS: u8 = 8;

pub(super) fn apply(object: &BgpPeer, peer: &mut PeerConfig) {
    peer.local_as = object.local_as_number;
    peer.allow_own_as = object.num_allowed_local_as_numbers;
    peer.passive = object.passive;
    peer.shutdown.clone_from(&object.shutdown);
    peer.graceful_shutdown = object.graceful_shutdown;
    peer.ttl_security = object.ttl_security;
    peer.multihop = object.ttl_security.is_none();
    peer.bind_device.clone_from(&object.bind_interface);
    if !object.use_node_ip {
        peer.source_address = None;
    }
    peer.next_hop = next_hop(object.next_hop_mode);
    peer.add_path = add_path(object.add_path);
    peer.role = object.role.map(|role| self::role(role.name));
    peer.strict_role = object.role.is_some_and(|role| role.strict);
    peer.bfd = object.bfd.map(bfd);
    peer.long_lived_stale_time = object.long_lived_stale_time.unwrap_or(0);
    if let Some(seconds) = object.max_restart_time {
        peer.restart_time = seconds;
    }
    if let Some(seconds) = object.keepalive_time {
        peer.hold_time = seconds.saturating_mul(3).max(3);
    }
    if let Some(seconds) = object.hold_time {
        peer.hold_time = seconds;
    }
    if let Some(most) = object.max_prefixes {
        peer.prefix_limit = Some(prefix_limit(most));
    }
}

fn next_hop(mode: model::NextHopMode) -> NextHopMode {
    match mode {
        model::NextHopMode::Auto => NextHopMode::Auto,
        model::NextHopMode::OwnAddress => NextHopMode::Own,
        model::NextHopMode::Keep => NextHopMode::Keep,
    }
}

fn add_path(mode: model::AddPath) -> AddPath {
    let (receive, send) = match mode {
        model::AddPath::None => (false, 0),
        model::AddPath::Receive => (true, 0),
        model::AddPath::Send => (false, PATHS),
        model::AddPath::Both => (true, PATHS),
    };
    AddPath { receive, send }
}

fn role(name: BgpRoleName) -> Role {
    match name {
        BgpRoleName::Provider => Role::Provider,
        BgpRoleName::RouteServer => Role::RouteServer,
        BgpRoleName::RouteServerClient => Role::RouteServerClient,
        BgpRoleName::Customer => Role::Customer,
        BgpRoleName::Peer => Role::Peer,
    }
}

fn bfd(profile: BfdProfile) -> Profile {
    let interval = Duration::from_millis(profile.min_interval_ms.into());
    Profile {
        min_tx: interval,
        min_rx: interval,
        multiplier: NonZeroU8::new(profile.multiplier).unwrap_or(NonZeroU8::MIN),
        passive: profile.passive,
    }
}

fn prefix_limit(most: MaxPrefixes) -> PrefixLimit {
    PrefixLimit {
        maximum: most.limit,
        warn_at: most.warn_percent,
        excess: match most.restart_after {
            Some(seconds) => Excess::Restart(Duration::from_secs(seconds.into())),
            None => Excess::Idle,
        },
    }
}
