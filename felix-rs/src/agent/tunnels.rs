//! Tunnel devices over time: they come before and go after what the other nodes do, what others
//! change of them is put right, and routes through them keep to the MTU of their paths.

use super::Agent;
use super::apply::ApplyError;
use kernel::{NeighbourEntry, PathMtus, VtepTables};
use model::dataplane::Tunnel;
use model::names;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a way that works is kept beside a tunnel that was made, or is wanted again: the other
/// nodes make theirs meanwhile.
const SETTLE: Duration = Duration::from_secs(3);
/// How long a device outlives the last pool that wants it: other nodes may still send through it.
const LINGER: Duration = Duration::from_secs(5);
/// How often path MTUs are read that the kernel has learnt.
const PATHS_EVERY: Duration = Duration::from_secs(1);

/// What is remembered of tunnel devices.
#[derive(Debug, Default)]
pub(super) struct Care {
    /// When they were made, or wanted again.
    made: BTreeMap<String, Instant>,
    /// Since when no pool wants them.
    unwanted: BTreeMap<String, Instant>,
    /// What came to their tables, or (true) went.
    entries: Vec<(NeighbourEntry, bool)>,
    /// That may have addresses of earlier.
    readdressed: BTreeSet<String>,
    paths_read: Option<Instant>,
}

impl Agent {
    /// The kernel has a tunnel as it is wanted, by a device of this index.
    pub(super) fn tunnel_made(&mut self, tunnel: &Tunnel, ifindex: u32) {
        let name = tunnel.name();
        let known = self.calc.underlay().link_named(name);
        let fresh = known.is_none_or(|link| link.ifindex != ifindex);
        self.tunnels.readdressed.insert(name.to_owned());
        if fresh {
            self.tunnels.made.insert(name.to_owned(), Instant::now());
            self.tell_settling();
        }
    }

    /// A way through one of these is not taken where there is another one. So it is with a device
    /// that no pool wants: once it is wanted again, other nodes may have to make theirs again.
    fn tell_settling(&mut self) {
        let Care { made, unwanted, .. } = &self.tunnels;
        let settling = made.keys().chain(unwanted.keys());
        self.calc.set_settling(settling.cloned().collect());
    }

    /// Whether a tunnel device is there, wanted or not.
    pub(super) fn has_tunnels(&self) -> bool {
        !self.actual.tunnels.is_empty() || !self.actual.stray_tunnels.is_empty()
    }

    /// Whether a device that no pool wants has to stay for a while.
    pub(super) fn tunnel_is_awaited(&mut self, name: &str) -> bool {
        let since = self.tunnels.unwanted.entry(name.to_owned());
        let waited = since.or_insert_with(Instant::now).elapsed();
        self.tell_settling();
        waited < LINGER
    }

    /// What time does to tunnels.
    pub(super) fn follow_tunnels(&mut self, now: Instant) {
        let Care { made, unwanted, .. } = &mut self.tunnels;
        let wanted = &self.calc.desired().tunnels;
        let again: Vec<String> = unwanted
            .extract_if(.., |name, _| wanted.contains_key(name))
            .map(|(name, _)| name)
            .collect();
        made.extend(again.into_iter().map(|name| (name, now)));
        made.retain(|_, at| now - *at < SETTLE);
        let there = self.calc.underlay();
        unwanted.retain(|name, _| there.link_named(name).is_some());
        self.tell_settling();
        let due = self.tunnels.paths_read;
        if due.is_none_or(|at| now - at >= PATHS_EVERY) {
            self.tunnels.paths_read = Some(now);
            self.follow_path_mtus();
        }
    }

    /// Routes no longer name addresses of earlier as their source.
    pub(super) fn drop_stale_addresses(&mut self) -> Result<(), ApplyError> {
        for name in std::mem::take(&mut self.tunnels.readdressed) {
            let Some(tunnel) = self.actual.tunnels.get(&name) else {
                continue;
            };
            if let Err(source) = self.kernel.drop_stale_addresses(tunnel) {
                return Err(ApplyError::Device { name, source });
            }
        }
        Ok(())
    }

    /// Whether an entry is of a VXLAN device of ours: what is beside those is nobody's business here.
    pub(super) fn is_of_tunnel(&self, entry: &NeighbourEntry) -> bool {
        let link = self.calc.underlay().link(entry.ifindex);
        let tunnel = link.and_then(|link| self.actual.tunnels.get(&link.name));
        matches!(tunnel, Some(Tunnel::Vxlan { .. }))
    }

    /// An entry of a neighbour table or forwarding database came or, `gone`, went. It is looked at
    /// together with others, before this round converges.
    pub(super) fn on_neighbour(&mut self, entry: NeighbourEntry, gone: bool) {
        if self.is_of_tunnel(&entry) {
            self.tunnels.entries.push((entry, gone));
        }
    }

