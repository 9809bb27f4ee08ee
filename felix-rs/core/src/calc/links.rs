//! Links, addresses and routes of others -> what has to be computed again.

use super::Calc;
use crate::underlay::Underlay;
use ipnet::IpNet;
use model::dataplane::{Address, Link, Route};
use model::names;
use std::collections::BTreeSet;

impl Calc {
    fn addresses_changed(&mut self, change: impl FnOnce(&mut Underlay) -> bool) {
        let changed = change(&mut self.underlay);
        // The length of this node's own subnet may be that of the interface.
        self.dirty.topology |= changed;
        self.dirty.all_learned |= changed;
        self.dirty.host_interfaces |= changed;
    }

    /// A link appeared or changed.
    pub fn on_link(&mut self, link: Link) {
        let ours = link.name.starts_with(names::INTERFACE_PREFIX);
        if self.underlay.set_link(link) {
            self.mark_underlay(ours);
            self.dirty.all_learned |= !ours;
        }
    }

    /// A link is gone.
    pub fn on_link_gone(&mut self, ifindex: u32) {
        let ours = self
            .underlay
            .link(ifindex)
            .is_some_and(|link| link.name.starts_with(names::INTERFACE_PREFIX));
        if self.underlay.remove_link(ifindex) {
            self.mark_underlay(ours);
            self.dirty.all_learned |= !ours;
        }
    }

    fn mark_underlay(&mut self, ours: bool) {
        if ours {
            self.dirty.local = true;
        } else {
            self.dirty.topology = true;
            self.dirty.host_interfaces = true;
        }
    }

    /// An address of the node appeared.
    pub fn on_address(&mut self, address: Address) {
        self.addresses_changed(|underlay| underlay.add_address(address));
    }

    /// An address of the node is gone.
    pub fn on_address_gone(&mut self, address: &Address) {
        self.addresses_changed(|underlay| underlay.remove_address(address));
    }

    /// Somebody else's route appeared or changed.
    pub fn on_foreign_route(&mut self, route: Route, metric: u32) {
        let changed = self.underlay.add_foreign(route, metric);
        self.ways_changed(changed);
    }

    /// All of somebody else's routes with their metrics, as a dump says.
    pub fn on_all_foreign_routes(&mut self, routes: Vec<(Route, u32)>) {
        let changed = self.underlay.replace_foreign(routes);
        self.ways_changed(changed);
    }

    /// All addresses of the node, as a dump says.
    pub fn on_all_addresses(&mut self, addresses: BTreeSet<Address>) {
        self.addresses_changed(|underlay| underlay.replace_addresses(addresses));
    }

    /// Somebody else's route is gone.
    pub fn on_foreign_route_gone(&mut self, dest: &IpNet, metric: u32) {
        let changed = self.underlay.remove_foreign(dest, metric);
        self.ways_changed(changed);
    }

    /// Other nodes may be reached otherwise, with another MTU, by more or fewer paths.
    fn ways_changed(&mut self, changed: bool) {
        self.dirty.all_learned |= changed;
        self.dirty.topology |= changed;
    }
}
