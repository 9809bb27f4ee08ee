//! Addresses: what the allocator is told, and the blocks that it asks for.

use super::pods::link_of;
use super::{Agent, RETRY};
use crate::store::{Claim, Said, Write};
use felix_core::{EndpointKey, LocalEndpoint, Phase};
use ipam::Owner;
use ipam::journal::{Live, Record, State};
use ipnet::IpNet;
use model::dataplane::Link;
use model::{IpamBlock, ObjectKey, Pod, WorkloadEndpoint, names};
use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds of the wall clock, for cooldowns: as it was at the first call, and from there by a
/// clock that never jumps.
pub(super) fn now_ms() -> u64 {
    static FIRST: OnceLock<(Instant, u64)> = OnceLock::new();
    let (at, wall) = FIRST.get_or_init(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall = u64::try_from(since.unwrap_or_default().as_millis());
        (Instant::now(), wall.unwrap_or(u64::MAX))
    });
    let elapsed = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
    wall.saturating_add(elapsed)
}

pub(super) fn owner(key: &EndpointKey) -> Owner {
    Owner {
        container_id: key.container_id.clone(),
        ifname: key.ifname.clone(),
    }
}

impl Agent {
    /// Ask the datastore for the blocks that the allocator wants.
    pub(super) fn claim_blocks(&mut self) {
        if self.calc.phase() == Phase::InSync {
            for block in self.ipam.wanted_claims() {
                self.claim(block);
            }
        }
    }

    /// Ask for one block, unless that was done a moment ago.
    pub(super) fn claim(&mut self, block: IpNet) {
        let now = Instant::now();
        if self
            .claiming
            .get(&block)
            .is_some_and(|at| now - *at < 2 * RETRY)
        {
            return;
        }
        self.claiming.insert(block, now);
        let node = self.options.node_name.clone();
        self.store
            .write(Write::Claim(IpamBlock { cidr: block, node }));
    }

    pub(super) fn on_said(&mut self, said: Said) {
        match said {
            Said::Claim(claim) => self.on_claim(claim),
            Said::Lease(read) => self.on_lease(read),
        }
    }

    fn on_claim(&mut self, claim: Claim) {
        let cidr = claim.block.cidr;
        match claim.owner {
            Ok(node) => {
                self.claiming.remove(&cidr);
                let block = IpamBlock { cidr, node };
                if block.node == self.options.node_name {
                    tracing::info!(block = %cidr, "block claimed");
                    self.ipam.claimed(block);
                } else {
                    tracing::info!(block = %cidr, owner = %block.node, "block belongs to another node");
                    self.ipam.refused(block);
                }
                self.blocks_changed();
            }
            // Stays in `claiming`, so that it is not asked for again at once.
            Err(reason) => tracing::warn!(block = %cidr, %reason, "block not claimed"),
        }
    }

    /// The blocks of this node may have changed.
    pub(super) fn blocks_changed(&mut self) {
        let own: BTreeSet<IpNet> = self.ipam.own_blocks().collect();
        self.own_blocks_are(&own);
        self.calc.set_own_blocks(own);
        let conflicts = self.ipam.conflicts();
        for conflict in conflicts
            .iter()
            .filter(|found| !self.conflicts.contains(found))
        {
            tracing::error!(%conflict, "two nodes claim one block; it gives out no addresses here");
        }
        self.conflicts = conflicts;
        if self.calc.phase() == Phase::InSync {
            self.journal_blocks();
        }
    }

    /// The journal's blocks are those of the allocator, so that a start without the datastore
    /// gives out no address of a block that was lost.
    fn journal_blocks(&mut self) {
        let own: Vec<IpNet> = self.ipam.own_blocks().collect();
        let journaled: Vec<IpNet> = self.journal.state().blocks.keys().copied().collect();
        let gone = journaled.iter().filter(|block| !own.contains(block));
        let come = own.iter().filter(|block| !journaled.contains(block));
        let node = &self.options.node_name;
        let block = |cidr: &IpNet| IpamBlock {
            cidr: *cidr,
            node: node.clone(),
        };
        let records: Vec<Record> = gone
            .map(|cidr| Record::BlockGone(*cidr))
            .chain(come.map(|cidr| Record::Block(block(cidr))))
            .collect();
        for record in records {
            self.journal.note(record);
        }
    }

    /// Take what the journal says into the allocator and the calculation.
    pub(super) fn adopt_journal(&mut self) {
        self.adopt_name();
        let state = self.journal.state().clone();
        let node = &self.options.node_name;
        let renamed = state.blocks.values().filter(|block| block.node != *node);
        self.care.renamed = renamed.cloned().collect();
        self.ipam.restore(&state);
        for live in by_age(state) {
            self.next_ifindex = self.next_ifindex.max(live.ifindex + 1);
            self.calc.set_local(LocalEndpoint {
                endpoint: live.endpoint,
                ifindex: live.ifindex,
                mtu: live.mtu,
                sequence: live.sequence,
            });
        }
        self.blocks_changed();
    }

    /// This node was renamed: its pods run on under its name of today. Their objects under the
    /// other name are deleted with the first writes.
    fn adopt_name(&mut self) {
        let node = &self.options.node_name;
        let state = self.journal.state();
        let renamed = state
            .endpoints
            .values()
            .filter(|l| l.endpoint.node != *node);
        let renamed: Vec<Live> = renamed.cloned().collect();
        for mut live in renamed {
            let old = key_of(&live.endpoint);
            tracing::warn!(old = %live.endpoint.node, endpoint = %old, "renamed: the pod is taken over");
            let name = WorkloadEndpoint::name_of(node, &live.endpoint.pod, &live.endpoint.endpoint);
            live.endpoint.name = name.into();
            live.endpoint.node = node.as_str().into();
            self.journal.note(Record::Endpoint {
                endpoint: live.endpoint,
                ifindex: live.ifindex,
                mtu: live.mtu,
                sequence: live.sequence,
                network: live.network,
            });
            self.store.write(Write::Delete(old));
        }
    }

