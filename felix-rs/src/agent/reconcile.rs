//! Journal, kernel, datastore and what should live, compared again and again.
//!
//! What to think of what is seen is decided by [`ipam::reconcile`]; here it is looked at, at the
//! start, after GC and every `--ipam-interval`, and what two looks agree on is done.

use super::addresses::{is_ours, key_of, now_ms};
use super::{Agent, departed};
use crate::store::Write;
use felix_core::{EndpointKey, Phase};
use ipam::journal::Record;
use ipam::reconcile::{Finding, HostEnd, Listed, Picture, Reconciler, Remedy, examine};
use ipam::{Owner, Suspicions};
use ipnet::IpNet;
use model::cni::Request;
use model::{IpamBlock, Kind, ObjectKey, WorkloadEndpoint};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What looks wrong is looked at again after this time.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// What is remembered between two looks.
pub(super) struct Care {
    /// When to look next.
    pub(super) look_at: Instant,
    pub(super) reconciler: Reconciler,
    idle: Suspicions<IpNet>,
    listed: BTreeMap<String, Listed>,
    /// Blocks of this node as last looked at.
    own: BTreeSet<IpNet>,
    /// Blocks of the journal that carry another node's name: this node was renamed.
    pub(super) renamed: Vec<IpamBlock>,
    pub(super) departed: departed::Duty,
    /// Whose addresses are in this node's blocks has to be looked up again.
    pub(super) foreign_stale: bool,
    /// What was freed since the start.
    pub(super) freed: u64,
}

impl Care {
    pub(super) fn new(node: &str, interval: Duration, lease: Option<Duration>) -> Self {
        Self {
            look_at: Instant::now(),
            reconciler: Reconciler::default(),
            idle: Suspicions::default(),
            listed: BTreeMap::new(),
            own: BTreeSet::new(),
            renamed: Vec::new(),
            departed: departed::Duty::new(node, interval, lease),
            foreign_stale: false,
            freed: 0,
        }
    }
}

impl Agent {
    /// The runtime's list of what is valid outlives the call.
    pub(super) fn remember_list(&mut self, request: &Request) {
        let attachments = request.valid_attachments.iter();
        let valid = attachments.map(|(container_id, ifname)| Owner {
            container_id: container_id.clone(),
            ifname: ifname.clone(),
        });
        let listed = Listed {
            valid: valid.collect(),
            horizon: self.journal.state().next_sequence,
        };
        self.care.listed.insert(request.network.clone(), listed);
        self.care.look_at = Instant::now();
    }

    /// Milliseconds since the start, of a clock that never jumps.
    pub(super) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Look, if it is time.
    pub(super) fn reconcile_if_due(&mut self) {
        if self.calc.phase() == Phase::Starting || Instant::now() < self.care.look_at {
            return;
        }
        self.reconcile();
        let interval = self.options.ipam_interval;
        let pause = if self.care.reconciler.is_waiting() {
            interval.min(SECOND_LOOK)
        } else {
            interval
        };
        self.care.look_at = Instant::now() + pause;
    }

    fn reconcile(&mut self) {
        let now = self.uptime_ms();
        let interval = u64::try_from(self.options.ipam_interval.as_millis()).unwrap_or(u64::MAX);
        let second = u64::try_from(SECOND_LOOK.as_millis()).unwrap_or(u64::MAX);
        let findings = self.findings();
        for finding in &findings {
            if self.care.reconciler.since(finding).is_none() {
                tracing::warn!(%finding, "addresses are not in step");
            }
        }
        // A timer that fires a little early is no reason to wait for another round.
        let apart = interval.min(second) * 9 / 10;
        for remedy in self.care.reconciler.observe(findings, now, apart) {
            self.put_right(remedy);
        }
        if self.calc.phase() == Phase::InSync && self.calc.objects().lost().is_none() {
            self.take_over_renamed();
            self.write_endpoints();
            self.give_back_idle(now, interval * 9 / 10);
            self.free_departed(now);
        }
    }

