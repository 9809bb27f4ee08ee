//! What the agent says about itself: readiness, status of objects, answers to the command line.

use super::{Agent, Table};
use crate::ctl::{Answer, EndpointLine, NodeReport, PathsReport, PolicyView, Query, Question};
use crate::health::Readiness;
use crate::revoker::live_flows;
use crate::store::Write;
use datastore::{Condition, Status};
use felix_core::cluster::{Cluster, View};
use felix_core::why::why;
use felix_core::workloads::awaits_labels;
use felix_core::{LocalEndpoint, Phase, routes::Withheld};
use model::{FelixConfiguration, Invalid, Kind, ObjectKey};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::oneshot;

/// The device of kube-proxy's IPVS mode.
const IPVS_DEVICE: &str = "kube-ipvs0";

/// What was said last, so that only changes are written.
#[derive(Default)]
pub(super) struct Reported {
    readiness: Option<Readiness>,
    objects: BTreeMap<ObjectKey, Vec<Condition>>,
    /// Whether they were written by this agent.
    written: bool,
    /// Of the node's own object.
    own: Vec<Condition>,
}

impl Agent {
    /// Publish readiness and status where they changed.
    pub(super) fn report(&mut self) {
        let problems = self.calc.problems();
        let mut readiness = self.judge(&problems);
        self.installation.keep(readiness.ready);
        readiness
            .reasons
            .extend_from_slice(self.installation.reasons());
        readiness.ready = readiness.reasons.is_empty();
        if self.reported.readiness.as_ref() != Some(&readiness) {
            tracing::info!(ready = readiness.ready, reasons = ?readiness.reasons, notes = ?readiness.notes, "readiness");
            self.readiness.send_replace(readiness.clone());
            self.reported.readiness = Some(readiness);
            self.write_node_status(self.reported.own.clone());
        }
        self.write_node();
        if self.calc.phase() == Phase::InSync {
            self.write_object_status(&problems);
        }
    }

    fn judge(&self, problems: &[Invalid]) -> Readiness {
        let mut reasons = Vec::new();
        let mut notes = Vec::new();
        let lost = self
            .calc
            .objects()
            .lost()
            .unwrap_or("it has not answered yet");
        match self.calc.phase() {
            Phase::Starting => reasons.push(format!(
                "nothing is known of the cluster; datastore: {lost}"
            )),
            Phase::Snapshot => notes.push(format!(
                "working from the last view on disk; datastore: {lost}"
            )),
            Phase::InSync => {
                notes.extend(
                    self.calc
                        .objects()
                        .lost()
                        .map(|lost| format!("datastore lost: {lost}")),
                );
            }
        }
        if self.calc.phase() != Phase::Starting {
            let node = &self.options.node_name;
            if self.calc.objects().node(node).is_none() {
                reasons.push(format!("Node/{node}: there is no such object"));
            }
            if self.table != Table::InStep {
                reasons.push("policy is not known to be in force".to_owned());
            }
        }
        let unreadable = self.calc.objects().unreadable().iter();
        notes.extend(unreadable.map(|(source, reason)| format!("{source}: {reason}")));
        let own = ObjectKey::global(Kind::Node, &self.options.node_name);
        reasons.extend(
            problems
                .iter()
                .filter(|p| p.object == own)
                .map(ToString::to_string),
        );
        let unencrypted = problems.iter().filter(|p| {
            let field = p.field.strip_prefix("spec.").unwrap_or_default();
            p.object.kind == Kind::FelixConfiguration
                && FelixConfiguration::is_for(&p.object.name, &self.options.node_name)
                && FelixConfiguration::ENCRYPTION_FIELDS.contains(&field)
        });
        reasons.extend(unencrypted.map(ToString::to_string));
        // Pods of a pool that this node can't serve as it is wanted: the others are served.
        let pools = problems.iter().filter(|p| p.object.kind == Kind::IpPool);
        notes.extend(pools.map(ToString::to_string));
        if self.calc.underlay().link_named(IPVS_DEVICE).is_some() {
            reasons.push(format!(
                "{IPVS_DEVICE} is there: traffic of Services does not pass the forward hook, so that policy \
                 is not enforced for it; run kube-proxy in nftables or iptables mode"
            ));
        }
        reasons.extend(self.last_failure.clone());
        let journal = self.journal.trouble();
        reasons.extend(journal.map(|why| format!("pods can't be added: {why}")));
        reasons.extend(self.forwarding_failure.clone());
        notes.extend(
            self.revoke_failure
                .iter()
                .map(|reason| format!("connections that policy denies are not cut: {reason}")),
        );
        notes.extend(self.host_settings.iter().cloned());
        notes.extend(self.blind.iter().cloned());
        notes.extend(self.differing_addresses());
        notes.extend(self.without_labels().take(3).map(|local| {
            let (namespace, pod) = (&local.endpoint.namespace, &local.endpoint.pod);
            format!("pod {namespace}/{pod} is closed until its Pod object comes: its labels are not known")
        }));
        notes.extend(self.conflicts.iter().map(ToString::to_string));
        notes.extend(self.ipam.without_pool().map(|(block, used)| {
            format!("no IPPool holds {block} any more: the {used} addresses in use stay, and no other is given out")
        }));
        notes.extend(self.family_without_pool());
        for withheld in self.calc.withheld().take(3) {
            let sentence = format!("route withheld: {withheld}");
            match withheld {
                // What a peer says of its next hops is not this node's doing.
                Withheld::NextHopUnreachable { .. }
                | Withheld::NotTheOwner { .. }
                | Withheld::MetricTaken { .. } => notes.push(sentence),
                Withheld::NoTunnel { .. } | Withheld::NotCarried { .. } => reasons.push(sentence),
            }
        }
        Readiness {
            ready: reasons.is_empty(),
            reasons,
            notes,
        }
    }

