//! Kernel -> actual: what is there is read back and compared, in case an event was missed.

use super::Agent;
use super::apply::ApplyError;
use crate::host_settings;
use kernel::KernelRoute;
use model::dataplane::{Address, Link, RouteKind, Tunnel};
use model::names;
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Agent {
    /// Read links, addresses and routes back and compare: what an event should have told and did not is counted
    /// and logged, so that the audit can't hide a defect.
    pub(super) fn audit(&mut self) {
        self.enable_forwarding();
        self.look_at_host_settings();
        self.recheck_all_tunnels();
        let before = self.actual.routes.clone();
        if let Err(error) = self.read_kernel() {
            self.fail(&error);
            return;
        }
        let differs = |dest: &&ipnet::IpNet| before.get(*dest) != self.actual.routes.get(*dest);
        let all: BTreeSet<_> = before.keys().chain(self.actual.routes.keys()).collect();
        let missed: Vec<_> = all.into_iter().filter(differs).collect();
        if self.audited && !missed.is_empty() {
            tracing::warn!(routes = missed.len(), first = %missed[0], "audit: no event told of these");
            self.audit_findings += missed.len() as u64;
        }
        self.audited = true;
        match self.kernel.remove_unused_next_hops() {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "removed next hops that no route leads through"),
            Err(error) => tracing::warn!(%error, "unused next hops stay"),
        }
        self.pending.extend(self.calc.desired().prefixes().copied());
        self.pending.extend(before.keys());
    }

    /// Links, addresses and routes as they are now.
    pub(super) fn read_kernel(&mut self) -> Result<(), ApplyError> {
        let read = |what, reason: String| ApplyError::Read { what, reason };
        let links = self
            .kernel
            .links()
            .map_err(|e| read("links", e.to_string()))?;
        let addresses = self
            .kernel
            .addresses()
            .map_err(|e| read("addresses", e.to_string()))?;
        let routes = self
            .kernel
            .routes()
            .map_err(|e| read("routes", e.to_string()))?;
        let gone: Vec<u32> = self
            .calc
            .underlay()
            .links()
            .map(|link| link.ifindex)
            .filter(|known| !links.iter().any(|link| link.ifindex == *known))
            .collect();
        for ifindex in gone {
            self.calc.on_link_gone(ifindex);
        }
        let there = |tunnel: &Tunnel| {
            let link = links.iter().find(|link| link.name == tunnel.name());
            link.is_some_and(|link| is_as_made(link, tunnel))
        };
        self.actual.tunnels.retain(|_, tunnel| there(tunnel));
        self.actual.stray_tunnels = links
            .iter()
            .filter(|link| names::TUNNEL_DEVICES.contains(&link.name.as_str()))
            .filter(|link| !self.actual.tunnels.contains_key(&link.name))
            .map(|link| link.name.clone())
            .collect();
        for link in links {
            self.calc.on_link(link);
        }
        let addresses = addresses.into_iter().filter(|address| !is_gateway(address));
        self.calc.on_all_addresses(addresses.collect());
        self.actual.routes.clear();
        self.actual.metrics.clear();
        let mut foreign = Vec::new();
        for KernelRoute {
            route,
            ours,
            metric,
            group,
        } in routes
        {
            if ours {
                // One that does not share its next hops, as an earlier process may have left it,
                // is to be written again.
                let shares =
                    matches!(&route.kind, RouteKind::Via(hops) if self.kernel.shares(hops));
                let dest = route.dest;
                self.actual.insert(dest, route.kind, metric);
                if shares && group.is_none() {
                    self.actual.routes.remove(&dest);
                    self.pending.insert(dest);
                }
            } else {
                foreign.push((route, metric));
            }
        }
        self.calc.on_all_foreign_routes(foreign);
        Ok(())
    }

    /// A link changed: if it is a tunnel of ours that is not as it was made, it is made again.
    pub(super) fn check_tunnel(&mut self, link: &Link) {
        let known = self.actual.tunnels.get(&link.name);
        if known.is_some_and(|tunnel| !is_as_made(link, tunnel)) {
            self.actual.tunnels.remove(&link.name);
        }
    }

    /// What is not ours to set is told.
    fn look_at_host_settings(&mut self) {
        let wrong = host_settings::wrong(&self.options.sysctl_dir).into_iter();
        let said: Vec<String> = wrong
            .filter(|what| what.loses_packets)
            .map(|what| what.said)
            .collect();
        for what in said
            .iter()
            .filter(|what| !self.host_settings.contains(what))
        {
            tracing::warn!(setting = %what, "of this host");
        }
        self.host_settings = said;
    }

    /// Forwarding is ours to set; somebody may have turned it off again.
    pub(super) fn enable_forwarding(&mut self) {
        let failure = self
            .kernel
            .enable_forwarding()
            .and_then(|()| self.kernel.spread_flows())
            .err()
            .map(|error| error.to_string());
        if let Some(error) = failure
            .as_ref()
            .filter(|_| failure != self.forwarding_failure)
        {
            tracing::error!(%error, "forwarding not enabled");
        }
        self.forwarding_failure = failure;
    }
}

fn is_as_made(link: &Link, tunnel: &Tunnel) -> bool {
    link.up && link.mtu == tunnel.mtu()
}

/// The host end of every pod holds the pods' gateway addresses; they lead nowhere else.
pub(super) fn is_gateway(address: &Address) -> bool {
    let address = address.address.addr();
    address == IpAddr::V4(names::GATEWAY_V4) || address == IpAddr::V6(names::GATEWAY_V6)
}
