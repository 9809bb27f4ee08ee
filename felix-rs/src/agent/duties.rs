//! What an agent does in a cluster beside its node's network: what it says of its own node and
//! blocks, and, while it holds the lease, what is to be done once for the whole cluster.
//!
//! Every agent may hold the lease. Those that do not look at it the more rarely the more nodes there
//! are, so that all of them together ask ten times a second at most.

use super::node_report::Answered;
use super::{Agent, tunnel};
use crate::store::{ServicePicture, Write};
use datastore::kubernetes::{Defaults, NodeStatus, PodAddresses, PoolDefaults};
use felix_core::Phase;
use ipam::load_balancer::Demand;
use ipnet::IpNet;
use model::object::{AllowedUse, EncapMode};
use model::{Allocation, BlockAllocations, IpamBlock, Kind, WorkloadEndpoint};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long the lease holds without a renewal.
pub(super) const LEASE: Duration = Duration::from_secs(30);
/// How often the holder looks whether to renew it.
const RENEW: Duration = Duration::from_secs(1);
/// How often anybody else reads it, at least, and for each node of the cluster.
const READ: Duration = Duration::from_secs(10);
const READ_PER_NODE: Duration = Duration::from_millis(100);
/// A node that is not ready says so after this time: a start is no failure.
const NOT_READY_AFTER: Duration = Duration::from_secs(10);
/// How often what is held in this node's blocks is compared with what was written of it.
const BLOCKS_EVERY: Duration = Duration::from_secs(5);
/// Services are looked at again after this time although nothing has changed.
const SERVICES_EVERY: Duration = Duration::from_secs(300);

/// What was done, and what is due.
#[derive(Default)]
pub(super) struct Duties {
    elect_at: Option<Instant>,
    /// The lease was held when last looked.
    held: bool,
    /// What a cluster without pools is given; none once it was asked for.
    defaults: Option<Option<[PoolDefaults; 2]>>,
    services: Option<(ServicePicture, Instant)>,
    /// Something changed that decides about Services.
    services_stale: bool,
    /// What was said of this node's blocks.
    blocks: BTreeMap<IpNet, BlockAllocations>,
    blocks_at: Option<Instant>,
    answered: Answered,
    /// What was said of the node, and since when it is not ready.
    node: Option<NodeStatus>,
    not_ready_since: Option<Instant>,
}

impl Duties {
    pub(super) fn new(pools: Option<[PoolDefaults; 2]>) -> Self {
        Self {
            defaults: Some(pools),
            ..Self::default()
        }
    }
}

impl Agent {
    /// In each round, once the datastore is in sync.
    pub(super) fn see_to_duties(&mut self) {
        if !self.store.is_cluster() || self.calc.phase() != Phase::InSync {
            return;
        }
        self.elect();
        self.report_blocks();
        let mut answered = std::mem::take(&mut self.duties.answered);
        self.answer_node_statuses(&mut answered);
        self.duties.answered = answered;
        if self.holds_lease() {
            self.ask_for_defaults();
            self.serve_services();
        }
    }

    /// Whether this agent looks after the cluster as a whole.
    pub(super) fn holds_lease(&self) -> bool {
        self.care.departed.holds(self.uptime_ms())
    }

    fn elect(&mut self) {
        let (now, ms) = (Instant::now(), self.uptime_ms());
        let holds = self.holds_lease();
        if holds != self.duties.held {
            self.duties.held = holds;
            self.duties.services_stale = true;
            tracing::info!(holds, "the lease of who looks after the cluster");
        }
        if self.duties.elect_at.is_some_and(|at| now < at) {
            return;
        }
        let nodes = u32::try_from(self.calc.objects().nodes().count()).unwrap_or(u32::MAX);
        let pause = match holds {
            true => RENEW,
            false => READ.max(READ_PER_NODE.saturating_mul(nodes)),
        };
        self.duties.elect_at = Some(now + pause);
        if !holds {
            self.read_lease();
        } else if self.care.departed.may_renew(ms) {
            self.stand(ms);
        }
    }