    /// A journal that was lost: endpoints of this node that the datastore remembers and whose
    /// link is there are taken back.
    pub(super) fn adopt_from_datastore(&mut self) {
        if !self.journal.was_lost() {
            return;
        }
        let here = |endpoint: &WorkloadEndpoint| {
            endpoint.node == self.options.node_name
                && !self.calc.local().contains_key(&EndpointKey::of(endpoint))
                && self
                    .calc
                    .underlay()
                    .link_named(&endpoint.interface_name)
                    .is_some()
        };
        let found: Vec<_> = self
            .calc
            .objects()
            .workload_endpoints()
            .cloned()
            .map(with_link)
            .filter(here)
            .collect();
        for endpoint in found {
            let link = self.calc.underlay().link_named(&endpoint.interface_name);
            let Some((ifindex, mtu)) = link.map(|link| (link.ifindex, link.mtu)) else {
                continue;
            };
            tracing::warn!(
                pod = %format!("{}/{}", endpoint.namespace, endpoint.pod),
                interface = %endpoint.interface_name,
                "not in the journal: taken back from the datastore"
            );
            let owner = owner(&EndpointKey::of(&endpoint));
            for ip in &endpoint.ip_networks {
                self.ipam.adopt(&owner, ip.addr());
            }
            let sequence = self.journal.state().next_sequence;
            let record = Record::Endpoint {
                endpoint: endpoint.clone(),
                ifindex,
                mtu,
                sequence,
                network: String::new(),
            };
            if let Err(error) = self.journal.append(&record) {
                tracing::error!(%error, "taken back but not journaled");
            }
            self.calc.set_local(LocalEndpoint {
                endpoint,
                ifindex,
                mtu,
                sequence,
            });
        }
    }

    /// Blocks that the journal calls ours and the datastore does not know: claimed again if they
    /// are in use, forgotten if not.
    pub(super) fn forget_unconfirmed_blocks(&mut self) {
        let known: Vec<IpNet> = self.blocks.values().copied().collect();
        let own: Vec<IpNet> = self
            .ipam
            .own_blocks()
            .filter(|own| !known.contains(own))
            .collect();
        for block in own {
            tracing::warn!(%block, "in the journal, not in the datastore");
            self.ipam.remove_block(block);
        }
        self.blocks_changed();
    }

    /// The first view that may be applied: compared with the journal at once.
    pub(super) fn first_view(&mut self) {
        self.audit_due = true;
        self.care.look_at = Instant::now();
    }

    /// The datastore is told of every endpoint of this node.
    pub(super) fn write_endpoints(&mut self) {
        for local in self.calc.local().values() {
            let object = model::Object::WorkloadEndpoint(Box::new(local.endpoint.clone()));
            let told = match self.store.is_cluster() {
                true => self.pod_is_told(&local.endpoint),
                false => self.calc.objects().get(&object.key()) == Some(&object),
            };
            if !told {
                let key = object.key();
                self.store.write(Write::Put(Box::new(object)));
                self.pod_is_ready(key, &local.endpoint);
            }
        }
    }

    /// A pod of this node may have become Ready.
    pub(super) fn on_pod(&self, pod: &Pod) {
        if !pod.ready || !self.store.is_cluster() {
            return;
        }
        let locals = self.calc.local().values().map(|local| &local.endpoint);
        let own = |endpoint: &&WorkloadEndpoint| {
            endpoint.namespace == pod.namespace && endpoint.pod == pod.name
        };
        for endpoint in locals.filter(own) {
            self.pod_is_ready(key_of(endpoint), endpoint);
        }
    }

    /// Tells the writer, if the endpoint's pod is Ready.
    fn pod_is_ready(&self, key: ObjectKey, endpoint: &WorkloadEndpoint) {
        let pod = self.calc.objects().pod(&endpoint.namespace, &endpoint.pod);
        let same = |pod: &Pod| endpoint.pod_uid.is_none() || pod.uid == endpoint.pod_uid;
        if pod.is_some_and(|pod| pod.ready && same(pod)) {
            self.store.write(Write::Ready(key));
        }
    }
}

/// A link that this or an earlier process made. The kernel takes the alias only after the link is
/// there: a process that died in between leaves one with our name and MAC and without an alias.
pub(crate) fn is_ours(link: &Link) -> bool {
    let marked = match &link.alias {
        Some(alias) => alias.starts_with(names::ALIAS_PREFIX),
        None => link.kind.as_deref() == Some("veth") && link.mac == Some(names::HOST_MAC),
    };
    marked && link.name.starts_with(names::INTERFACE_PREFIX)
}

/// Of two sandboxes of one pod, the later one holds its place.
pub(super) fn by_age(state: State) -> Vec<Live> {
    let mut endpoints: Vec<Live> = state.endpoints.into_values().collect();
    endpoints.sort_by_key(|live| live.sequence);
    endpoints
}

/// An endpoint that follows from a Pod names no link: its name and MAC follow from the container.
fn with_link(mut endpoint: WorkloadEndpoint) -> WorkloadEndpoint {
    if endpoint.interface_name.is_empty() {
        let (name, mac) = link_of(&endpoint.container_id, &endpoint.endpoint);
        endpoint.interface_name = name.into();
        endpoint.mac = mac;
    }
    endpoint
}

pub(super) fn key_of(endpoint: &WorkloadEndpoint) -> ObjectKey {
    model::Object::WorkloadEndpoint(Box::new(endpoint.clone())).key()
}
