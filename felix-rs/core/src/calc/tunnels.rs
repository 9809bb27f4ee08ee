//! Pools and nodes -> the tunnel devices of this node.

use super::Calc;
use model::dataplane::{Ip6Device, IpipDevice, Tunnel, Vtep, VxlanDevice, vtep_gateway, vtep_mac};
use model::{EncapMode, Node, names};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

impl Calc {
    /// The devices that the pools want and this node can have.
    pub(super) fn tunnels(&self) -> BTreeMap<String, Tunnel> {
        let own = self.objects.node(&self.node);
        let v4 = own.and_then(|node| node.ipv4_address);
        let v6 = own.and_then(|node| node.ipv6_address);
        let mut tunnels = Vec::new();
        if let Some(local) = v4.filter(|_| self.tunnel_kinds.ipip && self.uses_ipip_over_v4()) {
            tunnels.push(Tunnel::Ipip(IpipDevice {
                name: names::IPIP_DEVICE.to_owned(),
                local: local.addr(),
                mtu: self.tunnel_mtu(names::IPIP_OVERHEAD, |c| c.ipip_mtu),
                address: self.tunnel_address,
            }));
        }
        if let Some(local) = v6.filter(|_| self.tunnel_kinds.ip6 && self.uses_ipip_over_v6()) {
            tunnels.push(Tunnel::Ip6(Ip6Device {
                name: names::IP6_DEVICE.to_owned(),
                local: local.addr(),
                mtu: self.tunnel_mtu(names::IP6_OVERHEAD, |_| None),
                address: self.tunnel_address,
            }));
        }
        if self.tunnel_kinds.vxlan && self.uses_vxlan() {
            tunnels.extend(v4.map(|net| self.vxlan(net.addr().into())));
            tunnels.extend(v6.map(|net| self.vxlan(net.addr().into())));
        }
        let named = tunnels.into_iter();
        named.map(|t| (t.name().to_owned(), t)).collect()
    }

    /// Local addresses of the VXLAN devices that are wanted, or still there.
    pub(super) fn vxlan_locals(&self) -> BTreeSet<IpAddr> {
        let own = self.objects.node(&self.node);
        let v4 = own.and_then(|node| Some(IpAddr::V4(node.ipv4_address?.addr())));
        let v6 = own.and_then(|node| Some(IpAddr::V6(node.ipv6_address?.addr())));
        let devices = [(names::VXLAN_DEVICE, v4), (names::VXLAN6_DEVICE, v6)];
        let local = devices
            .into_iter()
            .filter(|(name, _)| self.has_tunnel(name));
        local.filter_map(|(_, local)| local).collect()
    }

    /// Local address of the IPIP device that is wanted, or still there.
    pub(super) fn ipip_local(&self) -> Option<std::net::Ipv4Addr> {
        let own = self.objects.node(&self.node)?.ipv4_address?;
        self.has_tunnel(names::IPIP_DEVICE).then_some(own.addr())
    }

    /// Likewise of the device over IPv6.
    pub(super) fn ip6_local(&self) -> Option<std::net::Ipv6Addr> {
        let own = self.objects.node(&self.node)?.ipv6_address?;
        self.has_tunnel(names::IP6_DEVICE).then_some(own.addr())
    }

    fn has_tunnel(&self, name: &str) -> bool {
        self.desired.tunnels.contains_key(name) || self.underlay.link_named(name).is_some()
    }

    /// Those that are there and up.
    pub(super) fn tunnels_up(&self) -> BTreeMap<String, u32> {
        let index = |name: &str| {
            let link = self.underlay.link_named(name).filter(|link| link.up)?;
            Some((name.to_owned(), link.ifindex))
        };
        names::TUNNEL_DEVICES
            .into_iter()
            .filter_map(index)
            .collect()
    }

    /// MTU in bytes of pods: that of the uplink, less the greatest header that a pool's tunnel adds.
    pub fn pod_mtu(&self) -> u32 {
        let own = self.objects.node(&self.node);
        let v6 = own.is_some_and(|node| node.ipv6_address.is_some());
        let vxlan = if v6 {
            names::VXLAN6_OVERHEAD
        } else {
            names::VXLAN_OVERHEAD
        };
        let over_vxlan = || self.tunnel_mtu(vxlan, |c| c.vxlan_mtu);
        let over_v4 = || self.tunnel_mtu(names::IPIP_OVERHEAD, |c| c.ipip_mtu);
        let over_v6 = || self.tunnel_mtu(names::IP6_OVERHEAD, |_| None);
        let least = [
            self.uses_vxlan().then(over_vxlan),
            self.uses_ipip_over_v4().then(over_v4),
            self.uses_ipip_over_v6().then(over_v6),
        ];
        let least = least.into_iter().flatten().min();
        least.unwrap_or_else(|| self.uplink_mtu())
    }

    fn vxlan(&self, local: IpAddr) -> Tunnel {
        let (name, overhead, address) = match local {
            IpAddr::V4(_) => (
                names::VXLAN_DEVICE,
                names::VXLAN_OVERHEAD,
                self.tunnel_address,
            ),
            IpAddr::V6(_) => (names::VXLAN6_DEVICE, names::VXLAN6_OVERHEAD, None),
        };
        let device = VxlanDevice {
            name: name.to_owned(),
            vni: self.vxlan_vni(),
            port: self.vxlan_port(),
            local,
            mtu: self.tunnel_mtu(overhead, |c| match local {
                IpAddr::V4(_) => c.vxlan_mtu,
                IpAddr::V6(_) => c.vxlan_mtu_v6,
            }),
            mac: vtep_mac(local),
            address,
        };
        let others = self.objects.nodes().filter(|node| node.name != self.node);
        let ends = others.filter_map(|node| end(node, local.is_ipv4()));
        Tunnel::Vxlan {
            device,
            ends: ends.collect(),
        }
    }

    fn uses_ipip(&self, v4_pool: bool) -> bool {
        let mut pools = self.objects.pools();
        pools.any(|p| p.cidr.addr().is_ipv4() == v4_pool && p.ipip_mode != EncapMode::Never)
    }

    fn uses_ipip_over_v4(&self) -> bool {
        let own = self.objects.node(&self.node);
        own.is_none_or(|node| node.ipv4_address.is_some()) && self.uses_ipip(true)
    }

    /// Of IPv6 pools always, of IPv4 pools towards or from nodes without an IPv4 address.
    fn uses_ipip_over_v6(&self) -> bool {
        let own = self.objects.node(&self.node);
        let without_v4 = || self.objects.nodes().any(|node| node.ipv4_address.is_none());
        own.is_some_and(|node| node.ipv6_address.is_some())
            && (self.uses_ipip(false) || self.uses_ipip(true) && without_v4())
    }

    fn uses_vxlan(&self) -> bool {
        self.objects
            .pools()
            .any(|pool| pool.vxlan_mode != EncapMode::Never)
    }
}

/// A node's end over one family.
fn end(node: &Node, ipv4: bool) -> Option<Vtep> {
    let underlay = match ipv4 {
        true => node.ipv4_address.map(|net| IpAddr::V4(net.addr())),
        false => node.ipv6_address.map(|net| IpAddr::V6(net.addr())),
    }?;
    let mac = vtep_mac(underlay);
    let mut gateways = BTreeSet::from([vtep_gateway(mac).into()]);
    if ipv4 {
        gateways.insert(underlay);
    }
    Some(Vtep {
        underlay,
        mac,
        gateways,
    })
}