    /// Tunnels whose tables somebody changed are compared with what they should be.
    pub(super) fn recheck_tunnels(&mut self) {
        let mut by_device: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for (entry, gone) in std::mem::take(&mut self.tunnels.entries) {
            let of_device = by_device.entry(entry.ifindex).or_default();
            of_device.push((entry, gone));
        }
        for (ifindex, changes) in by_device {
            let link = self.calc.underlay().link(ifindex);
            let known = link.and_then(|link| self.actual.tunnels.get_key_value(&link.name));
            let Some((name, Tunnel::Vxlan { ends, .. })) = known else {
                continue;
            };
            let tables = VtepTables::of(ends);
            if changes
                .iter()
                .all(|(entry, gone)| tables.allows(entry, *gone))
            {
                continue;
            }
            let name = name.clone();
            match self.kernel.set_vteps(&name, ifindex, ends) {
                // What the event told of was overtaken.
                Ok(0) => {}
                Ok(entries) => {
                    tracing::warn!(device = %name, entries, "the ends of our tunnel were changed by somebody else: repaired");
                    self.repairs += 1;
                }
                Err(error) => {
                    tracing::warn!(device = %name, %error, "not repaired");
                    self.actual.tunnels.remove(&name);
                }
            }
        }
    }

    /// The audit: every device is read back and put right.
    pub(super) fn recheck_all_tunnels(&mut self) {
        for (name, tunnel) in self.actual.tunnels.clone() {
            match self.kernel.ensure_tunnel(&tunnel) {
                Ok(made) if made.entries > 0 => {
                    tracing::warn!(device = %name, entries = made.entries, "audit: no event told of these ends");
                    self.audit_findings += made.entries as u64;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(device = %name, %error, "audit of a tunnel");
                    self.actual.tunnels.remove(&name);
                }
            }
        }
    }

    /// What the kernel has learnt of the ways to other nodes becomes the MTU of the routes through
    /// VXLAN. The other tunnels tell senders by themselves.
    fn follow_path_mtus(&mut self) {
        let vxlan = |tunnel: &&Tunnel| matches!(tunnel, Tunnel::Vxlan { .. });
        if !self.actual.tunnels.values().any(|tunnel| vxlan(&tunnel)) {
            return;
        }
        let learnt = match self.kernel.learnt_mtus() {
            Ok(learnt) => learnt,
            Err(error) => {
                tracing::debug!(%error, "path MTUs");
                return;
            }
        };
        let mut mtus = PathMtus::new();
        for tunnel in self.actual.tunnels.values() {
            mtus.extend(self.path_mtus(tunnel, &learnt));
        }
        let changed = self.kernel.set_path_mtus(mtus);
        for (ifindex, gateway) in changed {
            tracing::info!(%gateway, "the MTU of the way to a node's tunnel has changed");
            self.routes_lost_with_gateway(ifindex, gateway);
        }
    }

    fn path_mtus(&self, tunnel: &Tunnel, learnt: &BTreeMap<IpAddr, u32>) -> PathMtus {
        let Tunnel::Vxlan { device, ends } = tunnel else {
            return PathMtus::new();
        };
        let Some(link) = self.calc.underlay().link_named(&device.name) else {
            return PathMtus::new();
        };
        let overhead = match device.local {
            IpAddr::V4(_) => names::VXLAN_OVERHEAD,
            IpAddr::V6(_) => names::VXLAN6_OVERHEAD,
        };
        let mut mtus = PathMtus::new();
        for end in ends {
            let Some(path) = learnt.get(&end.underlay) else {
                continue;
            };
            let mtu = path.saturating_sub(overhead);
            if mtu < device.mtu {
                let gateways = end.gateways.iter().map(|gateway| (link.ifindex, *gateway));
                mtus.extend(gateways.map(|key| (key, mtu)));
            }
        }
        mtus
    }

    /// Routes through this gateway are written again.
    fn routes_lost_with_gateway(&mut self, ifindex: u32, gateway: IpAddr) {
        use model::dataplane::RouteKind;
        let through = |kind: &RouteKind| match kind {
            RouteKind::Via(hops) => {
                let mut hops = hops.iter();
                hops.any(|hop| hop.ifindex == Some(ifindex) && hop.gateway == gateway)
            }
            RouteKind::Device { .. } | RouteKind::Blackhole => false,
        };
        let routes = self.actual.routes.iter();
        let lost = routes.filter(|(_, kind)| through(kind));
        let lost: Vec<_> = lost.map(|(dest, _)| *dest).collect();
        for dest in lost {
            self.actual.routes.remove(&dest);
            self.pending.insert(dest);
        }
    }
}
