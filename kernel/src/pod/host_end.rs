//! The host end: named, numbered and aliased by us.

use super::pod_end::permanent_neighbours;
use super::send;
use crate::kernel::Kernel;
use crate::link::{
    self, IFLA_ADDRESS, IFLA_IFALIAS, IFLA_IFNAME, IFLA_LINKINFO, IFLA_MTU, LinkError,
};
use crate::message::{self, NEW_LINK, SCOPE_HOST, SCOPE_LINK, SET_LINK, ifinfomsg};
use crate::netlink::{Encoder, Flags, NetlinkError};
use ipnet::IpNet;
use model::dataplane::{Link, PodLink};
use model::names::{GATEWAY_V4, GATEWAY_V6, HOST_MAC};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const VETH_INFO_PEER: u16 = 1;

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
        let localnet = if pod.loopback { "1" } else { "0" };
        self.set_sysctl(&format!("ipv4/conf/{name}/route_localnet"), localnet)?;

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

    /// Gives a host end addresses of the node's own, and takes others away. Nothing chooses them as
    /// a source by itself: they are there to be connected to.
    pub fn readdress_host_end(
        &mut self,
        host_end: &Link,
        add: &[IpAddr],
        remove: &[IpNet],
    ) -> Result<(), LinkError> {
        let ifindex = host_end.ifindex;
        let mut request = self.route.encoder();
        let mut steps = Vec::new();
        for net in remove {
            let (address, length) = (net.addr(), net.prefix_len());
            let removed = message::delete_address(&mut request, ifindex, address, length);
            steps.push((removed, "remove an address"));
        }
        for address in add {
            let added = message::add_quiet_address(&mut request, ifindex, *address);
            steps.push((added, "add an address"));
        }
        send(&mut self.route, request, &steps).map_err(|(step, source)| LinkError::Refused {
            name: host_end.name.clone(),
            step,
            source,
        })
    }

    /// Compares the host end with what [`Self::configure_host_end`] makes of it. Answers what is
    /// wrong, one sentence each; nothing if all is well.
    pub fn check_host_end(&mut self, pod: &PodLink) -> Result<Vec<String>, LinkError> {
        let name = &pod.host_name;
        let refused = |source| LinkError::Refused {
            name: name.clone(),
            step: "check",
            source,
        };
        let link = link::by_index(&mut self.route, pod.host_ifindex).map_err(refused)?;
        let Some(link) = link.filter(|link| link.name == *name) else {
            return Ok(vec![format!("the node has no interface {name}")]);
        };
        let mut wrong = Vec::new();
        if !link.up {
            wrong.push(format!("{name} is down"));
        }
        if link.mtu != pod.mtu {
            wrong.push(format!("{name} has MTU {}, not {}", link.mtu, pod.mtu));
        }
        let known = permanent_neighbours(&mut self.route, link.ifindex).map_err(refused)?;
        for address in &pod.addresses {
            if !known.contains(&(*address, pod.pod_mac)) {
                wrong.push(format!("{name} lacks the neighbour entry of {address}"));
            }
        }
        Ok(wrong)
    }

    fn create_veth(&mut self, pod: &PodLink, netns: BorrowedFd<'_>) -> Result<(), LinkError> {
        let mut request = self.route.encoder();
        let fixed = ifinfomsg(pod.host_ifindex, 0, 0);
        request.message(NEW_LINK, Flags::CREATE_EXCLUSIVE, &fixed, |encoder| {
            end(encoder, pod, &pod.host_name, HOST_MAC);
            encoder.nested(IFLA_LINKINFO, |encoder| {
                encoder.string(1, "veth");
                encoder.nested(2, |encoder| {
                    encoder.nested(VETH_INFO_PEER, |encoder| {
                        encoder.raw(&[0; 16]);
                        end(encoder, pod, &pod.pod_name, pod.pod_mac);
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
fn end(encoder: &mut Encoder, pod: &PodLink, name: &str, mac: [u8; 6]) {
    encoder.string(IFLA_IFNAME, name);
    encoder.u32(IFLA_MTU, pod.mtu);
    encoder.attribute(IFLA_ADDRESS, &mac);
    // More than one queue costs the kernel an RCU grace period.
    encoder.u32(IFLA_NUM_TX_QUEUES, pod.queues);
    encoder.u32(IFLA_NUM_RX_QUEUES, pod.queues);
}

/// Alias, and no link-local address but ours. Before it is up, or the kernel adds one by itself.
fn set_host_end(request: &mut Encoder, pod: &PodLink) -> u32 {
    const MODE_NONE: u8 = 1;
    let fixed = ifinfomsg(pod.host_ifindex, 0, 0);
    request.message(SET_LINK, Flags::QUIET, &fixed, |encoder| {
        encoder.string(IFLA_IFALIAS, &pod.alias);
        // Without IPv6 in the kernel this would be refused; without addresses IPv6 is disabled.
        if !pod.addresses.iter().any(IpAddr::is_ipv6) {
            return;
        }
        encoder.nested(IFLA_AF_SPEC, |encoder| {
            encoder.nested(libc::AF_INET6 as u16, |encoder| {
                encoder.attribute(IFLA_INET6_ADDR_GEN_MODE, &[MODE_NONE]);
            });
        });
    })
}
