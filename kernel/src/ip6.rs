//! The tunnel device for IP in IPv6 (RFC 2473), for packets of both families.
//!
//! A route that leads through it says the outer header (a lightweight tunnel): IPv6 has no gateway
//! that another interface leads to, and on a shared subnet another interface always does.

use crate::kernel::Kernel;
use crate::link::{self, IFLA_IFNAME, IFLA_LINKINFO, IFLA_MTU, LinkError};
use crate::message::{self, NEW_LINK, SET_LINK, ifinfomsg};
use crate::netlink::{Encoder, Flags, NetlinkError, Socket};
use model::dataplane::{Ip6Device, Link};

const KIND: &str = "ip6tnl";
const IFLA_IPTUN_PROTO: u16 = 9;
const IFLA_IPTUN_COLLECT_METADATA: u16 = 19;

impl Kernel {
    /// Creates the device or changes its MTU, and sets it up; answers its index. One that is as
    /// wanted is not touched, so that no event follows.
    ///
    /// The hop limit of the outer header is that of the inner one. Its address is as that of the
    /// IPIP device.
    pub fn ensure_ip6(&mut self, device: &Ip6Device) -> Result<u32, LinkError> {
        let name = &device.name;
        let refused = |step| LinkError::refused(name, step);
        let link = match self.tunnel_device(name, KIND)? {
            Some(link) => link,
            None => self.create_ip6(device)?,
        };
        if link.mtu != device.mtu {
            let mut request = self.route.encoder();
            let fixed = ifinfomsg(link.ifindex, 0, 0);
            request.message(SET_LINK, Flags::QUIET, &fixed, |encoder| {
                encoder.u32(IFLA_MTU, device.mtu);
            });
            let changed = self.route.request(request);
            changed.map_err(refused("change its MTU"))?;
        }
        self.host_interface_sysctls(name, true)?;
        self.set_sysctl(&format!("ipv4/conf/{name}/route_localnet"), "0")?;
        self.set_tunnel_address(device.address, link.ifindex)
            .map_err(refused("set its address"))?;
        if !link.up {
            let mut request = self.route.encoder();
            message::link_up(&mut request, link.ifindex);
            self.route.request(request).map_err(refused("set it up"))?;
        }
        match device.address {
            Some(address) => drop(self.tunnel_sources.insert(link.ifindex, address)),
            None => drop(self.tunnel_sources.remove(&link.ifindex)),
        }
        self.encapsulating.insert(link.ifindex, device.local);
        Ok(link.ifindex)
    }

    fn create_ip6(&mut self, device: &Ip6Device) -> Result<Link, LinkError> {
        let name = device.name.clone();
        let mut request = self.route.encoder();
        let fixed = ifinfomsg(0, 0, 0);
        request.message(NEW_LINK, Flags::CREATE_EXCLUSIVE, &fixed, |encoder| {
            encoder.string(IFLA_IFNAME, &device.name);
            encoder.u32(IFLA_MTU, device.mtu);
            link_info(encoder, 0);
        });
        let created = self.route.request(request);
        created.map_err(|source| match source.errno() {
            Some(libc::EOPNOTSUPP) => LinkError::Unsupported {
                name: name.clone(),
                kind: KIND,
            },
            // A name that is taken was looked up: there is one such device in a namespace.
            Some(libc::EEXIST) => LinkError::ExternalTaken { name: name.clone() },
            _ => LinkError::refused(&name, "create")(source),
        })?;
        let link = link::by_name(&mut self.route, &name);
        let link = link.and_then(|link| link.ok_or(NetlinkError::NoAnswer));
        link.map_err(LinkError::refused(&name, "look it up"))
    }

    /// Removes the device. One that is not there is no failure; one of another kind stays.
    pub fn remove_ip6(&mut self, name: &str) -> Result<(), LinkError> {
        self.remove_tunnel_device(name, KIND)
    }
}

/// A device of which each packet says the outer header.
fn link_info(encoder: &mut Encoder, protocol: u8) {
    encoder.nested(IFLA_LINKINFO, |encoder| {
        encoder.string(1, KIND);
        encoder.nested(2, |encoder| {
            encoder.attribute(IFLA_IPTUN_PROTO, &[protocol]);
            encoder.attribute(IFLA_IPTUN_COLLECT_METADATA, &[]);
        });
    });
}

/// Whether the kernel has the kind: it looks the kind up before it refuses an impossible protocol,
/// so that nothing is ever created.
pub(crate) fn probe(socket: &mut Socket) -> bool {
    const IMPOSSIBLE_PROTOCOL: u8 = 255;
    let mut request = socket.encoder();
    let fixed = ifinfomsg(0, 0, 0);
    request.message(NEW_LINK, Flags::CREATE_EXCLUSIVE, &fixed, |encoder| {
        encoder.string(IFLA_IFNAME, "ocicat-probe");
        link_info(encoder, IMPOSSIBLE_PROTOCOL);
    });
    socket
        .request(request)
        .is_err_and(|error| error.is(libc::EINVAL))
}
