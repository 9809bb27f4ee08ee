//! Facts taken in: cheap, they only store and mark.

use super::readback::is_gateway;
use super::{Agent, Table};
use bgp_speaker::FibEvent;
use felix_core::{LocalEndpoint, Phase};
use kernel::{KernelEvent, KernelRoute};
use model::dataplane::{Link, NextHop, RouteKind};
use model::{Kind, Object, ObjectKey, Update};
use std::net::IpAddr;
use std::time::Instant;

impl Agent {
    pub(super) fn on_update(&mut self, update: Update) {
        match &update {
            Update::Reject { invalid, .. } => tracing::warn!(error = %invalid, "object rejected"),
            Update::Apply { object, warnings } if !warnings.is_empty() => {
                tracing::warn!(object = %object.key(), ?warnings, "fields ignored");
            }
            Update::Lost { reason } => tracing::warn!(%reason, "datastore lost"),
            Update::Unreadable { source, reason } => {
                tracing::warn!(%source, %reason, "not readable; what it said before stays in force");
            }
            _ => {}
        }
        let before = self.calc.phase();
        let synced = matches!(update, Update::InSync);
        for key in self.calc.on_update(update) {
            self.snapshot_stale = true;
            self.counters.changed();
            self.services_may_differ(key.kind);
            self.on_addresses_object(&key);
        }
        if synced && before != Phase::InSync {
            tracing::info!(
                objects = self.calc.objects().all().count(),
                "datastore in sync"
            );
            self.snapshot_stale = true;
            self.adopt_from_datastore();
            self.forget_unconfirmed_blocks();
            self.first_view();
        }
    }

