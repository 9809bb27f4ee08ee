//! The pod end: configured and checked through a socket of the pod's namespace.

use super::send;
use crate::kernel::Kernel;
use crate::link;
use crate::message::{self, GET_NEIGHBOUR, NUD_PERMANENT, SCOPE_UNIVERSE};
use crate::netlink::{Attributes, Errno, Flags, NetlinkError, Protocol, Socket, ne_u32};
use crate::{address, route};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::dataplane::{Link, NextHop, PodLink, Route, RouteKind};
use model::names::{GATEWAY_V4, GATEWAY_V6, HOST_MAC};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

/// `RTPROT_BOOT`: routes in the pod belong to the pod.
const PROTOCOL_BOOT: u8 = 3;

/// The pod end of a link could not be configured or checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PodError {
    /// The descriptor that was passed is no usable `NETLINK_ROUTE` socket.
    #[error("the netlink socket of the pod's namespace cannot be used: {0}")]
    Socket(Errno),
    /// The pod has no interface of this name.
    #[error("the pod has no interface {name}")]
    NoInterface {
        /// The name.
        name: String,
    },
    /// The pod has an IPv6 address, and its namespace has IPv6 switched off.
    #[error("{address} on {name}: IPv6 is disabled in the pod (net.ipv6.conf.{name}.disable_ipv6)")]
    Ipv6Disabled {
        /// The pod's interface.
        name: String,
        /// The address.
        address: IpAddr,
    },
    /// One step of several was refused.
    #[error("{name} of the pod: {step}: {source}")]
    Refused {
        /// The pod's interface.
        name: String,
        /// What was to be done.
        step: String,
        /// Why not.
        source: NetlinkError,
    },
}

impl Kernel {
    /// Configures the pod end through a socket that was opened in the pod's namespace: addresses,
    /// neighbour entries of the gateways, default routes, up. What is there already stays.
    pub fn configure_pod(
        &mut self,
        pod: &PodLink,
        pod_socket: BorrowedFd<'_>,
    ) -> Result<(), PodError> {
        let (mut socket, link) = pod_end(pod, pod_socket)?;
        let mut request = socket.encoder();
        let mut steps = vec![(
            message::link_up(&mut request, link.ifindex),
            "set it up".into(),
        )];
        for address in &pod.addresses {
            let length = IpNet::from(*address).prefix_len();
            let sequence =
                message::add_address(&mut request, link.ifindex, *address, length, SCOPE_UNIVERSE);
            steps.push((sequence, format!("add the address {address}")));
        }
        for gateway in gateways(pod) {
            let sequence =
                message::permanent_neighbour(&mut request, link.ifindex, gateway, HOST_MAC);
            steps.push((sequence, format!("add the neighbour {gateway}")));
        }
        let tunnel = route::Tunnelling {
            source: None,
            encapsulating: &BTreeMap::new(),
            mtu: None,
        };
        for route in pod_routes(pod, link.ifindex) {
            let step = format!("add the route {}", route.dest);
            let encoded = route::encode(&mut request, &route, (PROTOCOL_BOOT, None), None, &tunnel);
            steps.push((encoded, step));
        }
        send(&mut socket, request, &steps).map_err(|(step, source)| {
            let v6 = pod.addresses.iter().find(|address| address.is_ipv6());
            match v6 {
                Some(address) if source.is(libc::EACCES) || source.is(libc::EPERM) => {
                    PodError::Ipv6Disabled {
                        name: pod.pod_name.clone(),
                        address: *address,
                    }
                }
                _ => PodError::Refused {
                    name: pod.pod_name.clone(),
                    step,
                    source,
                },
            }
        })
    }

    /// Whether the pod has an interface of this name; not where its socket can't tell.
    pub fn pod_has_interface(&mut self, name: &str, pod_socket: BorrowedFd<'_>) -> bool {
        Socket::adopt(pod_socket, Protocol::Route)
            .is_ok_and(|mut socket| matches!(link::by_name(&mut socket, name), Ok(Some(_))))
    }