    fn ask_for_defaults(&mut self) {
        let Some(pools) = self.duties.defaults.take() else {
            return;
        };
        let objects = self.calc.objects();
        let nodes = objects.nodes().flat_map(|node| {
            let own = [
                node.ipv4_address.map(|net| net.addr().into()),
                node.ipv6_address.map(|net| net.addr().into()),
            ];
            own.into_iter()
                .flatten()
                .chain(node.addresses.iter().copied())
        });
        let services = objects
            .services()
            .flat_map(|service| service.cluster_ips.iter().copied());
        self.store.write(Write::Defaults(Box::new(Defaults {
            pools,
            avoid: nodes.chain(services).collect(),
        })));
    }

    /// An object changed that may decide about Services.
    pub(super) fn services_may_differ(&mut self, kind: Kind) {
        let decides = [
            Kind::Service,
            Kind::IpPool,
            Kind::IpReservation,
            Kind::IpamBlock,
        ];
        self.duties.services_stale |= decides.contains(&kind);
    }

    fn serve_services(&mut self) {
        let again = self
            .duties
            .services
            .as_ref()
            .is_none_or(|(_, at)| at.elapsed() >= SERVICES_EVERY);
        if !self.duties.services_stale && !again {
            return;
        }
        self.duties.services_stale = false;
        let picture = self.service_picture();
        if picture.pools.is_empty() && picture.blocks.is_empty() {
            return;
        }
        let same = self
            .duties
            .services
            .as_ref()
            .is_some_and(|(before, _)| *before == picture);
        if !same || again {
            self.duties.services = Some((picture.clone(), Instant::now()));
            self.store.write(Write::Services(Box::new(picture)));
        }
    }

    fn service_picture(&self) -> ServicePicture {
        let objects = self.calc.objects();
        let gives = |pool: &&model::IpPool| pool.allowed_uses.contains(&AllowedUse::LoadBalancer);
        let pools: Vec<_> = objects.pools().filter(gives).cloned().collect();
        let (ours, others): (Vec<&IpamBlock>, Vec<&IpamBlock>) = objects
            .blocks()
            .partition(|block| block.node == IpamBlock::LOAD_BALANCER);
        let in_a_pool = |block: &&IpamBlock| {
            pools
                .iter()
                .any(|pool| pool.cidr.contains(&block.cidr) || block.cidr.contains(&pool.cidr))
        };
        ServicePicture {
            reserved: objects
                .reservations()
                .flat_map(|r| r.reserved_cidrs.iter().copied())
                .collect(),
            demands: objects.services().filter_map(Demand::of).collect(),
            blocks: ours.into_iter().map(|block| block.cidr).collect(),
            others: others
                .into_iter()
                .filter(in_a_pool)
                .map(|block| block.cidr)
                .collect(),
            pools,
        }
    }

    /// Writes what is held in this node's blocks, where that is not what was written last.
    fn report_blocks(&mut self) {
        let now = Instant::now();
        if self.duties.blocks_at.is_some_and(|at| now < at) {
            return;
        }
        self.duties.blocks_at = Some(now + BLOCKS_EVERY);
        let own: BTreeSet<IpNet> = self.ipam.own_blocks().collect();
        self.duties.blocks.retain(|cidr, _| own.contains(cidr));
        for cidr in own {
            let block = IpamBlock {
                cidr,
                node: self.options.node_name.clone(),
            };
            let mut allocations = self.held_in(&block);
            let before = self.duties.blocks.get(&cidr);
            let same = before.is_some_and(|before| before.held == allocations.held);
            if !same {
                self.duties.blocks.insert(cidr, allocations.clone());
                allocations.sequence = self.journal.state().next_sequence;
                self.store.write(Write::Allocations { block, allocations });
            }
        }
    }

