//! `cargo lab kube test`: what Ocicat promises on Kubernetes, seen from outside.
//!
//! Everything is done as a user would: the image imported, manifests applied with `kubectl`, and
//! looked at with `kubectl`. Traffic is that of the lab's probers inside the pods' namespaces, and
//! of the servers in their containers. The tests stand on one cluster and on each other's order:
//! the first installs, the last look at what all of them left.

mod absence;
mod admission;
pub(super) mod anywhere;
mod cni_churn;
mod holdings;
pub(super) mod lifecycle;
pub(super) mod load;
mod mistakes;
mod policy;
pub(super) mod requests;
mod services;
mod traffic;
pub(super) mod world;

use super::{Cache, Cluster, Options, Proxy};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::time::Instant;
use world::World;

/// Which tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Always: what continuous integration runs.
    Core,
    /// With `--all`: what takes minutes of waiting.
    Long,
}

/// A promise.
struct Test {
    name: &'static str,
    promise: &'static str,
    part: Part,
    play: fn(&mut World) -> Result<String>,
}

const fn test(
    name: &'static str,
    promise: &'static str,
    part: Part,
    play: fn(&mut World) -> Result<String>,
) -> Test {
    Test {
        name,
        promise,
        part,
        play,
    }
}

const TESTS: &[Test] = &[
    test(
        "install",
        "two kubectl apply on nodes that forward nothing yet, and all nodes are Ready",
        Part::Core,
        world::install,
    ),
    test(
        "matrix",
        "30 pods on three nodes reach each other by TCP and UDP, IPv4 and IPv6",
        Part::Core,
        traffic::matrix,
    ),
    test(
        "service",
        "a Service's pods answer at its ClusterIP, by TCP and UDP",
        Part::Core,
        services::cluster_ip,
    ),
    test(
        "outside",
        "a host behind FRR and the pods reach each other; the routers know blocks, not pods",
        Part::Core,
        traffic::outside,
    ),
    test(
        "load-balancer",
        "a Service gets an address of a pool, and a host behind FRR reaches it there",
        Part::Core,
        services::load_balancer,
    ),
    test(
        "vxlan",
        "a pool's vxlanMode is switched on and off under traffic between racks",
        Part::Core,
        traffic::vxlan,
    ),
    test(
        "anywhere",
        "what `cargo lab kube check` looks at on any cluster, with kubectl alone",
        Part::Core,
        anywhere::anywhere,
    ),
    test(
        "network-policy",
        "a NetworkPolicy closes, opens for one, and opens for all when deleted",
        Part::Core,
        policy::network_policy,
    ),
    test(
        "cluster-network-policy",
        "a ClusterNetworkPolicy denies what a NetworkPolicy allows, until it is deleted",
        Part::Core,
        policy::cluster_network_policy,
    ),
    test(
        "calico-policy",
        "policies, sets and tiers as Calico's users write them are accepted and do what they say",
        Part::Core,
        policy::calico,
    ),
    test(
        "admission",
        "every wrong object is refused in words, or its status says what is wrong",
        Part::Core,
        admission::refused,
    ),
    test(
        "pool-deleted",
        "a pool in use is not changed; deleted, its pods keep their network and others wait in words",
        Part::Long,
        mistakes::pool,
    ),
    test(
        "foreign-config",
        "a configuration of another plugin that comes first is named; pods keep their network",
        Part::Core,
        mistakes::foreign,
    ),
    test(
        "full-disk",
        "with a full disk pods keep their network, and others wait in words until there is room",
        Part::Long,
        mistakes::disk,
    ),
    test(
        "rights",
        "agents that lose their rights say so and go on, and take up all when they have them back",
        Part::Core,
        mistakes::rights,
    ),
    test(
        "quiet",
        "a cluster where nothing happens is asked for no lists, and a pod costs a request at most",
        Part::Core,
        requests::quiet,
    ),
    test(
        "rolling-update",
        "the DaemonSet is restarted under flows between all nodes and no datagram is lost",
        Part::Core,
        lifecycle::rolling_update,
    ),
    test(
        "kill",
        "agents are killed under flows; no datagram is lost, and pods start afterwards",
        Part::Core,
        lifecycle::kill,
    ),
    test(
        "api-away",
        "without an API server, pods come and go, policy holds, and all converges afterwards",
        Part::Core,
        absence::short,
    ),
    test(
        "containerd",
        "the runtime is restarted; pods go on, and others start",
        Part::Core,
        lifecycle::containerd,
    ),
    test(
        "reboot",
        "a node loses power with pods on it; they come back, and nothing is left of the old ones",
        Part::Core,
        lifecycle::reboot,
    ),
    test(
        "burst",
        "100 pods are started on one node at once, and deleted, and nothing is left of them",
        Part::Core,
        load::burst,
    ),
    test(
        "node-deleted",
        "a node is deleted and comes back; its addresses are given back and taken again",
        Part::Long,
        lifecycle::node_deleted,
    ),
    test(
        "api-away-long",
        "the API server is away for ten minutes",
        Part::Long,
        absence::long,
    ),
    test(
        "etcd-restored",
        "the cluster's memory goes back in time; pods keep their network, and all converges",
        Part::Long,
        absence::restored,
    ),
    test(
        "churn",
        "ten pods a second come and go for five minutes, and nothing is left of them",
        Part::Long,
        load::churn,
    ),
    test(
        "cni-churn",
        "ten ADDs a second for five minutes at one node, and all that it holds is as before",
        Part::Long,
        cni_churn::cni_churn,
    ),
    test(
        "permissions",
        "nothing was forbidden to the agents, and every permission was used",
        Part::Core,
        requests::permissions,
    ),
];