    /// Everything that is not as it should be now.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let objects = self.calc.objects();
        let journal = self.journal.state();
        let known = self.calc.phase() == Phase::InSync && objects.lost().is_none();
        let links = self.calc.underlay().links();
        let links =
            links.filter(|link| is_ours(link) && !self.deleting.contains_key(&link.ifindex));
        let pods = journal.endpoints.values().filter_map(|live| {
            let (namespace, pod) = (&live.endpoint.namespace, &live.endpoint.pod);
            let object = objects.pod(namespace, pod).filter(|_| known)?;
            Some(((namespace.as_str(), pod.as_str()), object))
        });
        examine(&Picture {
            node: &self.options.node_name,
            journal,
            ipam: &self.ipam,
            links: links
                .map(|link| HostEnd {
                    ifindex: link.ifindex,
                    name: link.name.clone(),
                })
                .collect(),
            listed: &self.care.listed,
            pods: pods.collect(),
            endpoints: known.then(|| objects.workload_endpoints().collect()),
            blocks: known.then(|| objects.blocks().collect()),
        })
    }

    fn put_right(&mut self, remedy: Remedy) {
        self.care.freed += 1;
        match remedy {
            Remedy::Free { owner, sequence } => {
                let key = EndpointKey {
                    container_id: owner.container_id,
                    ifname: owner.ifname,
                };
                let same = |local: &felix_core::LocalEndpoint| local.sequence == sequence;
                if self.calc.local().get(&key).is_some_and(same) {
                    tracing::warn!(container = %key.container_id, "leaked: address released");
                    self.remove_endpoint(&key);
                }
            }
            Remedy::Release { address } => {
                tracing::warn!(%address, "held and not in the journal: released");
                self.ipam.release_one(address, now_ms());
            }
            Remedy::DeleteLink { ifindex, name } => {
                let link = self.calc.underlay().link(ifindex);
                if link.is_some_and(|link| link.name == name) {
                    tracing::warn!(%name, "a link of ours without a pod: removed");
                    if let Err(error) = self.kernel.delete_link(ifindex) {
                        tracing::warn!(%name, %error, "not removed");
                    }
                }
            }
            Remedy::DeleteEndpoint { namespace, name } => {
                let key = ObjectKey::namespaced(Kind::WorkloadEndpoint, &namespace, &name);
                let locals = self.calc.local().values();
                if !locals
                    .into_iter()
                    .any(|local| key_of(&local.endpoint) == key)
                {
                    self.store.write(Write::Delete(key));
                }
            }
        }
    }

    /// Blocks that two looks found empty and not needed. The journal forgets a block before the
    /// datastore does, and so do the kernel and the peers: at no moment do they name one that
    /// somebody else may have claimed.
    fn give_back_idle(&mut self, now: u64, apart: u64) {
        self.ipam.tick(now_ms());
        let idle = self.ipam.idle_blocks();
        let mut given_back = Vec::new();
        for cidr in self.care.idle.observe(idle, now, apart) {
            if !self.ipam.give_back(cidr) {
                continue;
            }
            if let Err(error) = self.journal.append(&Record::BlockGone(cidr)) {
                tracing::warn!(%error, block = %cidr, "kept, since it can't be journaled");
                self.ipam.keep(cidr);
                continue;
            }
            tracing::info!(block = %cidr, "empty and not needed: given back");
            given_back.push(cidr);
        }
        if given_back.is_empty() {
            return;
        }
        self.blocks_changed();
        if let Err(error) = self.converge() {
            self.fail(&error);
        }
        self.advertise();
        for cidr in given_back {
            let node = self.options.node_name.clone();
            self.store.write(Write::Free(IpamBlock { cidr, node }));
        }
    }

    /// The node got another name: blocks that its journal holds under the old one become its own,
    /// once the old one is no node any more.
    fn take_over_renamed(&mut self) {
        let objects = self.calc.objects();
        let mut due = Vec::new();
        self.care.renamed.retain(|old| {
            let key = model::Object::IpamBlock(old.clone()).key();
            let same = objects.get(&key) == Some(&model::Object::IpamBlock(old.clone()));
            if same && objects.node(&old.node).is_none() {
                due.push(old.clone());
            }
            same
        });
        for block in due {
            tracing::warn!(block = %block.cidr, old = %block.node, "renamed: the block is taken over");
            let by = self.options.node_name.clone();
            self.store.write(Write::TakeOver { block, by });
        }
    }

    /// Addresses of other nodes' pods in blocks of this node: nobody gets them, and they are
    /// reached by their nodes. Looked for when this node's blocks change, when such an endpoint
    /// comes or goes, and when a node's address may have changed.
    fn refresh_foreign(&mut self) {
        let objects = self.calc.objects();
        let (mut addresses, mut strays) = (BTreeMap::new(), BTreeMap::new());
        for endpoint in objects.workload_endpoints() {
            if endpoint.node == self.options.node_name {
                continue;
            }
            let node = objects.node(&endpoint.node);
            for ip in &endpoint.ip_networks {
                if self.care.own.iter().any(|block| block.contains(ip)) {
                    addresses.insert(ip.addr(), whose(endpoint));
                    let way = node.and_then(|node| match ip {
                        IpNet::V4(_) => node.ipv4_address.map(|net| IpAddr::V4(net.addr())),
                        IpNet::V6(_) => node.ipv6_address.map(|net| IpAddr::V6(net.addr())),
                    });
                    strays.extend(way.map(|way| (*ip, vec![way])));
                }
            }
        }
        self.care.foreign_stale = false;
        self.ipam.set_foreign(addresses);
        self.calc.set_strays(strays);
    }

    /// Once for all objects that changed in a round.
    pub(super) fn refresh_foreign_if_stale(&mut self) {
        if self.care.foreign_stale {
            self.refresh_foreign();
        }
    }

    pub(super) fn foreign_may_differ(&self, endpoint: Option<&WorkloadEndpoint>) -> bool {
        match endpoint {
            None => !self.ipam.foreign().is_empty(),
            Some(endpoint) => {
                endpoint.node != self.options.node_name
                    && endpoint
                        .ip_networks
                        .iter()
                        .any(|ip| self.care.own.iter().any(|block| block.contains(ip)))
            }
        }
    }

    /// Takes note of this node's blocks.
    pub(super) fn own_blocks_are(&mut self, own: &BTreeSet<IpNet>) {
        if self.care.own != *own {
            self.care.own.clone_from(own);
            self.refresh_foreign();
        }
    }
}

fn whose(endpoint: &WorkloadEndpoint) -> String {
    let WorkloadEndpoint {
        namespace,
        pod,
        node,
        ..
    } = endpoint;
    format!("pod {namespace}/{pod} on node {node}")
}