    fn held_in(&self, block: &IpamBlock) -> BlockAllocations {
        let mut held = BlockAllocations::default();
        let node = ("node".to_owned(), block.node.clone());
        for live in self.journal.state().endpoints.values() {
            let endpoint = &live.endpoint;
            let holder = Allocation {
                handle: format!("{}.{}", network(&live.network), endpoint.container_id),
                attributes: [
                    node.clone(),
                    ("namespace".to_owned(), endpoint.namespace.to_string()),
                    ("pod".to_owned(), endpoint.pod.to_string()),
                ]
                .into(),
            };
            for ordinal in endpoint
                .ip_networks
                .iter()
                .filter_map(|ip| block.ordinal(ip.addr()))
            {
                held.held.insert(ordinal, holder.clone());
                held.taken_at.insert(ordinal, live.sequence);
            }
        }
        for (device, ip) in &self.journal.state().tunnels {
            if let Some(ordinal) = block.ordinal(*ip) {
                let holder = Allocation {
                    handle: format!("{device}-addr-{}", block.node),
                    attributes: [
                        node.clone(),
                        ("type".to_owned(), "tunnelAddress".to_owned()),
                    ]
                    .into(),
                };
                held.held.insert(ordinal, holder);
            }
        }
        held.free = (0..block.size())
            .filter(|n| !held.held.contains_key(n))
            .collect();
        held
    }

    /// Says on the Node object whether pods that come here have a network. The object that comes
    /// back after it was deleted is told again.
    pub(super) fn report_node(&mut self, ready: bool, message: String) {
        let node = self.options.node_name.clone();
        if !self.store.is_cluster() {
            return;
        }
        if self.calc.objects().node(&node).is_none() {
            self.duties.node = None;
            return;
        }
        if ready {
            self.duties.not_ready_since = None;
        } else {
            let since = *self.duties.not_ready_since.get_or_insert_with(Instant::now);
            if since.elapsed() < NOT_READY_AFTER {
                return;
            }
        }
        let status = NodeStatus {
            node,
            ready,
            message,
            annotations: self
                .tunnel_annotations()
                .into_iter()
                .chain(self.missing_addresses())
                .collect(),
        };
        if self.duties.node.as_ref() != Some(&status) {
            self.duties.node = Some(status.clone());
            self.store.write(Write::Node(Box::new(status)));
        }
    }

    /// The node's own address on its tunnels, under the names that Calico's tools read.
    fn tunnel_annotations(&self) -> BTreeMap<String, Option<String>> {
        let address = tunnel::journaled(self.journal.state()).map(|ip| ip.to_string());
        let v4 = self
            .calc
            .objects()
            .pools()
            .filter(|pool| pool.cidr.addr().is_ipv4());
        let modes: Vec<(EncapMode, EncapMode)> =
            v4.map(|pool| (pool.ipip_mode, pool.vxlan_mode)).collect();
        let ipip = modes.iter().any(|(ipip, _)| *ipip != EncapMode::Never);
        let vxlan = modes.iter().any(|(_, vxlan)| *vxlan != EncapMode::Never);
        let names = [
            ("projectcalico.org/IPv4IPIPTunnelAddr", ipip),
            ("projectcalico.org/IPv4VXLANTunnelAddr", vxlan),
        ];
        names
            .map(|(name, used)| (name.to_owned(), address.clone().filter(|_| used)))
            .into()
    }

    /// Whether the pod's object says what the endpoint is, as far as a cluster is told.
    pub(super) fn pod_is_told(&self, endpoint: &WorkloadEndpoint) -> bool {
        let wanted = PodAddresses::of(endpoint).annotations();
        match self.calc.objects().pod(&endpoint.namespace, &endpoint.pod) {
            // It is gone, or not seen yet.
            None => true,
            Some(pod) => wanted
                .iter()
                .all(|(key, value)| pod.annotations.get(key) == Some(value)),
        }
    }
}

/// The CNI network; an endpoint of an older journal has none.
fn network(name: &str) -> &str {
    if name.is_empty() {
        "k8s-pod-network"
    } else {
        name
    }
}