    /// Pods get addresses of the families that have a pool: whether those that run have more.
    fn family_without_pool(&self) -> Option<String> {
        let (missing, left) = match self.ipam.families() {
            (false, true) => ("IPv4", "IPv6"),
            (true, false) => ("IPv6", "IPv4"),
            _ => return None,
        };
        let has = |local: &&LocalEndpoint| {
            let mut ips = local.endpoint.ip_networks.iter();
            ips.any(|ip| ip.addr().is_ipv4() == (missing == "IPv4"))
        };
        let count = self.calc.local().values().filter(has).count();
        (count > 0).then(|| {
            format!(
                "no IPPool gives {missing} addresses on this node any more: {count} pods that run have one, \
                 pods that start get {left} only"
            )
        })
    }

    /// Pods of this node that are closed since their labels are not known.
    pub(super) fn without_labels(&self) -> impl Iterator<Item = &LocalEndpoint> {
        let all = self.calc.local().values();
        all.filter(|local| awaits_labels(&local.endpoint, true, self.calc.objects()))
    }

    /// The node's own conditions: readiness, and what is wrong with its Node object.
    fn write_node_status(&self, own: Vec<Condition>) {
        let readiness = self.reported.readiness.clone().unwrap_or_default();
        let sentences = readiness.reasons.iter().chain(&readiness.notes);
        let ready = Condition {
            type_: "Ready".into(),
            status: readiness.ready,
            reason: if readiness.ready { "Ready" } else { "NotReady" }.into(),
            message: sentences.cloned().collect::<Vec<_>>().join("; "),
        };
        self.store.write(Write::Status(Box::new(Status {
            node: self.options.node_name.clone(),
            object: None,
            conditions: std::iter::once(ready).chain(own).collect(),
        })));
    }

    /// What the Node object is told of readiness.
    fn write_node(&mut self) {
        let Some(readiness) = self.reported.readiness.as_ref() else {
            return;
        };
        let own = self.reported.own.iter().map(|condition| &condition.message);
        let sentences = readiness.reasons.iter().chain(&readiness.notes).chain(own);
        let sentences: Vec<&str> = sentences.map(String::as_str).collect();
        let (ready, message) = (readiness.ready, sentences.join("; "));
        self.report_node(ready, message);
    }

    fn write_object_status(&mut self, problems: &[Invalid]) {
        let mut now: BTreeMap<ObjectKey, Vec<Condition>> = BTreeMap::new();
        let rejected: BTreeSet<&ObjectKey> =
            self.calc.objects().rejected().map(|i| &i.object).collect();
        for problem in problems {
            let type_ = if rejected.contains(&problem.object) {
                "Valid"
            } else {
                "Accepted"
            };
            now.entry(problem.object.clone())
                .or_default()
                .push(Condition {
                    type_: type_.into(),
                    status: false,
                    reason: problem.field.clone(),
                    message: problem.to_string(),
                });
        }
        for (object, warnings) in self.calc.objects().warnings() {
            for warning in warnings {
                now.entry(object.clone()).or_default().push(Condition {
                    type_: "Understood".into(),
                    status: false,
                    reason: "UnknownField".into(),
                    message: warning.clone(),
                });
            }
        }
        let own_key = ObjectKey::global(Kind::Node, &self.options.node_name);
        let own = now.remove(&own_key).unwrap_or_default();
        if own != self.reported.own {
            self.reported.own = own.clone();
            self.write_node_status(own);
        }
        // Of a cluster's agents one says what all of them see.
        let writes = !self.store.is_cluster() || self.holds_lease();
        let first = writes && !self.reported.written;
        self.reported.written = writes;
        for (object, conditions) in &now {
            let known = self.reported.objects.get(object) == Some(conditions);
            if known && first {
                self.write_status(object, conditions.clone());
            }
            if !known {
                for condition in conditions.iter().filter(|c| c.type_ == "Accepted") {
                    tracing::warn!(error = %condition.message, "object not usable as it is");
                }
                if writes {
                    self.write_status(object, conditions.clone());
                }
            }
        }
        let cured: Vec<ObjectKey> = self
            .reported
            .objects
            .keys()
            .filter(|key| !now.contains_key(key))
            .cloned()
            .collect();
        for object in cured.iter().filter(|_| writes) {
            self.write_status(object, Vec::new());
        }
        self.reported.objects = now;
    }

