//! The tunnel device for protocol 4 (RFC 2003).

use crate::kernel::Kernel;
use crate::link::{self, IFLA_IFNAME, IFLA_LINKINFO, IFLA_MTU, LinkError};
use crate::message::{self, GET_LINK, NEW_LINK, ifinfomsg};
use crate::netlink::{Encoder, Flags, NetlinkError, Socket};
use model::dataplane::{IpipDevice, Link};
use std::net::Ipv4Addr;

const KIND: &str = "ipip";
const IFLA_IPTUN_LOCAL: u16 = 2;
const IFLA_IPTUN_TTL: u16 = 4;
const IFLA_IPTUN_TOS: u16 = 5;
const IFLA_IPTUN_PROTO: u16 = 9;
const IFLA_IPTUN_PMTUDISC: u16 = 10;
/// `IPPROTO_IPIP`.
const PROTOCOL: u8 = 4;
/// `TOS` of the inner header (RFC 6040 applies).
const TOS_INHERIT: u8 = 1;

impl Kernel {
    /// Creates the device or changes it to what is wanted, and sets it up; answers its index.
    ///
    /// It has no remote end: the gateway of a route through it is the outer destination. The outer
    /// TTL and TOS are the inner ones, and the outer header has DF set, so that path MTU discovery works.
    /// Where no address is wanted it has one that is never a source: without any, the kernel drops
    /// what comes from pods to which another interface leads, even with the loose reverse path
    /// filter, and while a pool changes its mode the two ends of a path differ.
    /// One that is as wanted is not touched, so that no event follows.
    pub fn ensure_ipip(&mut self, device: &IpipDevice) -> Result<u32, LinkError> {
        let name = &device.name;
        let refused = |step| LinkError::refused(name, step);
        let found = self.tunnel_device(name, KIND)?;
        let present = match &found {
            Some(link) => settings(&mut self.route, link.ifindex).map_err(refused("look it up"))?,
            None => None,
        };
        let same =
            |link: &&Link| link.mtu == device.mtu && present == Some((device.local, TOS_INHERIT));
        let link = match found.as_ref().filter(same) {
            Some(link) => link.clone(),
            None => {
                self.write_ipip(device, found.map(|link| link.ifindex))?;
                let link = link::by_name(&mut self.route, name).map_err(refused("look it up"))?;
                link.ok_or(NetlinkError::NoAnswer)
                    .map_err(refused("look it up"))?
            }
        };
        self.host_interface_sysctls(name, false)?;
        self.set_sysctl(&format!("ipv4/conf/{name}/route_localnet"), "0")?;
        self.set_tunnel_address(device.address, link.ifindex)
            .map_err(refused("set its address"))?;
        if !link.up {
            let mut request = self.route.encoder();
            message::link_up(&mut request, link.ifindex);
            self.route.request(request).map_err(refused("set it up"))?;
        }
        let source = device.address.unwrap_or(device.local);
        self.tunnel_sources.insert(link.ifindex, source);
        Ok(link.ifindex)
    }

    /// Removes the device. One that is not there is no failure; one of another kind stays.
    pub fn remove_ipip(&mut self, name: &str) -> Result<(), LinkError> {
        self.remove_tunnel_device(name, KIND)
    }

    fn write_ipip(&mut self, device: &IpipDevice, ifindex: Option<u32>) -> Result<(), LinkError> {
        let mut request = self.route.encoder();
        let flags = if ifindex.is_some() {
            Flags::QUIET
        } else {
            Flags::CREATE_EXCLUSIVE
        };
        request.message(
            NEW_LINK,
            flags,
            &ifinfomsg(ifindex.unwrap_or(0), 0, 0),
            |encoder| {
                // A device that is up refuses a name, even its own.
                if ifindex.is_none() {
                    encoder.string(IFLA_IFNAME, &device.name);
                }
                encoder.u32(IFLA_MTU, device.mtu);
                link_info(encoder, device.local, PROTOCOL);
            },
        );
        let name = device.name.clone();
        self.route
            .request(request)
            .map_err(|source| match source.errno() {
                Some(libc::EOPNOTSUPP) => LinkError::Unsupported { name, kind: KIND },
                Some(libc::EEXIST) => LinkError::TunnelTaken {
                    name,
                    local: device.local,
                },
                _ if ifindex.is_some() => LinkError::Refused {
                    name,
                    step: "change",
                    source,
                },
                _ => LinkError::Refused {
                    name,
                    step: "create",
                    source,
                },
            })
    }
}

/// Outer source address of a tunnel, and its `TOS`.
fn settings(socket: &mut Socket, ifindex: u32) -> Result<Option<(Ipv4Addr, u8)>, NetlinkError> {
    socket.dump(
        |encoder| {
            encoder.message(GET_LINK, Flags::QUIET, &ifinfomsg(ifindex, 0, 0), |_| {});
        },
        || None,
        |found, frame| {
            let data = frame.attributes(16).inside(IFLA_LINKINFO).inside(2);
            let octets = data
                .find(IFLA_IPTUN_LOCAL)
                .and_then(|bytes| bytes.try_into().ok());
            let tos = data.find(IFLA_IPTUN_TOS).and_then(|bytes| bytes.first());
            let both = octets.zip(tos);
            *found = both.map(|(octets, tos): ([u8; 4], _)| (octets.into(), *tos));
        },
    )
}

/// Whether the kernel has the kind: it looks the kind up before it refuses an impossible protocol,
/// so that nothing is ever created.
pub(crate) fn probe(socket: &mut Socket) -> bool {
    const IMPOSSIBLE_PROTOCOL: u8 = 255;
    let mut request = socket.encoder();
    let fixed = ifinfomsg(0, 0, 0);
    request.message(NEW_LINK, Flags::CREATE_EXCLUSIVE, &fixed, |encoder| {
        encoder.string(IFLA_IFNAME, "ocicat-probe");
        link_info(encoder, Ipv4Addr::LOCALHOST, IMPOSSIBLE_PROTOCOL);
    });
    socket
        .request(request)
        .is_err_and(|error| error.is(libc::EINVAL))
}

fn link_info(encoder: &mut Encoder, local: Ipv4Addr, protocol: u8) {
    encoder.nested(IFLA_LINKINFO, |encoder| {
        encoder.string(1, KIND);
        encoder.nested(2, |encoder| {
            encoder.attribute(IFLA_IPTUN_LOCAL, &local.octets());
            encoder.attribute(IFLA_IPTUN_TTL, &[0]);
            encoder.attribute(IFLA_IPTUN_TOS, &[TOS_INHERIT]);
            encoder.attribute(IFLA_IPTUN_PMTUDISC, &[1]);
            encoder.attribute(IFLA_IPTUN_PROTO, &[protocol]);
        });
    });
}
