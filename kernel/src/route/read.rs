//! Messages as routes.

use super::KernelRoute;
use super::encode::RTA_TABLE;
use crate::message::{self, GET_ROUTE, MAIN_TABLE};
use crate::netlink::{Flags, NetlinkError, Socket};
use ipnet::IpNet;
use model::dataplane::{NextHop, Route, RouteKind};
use model::names::RT_PROTOCOL;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteIp6Tunnel, RouteLwTunnelEncap, RouteMessage,
    RouteNextHop, RouteNextHopFlags, RouteType, RouteVia,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) fn dump(socket: &mut Socket, family: i32) -> Result<Vec<KernelRoute>, NetlinkError> {
    let collect = |routes: &mut Vec<KernelRoute>, message: &RouteMessage| {
        routes.extend(kernel_route(message));
    };
    messages(socket, family, collect)
}

/// Reads the main table message by message.
pub(crate) fn messages<T: Default>(
    socket: &mut Socket,
    family: i32,
    mut each: impl FnMut(&mut T, &RouteMessage),
) -> Result<T, NetlinkError> {
    socket.dump(
        |encoder| {
            let mut fixed = [0; 12];
            fixed[0] = family as u8;
            encoder.message(GET_ROUTE, Flags::DUMP, &fixed, |encoder| {
                encoder.u32(RTA_TABLE, u32::from(MAIN_TABLE));
            });
        },
        T::default,
        |routes, frame| {
            if let Some(RouteNetlinkMessage::NewRoute(message)) = message::parse(frame) {
                each(routes, &message);
            }
        },
    )
}

/// A route of the main table; `None` for what is not one, such as cached or local routes.
pub(crate) fn kernel_route(message: &RouteMessage) -> Option<KernelRoute> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let mut dest = None;
    let mut hop = NextHop {
        gateway: unspecified(header),
        ifindex: None,
        onlink: false,
        weight: 1,
    };
    let mut has_gateway = false;
    let mut several = Vec::new();
    let mut metric = 0;
    let mut group = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => dest = ip(address),
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::NhId(number) => group = Some(*number),
            RouteAttribute::Oif(ifindex) => hop.ifindex = Some(*ifindex),
            RouteAttribute::Gateway(address) => {
                (hop.gateway, has_gateway) = (ip(address)?, true);
            }
            RouteAttribute::Via(via) => (hop.gateway, has_gateway) = (via_ip(via)?, true),
            RouteAttribute::Encap(encap) => {
                if let Some(destination) = outer_destination(encap) {
                    (hop.gateway, has_gateway) = (destination, true);
                    hop.onlink = true;
                }
            }
            RouteAttribute::MultiPath(hops) => several = hops.iter().filter_map(path).collect(),
            _ => {}
        }
    }
    if table != u32::from(MAIN_TABLE) || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    hop.onlink |= header.flags.contains(RouteFlags::Onlink);
    let kind = match header.kind {
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unicast if !several.is_empty() => RouteKind::Via(several),
        RouteType::Unicast if has_gateway => RouteKind::Via(vec![hop]),
        RouteType::Unicast => RouteKind::Device {
            ifindex: hop.ifindex?,
        },
        _ => return None,
    };
    let address = dest.unwrap_or(unspecified(header));
    let dest = IpNet::new(address, header.destination_prefix_length).ok()?;
    let ours = u8::from(header.protocol) == RT_PROTOCOL;
    Some(KernelRoute {
        route: Route { dest, kind },
        ours,
        metric,
        group,
    })
}

fn unspecified(header: &netlink_packet_route::route::RouteHeader) -> IpAddr {
    match u8::from(header.address_family) as i32 {
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

fn path(hop: &RouteNextHop) -> Option<NextHop> {
    let gateway = hop
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => ip(address),
            RouteAttribute::Via(via) => via_ip(via),
            RouteAttribute::Encap(encap) => outer_destination(encap),
            _ => None,
        })?;
    let encapsulated = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Encap(_));
    let onlink =
        hop.attributes.iter().any(encapsulated) || hop.flags.contains(RouteNextHopFlags::Onlink);
    Some(NextHop {
        gateway,
        ifindex: Some(hop.interface_index),
        onlink,
        weight: hop.hops.saturating_add(1),
    })
}

/// Where an outer IPv6 header leads, if there is one.
fn outer_destination(encap: &[RouteLwTunnelEncap]) -> Option<IpAddr> {
    encap.iter().find_map(|part| match part {
        RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(address)) => Some((*address).into()),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn via_ip(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(address) => Some((*address).into()),
        RouteVia::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
