//! What the agent counts.

use super::Agent;
use crate::add_times::AddTimes;
use crate::ctl::Answer;
use crate::metrics::{Exposition, Histogram, Type};
use bgp_core::SpeakerStatus;
use felix_core::Phase;
use ipam::PoolUsage;
use kernel::ConntrackTable;
use policy::CountedReason;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use tokio::sync::oneshot;

/// One number of a report.
type Number<T> = fn(&T) -> u64;
/// Two counts of one thing.
type Both = (u64, u64);

/// Counters that nothing else of the agent needs.
#[derive(Default)]
pub(super) struct Counters {
    /// Transactions on our table, and those that failed.
    pub(super) commits: u64,
    pub(super) failed_commits: u64,
    /// From a change of the datastore to the rules in force.
    pub(super) programming: Histogram,
    /// When the oldest change came that is not in force.
    pub(super) changed_at: Option<Instant>,
    /// How many changes of the datastore are in force.
    pub(super) generation: u64,
    /// How many changes of the datastore came.
    pub(super) updates: u64,
    /// ADDs.
    pub(super) adds: AddTimes,
}

impl Counters {
    /// A change of the datastore came.
    pub(super) fn changed(&mut self) {
        self.updates += 1;
        self.changed_at.get_or_insert_with(Instant::now);
    }

    /// All changes so far are in force.
    pub(super) fn in_force(&mut self) {
        self.generation = self.updates;
        if let Some(at) = self.changed_at.take() {
            self.programming.observe(at.elapsed());
        }
    }
}

impl Agent {
    /// Answers with everything that is counted; the speaker adds its part.
    pub(super) fn answer_metrics(&mut self, answer: oneshot::Sender<Answer>) {
        let mut text = Exposition::default();
        self.node_metrics(&mut text);
        self.policy_metrics(&mut text);
        let speaker = self.speaker.clone();
        tokio::spawn(async move {
            // A speaker that does not answer has nothing to count.
            if let Ok(status) = speaker.status().await {
                bgp_metrics(&mut text, &status);
            }
            // Who asked may have hung up.
            let _ = answer.send(Answer::Text(text.finish()));
        });
    }

    /// What the rules counted, by what decided.
    fn policy_metrics(&mut self, text: &mut Exposition) {
        // A table that can't be read is in readiness already.
        let counts = self.kernel.nft_counters().unwrap_or_default();
        let mut rows: BTreeMap<[(&str, String); 5], (u64, u64)> = BTreeMap::new();
        for (name, counted) in self.calc.counters() {
            let Some(count) = counts.get(name) else {
                continue;
            };
            let policies: Vec<String> = counted.policies.iter().map(ToString::to_string).collect();
            let labels = [
                ("direction", counted.direction.to_string()),
                ("tier", counted.tier.clone()),
                ("policy", policies.join(",")),
                ("verdict", verdict(counted.reason)),
                ("staged", counted.staged.to_string()),
            ];
            let sum = rows.entry(labels).or_default();
            sum.0 += count.packets;
            sum.1 += count.bytes;
        }
        let families: [(&str, &str, Number<Both>); 2] = [
            (
                "ocicat_policy_packets_total",
                "Packets that a policy decided.",
                |c| c.0,
            ),
            (
                "ocicat_policy_bytes_total",
                "Bytes that a policy decided.",
                |c| c.1,
            ),
        ];
        for (name, help, value) in families {
            let rows = rows.iter().map(|(labels, sums)| {
                (
                    labels
                        .each_ref()
                        .map(|(label, text)| (*label, text.as_str())),
                    value(sums),
                )
            });
            text.family(name, Type::Counter, help, rows);
        }
        let drops = &self.drops;
        let help = "Denied packets that the log told of, of those the kernel let through to it.";
        text.single(
            "ocicat_drop_log_packets_total",
            Type::Counter,
            help,
            drops.total,
        );
        let help = "Denied packets that the log had no room for.";
        text.single(
            "ocicat_drop_log_lost_total",
            Type::Counter,
            help,
            drops.lost,
        );
    }

