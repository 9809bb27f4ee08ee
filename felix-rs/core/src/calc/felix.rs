//! What `FelixConfiguration` changes: the object `node.<name>` wins over `default`, field by field.

use super::Calc;
use crate::bgp;
use ipnet::IpNet;
use model::object::{NatOutgoingExclusions, ServiceLoopPrevention};
use model::{FelixConfiguration, Node, names};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

impl Calc {
    /// The value of a field, if it is configured.
    fn configured<T>(&self, field: impl Fn(&FelixConfiguration) -> Option<T>) -> Option<T> {
        let of_node = format!("node.{}", self.node);
        [of_node.as_str(), "default"].into_iter().find_map(|name| {
            let mut all = self.objects.felix_configurations();
            all.find(|object| object.name == name).and_then(&field)
        })
    }

    /// Tells the compiler what is configured.
    pub(super) fn feed_options(&mut self) {
        let mut options = self.policy_options.clone();
        options.vxlan_port = self.vxlan_port();
        if let Some(inbound) = self.configured(|c| c.failsafe_inbound_host_ports.clone()) {
            options.failsafe.inbound = inbound;
        }
        if let Some(outbound) = self.configured(|c| c.failsafe_outbound_host_ports.clone()) {
            options.failsafe.outbound = outbound;
        }
        self.compiler.set_options(options);
    }

    /// Destinations inside the cluster: no source is translated towards them.
    pub(super) fn not_masqueraded(&self) -> BTreeSet<IpNet> {
        let pools = self.objects.pools().map(|pool| pool.cidr);
        let mut inside: BTreeSet<IpNet> = pools.collect();
        let exclusions = self.configured(|c| c.nat_outgoing_exclusions);
        if exclusions == Some(NatOutgoingExclusions::IpPoolsAndHostIps) {
            let nodes = self.objects.nodes().flat_map(Node::all_addresses);
            inside.extend(nodes.map(IpNet::from));
        }
        inside
    }

    /// Source ports of what is masqueraded.
    pub(super) fn nat_ports(&self) -> Option<(u16, u16)> {
        let ports = self.configured(|c| c.nat_port_range);
        ports.filter(|ports| *ports != (0, 0))
    }

    /// Source address of what is masqueraded.
    pub(super) fn nat_address(&self) -> Option<Ipv4Addr> {
        self.configured(|c| c.nat_outgoing_address)
    }

    /// What becomes of packets to announced addresses of Services that nobody has.
    pub(super) fn service_loops(&self) -> ServiceLoopPrevention {
        self.configured(|c| c.service_loop_prevention)
            .unwrap_or(ServiceLoopPrevention::Drop)
    }

    /// Announced ranges of Services, where packets to unused addresses are not forwarded.
    pub(super) fn guarded_services(&self) -> BTreeSet<IpNet> {
        match self.service_loops() {
            ServiceLoopPrevention::Disabled => BTreeSet::new(),
            ServiceLoopPrevention::Drop | ServiceLoopPrevention::Reject => {
                bgp::service_ranges(&self.objects.bgp_configuration())
            }
        }
    }

    pub(super) fn vxlan_port(&self) -> u16 {
        let port = self.configured(|c| c.vxlan_port);
        port.unwrap_or(names::VXLAN_PORT)
    }

    pub(super) fn vxlan_vni(&self) -> u32 {
        let vni = self.configured(|c| c.vxlan_vni);
        vni.unwrap_or(names::VXLAN_VNI)
    }

    /// MTU of a tunnel that is configured, or what is left of the uplink's by its header.
    pub(super) fn tunnel_mtu(
        &self,
        overhead: u32,
        field: impl Fn(&FelixConfiguration) -> Option<u32>,
    ) -> u32 {
        let configured = self.configured(field).filter(|mtu| *mtu != 0);
        configured.unwrap_or_else(|| self.uplink_mtu().saturating_sub(overhead))
    }
}
