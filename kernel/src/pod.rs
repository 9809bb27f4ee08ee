//! A pod's link: both ends, in few datagrams.
//!
//! The host end answers for the pod's gateways by itself: it holds fe80::1 (scope link) and
//! 169.254.1.1 (scope host, so that it is never chosen as a source address). A pod that loses its
//! permanent neighbour entries resolves them again, whatever routes the node has.

use crate::kernel::Kernel;
use crate::link::{
    self, IFLA_ADDRESS, IFLA_IFALIAS, IFLA_IFNAME, IFLA_LINKINFO, IFLA_MTU, LinkError,
};
use crate::message::{
    self, GET_NEIGHBOUR, NEW_LINK, NUD_PERMANENT, SCOPE_HOST, SCOPE_LINK, SCOPE_UNIVERSE, SET_LINK,
    ifinfomsg,
};
use crate::netlink::{Attributes, Encoder, Errno, Flags, NetlinkError, Protocol, Socket, ne_u32};
use crate::{address, route};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::dataplane::{Link, NextHop, PodLink, Route, RouteKind};
use model::names::{GATEWAY_V4, GATEWAY_V6, HOST_MAC};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const VETH_INFO_PEER: u16 = 1;
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
    /// Creates the veth of a pod: the host end here, named, numbered and up; the pod end is born
    /// inside `pod_netns`. The host end's parameters and neighbour entries are in place on return.
    ///
    /// On failure nothing is left behind.
    pub fn create_pod_link(
        &mut self,
        pod: &PodLink,
        pod_netns: BorrowedFd<'_>,
    ) -> Result<Link, LinkError> {
        self.create_veth(pod, pod_netns)?;
        let created = self.configure_host_end(pod);
        if created.is_err() {
            // The first failure is the one to report; the link is of no use without its parameters.
            let _ = self.delete_link(pod.host_ifindex);
        }
        created
    }

    /// Sets or repairs what belongs to the host end: alias, addresses, neighbours, parameters, up.
    pub fn configure_host_end(&mut self, pod: &PodLink) -> Result<Link, LinkError> {
        let name = pod.host_name.as_str();
        let ipv6 = pod.addresses.iter().any(IpAddr::is_ipv6);
        let mut request = self.route.encoder();
        let mut steps = vec![(set_host_end(&mut request, pod), "set its alias")];
        send(&mut self.route, request, &steps).map_err(|(step, source)| LinkError::Refused {
            name: name.into(),
            step,
            source,
        })?;
        self.host_interface_sysctls(name, ipv6)?;

        let mut request = self.route.encoder();
        steps.clear();
        steps.push((
            message::link_up(&mut request, pod.host_ifindex),
            "set it up",
        ));
        let gateway = IpAddr::from(GATEWAY_V4);
        let added = message::add_address(&mut request, pod.host_ifindex, gateway, 32, SCOPE_HOST);
        steps.push((added, "add the address 169.254.1.1"));
        if ipv6 {
            let gateway = IpAddr::from(GATEWAY_V6);
            let added =
                message::add_address(&mut request, pod.host_ifindex, gateway, 64, SCOPE_LINK);
            steps.push((added, "add the address fe80::1"));
        }
        for address in &pod.addresses {
            let (ifindex, mac) = (pod.host_ifindex, pod.pod_mac);
            let sequence = message::permanent_neighbour(&mut request, ifindex, *address, mac);
            steps.push((sequence, "add the pod as a neighbour"));
        }
        send(&mut self.route, request, &steps).map_err(|(step, source)| LinkError::Refused {
            name: name.into(),
            step,
            source,
        })?;
        Ok(Link {
            ifindex: pod.host_ifindex,
            name: pod.host_name.clone(),
            alias: Some(pod.alias.clone()),
            kind: Some("veth".into()),
            up: true,
            carrier: false,
            mtu: pod.mtu,
            mac: Some(HOST_MAC),
        })
    }

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
        for route in pod_routes(pod, link.ifindex) {
            let step = format!("add the route {}", route.dest);
            steps.push((route::encode(&mut request, &route, PROTOCOL_BOOT), step));
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

    fn create_veth(&mut self, pod: &PodLink, netns: BorrowedFd<'_>) -> Result<(), LinkError> {
        let mut request = self.route.encoder();
        let fixed = ifinfomsg(pod.host_ifindex, 0, 0);
        request.message(NEW_LINK, Flags::CREATE_EXCLUSIVE, &fixed, |encoder| {
            end(encoder, &pod.host_name, HOST_MAC, pod.mtu);
            encoder.nested(IFLA_LINKINFO, |encoder| {
                encoder.string(1, "veth");
                encoder.nested(2, |encoder| {
                    encoder.nested(VETH_INFO_PEER, |encoder| {
                        encoder.raw(&[0; 16]);
                        end(encoder, &pod.pod_name, pod.pod_mac, pod.mtu);
                        encoder.u32(IFLA_NET_NS_FD, netns.as_raw_fd() as u32);
                    });
                });
            });
        });
        let Err(error) = self.route.request(request) else {
            return Ok(());
        };
        let name = pod.host_name.clone();
        match error.errno() {
            Some(libc::EEXIST | libc::EBUSY) => Err(self.taken(pod, error)),
            Some(libc::EOPNOTSUPP) => Err(LinkError::Unsupported { name, kind: "veth" }),
            _ => Err(LinkError::Refused {
                name,
                step: "create",
                source: error,
            }),
        }
    }

    /// Which of the three names of a link is in use.
    fn taken(&mut self, pod: &PodLink, source: NetlinkError) -> LinkError {
        let name = pod.host_name.clone();
        let by_name = link::by_name(&mut self.route, &pod.host_name);
        let by_index = link::by_index(&mut self.route, pod.host_ifindex);
        match (by_name, by_index) {
            (Ok(Some(_)), _) => LinkError::NameTaken { name },
            (Ok(None), Ok(Some(_))) => LinkError::IndexTaken {
                name,
                ifindex: pod.host_ifindex,
            },
            // An index that no link shows is held by one that is about to vanish.
            (Ok(None), Ok(None)) if source.is(libc::EBUSY) => LinkError::IndexTaken {
                name,
                ifindex: pod.host_ifindex,
            },
            (Ok(None), Ok(None)) => LinkError::PodNameTaken {
                name,
                pod_name: pod.pod_name.clone(),
            },
            _ => LinkError::Refused {
                name,
                step: "create",
                source,
            },
        }
    }
}