    fn node_metrics(&self, text: &mut Exposition) {
        use Type::{Counter, Gauge};
        let version = env!("CARGO_PKG_VERSION");
        let node = self.options.node_name.as_str();
        let labels = [("node", node), ("version", version)];
        text.family("ocicat_node_info", Gauge, "This node.", [(labels, 1)]);
        let ready = self.reported_ready();
        text.single(
            "ocicat_ready",
            Gauge,
            "Whether the node does its job.",
            u8::from(ready),
        );
        let in_sync = u8::from(self.calc.phase() == Phase::InSync);
        text.single(
            "ocicat_datastore_in_sync",
            Gauge,
            "Whether the datastore is known in full.",
            in_sync,
        );
        text.single(
            "ocicat_endpoints",
            Gauge,
            "Pods of this node.",
            self.calc.local().len(),
        );
        text.single(
            "ocicat_endpoints_without_labels",
            Gauge,
            "Pods of this node that are closed until their Pod objects come.",
            self.without_labels().count(),
        );
        text.single(
            "ocicat_objects",
            Gauge,
            "Objects in force.",
            self.calc.objects().all().count(),
        );
        text.single(
            "ocicat_problems",
            Gauge,
            "Objects that are not usable as they are.",
            self.calc.problems().len(),
        );
        text.single(
            "ocicat_ipam_blocks",
            Gauge,
            "Address blocks of this node.",
            self.ipam.own_blocks().count(),
        );
        let usages = self.ipam.usages();
        let states: [(&str, Number<PoolUsage>); 4] = [
            ("all", |pool| pool.addresses),
            ("used", |pool| pool.in_use),
            ("cooling", |pool| pool.cooling),
            ("reserved", |pool| pool.barred),
        ];
        text.family(
            "ocicat_ipam_addresses",
            Gauge,
            "Addresses in the blocks of this node, by pool and state.",
            usages.iter().flat_map(|pool| {
                let of = move |(state, count): (_, Number<PoolUsage>)| {
                    (
                        [("pool", pool.pool.as_str()), ("state", state)],
                        count(pool),
                    )
                };
                states.into_iter().map(of)
            }),
        );
        text.single(
            "ocicat_ipam_problems",
            Gauge,
            "What the last look at addresses found; see `ocicat ipam check`.",
            self.care.reconciler.count(),
        );
        text.single(
            "ocicat_ipam_freed_total",
            Counter,
            "What reconciliation has freed or removed.",
            self.care.freed,
        );
        text.single(
            "ocicat_routes",
            Gauge,
            "Routes of ours in the kernel.",
            self.actual.routes.len(),
        );
        text.single(
            "ocicat_routes_withheld",
            Gauge,
            "Routes of BGP that the kernel can't have.",
            self.calc.withheld().count(),
        );
        let missing = self.calc.missing_kinds();
        let missing = missing.iter().map(|missing| {
            let pool = missing.pool.name.as_str();
            ([("pool", pool), ("kind", missing.kind)], 1)
        });
        text.family(
            "ocicat_pool_tunnel_missing",
            Gauge,
            "Pools that want a kind of tunnel which this kernel lacks.",
            missing,
        );
        let wanted = self.calc.desired().tunnels.keys();
        let wanted = wanted.map(|name| {
            let made = self.actual.tunnels.contains_key(name);
            ([("device", name.as_str())], u64::from(made))
        });
        text.family(
            "ocicat_tunnel_up",
            Gauge,
            "Whether a tunnel device that pools want is there as it should be.",
            wanted,
        );
        text.single(
            "ocicat_repairs_total",
            Counter,
            "Changes of ours by somebody else, put right.",
            self.repairs,
        );
        text.single(
            "ocicat_audit_findings_total",
            Counter,
            "Differences that no event told of.",
            self.audit_findings,
        );
        let revoked = "Live connections cut because policy did not allow them any more.";
        text.single(
            "ocicat_connections_revoked_total",
            Counter,
            revoked,
            self.revoked,
        );
        conntrack_metrics(text, &ConntrackTable::read(Path::new("/proc")));
        let counters = &self.counters;
        text.single(
            "ocicat_table_commits_total",
            Counter,
            "Transactions on the nftables table.",
            counters.commits,
        );
        text.single(
            "ocicat_table_commit_failures_total",
            Counter,
            "Transactions that the kernel refused.",
            counters.failed_commits,
        );
        text.single(
            "ocicat_datastore_updates_total",
            Counter,
            "Changes of the datastore.",
            counters.updates,
        );
        text.single(
            "ocicat_programmed_generation",
            Gauge,
            "Changes of the datastore that are in force.",
            counters.generation,
        );
        text.histogram(
            "ocicat_programming_seconds",
            "From a change of the datastore to the rules in force.",
            &counters.programming,
        );
        counters.adds.write(text);
    }
}