/// What is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct TestOptions {
    /// Also what takes minutes of waiting
    #[arg(long)]
    all: bool,
    /// Only these, after the first
    #[arg(long)]
    only: Vec<String>,
    /// Leave the cluster up
    #[arg(long)]
    keep: bool,
    /// Who implements Services
    #[arg(long, value_enum, default_value_t = Proxy::Nftables)]
    proxy: Proxy,
    /// Names the cluster, which must not be up
    #[arg(long, default_value = "ockt")]
    prefix: String,
    /// The image's archive; built if not given
    #[arg(long)]
    image: Option<PathBuf>,
    /// Go on with the cluster that an earlier run kept
    #[arg(long, hide = true)]
    reuse: bool,
}

/// Plays the tests on a cluster of their own, and says how many passed as cargo does. Whether all
/// did.
///
/// # Errors
/// There is no test of a name, the cluster does not come up, or does not go away.
pub(super) fn run(options: &TestOptions) -> Result<bool> {
    for name in &options.only {
        if !TESTS.iter().any(|test| test.name == name) {
            let names: Vec<&str> = TESTS.iter().map(|test| test.name).collect();
            bail!("there is no test {name}; there are {}", names.join(", "));
        }
    }
    let image = match &options.image {
        _ if options.reuse => PathBuf::new(),
        Some(image) => image
            .canonicalize()
            .with_context(|| image.display().to_string())?,
        None => world::build_image()?,
    };
    let cluster = if options.reuse {
        Cluster::named(&options.prefix)
    } else {
        Cache::locate().fill()?;
        let (prefix, proxy) = (options.prefix.clone(), options.proxy);
        let start = Instant::now();
        let cluster = Cluster::up(&Options { prefix, proxy })?;
        println!(
            "up: three nodes registered ({:.1} s)",
            start.elapsed().as_secs_f64()
        );
        cluster
    };
    let down = Down(&cluster, options.keep);
    let passed = play(options, World::new(&cluster, image));
    drop(down);
    passed
}

/// Removes the cluster also after a panic.
struct Down<'a>(&'a Cluster, bool);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        if self.1 {
            println!(
                "kept: cargo lab kube kubectl --prefix {0} ..., cargo lab kube down --prefix {0}",
                self.0.prefix()
            );
        } else if let Err(error) = self.0.down() {
            eprintln!("the cluster does not go away: {error:#}");
        }
    }
}

fn play(options: &TestOptions, mut world: World) -> Result<bool> {
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for test in TESTS {
        let first = test.name == TESTS[0].name;
        let chosen = if first {
            !options.reuse
        } else if options.only.is_empty() {
            options.all || test.part == Part::Core
        } else {
            options.only.iter().any(|name| name == test.name)
        };
        if !chosen && (first || !options.only.is_empty()) {
            continue;
        }
        if !chosen {
            ignored += 1;
            println!("test {} ... ignored (--all): {}", test.name, test.promise);
            continue;
        }
        let start = Instant::now();
        let outcome = (test.play)(&mut world);
        let seconds = start.elapsed().as_secs_f64();
        match outcome {
            Ok(saw) => {
                passed += 1;
                println!(
                    "test {} ... ok: {}: {saw} ({seconds:.1} s)",
                    test.name, test.promise
                );
            }
            Err(error) => {
                failed += 1;
                println!(
                    "test {} ... FAILED: {}: {error:#} ({seconds:.1} s)",
                    test.name, test.promise
                );
                // Nothing can be said of the others where there is no network at all.
                if first {
                    world.print_agent_logs();
                    break;
                }
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored");
    Ok(failed == 0)
}
