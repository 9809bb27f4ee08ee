//! The node's own address on a tunnel device, from one of its own blocks: what the node itself
//! sends to pods behind the tunnel has it as its source, so that the answers come back through
//! the tunnel too. Always of the node's own block, it needs no route and no object of its own.

use crate::error::{AssignError, Family};
use crate::pools::family_of;
use crate::{Ipam, Owner};
use model::IpPool;
use model::object::{AllowedUse, AssignmentMode};
use std::net::IpAddr;

/// Why a tunnel device has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no address for {device}: {source}")]
pub struct TunnelError {
    /// The device.
    pub device: String,
    /// Why.
    #[source]
    pub source: AssignError,
}

impl Ipam {
    /// The address for `device`, or none where no pool wants it. The same again for as long as it
    /// is in a pool that wants one and in a block of this node. `wants` says which pools' traffic
    /// takes the device; of these, those are used whose `allowedUses` include Tunnel.
    pub fn tunnel_address(
        &mut self,
        device: &str,
        family: Family,
        wants: impl Fn(&IpPool) -> bool,
        now: u64,
    ) -> Result<Option<IpAddr>, TunnelError> {
        self.set_clock(now);
        let owner = Owner::tunnel(device);
        let held = self.held(&owner).and_then(<[_]>::first).copied();
        let fits = |ip: &IpAddr| {
            let mut pools = self.pools.values();
            pools.any(|pool| pool.cidr.contains(ip) && wants(pool))
                && self.own_blocks().any(|block| block.contains(ip))
        };
        if let Some(ip) = held.filter(fits) {
            return Ok(Some(ip));
        }
        let pools: Vec<&IpPool> = self
            .pools
            .values()
            .filter(|pool| family_of(pool) == family && wants(pool) && self.gives_tunnels(pool))
            .collect();
        let chosen = match pools.as_slice() {
            [] => None,
            pools => Some(self.choose_from(family, pools).map_err(|source| {
                let device = device.to_owned();
                TunnelError { device, source }
            })?),
        };
        self.release(&owner, now);
        if let Some(assignment) = &chosen {
            self.adopt(&owner, assignment.ip);
        }
        Ok(chosen.map(|assignment| assignment.ip))
    }

    fn gives_tunnels(&self, pool: &IpPool) -> bool {
        self.unusable(pool, AllowedUse::Tunnel).is_none()
            && pool.assignment_mode == AssignmentMode::Automatic
            && pool.node_selector.matches(&self.node_labels)
    }
}
