//! Routes of the main table. Ours are those with [`RT_PROTOCOL`]; nothing here removes others.

mod encode;
mod read;

use crate::kernel::Kernel;
use crate::message::{DELETE_ROUTE, SCOPE_NOWHERE, octets};
use crate::netlink::{Flags, NetlinkError};
use crate::path_mtu;
use encode::{RTA_PRIORITY, rtmsg};
use ipnet::IpNet;
use model::dataplane::{NextHop, Route, RouteKind};
use model::names::{ROUTE_METRIC, RT_PROTOCOL};
use read::dump;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

pub(crate) use encode::{RTA_DST, RTA_METRICS, RTA_TABLE, RTAX_MTU, Tunnelling, encode};
pub(crate) use read::{kernel_route, messages};

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

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
