//! Permanent neighbour entries.

use crate::kernel::Kernel;
use crate::message;
use crate::netlink::NetlinkError;
use model::dataplane::Neighbour;
use std::net::IpAddr;

/// A neighbour entry could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("neighbour {address} on interface {ifindex}: {source}")]
pub struct NeighbourError {
    /// The neighbour's address.
    pub address: IpAddr,
    /// The interface.
    pub ifindex: u32,
    /// Why.
    pub source: NetlinkError,
}

impl Kernel {
    /// Adds or replaces permanent entries; answers those that failed.
    pub fn set_neighbours(&mut self, neighbours: &[Neighbour]) -> Vec<(Neighbour, NeighbourError)> {
        let failed = self.route.batch(neighbours, |encoder, neighbour| {
            let Neighbour {
                ifindex,
                address,
                mac,
            } = *neighbour;
            message::permanent_neighbour(encoder, ifindex, address, mac);
        });
        let error = |neighbour: Neighbour, source| NeighbourError {
            address: neighbour.address,
            ifindex: neighbour.ifindex,
            source,
        };
        failed
            .into_iter()
            .map(|(index, source)| (neighbours[index], error(neighbours[index], source)))
            .collect()
    }
}