fn verdict(reason: CountedReason) -> String {
    match reason {
        CountedReason::Rule(action) => action.to_string(),
        CountedReason::EndOfTier => "end of tier".to_owned(),
        CountedReason::Unknown => "labels not known".to_owned(),
        CountedReason::HostEndpoint => "host endpoint".to_owned(),
    }
}

/// What a full table costs is counted by the kernel since the node's boot.
fn conntrack_metrics(text: &mut Exposition, table: &ConntrackTable) {
    use Type::{Counter, Gauge};
    text.single(
        "ocicat_conntrack_entries",
        Gauge,
        "Connections that the node tracks.",
        table.entries.unwrap_or_default(),
    );
    text.single(
        "ocicat_conntrack_entries_limit",
        Gauge,
        "Connections that the node may track; 0 is no limit.",
        table.limit.unwrap_or_default(),
    );
    text.single(
        "ocicat_conntrack_drops_total",
        Counter,
        "Packets of new connections dropped because the table was full.",
        table.dropped,
    );
    text.single(
        "ocicat_conntrack_evictions_total",
        Counter,
        "Connections without an answer that made room for others in a full table.",
        table.evicted,
    );
}

fn bgp_metrics(text: &mut Exposition, status: &SpeakerStatus) {
    use Type::{Counter, Gauge};
    text.single(
        "ocicat_bgp_prefixes",
        Gauge,
        "Prefixes in the Loc-RIB.",
        status.prefixes,
    );
    let up = |state: &str| u64::from(state == "Established");
    let families: [(&str, Type, &str, Number<bgp_core::PeerStatus>); 6] = [
        (
            "ocicat_bgp_peer_prefixes_received",
            Gauge,
            "Prefixes held of the peer.",
            |p| p.received as u64,
        ),
        (
            "ocicat_bgp_peer_prefixes_stale",
            Gauge,
            "Of these, from a session that ended.",
            |p| p.stale as u64,
        ),
        (
            "ocicat_bgp_peer_prefixes_advertised",
            Gauge,
            "Prefixes announced to the peer.",
            |p| p.advertised as u64,
        ),
        (
            "ocicat_bgp_peer_updates_received_total",
            Counter,
            "UPDATE messages of this session.",
            |p| p.updates_received,
        ),
        (
            "ocicat_bgp_peer_faults_total",
            Counter,
            "Malformed attributes of this session.",
            |p| p.faults,
        ),
        (
            "ocicat_bgp_peer_established_total",
            Counter,
            "How often the session came up.",
            |p| p.established_count,
        ),
    ];
    let peers = status.peers.iter();
    let rows = peers.map(|peer| ([("peer", peer.name.as_str())], up(&peer.state)));
    text.family(
        "ocicat_bgp_peer_up",
        Gauge,
        "Whether the session is Established.",
        rows,
    );
    for (name, type_, help, value) in families {
        let peers = status.peers.iter();
        let rows = peers.map(|peer| ([("peer", peer.name.as_str())], value(peer)));
        text.family(name, type_, help, rows);
    }
}