/// What both ends have in common.
fn end(encoder: &mut Encoder, name: &str, mac: [u8; 6], mtu: u32) {
    encoder.string(IFLA_IFNAME, name);
    encoder.u32(IFLA_MTU, mtu);
    encoder.attribute(IFLA_ADDRESS, &mac);
    // More than one queue costs the kernel an RCU grace period.
    encoder.u32(IFLA_NUM_TX_QUEUES, 1);
    encoder.u32(IFLA_NUM_RX_QUEUES, 1);
}

/// Alias, and no link-local address but ours. Before it is up, or the kernel adds one by itself.
fn set_host_end(request: &mut Encoder, pod: &PodLink) -> u32 {
    const MODE_NONE: u8 = 1;
    let fixed = ifinfomsg(pod.host_ifindex, 0, 0);
    request.message(SET_LINK, Flags::QUIET, &fixed, |encoder| {
        encoder.string(IFLA_IFALIAS, &pod.alias);
        encoder.nested(IFLA_AF_SPEC, |encoder| {
            encoder.nested(libc::AF_INET6 as u16, |encoder| {
                encoder.attribute(IFLA_INET6_ADDR_GEN_MODE, &[MODE_NONE]);
            });
        });
    })
}

/// Sends a datagram whose messages are the steps of one thing; answers the first that failed.
fn send<S: Clone>(
    socket: &mut Socket,
    mut request: Encoder,
    steps: &[(u32, S)],
) -> Result<(), (S, NetlinkError)> {
    request.acknowledge(request.len() - 1);
    let last = &steps[steps.len() - 1].1;
    let acks = socket
        .transact(&request)
        .map_err(|error| (last.clone(), error))?;
    let Some((sequence, error)) = acks.refused.into_iter().next() else {
        let answered = !acks.accepted.is_empty();
        return if answered {
            Ok(())
        } else {
            Err((last.clone(), NetlinkError::NoAnswer))
        };
    };
    let step = steps
        .iter()
        .find(|(of, _)| *of == sequence)
        .map_or(last, |(_, step)| step);
    Err((step.clone(), error))
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

fn permanent_neighbours(
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
