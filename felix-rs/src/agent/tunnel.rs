//! This node's own address on the tunnel device: of its own block, the same after a restart.

use super::addresses::now_ms;
use super::{Agent, Phase};
use ipam::journal::Record;
use ipam::{AssignError, Family, Owner};
use model::{EncapMode, IpPool, names};
use std::net::IpAddr;

impl Agent {
    /// Take an address where a pool's traffic takes the tunnel; give it back where none does.
    pub(super) fn update_tunnel_address(&mut self) {
        if self.calc.phase() == Phase::Starting {
            return;
        }
        const DEVICE: &str = names::IPIP_DEVICE;
        self.recover_tunnel_address();
        let supported = self.kernel.features().ipip;
        let wants = |pool: &IpPool| supported && pool.ipip_mode != EncapMode::Never;
        let now = now_ms();
        let found = self.ipam.tunnel_address(DEVICE, Family::V4, wants, now);
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
        if self.journal.state().tunnels.get(DEVICE) != ip.as_ref() {
            let record = Record::Tunnel {
                device: DEVICE.to_owned(),
                ip,
                at_ms: now,
            };
            if ip.is_none() {
                self.journal.note(record);
            } else if let Err(error) = self.journal.append(&record) {
                // After a restart somebody else could get it.
                tracing::warn!(%error, "no address for the tunnel");
                self.ipam.release(&Owner::tunnel(DEVICE), now);
                return;
            }
            tracing::info!(device = DEVICE, address = ?ip, "the node's own address on the tunnel");
        }
        self.calc.set_tunnel_address(match ip {
            Some(IpAddr::V4(ip)) => Some(ip),
            _ => None,
        });
    }

    /// A journal that was lost: the device still has its address.
    fn recover_tunnel_address(&mut self) {
        let owner = Owner::tunnel(names::IPIP_DEVICE);
        if !self.journal.was_lost() || self.ipam.held(&owner).is_some() {
            return;
        }
        let Some(ifindex) = self
            .calc
            .underlay()
            .link_named(names::IPIP_DEVICE)
            .map(|l| l.ifindex)
        else {
            return;
        };
        let addresses = self.kernel.addresses().unwrap_or_default();
        let own: Vec<_> = self.ipam.own_blocks().collect();
        let found = addresses
            .into_iter()
            .filter(|address| address.ifindex == ifindex)
            .map(|address| address.address.addr())
            .find(|ip| {
                own.iter().any(|block| block.contains(ip)) && self.ipam.owner(*ip).is_none()
            });
        if let Some(ip) = found {
            self.ipam.adopt(&owner, ip);
        }
    }
}
