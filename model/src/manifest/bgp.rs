//! `projectcalico.org/v3` `BGPConfiguration` and `BGPPeer`.

use super::Body;
use super::reader::{Fields, Item, Problem};
use super::syntax;
use crate::object::{BgpConfiguration, BgpPeer, NextHopMode, Object};
use crate::{Selector, names};
use std::net::{IpAddr, SocketAddr};

/// Restart time of mesh peers in seconds, BIRD's default, which Calico leaves as it is.
const DEFAULT_RESTART_TIME: u16 = 120;
/// The field of the graceful restart capability has 12 bits (RFC 4724 section 3).
const MOST_RESTART_TIME: u16 = 4095;
/// The hold time, three times this, has 16 bits (RFC 4271 section 4.2).
const MOST_KEEPALIVE_TIME: u16 = u16::MAX / 3;

pub(super) fn configuration(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    let restart_time = spec.take("nodeMeshMaxRestartTime");
    let configuration = BgpConfiguration {
        name: body.name.clone(),
        as_number: spec
            .take("asNumber")
            .map_or(Ok(names::DEFAULT_AS), |item| syntax::as_number(&item))?,
        node_to_node_mesh_enabled: spec
            .take("nodeToNodeMeshEnabled")
            .map_or(Ok(true), Item::boolean)?,
        listen_port: spec
            .take("listenPort")
            .map_or(Ok(names::BGP_PORT), |item| item.integer(1..=65535))?,
        node_mesh_max_restart_time: restart_time.map_or(Ok(DEFAULT_RESTART_TIME), |item| {
            syntax::seconds(&item, MOST_RESTART_TIME)
        })?,
        ..BgpConfiguration::default()
    };
    spec.refuse(&["nodeMeshPassword"])?;
    spec.ignore(&["logSeverityScreen", "programClusterRoutes"]);
    spec.unsupported(
        &[
            "bindMode",
            "communities",
            "ignoredInterfaces",
            "localWorkloadPeeringIPV4",
            "localWorkloadPeeringIPV6",
            "prefixAdvertisements",
            "serviceClusterIPs",
            "serviceExternalIPs",
            "serviceLoadBalancerAggregation",
            "serviceLoadBalancerIPs",
        ],
        &mut body.warnings,
    );
    spec.warn_unknown(&mut body.warnings);
    Ok(Object::BgpConfiguration(configuration))
}

pub(super) fn peer(body: &mut Body<'_>) -> Result<Object, Problem> {
    let mut spec = body.spec()?;
    // Without these the session would be less restricted than was asked for.
    spec.refuse(&["password", "filters", "localWorkloadSelector"])?;
    if let Some(item) = spec.take("ttlSecurity") {
        return Err(item.problem("not supported yet: TTLs of received packets are not checked"));
    }
    let (node, node_selector) = local_side(&mut spec)?;
    let (peer, peer_selector) = remote_side(&mut spec)?;
    let as_number = as_number(&mut spec, "asNumber")?;
    if peer.is_some() && as_number.is_none() {
        return Err(spec.problem("asNumber", "is required with peerIP"));
    }
    if peer_selector.is_some() && as_number.is_some() {
        return Err(spec.problem(
            "asNumber",
            "comes from the selected nodes with peerSelector",
        ));
    }
    let duration = |spec: &mut Fields<'_>, name, most| {
        spec.take(name)
            .map(|item| syntax::seconds(&item, most))
            .transpose()
    };
    let peer = BgpPeer {
        name: body.name.clone(),
        node,
        node_selector,
        peer_ip: peer.map(|(address, _)| address),
        peer_port: peer.map_or(names::BGP_PORT, |(_, port)| port),
        as_number,
        peer_selector,
        local_as_number: self::as_number(&mut spec, "localASNumber")?,
        next_hop_mode: next_hop_mode(&mut spec)?,
        max_restart_time: duration(&mut spec, "maxRestartTime", MOST_RESTART_TIME)?,
        keepalive_time: duration(&mut spec, "keepaliveTime", MOST_KEEPALIVE_TIME)?,
        num_allowed_local_as_numbers: spec
            .take("numAllowedLocalASNumbers")
            .map_or(Ok(0), |item| item.integer(0..=255))?,
        ..BgpPeer::new(&body.name)
    };
    if peer.keepalive_time == Some(0) {
        return Err(spec.problem("keepaliveTime", "must be at least 1s"));
    }
    spec.unsupported(
        &["reachableBy", "reversePeering", "sourceAddress"],
        &mut body.warnings,
    );
    spec.warn_unknown(&mut body.warnings);
    Ok(Object::BgpPeer(peer))
}

fn local_side(spec: &mut Fields<'_>) -> Result<(Option<String>, Selector), Problem> {
    let node = spec
        .take("node")
        .map(|item| item.check(syntax::subdomain))
        .transpose()?;
    let selector = spec.take("nodeSelector").map(Item::selector).transpose()?;
    if node.is_some() && selector.is_some() {
        return Err(spec.problem("nodeSelector", "may not stand beside node"));
    }
    Ok((node.map(str::to_owned), selector.unwrap_or(Selector::All)))
}

type Address = (IpAddr, u16);

fn remote_side(spec: &mut Fields<'_>) -> Result<(Option<Address>, Option<Selector>), Problem> {
    let address = spec
        .take("peerIP")
        .map(|item| peer_address(&item))
        .transpose()?;
    let selector = spec.take("peerSelector").map(Item::selector).transpose()?;
    match (&address, &selector) {
        (Some(_), Some(_)) => Err(spec.problem("peerSelector", "may not stand beside peerIP")),
        (None, None) => Err(spec.problem("peerIP", "is required, or peerSelector")),
        _ => Ok((address, selector)),
    }
}

/// `10.0.0.1`, `10.0.0.1:1790`, `fd00::1` or `[fd00::1]:1790`.
fn peer_address(item: &Item<'_>) -> Result<Address, Problem> {
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
