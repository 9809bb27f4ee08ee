//! Links, addresses and routes of the node that are not ours: they decide how a next hop is reached.

use ipnet::IpNet;
use model::dataplane::{Address, Link, NextHop, Route, RouteKind};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What the node's own kernel has that is not ours: it decides how a next hop is reached.
#[derive(Debug, Default)]
pub struct Underlay {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<Address>,
    /// By metric: the lowest is what the kernel uses.
    foreign: BTreeMap<IpNet, BTreeMap<u32, RouteKind>>,
    /// Interfaces that lead to no next hop; `*` stands for any characters.
    ignored: Vec<String>,
}

impl Underlay {
    /// Names of interfaces whose addresses and routes are not looked at to find next hops; `*`
    /// stands for any characters. Returns whether that is a change.
    pub fn set_ignored(&mut self, ignored: Vec<String>) -> bool {
        let changed = self.ignored != ignored;
        self.ignored = ignored;
        changed
    }

    /// A link appeared or changed.
    pub fn set_link(&mut self, link: Link) -> bool {
        let changed = self.links.get(&link.ifindex) != Some(&link);
        self.links.insert(link.ifindex, link);
        changed
    }

    /// A link is gone.
    pub fn remove_link(&mut self, ifindex: u32) -> bool {
        self.addresses.retain(|address| address.ifindex != ifindex);
        self.links.remove(&ifindex).is_some()
    }

    /// An address of the node appeared.
    pub fn add_address(&mut self, address: Address) -> bool {
        self.addresses.insert(address)
    }

    /// An address of the node is gone.
    pub fn remove_address(&mut self, address: &Address) -> bool {
        self.addresses.remove(address)
    }

    /// Somebody else's route appeared.
    pub fn add_foreign(&mut self, route: Route, metric: u32) -> bool {
        let same = self.foreign.entry(route.dest).or_default();
        same.insert(metric, route.kind.clone()) != Some(route.kind)
    }

    /// Somebody else's route is gone.
    pub fn remove_foreign(&mut self, dest: &IpNet, metric: u32) -> bool {
        let Some(same) = self.foreign.get_mut(dest) else {
            return false;
        };
        let removed = same.remove(&metric).is_some();
        if same.is_empty() {
            self.foreign.remove(dest);
        }
        removed
    }

    /// All of somebody else's routes, as a dump says. Returns whether anything differs.
    pub fn replace_foreign(&mut self, routes: Vec<(Route, u32)>) -> bool {
        let before = std::mem::take(&mut self.foreign);
        for (route, metric) in routes {
            self.add_foreign(route, metric);
        }
        before != self.foreign
    }

    /// All addresses of the node, as a dump says. Returns whether anything differs.
    pub fn replace_addresses(&mut self, addresses: BTreeSet<Address>) -> bool {
        let before = std::mem::replace(&mut self.addresses, addresses);
        before != self.addresses
    }

