//! From nothing to a running agent.
//!
//! The order matters: events are subscribed to before the first reading, the journal and the
//! snapshot are taken in before the first question is answered, and nothing of the kernel is
//! changed before the datastore is in sync or has been given up on.

use super::addresses::by_age;
use super::readback::is_gateway;
use super::{Agent, Inputs, Table, drops, metrics, report, resolved};
use crate::ctl::Query;
use crate::health::Readiness;
use crate::installation::Installation;
use crate::journal::{Journal, JournalError};
use crate::options::{Options, Switch};
use crate::revoker::Revoker;
use crate::snapshot::{self, Saver};
use crate::store::{Source, Store, Updates};
use crate::{cni_socket, ctl};
use felix_core::checks::TunnelKinds;
use felix_core::{Actual, Calc, Permissions, Phase, Step, plan, plan::Scope};
use ipam::Ipam;
use kernel::Kernel;
use model::{Object, names};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

pub(crate) const CALLS: usize = 256;
/// Objects of a snapshot that are put in force at a time.
const PORTION: usize = 1024;

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{path}: {source}")]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}: another agent is running with this directory")]
    Running { path: PathBuf },
    #[error("the pool for a cluster without any: {0}")]
    Pools(String),
    #[error("{0}")]
    Kernel(#[from] kernel::OpenError),
    #[error("{0}")]
    Journal(#[from] JournalError),
    #[error("{0}")]
    Socket(#[from] cni_socket::ListenError),
    #[error("{0}")]
    Speaker(#[from] bgp_speaker::SpawnError),
    #[error("thread {name}: {source}")]
    Thread {
        name: &'static str,
        source: std::io::Error,
    },
    #[error("{0}")]
    Read(#[from] super::ApplyError),
    #[error("datastore {0}: not in sync after 5 s")]
    NotInSync(Source),
}

/// Everything up to the first round.
pub(crate) fn start(
    options: Options,
    readiness: watch::Sender<Readiness>,
    (queries_to, queries): (mpsc::Sender<Query>, mpsc::Receiver<Query>),
) -> Result<(Agent, Inputs, Vec<File>), StartError> {
    let pools = options.pools.pools().map_err(StartError::Pools)?;
    let lock = lock(&options)?;
    let mut kernel = open_kernel(&options)?;
    let features = kernel
        .features()
        .to_string()
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("; ");
    tracing::info!(%features, node = %options.node_name, "kernel");
    let events = kernel::monitor(kernel.nft_port_id(), kernel.route_port_id())?;
    let journal = Journal::open(&options.state_dir)?;
    let speaker_options = bgp_speaker::Options {
        restarting: !journal.state().blocks.is_empty(),
        // After a power cycle nothing was preserved (RFC 4724 section 4.1).
        forwarding_preserved: kernel.routes().is_ok_and(|all| all.iter().any(|r| r.ours)),
    };
    let (speaker, fib) = bgp_speaker::spawn(speaker_options)?;
    let thread = |name| move |source| StartError::Thread { name, source };
    let source = options.datastore();
    let updates = Updates::of(source.clone(), &options.node_name);
    let (store, said) = Store::start(&source, &options.node_name).map_err(thread("writer"))?;
    let (revoker, revocations) = match options.revoke_connections {
        Switch::On => {
            let (revoker, events) = Revoker::start(options.revoked_mark)?;
            (revoker, Some(events))
        }
        Switch::Off => (Revoker::off(), None),
    };
    let mut blind = Vec::new();
    let logged = match options.drop_log {
        Switch::On => kernel::packet_log(options.drop_log_group, drops::LENGTH)
            .inspect_err(|error| blind.push(format!("denied packets are not told: {error}")))
            .ok(),
        Switch::Off => None,
    };
    let resolutions = kernel::packet_log(options.dns_log_group, resolved::LENGTH)
        .inspect_err(|error| blind.push(format!("names in policies are not resolved: {error}")))
        .ok();
    // Without a queue, name queries and answers are logged and pass at once.
    let held = match kernel.features().nft_queue {
        true => kernel::packet_queue(options.dns_log_group, resolved::LENGTH)
            .inspect_err(|error| tracing::info!(%error, "answers to name queries are not held"))
            .ok(),
        false => None,
    };
    let saver = Saver::start(&options.state_dir, &options.node_name).map_err(thread("snapshot"))?;
    let lease = store.is_cluster().then_some(super::duties::LEASE);
    let (calls_to, calls) = mpsc::channel(CALLS);
    let cni = cni_socket::listen(&options.socket(names::CNI_SOCKET))?;
    let control = cni_socket::listen(&options.socket(names::CTL_SOCKET))?;
    let mut agent = Agent {
        calc: calc_of(
            &options,
            &kernel,
            policy::Options {
                dns_queue: held.is_some().then_some(options.dns_log_group),
                ..policy_options(&options, logged.is_some())
            },
        ),
        ipam: Ipam::new(&options.node_name),
        kernel,
        actual: Actual::default(),
        table: Table::Unknown,
        table_failures: 0,
        pending: BTreeSet::new(),
        audit_due: false,
        table_audit: Default::default(),
        deferred: BTreeSet::new(),
        retry_at: None,
        tunnels: super::tunnels::Care::default(),
        detected: super::autodetect::Detected::default(),
        failing_since: None,
        forwarding_failure: None,
        host_settings: Vec::new(),
        audited: false,
        audit_findings: 0,
        conflicts: Vec::new(),
        last_failure: None,
        journal,
        store,
        saver,
        snapshot_stale: false,
        saved_at: None,
        speaker,
        converged: false,
        overrides: super::bgp::Overrides::default(),
        configured: None,
        advertised: None,
        claiming: BTreeMap::new(),
        blocks: BTreeMap::new(),
        deleting: BTreeMap::new(),
        rising: BTreeSet::new(),
        waiting: Vec::new(),
        pod_deadlines: BTreeMap::new(),
        care: super::reconcile::Care::new(&options.node_name, options.ipam_interval, lease),
        duties: super::duties::Duties::new(pools),
        next_ifindex: names::FIRST_IFINDEX,
        readiness,
        reported: report::Reported::default(),
        started: Instant::now(),
        names_expired_at: Instant::now(),
        answers: Vec::new(),
        names_kept: felix_core::dns::Saved::new(),
        blind,
        repairs: 0,
        removed: Vec::new(),
        counters: metrics::Counters::default(),
        drops: drops::Drops::default(),
        revoker,
        revoked: 0,
        revoke_failure: None,
        haunted: BTreeSet::new(),
        installation: Installation::new(&options),
        options,
    };
    agent.take_in()?;
    let adds = agent.counters.adds.clone();
    tokio::spawn(cni_socket::serve(cni, calls_to, adds));
    tokio::spawn(ctl::serve(control, queries_to));
    let inputs = Inputs {
        updates,
        kernel: events,
        fib,
        calls,
        queries,
        said,
        revoker: revocations,
        logged,
        resolved: resolutions,
        held,
    };
    Ok((agent, inputs, lock))
}

fn open_kernel(options: &Options) -> Result<Kernel, kernel::OpenError> {
    Kernel::open_with(kernel::Options {
        sysctl_root: options.sysctl_dir.clone(),
    })
}

fn tunnel_kinds(kernel: &Kernel) -> TunnelKinds {
    TunnelKinds {
        ipip: kernel.features().ipip,
        ip6: kernel.features().ip6,
        vxlan: kernel.features().vxlan,
    }
}

fn policy_options(options: &Options, logs: bool) -> policy::Options {
    let revokes = options.revoke_connections == Switch::On;
    policy::Options {
        revoked_mark: revokes.then_some(options.revoked_mark),
        clamp_mss: options.clamp_mss == Switch::On,
        drop_log: logs.then_some(policy::DropLog {
            group: options.drop_log_group,
            per_second: drops::PER_SECOND,
            burst: drops::BURST,
        }),
        dns_log: Some(options.dns_log_group),
        ..policy::Options::default()
    }
}

/// One agent for a state directory, since two would give out the same addresses, and one for a
/// directory of sockets, since the second would take those of the first.
fn lock(options: &Options) -> Result<Vec<File>, StartError> {
    let lock = |folder: &PathBuf| {
        let refused = |path: &PathBuf| {
            let path = path.clone();
            move |source| StartError::Folder { path, source }
        };
        std::fs::create_dir_all(folder).map_err(refused(folder))?;
        let path = folder.join("lock");
        let file = File::create(&path).map_err(refused(&path))?;
        file.try_lock().map_err(|_| StartError::Running { path })?;
        Ok(file)
    };
    [&options.state_dir, &options.run_dir]
        .into_iter()
        .map(lock)
        .collect()
}

impl Agent {
    /// What the kernel has, what the journal and the snapshot say, and forwarding on.
    fn take_in(&mut self) -> Result<(), StartError> {
        self.read_kernel()?;
        self.adopt_journal();
        match snapshot::load(&self.options.state_dir, &self.options.node_name) {
            Ok(Some(objects)) => {
                tracing::info!(objects = objects.len(), "snapshot of an earlier process");
                self.restore(objects);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "no snapshot"),
        }
        self.restore_names();
        self.enable_forwarding();
        Ok(())
    }

    /// Puts a snapshot in force. In portions, so that the keys of a large one are never all held.
    fn restore(&mut self, objects: Vec<Object>) {
        let mut rest = objects.into_iter();
        loop {
            let portion: Vec<Object> = rest.by_ref().take(PORTION).collect();
            let is_last = portion.is_empty();
            for key in self.calc.restore(portion) {
                self.on_addresses_object(&key);
            }
            if is_last {
                return;
            }
        }
    }
}

fn calc_of(options: &Options, kernel: &Kernel, policy: policy::Options) -> Calc {
    let mut calc = Calc::new(&options.node_name, tunnel_kinds(kernel), policy);
    if let Source::Kubernetes(_) = options.datastore() {
        calc.set_secrets_namespace(&options.cluster.options().namespace);
    }
    calc
}

/// `--plan`: read everything, print what would be done, change nothing.
pub(crate) async fn print_plan(options: Options) -> Result<String, StartError> {
    let mut kernel = open_kernel(&options)?;
    let mut calc = calc_of(
        &options,
        &kernel,
        policy_options(&options, options.drop_log == Switch::On),
    );
    let read =
        |what| move |reason: String| StartError::Read(super::ApplyError::Read { what, reason });
    let mut actual = Actual::default();
    for link in kernel.links().map_err(|e| read("links")(e.to_string()))? {
        calc.on_link(link);
    }
    let addresses = kernel
        .addresses()
        .map_err(|e| read("addresses")(e.to_string()))?;
    for address in addresses.into_iter().filter(|address| !is_gateway(address)) {
        calc.on_address(address);
    }
    for route in kernel.routes().map_err(|e| read("routes")(e.to_string()))? {
        if route.ours {
            actual.insert(route.route.dest, route.route.kind, route.metric);
        } else {
            calc.on_foreign_route(route.route, route.metric);
        }
    }
    let state = Journal::peek(&options.state_dir)?;
    calc.set_own_blocks(state.blocks.keys().copied().collect());
    calc.set_tunnel_address(super::tunnel::journaled(&state));
    for live in by_age(state) {
        calc.set_local(felix_core::LocalEndpoint {
            endpoint: live.endpoint,
            ifindex: live.ifindex,
            mtu: live.mtu,
            sequence: live.sequence,
        });
    }
    let mut updates = Updates::of(options.datastore(), &options.node_name);
    let synced = async {
        while calc.phase() != Phase::InSync {
            calc.on_update(updates.recv().await);
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(5), synced).await;
    if in_time.is_err() {
        return Err(StartError::NotInSync(options.datastore()));
    }
    calc.resolve();
    let table = kernel.nft_read().ok().flatten();
    let table = table
        .and_then(|ruleset| ruleset.diff(calc.ruleset()))
        .map_or(Step::ReplaceTable, Step::Table);
    let permissions = Permissions {
        local: true,
        learned: false,
    };
    Ok(plan(
        calc.desired(),
        &actual,
        Some(table),
        permissions,
        Scope::All,
    )
    .to_string())
}
