//! The tunnel device for VXLAN (RFC 7348): nothing is learnt and nothing is flooded. Where the
//! other nodes' ends are is written ([`crate::vtep`]).

use crate::kernel::Kernel;
use crate::link::{self, IFLA_ADDRESS, IFLA_IFNAME, IFLA_LINKINFO, IFLA_MTU, LinkError};
use crate::message::{self, GET_LINK, NEW_LINK, ifinfomsg, octets};
use crate::netlink::{Encoder, Flags, NetlinkError, Socket};
use model::dataplane::{Link, VxlanDevice};
use std::net::IpAddr;

const KIND: &str = "vxlan";
/// `enum` of `linux/if_link.h`.
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_TOS: u16 = 6;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const IFLA_VXLAN_UDP_CHECKSUM: u16 = 18;
const IFLA_VXLAN_TTL_INHERIT: u16 = 28;
const IFLA_VXLAN_DF: u16 = 29;
/// `TOS` of the inner header (RFC 6040 applies).
const TOS_INHERIT: u8 = 1;
/// `VXLAN_DF_INHERIT`.
const DF_INHERIT: u8 = 2;

impl Kernel {
    /// Creates the device, or changes it, and sets it up; answers its index. Where its identifier,
    /// port or family differ, it is made anew: they can't be changed. One that is as wanted is not
    /// touched, so that no event follows.
    ///
    /// TTL, TOS and DF of the outer header are those of the inner one, so that path MTU discovery
    /// works. Its address is as that of the IPIP device.
    pub fn ensure_vxlan(&mut self, device: &VxlanDevice) -> Result<u32, LinkError> {
        let name = &device.name;
        let refused = |step| LinkError::refused(name, step);
        let found = self.tunnel_device(name, KIND)?;
        let told = match &found {
            Some(link) => settings(&mut self.route, link.ifindex).map_err(refused("look it up"))?,
            None => None,
        };
        let (vni, port, local) = wanted(device);
        let same = |told: &Settings| (&told.0, &told.1, told.2.len()) == (&vni, &port, local.len());
        let kept = told.as_ref().is_some_and(same);
        if let Some(link) = found.as_ref().filter(|_| !kept) {
            self.delete_link(link.ifindex)?;
        }
        let link = match found.filter(|_| kept) {
            Some(link) => link,
            None => self.create_vxlan(device)?,
        };
        if told.is_some_and(|told| kept && told.2 != local) {
            self.move_vxlan(device, link.ifindex)
                .map_err(refused("change its address"))?;
        }
        if link.mac != Some(device.mac) {
            let mut request = self.route.encoder();
            let fixed = ifinfomsg(link.ifindex, 0, 0);
            request.message(message::SET_LINK, Flags::QUIET, &fixed, |encoder| {
                encoder.attribute(IFLA_ADDRESS, &device.mac);
            });
            let changed = self.route.request(request);
            changed.map_err(refused("change its MAC"))?;
        }
        if link.mtu != device.mtu {
            let mut request = self.route.encoder();
            let fixed = ifinfomsg(link.ifindex, 0, 0);
            request.message(message::SET_LINK, Flags::QUIET, &fixed, |encoder| {
                encoder.u32(IFLA_MTU, device.mtu);
            });
            self.route
                .request(request)
                .map_err(refused("change its MTU"))?;
        }
        self.host_interface_sysctls(name, true)?;
        self.set_tunnel_address(device.address, link.ifindex)
            .map_err(refused("set its address"))?;
        if !link.up {
            let mut request = self.route.encoder();
            message::link_up(&mut request, link.ifindex);
            self.route.request(request).map_err(refused("set it up"))?;
        }
        if let IpAddr::V4(local) = device.local {
            let source = device.address.unwrap_or(local);
            self.tunnel_sources.insert(link.ifindex, source);
        }
        Ok(link.ifindex)
    }

    /// Removes the device. One that is not there is no failure; one of another kind stays.
    pub fn remove_vxlan(&mut self, name: &str) -> Result<(), LinkError> {
        self.remove_tunnel_device(name, KIND)
    }

    /// Changes the outer source address.
    fn move_vxlan(&mut self, device: &VxlanDevice, ifindex: u32) -> Result<(), NetlinkError> {
        let mut request = self.route.encoder();
        request.message(
            NEW_LINK,
            Flags::QUIET,
            &ifinfomsg(ifindex, 0, 0),
            |encoder| {
                encoder.nested(IFLA_LINKINFO, |encoder| {
                    encoder.string(1, KIND);
                    encoder.nested(2, |encoder| {
                        encoder.attribute(local_attribute(device.local), &octets(device.local));
                    });
                });
            },
        );
        self.route.request(request)
    }

