//! `projectcalico.org/v3` `BGPPeer`.

use super::Body;
use super::bgp::{self, MOST_RESTART_TIME};
use super::reader::{Fields, Item, Problem};
use super::syntax;
use crate::object::{
    AddPath, BfdProfile, BgpPeer, BgpPeerType, BgpRole, BgpRoleName, DynamicPeers, MaxPrefixes,
    NextHopMode, Object, RemoteAs,
};
use crate::{Selector, names};
use std::net::{IpAddr, SocketAddr};

/// The hold time, three times this, has 16 bits (RFC 4271 section 4.2).
const MOST_KEEPALIVE_TIME: u16 = u16::MAX / 3;
/// Long-lived stale time has 24 bits (RFC 9494 section 3.1).
const MOST_STALE_TIME: u32 = (1 << 24) - 1;
/// What Calico Enterprise keeps stale routes for unless `maxRestartTime` says other.
const DEFAULT_STALE_TIME: u32 = 3600;
const DEFAULT_DYNAMIC_PEERS: u32 = 100;
const DEFAULT_WARN_PERCENT: u8 = 75;
/// RFC 9003 section 2.
const LONGEST_SHUTDOWN_TEXT: usize = 255;

const PEER_TYPES: &[(&str, BgpPeerType)] = &[
    ("External", BgpPeerType::External),
    ("Internal", BgpPeerType::Internal),
];
const REMOTE_AS: &[(&str, RemoteAs)] = &[
    ("Auto", RemoteAs::Auto),
    (PEER_TYPES[0].0, RemoteAs::Type(PEER_TYPES[0].1)),
    (PEER_TYPES[1].0, RemoteAs::Type(PEER_TYPES[1].1)),
];
const ROLES: &[(&str, BgpRoleName)] = &[
    ("Provider", BgpRoleName::Provider),
    ("RouteServer", BgpRoleName::RouteServer),
    ("RouteServerClient", BgpRoleName::RouteServerClient),
    ("Customer", BgpRoleName::Customer),
    ("Peer", BgpRoleName::Peer),
];
const ADD_PATH: &[(&str, AddPath)] = &[
    ("None", AddPath::None),
    ("Receive", AddPath::Receive),
    ("Send", AddPath::Send),
    ("Both", AddPath::Both),
];

pub(super) fn read(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    let mut peer = BgpPeer::new(&body.name);
    local_side(&mut spec, &mut peer)?;
    let states_type = bgp::ocicat(&mut spec, &mut body.warnings, |ocicat| {
        extensions(ocicat, &mut peer)
    })?;
    remote_side(&mut spec, &mut peer)?;
    session(&mut spec, &mut peer)?;
    restart(&mut spec, &mut peer)?;
    routes(&mut spec, &mut peer)?;
    check(&spec, &peer, states_type.unwrap_or(false))?;
    spec.unsupported(&["birdGatewayMode"], &mut body.warnings);
    spec.warn_unknown(&mut body.warnings);
    Ok(Object::BgpPeer(Box::new(peer)))
}

/// Which nodes of ours.
fn local_side(spec: &mut Fields<'_>, peer: &mut BgpPeer) -> Result<(), Problem> {
    let node = text(spec, "node")
        .map(|item| item.check(syntax::subdomain))
        .transpose()?;
    let selector = text(spec, "nodeSelector")
        .map(|item| item.selector())
        .transpose()?;
    if node.is_some() && selector.is_some() {
        return Err(spec.problem("nodeSelector", "may not stand beside node"));
    }
    peer.node = node.map(str::to_owned);
    peer.node_selector = selector.unwrap_or(Selector::All);
    Ok(())
}

