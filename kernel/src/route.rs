//! Routes of the main table. Ours are those with [`RT_PROTOCOL`]; nothing here removes others.

use crate::kernel::Kernel;
use crate::message::{
    self, DELETE_ROUTE, GET_ROUTE, MAIN_TABLE, NEW_ROUTE, SCOPE_LINK, SCOPE_NOWHERE,
    SCOPE_UNIVERSE, family, octets,
};
use crate::netlink::{Encoder, Flags, NetlinkError, Socket};
use crate::path_mtu;
use ipnet::IpNet;
use model::dataplane::{NextHop, Route, RouteKind};
use model::names::{ROUTE_METRIC, RT_PROTOCOL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteIp6Tunnel, RouteLwTunnelEncap, RouteMessage,
    RouteNextHop, RouteNextHopFlags, RouteType, RouteVia,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PRIORITY: u16 = 6;
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

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelRoute {
    /// Destination and where it leads.
    pub route: Route,
    /// Written by us ([`RT_PROTOCOL`]).
    pub ours: bool,
    /// `RTA_PRIORITY`; ours have [`ROUTE_METRIC`] unless a filter of BGP says another.
    pub metric: u32,
    /// The group of next hop objects that it names; none if it has its next hops itself.
    pub group: Option<u32>,
}

/// A route could not be read, written or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The kernel knows no way to a gateway.
    #[error("route {dest}: no link leads to its gateway")]
    GatewayUnreachable {
        /// Destination.
        dest: IpNet,
    },
    /// The interface is gone, or down.
    #[error("route {dest}: its interface is missing or down")]
    NoInterface {
        /// Destination.
        dest: IpNet,
    },
    /// A route needs at least one next hop.
    #[error("route {dest}: it has no next hop")]
    NoNextHop {
        /// Destination.
        dest: IpNet,
    },
    /// The kernel refused it otherwise.
    #[error("route {dest}: {source}")]
    Refused {
        /// Destination.
        dest: IpNet,
        /// Why.
        source: NetlinkError,
    },
    /// The table could not be read.
    #[error("cannot read the routes: {0}")]
    Dump(#[source] NetlinkError),
}

impl Kernel {
    /// The main table, both families. Only unicast routes and blackholes: other types are not ours.
    pub fn routes(&mut self) -> Result<Vec<KernelRoute>, RouteError> {
        let mut routes = dump(&mut self.route, libc::AF_INET).map_err(RouteError::Dump)?;
        routes.extend(dump(&mut self.route, libc::AF_INET6).map_err(RouteError::Dump)?);
        self.next_hops_in_use = routes.iter().filter_map(|route| route.group).collect();
        Ok(routes)
    }

    /// Creates or replaces routes; answers those that failed. The failure of one does not stop the
    /// others. The kernel replaces by destination and metric, whoever wrote the route: look at
    /// [`Self::routes`] before a prefix that somebody else may route.
    ///
    /// Routes with several next hops share groups where the kernel has them.
    ///
    /// What the node itself sends through the tunnel comes from the address on the device, so that
    /// the answers take the tunnel too, or from the node's own where the device has none.
    pub fn replace_routes(&mut self, routes: &[Route]) -> Vec<(Route, RouteError)> {
        self.replace_routes_at(ROUTE_METRIC, routes)
    }

    /// As [`Self::replace_routes`], with another metric than [`ROUTE_METRIC`].
    pub fn replace_routes_at(&mut self, metric: u32, routes: &[Route]) -> Vec<(Route, RouteError)> {
        let empty = |route: &&Route| matches!(&route.kind, RouteKind::Via(hops) if hops.is_empty());
        let (empty, usable): (Vec<&Route>, Vec<&Route>) = routes.iter().partition(empty);
        let groups = self.next_hop_groups(&usable);
        let refused = self.write_routes(&usable, &groups, metric);
        // A group may have gone meanwhile, with a link.
        let grouped = |(index, _): &(usize, _)| group_of(usable[*index], &groups).is_some();
        let (again, refused): (Vec<_>, Vec<_>) = refused.into_iter().partition(grouped);
        let again: Vec<&Route> = again.into_iter().map(|(index, _)| usable[index]).collect();
        let refused_again = self.write_routes(&again, &BTreeMap::new(), metric);
        let refused = refused
            .into_iter()
            .map(|(index, source)| (usable[index], source));
        let refused_again = refused_again
            .into_iter()
            .map(|(index, source)| (again[index], source));
        let refused = refused
            .chain(refused_again)
            .map(|(route, source)| (route.clone(), refusal(route.dest, source)));
        empty
            .into_iter()
            .map(|route| (route.clone(), RouteError::NoNextHop { dest: route.dest }))
            .chain(refused)
            .collect()
    }

    fn write_routes(
        &mut self,
        routes: &[&Route],
        groups: &BTreeMap<Vec<NextHop>, u32>,
        metric: u32,
    ) -> Vec<(usize, NetlinkError)> {
        let (tunnels, mtus) = (&self.tunnel_sources, &self.path_mtus);
        let encapsulating = &self.encapsulating;
        self.route.batch(routes, |encoder, route| {
            let tunnel = Tunnelling {
                source: source(route, tunnels),
                encapsulating,
                mtu: path_mtu::of_route(route, mtus),
            };
            let group = group_of(route, groups);
            encode(encoder, route, (RT_PROTOCOL, Some(metric)), group, &tunnel);
        })
    }

    /// Removes our routes to these destinations, whatever they lead to; answers those that failed.
    /// Of several to one destination that with the lowest metric goes. A route that is not there is
    /// no failure, and a route of somebody else stays.
    pub fn delete_routes(&mut self, destinations: &[IpNet]) -> Vec<(IpNet, RouteError)> {
        self.delete_routes_at(None, destinations)
    }

    /// As [`Self::delete_routes`]; those with this metric if one is given.
    pub fn delete_routes_at(
        &mut self,
        metric: Option<u32>,
        destinations: &[IpNet],
    ) -> Vec<(IpNet, RouteError)> {
        let refused = self.route.batch(destinations, |encoder, dest| {
            let fixed = rtmsg(*dest, RT_PROTOCOL, SCOPE_NOWHERE, 0, 0);
            encoder.message(DELETE_ROUTE, Flags::QUIET, &fixed, |encoder| {
                encoder.attribute(RTA_DST, &octets(dest.network()));
                if let Some(metric) = metric {
                    encoder.u32(RTA_PRIORITY, metric);
                }
            });
        });
        refused
            .into_iter()
            .filter(|(_, error)| !error.is(libc::ESRCH))
            .map(|(index, source)| (destinations[index], refusal(destinations[index], source)))
            .collect()
    }
}

fn refusal(dest: IpNet, source: NetlinkError) -> RouteError {
    match source.errno() {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => RouteError::GatewayUnreachable { dest },
        Some(libc::ENODEV | libc::ENETDOWN) => RouteError::NoInterface { dest },
        _ => RouteError::Refused { dest, source },
    }
}

fn group_of(route: &Route, groups: &BTreeMap<Vec<NextHop>, u32>) -> Option<u32> {
    match &route.kind {
        RouteKind::Via(hops) => groups.get(hops).copied(),
        RouteKind::Device { .. } | RouteKind::Blackhole => None,
    }
}

/// The preferred source of an IPv4 route through a tunnel.
fn source(route: &Route, tunnels: &BTreeMap<u32, Ipv4Addr>) -> Option<Ipv4Addr> {
    let RouteKind::Via(hops) = &route.kind else {
        return None;
    };
    if !route.dest.addr().is_ipv4() {
        return None;
    }
    let onlink = hops.iter().filter(|hop| hop.onlink);
    onlink
        .filter_map(|hop| tunnels.get(&hop.ifindex?))
        .next()
        .copied()
}

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

fn rtmsg(dest: IpNet, protocol: u8, scope: u8, kind: u8, flags: u8) -> [u8; 12] {
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

fn dump(socket: &mut Socket, family: i32) -> Result<Vec<KernelRoute>, NetlinkError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const TUNNEL: u32 = 7;
    const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn hop(ifindex: u32, onlink: bool) -> NextHop {
        NextHop {
            gateway: Ipv4Addr::new(192, 0, 2, 2).into(),
            ifindex: Some(ifindex),
            onlink,
            weight: 1,
        }
    }

    fn source_of(kind: RouteKind) -> Option<Ipv4Addr> {
        let dest = IpNet::from(IpAddr::from([10, 0, 0, 1]));
        source(&Route { dest, kind }, &[(TUNNEL, SOURCE)].into())
    }

    #[test]
    fn only_routes_through_the_tunnel_have_its_local_address_as_their_source() {
        let through = [
            vec![hop(7, true)],
            vec![hop(3, false), hop(7, true)],
            vec![hop(7, true), hop(7, true)],
        ];
        for hops in through {
            assert_eq!(source_of(RouteKind::Via(hops)), Some(SOURCE));
        }
        let elsewhere = [vec![], vec![hop(3, true)], vec![hop(7, false)]];
        for hops in elsewhere {
            assert_eq!(source_of(RouteKind::Via(hops)), None);
        }
        assert_eq!(source_of(RouteKind::Device { ifindex: 7 }), None);
        assert_eq!(source_of(RouteKind::Blackhole), None);
    }
}