    /// What the allocator has to know of an object that changed.
    pub(super) fn on_addresses_object(&mut self, key: &ObjectKey) {
        let object = self.calc.objects().get(key).cloned();
        match (key.kind, object) {
            (Kind::IpPool, Some(Object::IpPool(pool))) => {
                self.ipam.set_pool(&key.name, Some(*pool))
            }
            (Kind::IpPool, _) => self.ipam.set_pool(&key.name, None),
            (Kind::IpReservation, Some(Object::IpReservation(reservation))) => {
                let cidrs = reservation.reserved_cidrs;
                self.ipam.set_reservation(&key.name, Some(cidrs));
            }
            (Kind::IpReservation, _) => self.ipam.set_reservation(&key.name, None),
            (Kind::WorkloadEndpoint, object) => {
                let endpoint = match &object {
                    Some(Object::WorkloadEndpoint(endpoint)) => Some(endpoint),
                    _ => None,
                };
                self.care.foreign_stale |=
                    self.foreign_may_differ(endpoint.map(|endpoint| &**endpoint));
            }
            (Kind::Pod, Some(Object::Pod(pod))) => self.on_pod(&pod),
            (Kind::Node, Some(Object::Node(node))) if node.name == self.options.node_name => {
                self.ipam.set_node_labels(node.labels);
            }
            (Kind::Node, _) => self.care.foreign_stale |= self.foreign_may_differ(None),
            (Kind::IpamBlock, Some(Object::IpamBlock(block))) => {
                self.blocks.insert(key.clone(), block.cidr);
                self.ipam.set_block(block);
                self.blocks_changed();
            }
            (Kind::IpamBlock, _) => {
                if let Some(cidr) = self.blocks.remove(key) {
                    self.ipam.remove_block(cidr);
                    self.blocks_changed();
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_fib(&mut self, event: FibEvent) {
        match event {
            FibEvent::Changes(changes) => {
                for change in changes {
                    self.calc.on_fib(change);
                }
            }
            FibEvent::PathDown { address, scope } => self.on_path_down(address, scope),
            FibEvent::Converged => {
                tracing::info!("BGP converged");
                self.converged = true;
                self.pending.extend(self.actual.routes.keys());
            }
        }
    }

    pub(super) fn on_kernel(&mut self, event: KernelEvent) {
        match event {
            KernelEvent::Link(link) => {
                let link = self.as_it_is_now(link);
                if link.up {
                    // What failed may have failed for lack of this link.
                    self.pending.append(&mut self.deferred);
                    if !link.carrier {
                        self.shares_lost_with(link.ifindex);
                    }
                } else {
                    self.routes_lost_with(link.ifindex);
                    self.set_up_again(link.ifindex);
                }
                self.check_tunnel(&link);
                self.calc.on_link(link);
            }
            KernelEvent::LinkGone { ifindex, name } => {
                self.routes_lost_with(ifindex);
                self.deleting.remove(&ifindex);
                self.rising.remove(&ifindex);
                self.actual.tunnels.remove(&name);
                self.calc.on_link_gone(ifindex);
            }
            KernelEvent::Address(address) | KernelEvent::AddressGone(address)
                if is_gateway(&address) => {}
            KernelEvent::Address(address) => self.calc.on_address(address),
            KernelEvent::AddressGone(address) => {
                // Routes through a subnet that is gone are dropped without a word.
                self.calc.on_address_gone(&address);
                self.audit_due = true;
            }
            KernelEvent::Neighbour(entry) => self.on_neighbour(entry, false),
            KernelEvent::NeighbourGone(entry) => self.on_neighbour(entry, true),
            KernelEvent::Route(KernelRoute {
                route,
                ours: true,
                metric,
                ..
            }) => {
                self.pending.insert(route.dest);
                self.actual.insert(route.dest, route.kind, metric);
            }
            KernelEvent::RouteGone {
                route:
                    KernelRoute {
                        route,
                        ours: true,
                        metric,
                        ..
                    },
                port,
            } => {
                // A replaced route is announced as gone only where another one took its place.
                if self.actual.routes.get(&route.dest) == Some(&route.kind) {
                    self.actual.remove(&route.dest, metric);
                    self.note_removal(route.dest, metric, port);
                }
                self.pending.insert(route.dest);
            }
            KernelEvent::Route(KernelRoute { route, metric, .. }) => {
                self.calc.on_foreign_route(route, metric);
            }
            KernelEvent::RouteGone {
                route: KernelRoute { route, metric, .. },
                ..
            } => {
                self.calc.on_foreign_route_gone(&route.dest, metric);
            }
            KernelEvent::NextHopGone { port } => {
                // Somebody else's doing; what went with it is not told.
                self.audit_due |= port != self.kernel.route_port_id();
            }
            KernelEvent::OurTableChanged => {
                if self.table == Table::InStep {
                    tracing::warn!("our nftables table was changed by somebody else: repairing");
                    self.repairs += 1;
                }
                self.table = Table::Unknown;
            }
            KernelEvent::Overrun => {
                tracing::warn!("kernel events were lost: reading everything again");
                self.audit_due = true;
                self.begin_table_audit();
            }
        }
    }

    /// Neighbours of uplinks change all the time, and nothing follows.
    pub(super) fn is_of_no_concern(&self, event: &KernelEvent) -> bool {
        match event {
            KernelEvent::Neighbour(entry) | KernelEvent::NeighbourGone(entry) => {
                !self.is_of_tunnel(entry)
            }
            _ => false,
        }
    }

    /// A pod's link is told of as it was made, down, when it is up already: routes through it must
    /// not come and go because of that. Of any other that is up again nobody saw that it was down,
    /// and what the kernel took from it then.
    fn as_it_is_now(&mut self, told: Link) -> Link {
        let ifindex = told.ifindex;
        if told.up {
            self.rising.remove(&ifindex);
            return told;
        }
        let of_pod = |local: &LocalEndpoint| local.ifindex == ifindex;
        if !self.calc.local().values().any(of_pod) {
            return told;
        }
        // It is gone, of which another event tells, or not known.
        let Ok(Some(now)) = self.kernel.link(ifindex) else {
            return told;
        };
        if now.up && !self.rising.contains(&ifindex) {
            self.routes_lost_with(ifindex);
            self.set_up_again(ifindex);
        }
        now
    }

    /// A pod's host end that somebody set down comes up again.
    fn set_up_again(&mut self, ifindex: u32) {
        let local = self
            .calc
            .local()
            .values()
            .find(|local| local.ifindex == ifindex);
        let Some(link) = local.map(|local| self.pod_link(local)) else {
            return;
        };
        match self.kernel.configure_host_end(&link) {
            Ok(_) => tracing::warn!(name = %link.host_name, "a pod's link was down: set up again"),
            // It goes down before it is gone, with its pod.
            Err(error) => tracing::debug!(name = %link.host_name, %error, "not set up again"),
        }
    }

    /// A gateway is known to be dead: one message takes it out of every route that has another one.
    /// That the other routes through it go is for the changes that follow.
    fn on_path_down(&mut self, address: IpAddr, scope: u32) {
        let ifindex = (scope != 0).then_some(scope);
        let began = Instant::now();
        match self.kernel.drop_next_hop(address, ifindex) {
            Ok(true) => {
                let took = began.elapsed();
                tracing::info!(%address, ?took, "a dead next hop was taken out of all groups");
            }
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%address, %error, "not taken out of the groups of next hops");
                return;
            }
        }
        let is_dead =
            |hop: &NextHop| hop.gateway == address && (ifindex.is_none() || hop.ifindex == ifindex);
        let mut lost = Vec::new();
        for (dest, kind) in &mut self.actual.routes {
            let RouteKind::Via(hops) = kind else {
                continue;
            };
            if hops.len() > 1 && hops.iter().any(is_dead) {
                hops.retain(|hop| !is_dead(hop));
                match hops.as_mut_slice() {
                    [] => lost.push(*dest),
                    [alone] => alone.weight = 1,
                    _ => {}
                }
            }
        }
        for dest in lost {
            self.actual.routes.remove(&dest);
            self.pending.insert(dest);
        }
    }

    /// The kernel takes a link without a carrier out of groups of next hops, and says nothing.
    fn shares_lost_with(&mut self, ifindex: u32) {
        let among_others = |kind: &RouteKind| match kind {
            RouteKind::Via(hops) if hops.len() > 1 => {
                hops.iter().any(|hop| hop.ifindex == Some(ifindex))
            }
            RouteKind::Via(_) | RouteKind::Device { .. } | RouteKind::Blackhole => false,
        };
        let lost = self.actual.routes.iter();
        let lost = lost.filter(|(_, kind)| among_others(kind));
        let lost: Vec<_> = lost.map(|(dest, _)| *dest).collect();
        for dest in lost {
            self.actual.routes.remove(&dest);
            self.pending.insert(dest);
        }
    }

    /// The kernel drops IPv4 routes with their interface and says nothing.
    pub(super) fn routes_lost_with(&mut self, ifindex: u32) {
        let through = |kind: &RouteKind| match kind {
            RouteKind::Device { ifindex: device } => *device == ifindex,
            RouteKind::Via(hops) => hops.iter().any(|hop| hop.ifindex == Some(ifindex)),
            RouteKind::Blackhole => false,
        };
        let lost = self.actual.routes.iter().filter(|(_, kind)| through(kind));
        let lost: Vec<_> = lost.map(|(dest, _)| *dest).collect();
        for dest in lost {
            self.actual.routes.remove(&dest);
            self.pending.insert(dest);
        }
    }
}