/// With whom, and what AS it is in.
fn remote_side(spec: &mut Fields<'_>, peer: &mut BgpPeer) -> Result<(), Problem> {
    if let Some(item) = text(spec, "peerIP") {
        let (address, port) = peer_address(&item)?;
        (peer.peer_ip, peer.peer_port) = (Some(address), port);
    }
    let mut selector = |name| text(spec, name).map(|item| item.selector()).transpose();
    peer.peer_selector = selector("peerSelector")?;
    peer.local_workload_selector = selector("localWorkloadSelector")?;
    let stated = [
        ("peerIP", peer.peer_ip.is_some()),
        ("peerSelector", peer.peer_selector.is_some()),
        (
            "localWorkloadSelector",
            peer.local_workload_selector.is_some(),
        ),
        ("ocicat.peerInterface", peer.peer_interface.is_some()),
        ("ocicat.peerPrefix", peer.peer_prefix.is_some()),
    ];
    let mut stated = stated.iter().filter(|(_, stated)| *stated);
    match (stated.next(), stated.next()) {
        (None, _) => return Err(spec.problem("peerIP", "is required, or peerSelector")),
        (Some((first, _)), Some((second, _))) => {
            return Err(spec.problem(second, &format!("may not stand beside {first}")));
        }
        (Some(_), None) => {}
    }
    peer.as_number = as_number(spec, "asNumber")?;
    peer.local_as_number = as_number(spec, "localASNumber")?;
    Ok(())
}

/// `10.0.0.1`, `10.0.0.1:1790`, `fd00::1` or `[fd00::1]:1790`.
fn peer_address(item: &Item<'_>) -> Result<(IpAddr, u16), Problem> {
    let (address, port) = match item.parse::<IpAddr>("") {
        Ok(address) => (address, names::BGP_PORT),
        Err(_) => match item.parse::<SocketAddr>("an IP address")? {
            address if address.port() == 0 => {
                return Err(item.is_not("an IP address with a port from 1 to 65535"));
            }
            address => (address.ip(), address.port()),
        },
    };
    syntax::unicast(item, address)?;
    Ok((address, port))
}

fn as_number(spec: &mut Fields<'_>, name: &'static str) -> Result<Option<u32>, Problem> {
    spec.take(name)
        .map(|item| syntax::as_number(&item))
        .transpose()
}

/// How to connect.
fn session(spec: &mut Fields<'_>, peer: &mut BgpPeer) -> Result<(), Problem> {
    peer.password = bgp::password(spec, "password")?;
    peer.use_node_ip = spec.take("sourceAddress").map_or(Ok(true), |item| {
        item.one_of(&[("UseNodeIP", true), ("None", false)])
    })?;
    // 0 hops turn it off, as in Calico.
    peer.ttl_security = spec
        .take("ttlSecurity")
        .map(|item| item.integer(0..=255))
        .transpose()?
        .filter(|hops| *hops != 0);
    peer.keepalive_time = spec
        .take("keepaliveTime")
        .map(|item| syntax::seconds(&item, MOST_KEEPALIVE_TIME))
        .transpose()?;
    if peer.keepalive_time == Some(0) {
        return Err(spec.problem("keepaliveTime", "must be at least 1s"));
    }
    if let Some(item) = text(spec, "reachableBy") {
        let gateway: IpAddr = item.parse("an IP address")?;
        syntax::unicast(&item, gateway)?;
        let same_family = peer.peer_ip.map(|peer| peer.is_ipv4() == gateway.is_ipv4());
        match same_family {
            Some(true) => peer.reachable_by = Some(gateway),
            Some(false) => return Err(item.problem("is not of the family of peerIP")),
            None => return Err(item.problem("needs peerIP")),
        }
    }
    let detection = spec
        .take("failureDetectionMode")
        .map(|item| item.one_of(&[("None", false), ("BFDIfDirectlyConnected", true)]));
    if detection.transpose()?.unwrap_or(false) && peer.bfd.is_none() {
        peer.bfd = Some(BfdProfile::default());
    }
    Ok(())
}