    /// Compares the pod end with what [`Self::configure_pod`] makes of it. Answers what is wrong,
    /// one sentence each; nothing if all is well.
    pub fn check_pod(
        &mut self,
        pod: &PodLink,
        pod_socket: BorrowedFd<'_>,
    ) -> Result<Vec<String>, PodError> {
        let name = &pod.pod_name;
        let (mut socket, link) = match pod_end(pod, pod_socket) {
            Err(PodError::NoInterface { name }) => {
                return Ok(vec![format!("the pod has no interface {name}")]);
            }
            found => found?,
        };
        let mut wrong = link_differences(pod, &link);
        let read = |step: &str| {
            let step = step.to_owned();
            move |source| PodError::Refused {
                name: name.clone(),
                step,
                source,
            }
        };
        let addresses = address::dump(&mut socket).map_err(read("read its addresses"))?;
        for address in &pod.addresses {
            let there = |a: &model::dataplane::Address| {
                a.ifindex == link.ifindex && a.address.addr() == *address
            };
            if !addresses.iter().any(there) {
                wrong.push(format!("{name} lacks the address {address}"));
            }
        }
        let neighbours =
            permanent_neighbours(&mut socket, link.ifindex).map_err(read("read its neighbours"))?;
        for gateway in gateways(pod) {
            if !neighbours.contains(&(gateway, HOST_MAC)) {
                wrong.push(format!(
                    "{name} lacks the neighbour entry of its gateway {gateway}"
                ));
            }
        }
        let routes = pod_table(&mut socket).map_err(read("read its routes"))?;
        for route in pod_routes(pod, link.ifindex) {
            if !routes.contains(&route) {
                wrong.push(format!("{name} lacks the route {}", route.dest));
            }
        }
        Ok(wrong)
    }
}

fn pod_end(pod: &PodLink, socket: BorrowedFd<'_>) -> Result<(Socket, Link), PodError> {
    let name = pod.pod_name.clone();
    let mut socket = Socket::adopt(socket, Protocol::Route).map_err(PodError::Socket)?;
    let step = "look it up".to_owned();
    match link::by_name(&mut socket, &pod.pod_name) {
        Ok(Some(link)) => Ok((socket, link)),
        Ok(None) => Err(PodError::NoInterface { name }),
        Err(NetlinkError::Socket(errno)) => Err(PodError::Socket(errno)),
        Err(source) => Err(PodError::Refused { name, step, source }),
    }
}

fn link_differences(pod: &PodLink, link: &Link) -> Vec<String> {
    let name = &pod.pod_name;
    let mut wrong = Vec::new();
    if !link.up {
        wrong.push(format!("{name} is down"));
    }
    if link.mtu != pod.mtu {
        wrong.push(format!("{name} has MTU {}, not {}", link.mtu, pod.mtu));
    }
    if link.mac != Some(pod.pod_mac) {
        wrong.push(format!("{name} has another MAC address"));
    }
    wrong
}

/// The gateways of the families that the pod has.
fn gateways(pod: &PodLink) -> impl Iterator<Item = IpAddr> {
    let v4 = pod
        .addresses
        .iter()
        .any(IpAddr::is_ipv4)
        .then_some(IpAddr::from(GATEWAY_V4));
    let v6 = pod
        .addresses
        .iter()
        .any(IpAddr::is_ipv6)
        .then_some(IpAddr::from(GATEWAY_V6));
    v4.into_iter().chain(v6)
}

/// IPv4: the gateway on the link, then everything through it. IPv6: everything through the gateway,
/// which is link-local.
fn pod_routes(pod: &PodLink, ifindex: u32) -> Vec<Route> {
    let mut routes = Vec::new();
    for gateway in gateways(pod) {
        let dest = match gateway {
            IpAddr::V4(_) => {
                let kind = RouteKind::Device { ifindex };
                routes.push(Route {
                    dest: IpNet::from(gateway),
                    kind,
                });
                IpNet::from(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0))
            }
            IpAddr::V6(_) => IpNet::from(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
        };
        let hop = NextHop {
            gateway,
            ifindex: Some(ifindex),
            onlink: false,
            weight: 1,
        };
        routes.push(Route {
            dest,
            kind: RouteKind::Via(vec![hop]),
        });
    }
    routes
}

fn pod_table(socket: &mut Socket) -> Result<Vec<Route>, NetlinkError> {
    let mut routes = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let found: Vec<Route> =
            route::messages(socket, family, |found: &mut Vec<Route>, message| {
                found.extend(route::kernel_route(message).map(|route| route.route));
            })?;
        routes.extend(found);
    }
    Ok(routes)
}

/// Entries of one link that never expire.
pub(super) fn permanent_neighbours(
    socket: &mut Socket,
    ifindex: u32,
) -> Result<Vec<(IpAddr, [u8; 6])>, NetlinkError> {
    socket.dump(
        |encoder| {
            encoder.message(GET_NEIGHBOUR, Flags::DUMP, &[0; 12], |_| {});
        },
        Vec::new,
        |neighbours, frame| {
            let Some(fixed) = frame.payload().get(..12) else {
                return;
            };
            let of = ne_u32(&fixed[4..8]);
            let state = u16::from_ne_bytes([fixed[8], fixed[9]]);
            if of == Some(ifindex) && state & NUD_PERMANENT != 0 {
                neighbours.extend(neighbour(frame.attributes(12)));
            }
        },
    )
}

fn neighbour(attributes: Attributes<'_>) -> Option<(IpAddr, [u8; 6])> {
    let address = attributes.find(1)?;
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
    };
    Some((address, attributes.find(2)?.try_into().ok()?))
}
