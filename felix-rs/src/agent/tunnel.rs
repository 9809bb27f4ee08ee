//! This node's own address on its tunnel devices: of its own block, the same after a restart.

use super::addresses::now_ms;
use super::{Agent, Phase};
use ipam::journal::{Record, State};
use ipam::{AssignError, Family, Owner};
use model::{EncapMode, IpPool, names};
use std::net::{IpAddr, Ipv4Addr};

/// Of IPv4: one address, whatever the devices.
const TUNNEL: &str = "tunnel";

/// What the journal says.
pub(super) fn journaled(state: &State) -> Option<Ipv4Addr> {
    match state.tunnels.get(TUNNEL) {
        Some(IpAddr::V4(ip)) => Some(*ip),
        _ => None,
    }
}

impl Agent {
    /// Take an address where a pool's traffic takes the tunnel; give it back where none does.
    pub(super) fn update_tunnel_address(&mut self) {
        if self.calc.phase() == Phase::Starting {
            return;
        }
        self.recover_tunnel_address();
        let features = self.kernel.features();
        let (ipip, vxlan) = (features.ipip || features.ip6, features.vxlan);
        let wants = |pool: &IpPool| {
            ipip && pool.ipip_mode != EncapMode::Never
                || vxlan && pool.vxlan_mode != EncapMode::Never
        };
        // A device that stays for a while has the address until it goes.
        if self.has_tunnels() && !self.calc.objects().pools().any(wants) {
            return;
        }
        let now = now_ms();
        let found = self.ipam.tunnel_address(TUNNEL, Family::V4, wants, now);
        let ip = match found {
            Ok(ip) => ip,
            Err(error) => {
                match error.source {
                    AssignError::NeedsBlock { block } if self.calc.phase() == Phase::InSync => {
                        self.claim(block);
                    }
                    _ => tracing::debug!(%error, "the tunnel has no address of its own"),
                }
                return;
            }
        };
        if self.journal.state().tunnels.get(TUNNEL) != ip.as_ref() {
            let record = Record::Tunnel {
                device: TUNNEL.to_owned(),
                ip,
                at_ms: now,
            };
            if ip.is_none() {
                self.journal.note(record);
            } else if let Err(error) = self.journal.append(&record) {
                // After a restart somebody else could get it.
                tracing::warn!(%error, "no address for the tunnel");
                self.ipam.release(&Owner::tunnel(TUNNEL), now);
                return;
            }
            tracing::info!(address = ?ip, "the node's own address on its tunnels");
        }
        let address = journaled(self.journal.state());
        self.calc.set_tunnel_address(address);
    }

    /// A journal that was lost: the device still has its address.
    fn recover_tunnel_address(&mut self) {
        let owner = Owner::tunnel(TUNNEL);
        if !self.journal.was_lost() || self.ipam.held(&owner).is_some() {
            return;
        }
        let underlay = self.calc.underlay();
        let devices: Vec<u32> = [names::IPIP_DEVICE, names::IP6_DEVICE, names::VXLAN_DEVICE]
            .into_iter()
            .filter_map(|name| underlay.link_named(name))
            .map(|link| link.ifindex)
            .collect();
        if devices.is_empty() {
            return;
        }
        let addresses = self.kernel.addresses().unwrap_or_default();
        let own: Vec<_> = self.ipam.own_blocks().collect();
        let found = addresses
            .into_iter()
            .filter(|address| devices.contains(&address.ifindex))
            .map(|address| address.address.addr())
            .find(|ip| {
                own.iter().any(|block| block.contains(ip)) && self.ipam.owner(*ip).is_none()
            });
        if let Some(ip) = found {
            self.ipam.adopt(&owner, ip);
        }
    }
}
