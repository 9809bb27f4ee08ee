//! Addresses that are in our blocks and given to nobody, or only to who asks for exactly them.

use crate::{Ipam, net};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

impl Ipam {
    /// A reservation ([`model::IpReservation`]) appeared, changed or went. As in Calico, its
    /// addresses are given to nobody who did not ask for exactly them, and those in use stay.
    pub fn set_reservation(&mut self, name: &str, prefixes: Option<Vec<IpNet>>) {
        match prefixes {
            Some(prefixes) => self.reservations.insert(name.to_owned(), prefixes),
            None => self.reservations.remove(name),
        };
        self.bar_blocks();
    }

    /// Addresses of other nodes' pods that are in blocks of this node, and whose they are. They
    /// are given to nobody: a block changed hands while its pods ran.
    pub fn set_foreign(&mut self, addresses: BTreeMap<IpAddr, String>) {
        if self.foreign != addresses {
            self.foreign = addresses;
            self.bar_blocks();
        }
    }

    /// Addresses of other nodes' pods in our blocks, and whose they are.
    pub fn foreign(&self) -> &BTreeMap<IpAddr, String> {
        &self.foreign
    }

    /// Every prefix that is barred.
    pub(crate) fn barred(&self) -> impl Iterator<Item = IpNet> {
        let foreign = self.foreign.keys().map(|ip| IpNet::from(*ip));
        self.reservations.values().flatten().copied().chain(foreign)
    }

    /// One reservation covers the whole block: it is not worth claiming.
    pub(crate) fn is_reserved(&self, block: IpNet) -> bool {
        self.reserved_around(block).is_some()
    }

    pub(crate) fn reserved_around(&self, block: IpNet) -> Option<IpNet> {
        let mut reserved = self.reservations.values().flatten();
        reserved.find(|prefix| prefix.contains(&block)).copied()
    }

    fn bar_blocks(&mut self) {
        let barred: Vec<IpNet> = self.barred().collect();
        for (cidr, own) in &mut self.own {
            let inside = barred.iter().filter(|prefix| net::overlap(**prefix, *cidr));
            own.block.bar(inside.copied());
        }
    }
}
