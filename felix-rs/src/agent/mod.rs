//! The node agent: one task owns all state and turns facts into kernel objects.
//!
//! Facts arrive on channels (datastore, kernel, BGP, CNI, operators); each round takes what is
//! ready, then converges once: `calc.resolve()`, `plan`, apply. Only CNI calls are answered in
//! between, after a convergence of their own.

mod addresses;
mod apply;
mod autodetect;
mod bgp;
mod departed;
mod drops;
mod duties;
mod facts;
mod ipam_report;
mod metrics;
mod node_report;
mod pods;
mod readback;
mod reconcile;
mod removals;
mod report;
mod requested;
mod resolved;
mod revoke;
mod spool;
mod start;
mod table_audit;
mod tunnel;
mod tunnels;

use crate::cni_socket::Call;
use crate::ctl::Query;
use crate::health::Readiness;
use crate::installation::Installation;
use crate::journal::Journal;
use crate::options::Options;
use crate::revoker::{self, Revoker};
use crate::snapshot::Saver;
use crate::store::{Said, Store, Updates};
use bgp_speaker::{FibEvent, Handle, LocalRoute, SpeakerConfig, Stop};
use felix_core::{Actual, Calc, EndpointKey, Phase};
use ipam::Ipam;
use ipnet::IpNet;
use kernel::{HeldPacket, Kernel, KernelEvent, LoggedPacket};
use model::{Object, ObjectKey};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

pub(crate) use addresses::is_ours;
pub(crate) use apply::ApplyError;
pub(crate) use drops::DropLine;
pub(crate) use start::{CALLS, print_plan, start};

/// Without an answer of the datastore for this long, the agent goes on from its snapshot.
const SNAPSHOT_AFTER: Duration = Duration::from_secs(5);
/// How often everything is read back and compared, in case an event was missed.
const AUDIT_EVERY: Duration = Duration::from_secs(60);
/// How often names whose time is over are looked for.
const EXPIRE_NAMES_EVERY: Duration = Duration::from_secs(5);
/// Time before a failed step is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Time that the datastore has to take the lease back.
const GIVE_BACK: Duration = Duration::from_secs(2);
/// Facts of one kind taken in one round.
const BATCH: usize = 512;

/// Where facts come from.
pub(crate) struct Inputs {
    pub(crate) updates: Updates,
    pub(crate) kernel: mpsc::Receiver<KernelEvent>,
    pub(crate) fib: mpsc::Receiver<FibEvent>,
    pub(crate) calls: mpsc::Receiver<Call>,
    pub(crate) queries: mpsc::Receiver<Query>,
    pub(crate) said: mpsc::UnboundedReceiver<Said>,
    /// None where live connections are left alone.
    pub(crate) revoker: Option<mpsc::Receiver<revoker::Event>>,
    /// None where denied packets are not logged.
    pub(crate) logged: Option<mpsc::Receiver<LoggedPacket>>,
    /// Names that pods resolve.
    pub(crate) resolved: Option<mpsc::Receiver<LoggedPacket>>,
    /// Likewise, where they wait; none where the kernel holds none.
    pub(crate) held: Option<mpsc::Receiver<HeldPacket>>,
}

/// Whether our table is what the compiler thinks it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    /// Not read yet, or touched by somebody else, or a transaction failed.
    Unknown,
    /// As of the compiler's last resolve.
    InStep,
}

