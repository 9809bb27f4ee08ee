//! What tunnel devices of all kinds have in common.

use crate::kernel::Kernel;
use crate::link::{self, LinkError};
use crate::message::{self, SCOPE_HOST, SCOPE_UNIVERSE};
use crate::netlink::NetlinkError;
use ipnet::IpNet;
use model::dataplane::{Address, Link, Tunnel};
use model::names::GATEWAY_V4;
use std::net::{IpAddr, Ipv4Addr};

/// A tunnel that is as wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadeTunnel {
    /// Index of its device.
    pub ifindex: u32,
    /// Entries of its tables that had to be written or removed.
    pub entries: usize,
}

impl Kernel {
    /// Makes a tunnel be as wanted.
    pub fn ensure_tunnel(&mut self, tunnel: &Tunnel) -> Result<MadeTunnel, LinkError> {
        let (ifindex, entries) = match tunnel {
            Tunnel::Ipip(device) => (self.ensure_ipip(device)?, 0),
            Tunnel::Ip6(device) => (self.ensure_ip6(device)?, 0),
            Tunnel::Vxlan { device, ends } => {
                let ifindex = self.ensure_vxlan(device)?;
                (ifindex, self.set_vteps(&device.name, ifindex, ends)?)
            }
        };
        Ok(MadeTunnel { ifindex, entries })
    }

    /// Removes a tunnel device. One that is not there is no failure; one of a kind that ours never
    /// are stays.
    pub fn remove_tunnel(&mut self, name: &str) -> Result<(), LinkError> {
        self.remove_ipip(name)?;
        self.remove_ip6(name)?;
        self.remove_vxlan(name)
    }

    /// The device of this name, if there is one; an error if it is of another kind.
    pub(crate) fn tunnel_device(
        &mut self,
        name: &str,
        kind: &'static str,
    ) -> Result<Option<Link>, LinkError> {
        let found = link::by_name(&mut self.route, name);
        let found = found.map_err(LinkError::refused(name, "look it up"))?;
        match found {
            Some(link) if link.kind.as_deref() != Some(kind) => Err(LinkError::WrongKind {
                name: name.to_owned(),
                wanted: kind,
                found: link.kind.unwrap_or_else(|| "device".into()),
            }),
            found => Ok(found),
        }
    }

    /// Removes the device. One that is not there is no failure; one of another kind stays.
    pub(crate) fn remove_tunnel_device(
        &mut self,
        name: &str,
        kind: &'static str,
    ) -> Result<(), LinkError> {
        match self.tunnel_device(name, kind) {
            Ok(Some(link)) => {
                self.tunnel_sources.remove(&link.ifindex);
                self.encapsulating.remove(&link.ifindex);
                self.delete_link(link.ifindex)
            }
            Ok(None) | Err(LinkError::WrongKind { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes every IPv4 address of the device but the wanted one. The kernel removes routes whose
    /// source an address is together with it: those through the tunnel name another one by then.
    pub fn drop_stale_addresses(&mut self, tunnel: &Tunnel) -> Result<(), LinkError> {
        let name = tunnel.name();
        let refused = |step| LinkError::refused(name, step);
        let found = link::by_name(&mut self.route, name).map_err(refused("look it up"))?;
        let Some(link) = found else { return Ok(()) };
        let present = self.ipv4_addresses(link.ifindex);
        let wanted = IpAddr::from(tunnel.address().unwrap_or(GATEWAY_V4));
        let present = present.map_err(refused("read its addresses"))?;
        for stale in present.iter().filter(|a| a.addr() != wanted) {
            let mut request = self.route.encoder();
            let (address, length) = (stale.addr(), stale.prefix_len());
            message::delete_address(&mut request, link.ifindex, address, length);
            let removed = self.route.request(request);
            removed.map_err(refused("remove an address"))?;
        }
        Ok(())
    }

    fn ipv4_addresses(&mut self, ifindex: u32) -> Result<Vec<IpNet>, NetlinkError> {
        let present = crate::address::dump(&mut self.route)?;
        let of_device = |a: &&Address| a.ifindex == ifindex && a.address.addr().is_ipv4();
        Ok(present
            .iter()
            .filter(of_device)
            .map(|a| a.address)
            .collect())
    }

    /// Gives the device the wanted IPv4 address; others stay until routes no longer need them
    /// ([`Self::drop_stale_addresses`]).
    pub(crate) fn set_tunnel_address(
        &mut self,
        address: Option<Ipv4Addr>,
        ifindex: u32,
    ) -> Result<(), NetlinkError> {
        let (wanted, scope) = match address {
            Some(address) => (IpAddr::from(address), SCOPE_UNIVERSE),
            None => (IpAddr::from(GATEWAY_V4), SCOPE_HOST),
        };
        if self.ipv4_addresses(ifindex)?.contains(&IpNet::from(wanted)) {
            return Ok(());
        }
        let mut request = self.route.encoder();
        message::add_address(&mut request, ifindex, wanted, 32, scope);
        self.route.request(request)
    }
}
