//! What a `BGPPeer` asks of its sessions -> the speaker's configuration of a peer.

use bgp_core::bfd::Profile;
use bgp_core::{AddPath, Excess, PeerConfig, PrefixLimit, Role};
use model::{
    BfdProfile, BgpConfiguration, BgpPeer, BgpRoleName, BindMode, MaxPrefixes, NextHopMode,
};
use std::num::NonZeroU8;
use std::time::Duration;

/// Paths to one prefix that a peer is told.
const PATHS: u8 = 8;

/// A field without which the session would be less restricted than was asked for, and which
/// nothing here fulfils: there is no session then.
pub(super) fn refused(object: &BgpPeer) -> Option<&'static str> {
    let stated = [
        (
            "spec.localWorkloadSelector",
            object.local_workload_selector.is_some(),
        ),
        ("spec.ocicat.peerInterface", object.peer_interface.is_some()),
    ];
    fields(stated).next()
}

/// Fields that nothing here fulfils and that a session can go on without.
pub(super) fn unheeded(object: &BgpPeer) -> impl Iterator<Item = &'static str> {
    let own_next_hop = object.next_hop_mode == NextHopMode::OwnAddress;
    let stated = [
        ("spec.reachableBy", object.reachable_by.is_some()),
        ("spec.nextHopMode", own_next_hop),
    ];
    fields(stated)
}

/// Likewise of the configuration.
pub(super) fn unheeded_by_all(
    configuration: &BgpConfiguration,
) -> impl Iterator<Item = &'static str> {
    let ignored = !configuration.ignored_interfaces.is_empty();
    let stated = [
        ("spec.bindMode", configuration.bind_mode != BindMode::None),
        ("spec.ignoredInterfaces", ignored),
    ];
    fields(stated)
}

fn fields<const N: usize>(stated: [(&'static str, bool); N]) -> impl Iterator<Item = &'static str> {
    let stated = stated.into_iter().filter(|(_, stated)| *stated);
    stated.map(|(field, _)| field)
}

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
    peer.keep_next_hop = object.next_hop_mode == NextHopMode::Keep;
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