    fn create_vxlan(&mut self, device: &VxlanDevice) -> Result<Link, LinkError> {
        let name = device.name.clone();
        let mut request = self.route.encoder();
        let fixed = ifinfomsg(0, 0, 0);
        request.message(NEW_LINK, Flags::CREATE_EXCLUSIVE, &fixed, |encoder| {
            encoder.string(IFLA_IFNAME, &device.name);
            encoder.u32(IFLA_MTU, device.mtu);
            encoder.attribute(IFLA_ADDRESS, &device.mac);
            link_info(encoder, device);
        });
        let created = self.route.request(request);
        created.map_err(|source| match source.errno() {
            Some(libc::EOPNOTSUPP) => LinkError::Unsupported {
                name: name.clone(),
                kind: KIND,
            },
            _ => LinkError::refused(&name, "create")(source),
        })?;
        let link = link::by_name(&mut self.route, &name);
        let link = link.and_then(|link| link.ok_or(NetlinkError::NoAnswer));
        link.map_err(LinkError::refused(&name, "look it up"))
    }
}

fn link_info(encoder: &mut Encoder, device: &VxlanDevice) {
    encoder.nested(IFLA_LINKINFO, |encoder| {
        encoder.string(1, KIND);
        encoder.nested(2, |encoder| {
            encoder.u32(IFLA_VXLAN_ID, device.vni);
            encoder.attribute(IFLA_VXLAN_PORT, &device.port.to_be_bytes());
            encoder.attribute(IFLA_VXLAN_LEARNING, &[0]);
            encoder.attribute(IFLA_VXLAN_TOS, &[TOS_INHERIT]);
            encoder.attribute(IFLA_VXLAN_TTL_INHERIT, &[]);
            encoder.attribute(IFLA_VXLAN_UDP_CHECKSUM, &[1]);
            if device.local.is_ipv4() {
                encoder.attribute(IFLA_VXLAN_DF, &[DF_INHERIT]);
            }
            encoder.attribute(local_attribute(device.local), &octets(device.local));
        });
    });
}

fn local_attribute(local: IpAddr) -> u16 {
    match local {
        IpAddr::V4(_) => IFLA_VXLAN_LOCAL,
        IpAddr::V6(_) => IFLA_VXLAN_LOCAL6,
    }
}

/// Identifier, port, local address.
type Settings = (Vec<u8>, Vec<u8>, Vec<u8>);

fn wanted(device: &VxlanDevice) -> Settings {
    (
        device.vni.to_ne_bytes().to_vec(),
        device.port.to_be_bytes().to_vec(),
        octets(device.local),
    )
}

fn settings(socket: &mut Socket, ifindex: u32) -> Result<Option<Settings>, NetlinkError> {
    socket.dump(
        |encoder| {
            encoder.message(GET_LINK, Flags::QUIET, &ifinfomsg(ifindex, 0, 0), |_| {});
        },
        || None,
        |found, frame| {
            let data = frame.attributes(16).inside(IFLA_LINKINFO).inside(2);
            let local = data
                .find(IFLA_VXLAN_LOCAL)
                .or_else(|| data.find(IFLA_VXLAN_LOCAL6));
            let bytes = |found: Option<&[u8]>| found.unwrap_or_default().to_vec();
            let fields = (data.find(IFLA_VXLAN_ID), data.find(IFLA_VXLAN_PORT), local);
            *found = Some((bytes(fields.0), bytes(fields.1), bytes(fields.2)));
        },
    )
}

/// Whether the kernel has the kind: it looks the kind up before it refuses an identifier of more
/// than 24 bits, so that nothing is ever created.
pub(crate) fn probe(socket: &mut Socket) -> bool {
    const IMPOSSIBLE_VNI: u32 = 1 << 24;
    let mut request = socket.encoder();
    let fixed = ifinfomsg(0, 0, 0);
    request.message(NEW_LINK, Flags::CREATE_EXCLUSIVE, &fixed, |encoder| {
        encoder.string(IFLA_IFNAME, "ocicat-probe");
        encoder.nested(IFLA_LINKINFO, |encoder| {
            encoder.string(1, KIND);
            encoder.nested(2, |encoder| encoder.u32(IFLA_VXLAN_ID, IMPOSSIBLE_VNI));
        });
    });
    let answer = socket.request(request);
    answer.is_err_and(|error| error.is(libc::ERANGE))
}