/// The agent.
pub(crate) struct Agent {
    options: Options,
    calc: Calc,
    ipam: Ipam,
    kernel: Kernel,
    actual: Actual,
    table: Table,
    table_failures: u32,
    /// Prefixes whose route in the kernel is not known to be the desired one.
    pending: BTreeSet<IpNet>,
    audit_due: bool,
    table_audit: table_audit::TableAudit,
    /// Prefixes whose route the kernel refused; tried again at `retry_at`.
    deferred: BTreeSet<IpNet>,
    retry_at: Option<Instant>,
    tunnels: tunnels::Care,
    detected: autodetect::Detected,
    /// Since when the kernel refuses our table.
    failing_since: Option<Instant>,
    forwarding_failure: Option<String>,
    /// Settings of others that lose packets of pods.
    host_settings: Vec<String>,
    /// The first reading is no audit.
    audited: bool,
    audit_findings: u64,
    /// Blocks that another node claims too, as said last.
    conflicts: Vec<ipam::Conflict>,
    last_failure: Option<String>,
    journal: Journal,
    store: Store,
    saver: Saver,
    snapshot_stale: bool,
    saved_at: Option<Instant>,
    speaker: Handle,
    converged: bool,
    /// What operators have said over the objects.
    overrides: bgp::Overrides,
    configured: Option<SpeakerConfig>,
    advertised: Option<BTreeSet<LocalRoute>>,
    /// Blocks asked of the datastore, and when; an answer is on its way or was an error.
    claiming: BTreeMap<IpNet, Instant>,
    /// Blocks of the datastore by object, to know what a deletion was about.
    blocks: BTreeMap<ObjectKey, IpNet>,
    /// Links being deleted, by their thread; none where it could not be started.
    deleting: BTreeMap<u32, Option<pods::Deletion>>,
    /// Pods' links that were made and set up, of which the kernel has yet to tell.
    rising: BTreeSet<u32>,
    waiting: Vec<pods::Waiting>,
    /// Until when ADDs wait for their Pod objects.
    pod_deadlines: BTreeMap<EndpointKey, Instant>,
    care: reconcile::Care,
    duties: duties::Duties,
    next_ifindex: u32,
    readiness: watch::Sender<Readiness>,
    reported: report::Reported,
    started: Instant,
    names_expired_at: Instant,
    names_kept: felix_core::dns::Saved,
    /// Answers to name queries that go on after this round.
    answers: Vec<HeldPacket>,
    /// What of packets can't be seen, and why.
    blind: Vec<String>,
    repairs: u64,
    /// Routes of ours that somebody removed, and from which netlink port: not told of yet.
    removed: Vec<(u32, IpNet)>,
    counters: metrics::Counters,
    drops: drops::Drops,
    revoker: Revoker,
    /// Connections cut so far.
    revoked: u64,
    revoke_failure: Option<String>,
    /// Addresses of pods that are gone of which the reading in hand has found connections.
    haunted: BTreeSet<IpAddr>,
    installation: Installation,
}

/// Why the agent ended by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fatal {
    /// The kernel refused our table again and again; the rules in force stay.
    #[error("{0}; the rules in force stay in place")]
    Table(ApplyError),
    /// A thread that the agent needs has ended.
    #[error("{0} has ended")]
    Gone(&'static str),
}

impl Agent {
    /// Run until `stop` is ready, or something fatal happens.
    pub(crate) async fn run(
        mut self,
        mut inputs: Inputs,
        stop: impl Future<Output = Stop>,
    ) -> Result<(), Fatal> {
        tokio::pin!(stop);
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut audit = tokio::time::interval(AUDIT_EVERY);
        audit.reset();
        self.round()?;
        loop {
            tokio::select! {
                biased;
                how = &mut stop => {
                    self.saved_at = None;
                    self.save_snapshot();
                    let given = self.give_lease_back();
                    self.speaker.shutdown(how).await;
                    if given {
                        // An API server that does not answer keeps nobody here.
                        let answer = self.lease_given_back(&mut inputs.said);
                        let _ = tokio::time::timeout(GIVE_BACK, answer).await;
                    }
                    return Ok(());
                }
                // Whoever makes others busy does not stop the clock.
                _ = audit.tick() => {
                    self.audit_due = true;
                    self.begin_table_audit();
                }
                _ = tick.tick() => self.on_tick(),
                call = inputs.calls.recv() => {
                    self.on_call(call.ok_or(Fatal::Gone("CNI socket"))?);
                    // The answer goes out before what follows from the call is looked at.
                    tokio::task::yield_now().await;
                }
                event = inputs.kernel.recv() => {
                    let event = event.ok_or(Fatal::Gone("kernel monitor"))?;
                    if self.is_of_no_concern(&event) {
                        continue;
                    }
                    self.on_kernel(event);
                }
                update = inputs.updates.recv() => self.on_update(update),
                event = inputs.fib.recv() => self.on_fib(event.ok_or(Fatal::Gone("BGP speaker"))?),
                said = inputs.said.recv() => {
                    self.on_said(said.ok_or(Fatal::Gone("datastore writer"))?);
                }
                event = next(&mut inputs.revoker) => {
                    self.on_revoker(event.ok_or(Fatal::Gone("revoker thread"))?);
                }
                packet = next(&mut inputs.logged) => {
                    self.on_logged(&packet.ok_or(Fatal::Gone("packet log thread"))?);
                    continue;
                }
                packet = next(&mut inputs.resolved) => {
                    let packet = packet.ok_or(Fatal::Gone("packet log thread"))?;
                    self.on_resolved(&packet);
                    if packet.prefix.trim() == policy::dns::QUERY {
                        continue;
                    }
                }
                packet = next(&mut inputs.held) => {
                    let packet = packet.ok_or(Fatal::Gone("packet queue thread"))?;
                    if packet.before_routing {
                        self.on_dns_query(&packet.bytes);
                        continue;
                    }
                    self.on_dns_answer(&packet.bytes);
                    self.answers.push(packet);
                }
                query = inputs.queries.recv() => {
                    self.on_query(query.ok_or(Fatal::Gone("control socket"))?);
                }
                // When nobody waits for anything else.
                () = std::future::ready(()), if self.table_audit.is_running() => {
                    let differs = self.continue_table_audit();
                    tokio::task::yield_now().await;
                    if !differs {
                        continue;
                    }
                }
            }
            self.drain(&mut inputs);
            self.round()?;
            // What they resolve to is in force.
            self.answers.clear();
        }
    }