fn restart(spec: &mut Fields<'_>, peer: &mut BgpPeer) -> Result<(), Problem> {
    let modes = [
        ("GracefulRestart", false),
        ("LongLivedGracefulRestart", true),
    ];
    let long_lived = spec
        .take("restartMode")
        .map_or(Ok(false), |item| item.one_of(&modes))?;
    let time = spec.take("maxRestartTime");
    if long_lived {
        peer.long_lived_stale_time = Some(time.map_or(Ok(DEFAULT_STALE_TIME), |item| {
            syntax::seconds(&item, MOST_STALE_TIME)
        })?);
    } else {
        peer.max_restart_time = time
            .map(|item| syntax::seconds(&item, MOST_RESTART_TIME))
            .transpose()?;
    }
    Ok(())
}

/// What is sent and taken.
fn routes(spec: &mut Fields<'_>, peer: &mut BgpPeer) -> Result<(), Problem> {
    peer.next_hop_mode = next_hop_mode(spec)?;
    peer.num_allowed_local_as_numbers = spec
        .take("numAllowedLocalASNumbers")
        .map_or(Ok(0), |item| item.integer(0..=255))?;
    peer.reverse_peering = spec.take("reversePeering").map_or(Ok(true), |item| {
        item.one_of(&[("Auto", true), ("Manual", false)])
    })?;
    let filters = spec.take("filters").map_or(Ok(Vec::new()), Item::list)?;
    let name = |item: &Item<'_>| item.check(syntax::subdomain).map(str::to_owned);
    peer.filters = filters.iter().map(name).collect::<Result<_, _>>()?;
    Ok(())
}

/// `nextHopMode`, or `keepOriginalNextHop`, which it replaced.
fn next_hop_mode(spec: &mut Fields<'_>) -> Result<NextHopMode, Problem> {
    let keep = spec
        .take("keepOriginalNextHop")
        .map_or(Ok(false), Item::boolean)?;
    let names = [
        ("Auto", NextHopMode::Auto),
        ("Self", NextHopMode::OwnAddress),
        ("Keep", NextHopMode::Keep),
    ];
    let mode = spec.take("nextHopMode");
    match mode.map(|item| item.one_of(&names)).transpose()? {
        Some(mode) if keep && mode != NextHopMode::Keep => {
            Err(spec.problem("nextHopMode", "contradicts keepOriginalNextHop"))
        }
        Some(mode) => Ok(mode),
        None if keep => Ok(NextHopMode::Keep),
        None => Ok(NextHopMode::Auto),
    }
}

/// `spec.ocicat`: what Calico does not have. True where it says which AS numbers to accept.
fn extensions(ocicat: &mut Fields<'_>, peer: &mut BgpPeer) -> Result<bool, Problem> {
    let interface = |fields: &mut Fields<'_>, name| {
        let name = fields.take(name).map(|item| item.check(syntax::interface));
        name.transpose().map(|name| name.map(str::to_owned))
    };
    peer.peer_interface = interface(ocicat, "peerInterface")?;
    peer.bind_interface = interface(ocicat, "bindInterface")?;
    let limit = ocicat
        .take("peerLimit")
        .map(|item| item.integer(1..=65535))
        .transpose()?;
    if let Some(item) = ocicat.take("peerPrefix") {
        peer.peer_prefix = Some(DynamicPeers {
            prefix: syntax::exact_network(&item)?,
            limit: limit.unwrap_or(DEFAULT_DYNAMIC_PEERS),
        });
    } else if limit.is_some() {
        return Err(ocicat.problem("peerLimit", "needs peerPrefix"));
    }
    peer.remote_as = ocicat
        .take("remoteAS")
        .map_or(Ok(RemoteAs::Auto), |item| item.one_of(REMOTE_AS))?;
    let mut flag = |name| ocicat.take(name).map_or(Ok(false), Item::boolean);
    peer.passive = flag("passive")?;
    peer.graceful_shutdown = flag("gracefulShutdown")?;
    let strict = flag("roleStrict")?;
    let role = ocicat.take("role").map(|item| item.one_of(ROLES));
    peer.role = role.transpose()?.map(|name| BgpRole { name, strict });
    if strict && peer.role.is_none() {
        return Err(ocicat.problem("roleStrict", "needs role"));
    }
    peer.hold_time = ocicat.take("holdTime").map(hold_time).transpose()?;
    peer.add_path = ocicat
        .take("addPath")
        .map_or(Ok(AddPath::None), |item| item.one_of(ADD_PATH))?;
    peer.bfd = ocicat.take("bfd").map(bfd).transpose()?;
    peer.max_prefixes = ocicat.take("maxPrefixes").map(max_prefixes).transpose()?;
    peer.shutdown = ocicat.take("shutdown").map(shutdown_text).transpose()?;
    Ok(ocicat.has("remoteAS"))
}

