//! Blocks of nodes that are gone for good, freed by whoever holds the lease; see [`ipam::Departed`]
//! for what speaks for a node.
//!
//! Nothing is written in a cluster whose blocks all belong to nodes: the lease is only stood for
//! when there is something to free, and a node renews its own only while it has no Node object.

use super::Agent;
use crate::store::{LeaseRead, Said, Write};
use felix_core::EndpointKey;
use ipam::{Departed, Election, Evidence};
use model::IpamBlock;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;

/// The lease of who frees blocks and, in a cluster, does what is done once for all of it.
const LEASE: &str = "controller";
/// A lease holds for this many looks.
const LOOKS: u32 = 3;

/// This node's part in it.
pub(super) struct Duty {
    pub(super) departed: Departed,
    election: Election,
    /// This node's own lease, by which it says that it lives although it has no Node object.
    alive: Election,
    own_lease: String,
    /// Of the two leases.
    durations: (Duration, Duration),
    /// What the leases of departed nodes said last.
    renewals: BTreeMap<String, u64>,
}

impl Duty {
    /// `lease` is how long the lease holds without a renewal; without, three looks.
    pub(super) fn new(node: &str, interval: Duration, lease: Option<Duration>) -> Self {
        let looks = interval * LOOKS;
        let lease = lease.unwrap_or(looks);
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            departed: Departed::default(),
            election: Election::new(node, ms(lease)),
            alive: Election::new(node, ms(looks)),
            durations: (lease, looks),
            own_lease: lease_of(node),
            renewals: BTreeMap::new(),
        }
    }
}

impl Duty {
    /// Whether this node may do what only one does.
    pub(super) fn holds(&self, now: u64) -> bool {
        self.election.holds(now)
    }

    /// Whether there is something to write about the lease.
    pub(super) fn may_renew(&self, now: u64) -> bool {
        self.election.next(now).is_some()
    }
}

fn lease_of(node: &str) -> String {
    format!("node-{node}")
}

impl Agent {
    pub(super) fn free_departed(&mut self, now: u64) {
        self.say_alive(now);
        let objects = self.calc.objects();
        let orphans = objects
            .blocks()
            .filter(|b| !b.is_virtual() && objects.node(&b.node).is_none());
        let mut evidence = Evidence {
            blocks: orphans.cloned().collect(),
            ..Evidence::default()
        };
        if !evidence.blocks.is_empty() {
            evidence.nodes = objects.nodes().map(|node| node.name.clone()).collect();
            evidence.renewals = self.care.departed.renewals.clone();
            // Pods of this node in a block that is not its own: it was renamed, or lost the block.
            let locals = self.calc.local().values();
            let locals = locals.flat_map(|local| &local.endpoint.ip_networks);
            let routes = self.calc.learned_prefixes().chain(locals);
            evidence.routes = routes.copied().collect();
        }
        let grace = self
            .options
            .node_grace
            .max(self.options.ipam_interval * LOOKS);
        let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let free = self.care.departed.departed.observe(&evidence, now, grace);
        let node = self.options.node_name.clone();
        let others: Vec<String> = self
            .care
            .departed
            .departed
            .nodes()
            .map(|(name, _)| name.to_owned())
            .filter(|name| *name != node)
            .collect();
        if others.is_empty() {
            return;
        }
        for name in others {
            self.store.write(Write::ReadLease(lease_of(&name)));
        }
        // In a cluster it is stood for all the time.
        if !self.store.is_cluster() {
            self.stand(now);
        }
        // Without peers a route that is missing says nothing.
        if self.converged && self.care.departed.election.holds(now) {
            for block in free.into_iter().filter(|block| block.node != node) {
                self.free_block(block);
            }
        }
    }

    /// A node without a Node object that has pods says that it lives.
    fn say_alive(&mut self, now: u64) {
        let node = &self.options.node_name;
        if self.calc.objects().node(node).is_some() || self.calc.local().is_empty() {
            return;
        }
        let name = self.care.departed.own_lease.clone();
        let (_, duration) = self.care.departed.durations;
        self.renew(name, self.care.departed.alive.next(now), now, duration);
    }

    pub(super) fn stand(&self, now: u64) {
        let next = self.care.departed.election.next(now);
        let (duration, _) = self.care.departed.durations;
        self.renew(LEASE.to_owned(), next, now, duration);
    }

    /// Gives the lease back if this agent holds it, so that another need not wait for its end.
    /// Returns whether there will be an answer.
    pub(super) fn give_lease_back(&self) -> bool {
        let duty = &self.care.departed;
        if !duty.holds(self.uptime_ms()) {
            return false;
        }
        let free = duty.election.give_back();
        let given = free.is_some();
        if given {
            let (duration, _) = duty.durations;
            self.renew(LEASE.to_owned(), free, self.uptime_ms(), duration);
        }
        given
    }

    /// Waits until somebody else may have the lease. A renewal that was on its way is answered first:
    /// what it made is given back then.
    pub(super) async fn lease_given_back(&mut self, said: &mut mpsc::UnboundedReceiver<Said>) {
        while let Some(word) = said.recv().await {
            if let Said::Lease(read) = word
                && read.name == LEASE
            {
                self.see_lease(read);
                if !self.give_lease_back() {
                    return;
                }
            }
        }
    }

    pub(super) fn read_lease(&self) {
        self.store.write(Write::ReadLease(LEASE.to_owned()));
    }

    fn renew(
        &self,
        name: String,
        next: Option<(Option<model::Lease>, model::Lease)>,
        begun: u64,
        duration: Duration,
    ) {
        self.store.write(match next {
            Some((expected, next)) => Write::SwapLease {
                name,
                expected,
                next,
                begun,
                duration,
            },
            None => Write::ReadLease(name),
        });
    }

    /// The datastore said what a lease is.
    pub(super) fn on_lease(&mut self, read: LeaseRead) {
        let now = self.uptime_ms();
        let of_cluster = read.name == LEASE && read.written.is_none();
        self.see_lease(read);
        // One that is missing or stale is taken at once; of a swap that failed this is the answer.
        if of_cluster && self.store.is_cluster() && self.care.departed.may_renew(now) {
            self.stand(now);
        }
    }

    fn see_lease(&mut self, read: LeaseRead) {
        let now = self.uptime_ms();
        let duty = &mut self.care.departed;
        let part = if read.name == LEASE {
            Some(&mut duty.election)
        } else if read.name == duty.own_lease {
            Some(&mut duty.alive)
        } else {
            None
        };
        match (part, read.lease, read.written) {
            (Some(election), Some(lease), Some(begun)) => election.written(lease, begun),
            (Some(election), lease, _) => election.observe(lease, now),
            (None, Some(lease), _) => {
                if let Some(node) = read.name.strip_prefix("node-") {
                    duty.renewals.insert(node.to_owned(), lease.renewals);
                }
            }
            (None, None, _) => {}
        }
    }

    /// The endpoints of the pods that were in it go first.
    fn free_block(&mut self, block: IpamBlock) {
        tracing::warn!(block = %block.cidr, node = %block.node, "its node is gone: the block is freed");
        let objects = self.calc.objects();
        let inside = objects.workload_endpoints().filter(|endpoint| {
            let mut ips = endpoint.ip_networks.iter();
            endpoint.node == block.node
                && ips.any(|ip| block.cidr.contains(ip))
                && !self.calc.local().contains_key(&EndpointKey::of(endpoint))
        });
        for endpoint in inside {
            let object = model::Object::WorkloadEndpoint(Box::new(endpoint.clone()));
            self.store.write(Write::Delete(object.key()));
        }
        self.store.write(Write::Free(block));
    }
}