    /// Take what else is ready, bounded, so that a burst is one convergence.
    fn drain(&mut self, inputs: &mut Inputs) {
        for _ in 0..BATCH {
            let Ok(event) = inputs.kernel.try_recv() else {
                break;
            };
            self.on_kernel(event);
        }
        for _ in 0..BATCH {
            let Some(update) = inputs.updates.try_recv() else {
                break;
            };
            self.on_update(update);
        }
        for _ in 0..BATCH {
            let Ok(event) = inputs.fib.try_recv() else {
                break;
            };
            self.on_fib(event);
        }
    }

    /// One convergence, and what follows from it.
    fn round(&mut self) -> Result<(), Fatal> {
        if self.calc.phase() != Phase::Starting {
            if self.audit_due {
                self.audit_due = false;
                self.audit();
                self.restore_neighbours();
            }
            self.refresh_foreign_if_stale();
            self.reconcile_if_due();
            self.update_tunnel_address();
            self.recheck_tunnels();
            let result = self.converge();
            self.tell_removals();
            match result {
                Ok(()) if self.retry_at.is_none() => {
                    self.last_failure = None;
                    self.counters.in_force();
                }
                Ok(()) => {}
                Err(error @ ApplyError::Table { .. }) if self.gives_up() => {
                    return Err(Fatal::Table(error));
                }
                Err(error) => self.fail(&error),
            }
            self.advertise();
            self.claim_blocks();
            self.save_snapshot();
        }
        self.retry_waiting();
        self.report();
        self.see_to_duties();
        Ok(())
    }

    fn gives_up(&self) -> bool {
        let long = |since: Instant| since.elapsed() >= apply::GIVE_UP_AFTER;
        self.table_failures >= apply::GIVE_UP && self.failing_since.is_some_and(long)
    }

    fn fail(&mut self, error: &ApplyError) {
        let text = error.to_string();
        if self.last_failure.as_ref() != Some(&text) {
            tracing::error!(error = %text, "not applied, will be tried again");
        }
        self.last_failure = Some(text);
        let backoff = RETRY * 2_u32.saturating_pow(self.table_failures.min(4));
        self.retry_at = Some(Instant::now() + backoff);
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        if self.calc.phase() == Phase::Starting && now - self.started >= SNAPSHOT_AFTER {
            self.go_on_from_snapshot();
        }
        self.journal.catch_up();
        self.take_spool();
        if self.names_expired_at.elapsed() >= EXPIRE_NAMES_EVERY {
            self.names_expired_at = Instant::now();
            self.keep_names();
        }
        self.retry_deletions();
        self.follow_tunnels(now);
        self.detect_addresses(now);
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.pending.append(&mut self.deferred);
        }
    }

    fn go_on_from_snapshot(&mut self) {
        if !self.calc.objects().has_snapshot() {
            return;
        }
        let reason = self.calc.objects().lost().unwrap_or("no answer").to_owned();
        tracing::warn!(%reason, "datastore does not answer: going on from the snapshot");
        self.calc.start_from_snapshot();
        self.adopt_from_datastore();
        self.first_view();
    }

    /// The speaker is told only what differs.
    fn advertise(&mut self) {
        let desired = self.calc.desired();
        let sessions = desired.sessions.as_ref();
        let wanted = sessions.map(|config| self.overrides.over(config));
        if let Some(config) = wanted.filter(|config| self.configured.as_ref() != Some(config)) {
            let config = config.into_owned();
            self.speaker.configure(config.clone());
            self.configured = Some(config);
        }
        if self.advertised.as_ref() != Some(&desired.advertised) {
            self.speaker.local_routes(desired.advertised.clone());
            self.advertised = Some(desired.advertised.clone());
        }
    }

    fn save_snapshot(&mut self) {
        // A view names everything: bursts of changes share one.
        let early = self
            .saved_at
            .is_some_and(|at| at.elapsed() < self.saver.pause());
        if self.snapshot_stale && !early && self.calc.phase() == Phase::InSync {
            self.snapshot_stale = false;
            self.saved_at = Some(Instant::now());
            // Secrets stay where they are kept.
            let kept = |object: &&Arc<Object>| !matches!(***object, Object::Secret(_));
            let all = self.calc.objects().all_shared().filter(kept);
            self.saver.save(all.cloned().collect());
        }
    }
}

/// The next message; never, where there is no channel.
async fn next<T>(receiver: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}