/// RFC 4271 section 4.2 forbids 1 and 2; 0 would never notice a dead peer.
fn hold_time(item: Item<'_>) -> Result<u16, Problem> {
    let seconds = syntax::seconds(&item, u16::MAX)?;
    if seconds < 3 {
        return Err(item.problem("must be at least 3s"));
    }
    Ok(seconds)
}

fn bfd(item: Item<'_>) -> Result<BfdProfile, Problem> {
    let mut fields = item.fields()?;
    let defaults = BfdProfile::default();
    let profile = BfdProfile {
        min_interval_ms: fields
            .take("minInterval")
            .map_or(Ok(defaults.min_interval_ms), |item| {
                syntax::milliseconds(&item, 10..=60_000)
            })?,
        multiplier: fields
            .take("multiplier")
            .map_or(Ok(defaults.multiplier), |item| item.integer(1..=255))?,
        passive: fields.take("passive").map_or(Ok(false), Item::boolean)?,
        multihop: fields.take("multihop").map_or(Ok(false), Item::boolean)?,
    };
    fields.refuse_unknown("unknown field")?;
    Ok(profile)
}

fn max_prefixes(item: Item<'_>) -> Result<MaxPrefixes, Problem> {
    let mut fields = item.fields()?;
    let found = MaxPrefixes {
        limit: fields.need("limit")?.integer(1..=i64::from(u32::MAX))?,
        warn_percent: fields
            .take("warnPercent")
            .map_or(Ok(DEFAULT_WARN_PERCENT), |item| item.integer(1..=100))?,
        restart_after: fields
            .take("restartAfter")
            .map(|item| syntax::seconds(&item, u32::MAX))
            .transpose()?,
    };
    fields.refuse_unknown("unknown field")?;
    Ok(found)
}

fn shutdown_text(item: Item<'_>) -> Result<String, Problem> {
    let text = item.as_text()?;
    if text.len() > LONGEST_SHUTDOWN_TEXT {
        return Err(item.problem(format!("is longer than {LONGEST_SHUTDOWN_TEXT} bytes")));
    }
    Ok(text.to_owned())
}

fn check(spec: &Fields<'_>, peer: &BgpPeer, states_type: bool) -> Result<(), Problem> {
    match (peer.as_number, &peer.peer_selector) {
        (Some(_), Some(_)) => {
            let reason = "comes from the selected nodes with peerSelector";
            return Err(spec.problem("asNumber", reason));
        }
        (Some(_), None) if states_type => {
            return Err(spec.problem("ocicat.remoteAS", "may not stand beside asNumber"));
        }
        (None, Some(_)) if states_type => {
            return Err(spec.problem("ocicat.remoteAS", "may not stand beside peerSelector"));
        }
        (None, Some(_)) => {}
        (None, None) if !states_type => {
            let with = match peer.peer_ip {
                Some(_) => "is required with peerIP",
                None => "is required, or ocicat.remoteAS",
            };
            return Err(spec.problem("asNumber", with));
        }
        _ => {}
    }
    if let (Some(keepalive), Some(hold)) = (peer.keepalive_time, peer.hold_time)
        && keepalive >= hold
    {
        return Err(spec.problem("keepaliveTime", "must be less than ocicat.holdTime"));
    }
    Ok(())
}

/// The field, unless it is the empty string, which Calico takes for absent.
fn text<'a>(spec: &mut Fields<'a>, name: &'static str) -> Option<Item<'a>> {
    spec.take(name).filter(|item| item.value() != "")
}
