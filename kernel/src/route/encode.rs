//! Routes as messages.

use crate::message::{MAIN_TABLE, NEW_ROUTE, SCOPE_LINK, SCOPE_UNIVERSE, family, octets};
use crate::netlink::{Encoder, Flags};
use ipnet::IpNet;
use model::dataplane::{NextHop, Route, RouteKind};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
pub(super) const RTA_PRIORITY: u16 = 6;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
pub(crate) const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
pub(crate) const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_ENCAP_TYPE: u16 = 21;
const RTA_ENCAP: u16 = 22;
/// `LWTUNNEL_ENCAP_IP6`.
const ENCAP_IP6: u16 = 4;
/// `LWTUNNEL_IP6_*`.
const ENCAP_DESTINATION: u16 = 2;
const ENCAP_SOURCE: u16 = 3;
/// `RTAX_*`.
const RTAX_LOCK: u16 = 1;
pub(crate) const RTAX_MTU: u16 = 2;
const RTA_NH_ID: u16 = 30;
const RTN_UNICAST: u8 = 1;
const RTN_BLACKHOLE: u8 = 6;
const RTNH_F_ONLINK: u8 = 4;

/// What a route needs to lead through a tunnel.
pub(crate) struct Tunnelling<'a> {
    /// The address that the node itself speaks with; without one the kernel chooses.
    pub(crate) source: Option<Ipv4Addr>,
    /// Devices of which each route says the outer header, and its source: the gateway is its
    /// destination.
    pub(crate) encapsulating: &'a BTreeMap<u32, Ipv6Addr>,
    /// MTU that is kept to.
    pub(crate) mtu: Option<u32>,
}

/// Appends the message that creates or replaces a route, of this protocol and with this metric. A
/// `group` stands for the next hops.
pub(crate) fn encode(
    encoder: &mut Encoder,
    route: &Route,
    (protocol, metric): (u8, Option<u32>),
    group: Option<u32>,
    tunnel: &Tunnelling<'_>,
) -> u32 {
    let dest = route.dest;
    let outer = |hop: &NextHop| match (hop.ifindex, hop.gateway) {
        (Some(ifindex), IpAddr::V6(_)) => tunnel.encapsulating.get(&ifindex).copied(),
        _ => None,
    };
    let (kind, scope, flags) = match &route.kind {
        RouteKind::Device { .. } => (RTN_UNICAST, SCOPE_LINK, 0),
        RouteKind::Via(hops) => match hops.as_slice() {
            [hop] if outer(hop).is_some() => (RTN_UNICAST, SCOPE_LINK, 0),
            [hop] => (RTN_UNICAST, SCOPE_UNIVERSE, hop_flags(hop)),
            _ => (RTN_UNICAST, SCOPE_UNIVERSE, 0),
        },
        RouteKind::Blackhole => (RTN_BLACKHOLE, SCOPE_UNIVERSE, 0),
    };
    let fixed = rtmsg(dest, protocol, scope, kind, flags);
    encoder.message(NEW_ROUTE, Flags::REPLACE, &fixed, |encoder| {
        if dest.prefix_len() > 0 {
            encoder.attribute(RTA_DST, &octets(dest.network()));
        }
        if let Some(metric) = metric {
            // A route of somebody else with the same destination is another route: NLM_F_REPLACE
            // compares destination and metric, not the protocol.
            encoder.u32(RTA_PRIORITY, metric);
        }
        if let Some(mtu) = tunnel.mtu {
            encoder.nested(RTA_METRICS, |encoder| {
                encoder.u32(RTAX_LOCK, 1 << RTAX_MTU);
                encoder.u32(RTAX_MTU, mtu);
            });
        }
        if let Some(source) = tunnel.source {
            encoder.attribute(RTA_PREFSRC, &source.octets());
        }
        if let Some(group) = group {
            return encoder.u32(RTA_NH_ID, group);
        }
        match &route.kind {
            RouteKind::Device { ifindex } => encoder.u32(RTA_OIF, *ifindex),
            RouteKind::Via(hops) => match hops.as_slice() {
                [hop] => {
                    way(encoder, dest, hop, outer(hop));
                    if let Some(ifindex) = hop.ifindex {
                        encoder.u32(RTA_OIF, ifindex);
                    }
                }
                hops => encoder.container(RTA_MULTIPATH, |encoder| {
                    for hop in hops {
                        next_hop(encoder, dest, hop, outer(hop));
                    }
                }),
            },
            RouteKind::Blackhole => {}
        }
    })
}

pub(super) fn rtmsg(dest: IpNet, protocol: u8, scope: u8, kind: u8, flags: u8) -> [u8; 12] {
    let mut fixed = [0; 12];
    fixed[0] = family(dest.addr());
    fixed[1] = dest.prefix_len();
    fixed[4] = MAIN_TABLE;
    fixed[5] = protocol;
    fixed[6] = scope;
    fixed[7] = kind;
    fixed[8..].copy_from_slice(&u32::from(flags).to_ne_bytes());
    fixed
}

fn hop_flags(hop: &NextHop) -> u8 {
    if hop.onlink { RTNH_F_ONLINK } else { 0 }
}

/// `struct rtnexthop` and its gateway.
fn next_hop(encoder: &mut Encoder, dest: IpNet, hop: &NextHop, outer: Option<Ipv6Addr>) {
    let mut inner = Encoder::new(0);
    way(&mut inner, dest, hop, outer);
    let mut bytes = vec![0; 8];
    bytes[..2].copy_from_slice(&(8 + inner.bytes().len() as u16).to_ne_bytes());
    bytes[2] = if outer.is_some() { 0 } else { hop_flags(hop) };
    bytes[3] = hop.weight.max(1) - 1;
    bytes[4..].copy_from_slice(&hop.ifindex.unwrap_or(0).to_ne_bytes());
    bytes.extend_from_slice(inner.bytes());
    encoder.raw(&bytes);
}

/// The gateway, or the outer header to it with this source.
fn way(encoder: &mut Encoder, dest: IpNet, hop: &NextHop, outer: Option<Ipv6Addr>) {
    let Some(source) = outer else {
        return gateway(encoder, dest, hop.gateway);
    };
    encoder.attribute(RTA_ENCAP_TYPE, &ENCAP_IP6.to_ne_bytes());
    encoder.nested(RTA_ENCAP, |encoder| {
        encoder.attribute(ENCAP_DESTINATION, &octets(hop.gateway));
        encoder.attribute(ENCAP_SOURCE, &source.octets());
    });
}

/// `RTA_GATEWAY`, or `RTA_VIA` for an IPv6 gateway of an IPv4 route (RFC 8950).
fn gateway(encoder: &mut Encoder, dest: IpNet, gateway: IpAddr) {
    if family(dest.addr()) == family(gateway) {
        return encoder.attribute(RTA_GATEWAY, &octets(gateway));
    }
    let mut via = u16::from(family(gateway)).to_ne_bytes().to_vec();
    via.extend(octets(gateway));
    encoder.attribute(RTA_VIA, &via);
}