    /// The link of this index.
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    /// The link of this name. Of two, the earlier is gone and its event is still to come: the
    /// kernel counts up.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().rfind(|link| link.name == name)
    }

    /// All links.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// All addresses with their interfaces.
    pub(crate) fn held(&self) -> impl Iterator<Item = (u32, IpNet)> {
        self.addresses
            .iter()
            .map(|held| (held.ifindex, held.address))
    }

    /// The addresses of an interface.
    pub(crate) fn addresses_of(&self, ifindex: u32) -> impl Iterator<Item = IpAddr> + '_ {
        let of = move |held: &&Address| held.ifindex == ifindex;
        self.addresses
            .iter()
            .filter(of)
            .map(|held| held.address.addr())
    }

    /// The addresses of an interface with their subnets.
    pub(crate) fn nets_of(&self, ifindex: u32) -> impl Iterator<Item = IpNet> + '_ {
        let of = move |held: &&Address| held.ifindex == ifindex;
        self.addresses.iter().filter(of).map(|held| held.address)
    }

    /// The interface that holds this address.
    pub fn link_with_address(&self, address: IpAddr) -> Option<&Link> {
        let held = self
            .addresses
            .iter()
            .find(|held| held.address.addr() == address)?;
        self.links.get(&held.ifindex)
    }

    /// The subnet of an address of the node: where nobody says its length (a kubelet reports
    /// addresses alone), that of the interface which holds it.
    pub(crate) fn subnet_of(&self, own: IpNet) -> IpNet {
        let held = || {
            let mut all = self.addresses.iter().map(|held| held.address);
            all.find(|held| held.addr() == own.addr())
        };
        let alone = own.prefix_len() == own.max_prefix_len();
        let known = if alone { held() } else { None };
        known.unwrap_or(own).trunc()
    }

    /// The addresses of the node.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|held| held.address.addr())
    }

    /// The interface on whose subnet this address is.
    pub(crate) fn connected(&self, address: IpAddr) -> Option<u32> {
        self.addresses
            .iter()
            .filter(|held| held.address.contains(&address) && !self.is_down(held.ifindex))
            .max_by_key(|held| held.address.prefix_len())
            .map(|held| held.ifindex)
    }

    /// The lowest metric of somebody else's routes to exactly this destination.
    pub(crate) fn metric_of_foreign(&self, dest: &IpNet) -> Option<u32> {
        let (metric, _) = self.foreign.get(dest)?.first_key_value()?;
        Some(*metric)
    }

    /// Whether somebody else has a route to exactly this destination with this metric.
    pub(crate) fn is_foreign(&self, dest: &IpNet, metric: u32) -> bool {
        let all = self.foreign.get(dest);
        all.is_some_and(|all| all.contains_key(&metric))
    }

    /// The interfaces by which an address is reached.
    pub(crate) fn ways(&self, address: IpAddr) -> Vec<u32> {
        if let Some(ifindex) = self.connected(address) {
            return vec![ifindex];
        }
        let hops = self.gateways(address).unwrap_or_default();
        hops.iter().filter_map(|hop| hop.ifindex).collect()
    }

    /// Down, or without a carrier, so that what is sent there is lost; or to be left alone.
    fn is_down(&self, ifindex: u32) -> bool {
        let ignored = |link: &Link| {
            let mut patterns = self.ignored.iter();
            patterns.any(|pattern| matches(pattern.as_bytes(), link.name.as_bytes()))
        };
        let down = |link: &Link| !link.up || !link.carrier || ignored(link);
        self.links.get(&ifindex).is_some_and(down)
    }

    /// How the kernel reaches this address without our routes (longest match, one level deep).
    pub(crate) fn gateways(&self, address: IpAddr) -> Option<Vec<NextHop>> {
        let width = if address.is_ipv4() { 32 } else { 128 };
        (0..=width).rev().find_map(|len| {
            let candidate = IpNet::new(address, len).ok()?.trunc();
            let by_metric = self.foreign.get(&candidate)?;
            by_metric
                .values()
                .find_map(|kind| self.usable(kind, address))
        })
    }

    /// The next hops of a foreign route whose links are up.
    fn usable(&self, kind: &RouteKind, address: IpAddr) -> Option<Vec<NextHop>> {
        let hops: Vec<NextHop> = match kind {
            RouteKind::Via(hops) => hops
                .iter()
                .filter_map(|hop| {
                    let ifindex = hop.ifindex.or_else(|| self.connected(hop.gateway))?;
                    Some(NextHop {
                        ifindex: Some(ifindex),
                        ..*hop
                    })
                })
                .collect(),
            RouteKind::Device { ifindex } => {
                vec![NextHop {
                    gateway: address,
                    ifindex: Some(*ifindex),
                    onlink: false,
                    weight: 1,
                }]
            }
            RouteKind::Blackhole => Vec::new(),
        };
        let up = |hop: &NextHop| hop.ifindex.is_some_and(|ifindex| !self.is_down(ifindex));
        let hops: Vec<NextHop> = hops.into_iter().filter(up).collect();
        (!hops.is_empty()).then_some(hops)
    }
}

/// Whether `*` of a pattern can stand for what differs.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches(rest, name) || (!name.is_empty() && matches(pattern, &name[1..]))
        }
        (Some((a, pattern)), Some((b, name))) => a == b && matches(pattern, name),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::ethernet;

    #[test]
    fn an_address_without_a_length_has_that_of_its_interface() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let mut underlay = Underlay::default();
        assert_eq!(underlay.subnet_of(net("10.1.0.11/32")), net("10.1.0.11/32"));
        underlay.add_address(Address {
            ifindex: 2,
            address: net("10.1.0.11/24"),
        });
        assert_eq!(underlay.subnet_of(net("10.1.0.11/32")), net("10.1.0.0/24"));
        assert_eq!(underlay.subnet_of(net("10.1.0.11/16")), net("10.1.0.0/16"));
    }

    #[test]
    fn an_interface_that_is_ignored_leads_nowhere() {
        let mut underlay = Underlay::default();
        let address = |ifindex, text: &str| Address {
            ifindex,
            address: text.parse().unwrap(),
        };
        for (ifindex, name) in [(1, "eth0"), (2, "docker0")] {
            underlay.set_link(ethernet(ifindex, name));
        }
        underlay.add_address(address(1, "10.0.0.1/16"));
        underlay.add_address(address(2, "10.0.1.1/24"));
        let gateway = "10.0.1.9".parse().unwrap();
        assert_eq!(underlay.connected(gateway), Some(2));
        assert!(underlay.set_ignored(vec!["docker*".into()]));
        assert_eq!(underlay.connected(gateway), Some(1));
        assert!(underlay.set_ignored(vec!["d*r".into(), "*1".into()]));
        assert_eq!(underlay.connected(gateway), Some(2));
        assert!(!underlay.set_ignored(vec!["d*r".into(), "*1".into()]));
        underlay.set_ignored(vec!["*".into()]);
        assert_eq!(underlay.connected(gateway), None);
    }
}