    pub(super) fn write_status(&self, object: &ObjectKey, conditions: Vec<Condition>) {
        self.store.write(Write::Status(Box::new(Status {
            node: self.options.node_name.clone(),
            object: Some(object.clone()),
            conditions,
        })));
    }

    pub(super) fn on_query(&mut self, query: Query) {
        let Query { question, answer } = query;
        match question {
            Question::Bgp(question) => self.on_bgp(question, answer),
            Question::Drops => {
                let _ = answer.send(Answer::json(&self.drops.lines));
            }
            Question::Metrics => self.answer_metrics(answer),
            Question::Status => {
                let _ = answer.send(Answer::json(&self.node_report()));
            }
            Question::Ipam(question) => {
                let _ = answer.send(self.ipam_answer(question));
            }
            Question::Endpoints => {
                let _ = answer.send(Answer::json(&self.endpoint_lines()));
            }
            Question::Paths => {
                let _ = answer.send(Answer::json(&self.paths_report()));
            }
            Question::Plan => {
                let _ = answer.send(Answer::Text(self.peek_plan()));
            }
            Question::Why(connection) => {
                let cluster = Cluster::new(&View::of(&self.calc));
                let said = why(&cluster, &connection);
                let _ = answer.send(match said {
                    Ok(verdicts) => Answer::json(&verdicts),
                    Err(error) => Answer::Error(error.to_string()),
                });
            }
            Question::PolicyView => self.answer_policy_view(answer),
            Question::Ruleset => {
                let _ = answer.send(Answer::Text(self.calc.ruleset().to_string()));
            }
        }
    }

    /// Reading connection tracking takes a while where there are many connections, so that a thread
    /// does it and answers.
    fn answer_policy_view(&self, answer: oneshot::Sender<Answer>) {
        let view = View::of(&self.calc);
        let addresses = self.calc.judged_addresses();
        let read = move || {
            let connections = live_flows(&addresses)
                .inspect_err(|error| tracing::warn!(%error, "live connections are not told"))
                .ok();
            let _ = answer.send(Answer::json(&PolicyView { view, connections }));
        };
        let thread = std::thread::Builder::new().name("live-flows".into());
        if let Err(error) = thread.spawn(read) {
            // The question is answered by the loss of its channel.
            tracing::error!(%error, "the thread that reads connections does not start");
        }
    }

    pub(super) fn reported_ready(&self) -> bool {
        self.reported.readiness.as_ref().is_some_and(|r| r.ready)
    }

    fn node_report(&self) -> NodeReport {
        let readiness = self.reported.readiness.clone().unwrap_or_default();
        NodeReport {
            node: self.options.node_name.clone(),
            phase: format!("{:?}", self.calc.phase()),
            readiness,
            kernel: self.kernel.features().to_string(),
            blocks: self.ipam.own_blocks().collect(),
            endpoints: self.calc.local().len(),
            objects: self.calc.objects().all().count(),
            routes: self.actual.routes.len(),
            withheld: self.calc.withheld().map(ToString::to_string).collect(),
            problems: self
                .calc
                .problems()
                .iter()
                .map(ToString::to_string)
                .collect(),
            repairs: self.repairs,
            revoked: self.revoked,
            bgp_converged: self.converged,
            uptime_seconds: self.started.elapsed().as_secs(),
        }
    }

    fn paths_report(&self) -> PathsReport {
        let others = self.calc.objects().nodes();
        let others = others.filter(|node| node.name != self.options.node_name);
        let addresses = |node: &model::Node| {
            let v4 = node.ipv4_address.map(|net| net.addr().into());
            let v6 = node.ipv6_address.map(|net| net.addr().into());
            v4.into_iter().chain(v6).collect()
        };
        PathsReport {
            mtu: self.calc.uplink_mtu(),
            nodes: others
                .map(|node| (node.name.clone(), addresses(node)))
                .collect(),
            overridden: self.calc.overridden(),
        }
    }

    fn endpoint_lines(&self) -> Vec<EndpointLine> {
        let line = |local: &LocalEndpoint| EndpointLine {
            namespace: local.endpoint.namespace.to_string(),
            pod: local.endpoint.pod.to_string(),
            interface: local.endpoint.interface_name.to_string(),
            ifindex: local.ifindex,
            addresses: local
                .endpoint
                .ip_networks
                .iter()
                .map(ipnet::IpNet::addr)
                .collect(),
            container: local.endpoint.container_id.to_string(),
        };
        self.calc.local().values().map(line).collect()
    }

    /// What the next convergence would do, from a fresh reading of the kernel.
    fn peek_plan(&mut self) -> String {
        self.audit();
        self.table = Table::Unknown;
        let ops = self.calc.resolve();
        match self.next_plan(ops) {
            Ok(plan) => {
                // Nothing was applied: all of it is still to be done.
                self.audit_due = true;
                self.table = Table::Unknown;
                plan.to_string()
            }
            Err(error) => format!("{error}\n"),
        }
    }
}
