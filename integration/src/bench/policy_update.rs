//! One pod joins a selector set of 10,000 members: from the update to the kernel's commit.

use super::ROUNDS;
use super::report::{Row, Series, Target, quantile};
use super::steal::Steal;
use crate::lab::Lab;
use anyhow::{Context, Result, ensure};
use kernel::Kernel;
use model::{Labels, NetworkPolicy, PolicyPeer, PolicyRule, Selector};
use policy::{Compiler, Endpoint, EndpointId, Op, Options};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

/// Members of the set before anybody joins.
const MEMBERS: u32 = 10_000;
/// Joins a round.
const JOINS: usize = 100;
/// The first address of the members.
const FIRST: u32 = u32::from_be_bytes([10, 244, 0, 1]);
/// The namespace of the pods.
const NAMESPACE: &str = "bench";

pub(super) fn run() -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let open = |name: &str| lab.netns(name)?.within(Kernel::open)?.context("netlink");
    let (mut kernel, mut floor) = (open("ours")?, open("floor")?);
    let mut compiler = compiler();
    let steal = Steal::now();
    compiler.resolve();
    for kernel in [&mut kernel, &mut floor] {
        kernel
            .nft_replace(compiler.ruleset())
            .context("10,000 members")?;
    }
    let (mut p50, mut p99) = (Series::default(), Series::default());
    prove_commits(&mut kernel, &mut compiler)?;
    for _ in 0..ROUNDS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for number in 0..JOINS {
            let (id, pod) = member(MEMBERS + number as u32);
            let start = Instant::now();
            compiler.set_endpoint(&id, Some(pod));
            let join = compiler.resolve();
            kernel.nft_commit(&join).context("join")?;
            ours.push(milliseconds(start));
            ensure!(!join.is_empty(), "a member joined and nothing changed");
            theirs.push(commit(&mut floor, &join)?);
            compiler.set_endpoint(&id, None);
            let leave = compiler.resolve();
            commit(&mut kernel, &leave)?;
            commit(&mut floor, &leave)?;
        }
        p50.push(quantile(&ours, 0.5), quantile(&theirs, 0.5));
        p99.push(quantile(&ours, 0.99), quantile(&theirs, 0.99));
    }
    let steal = steal.share_since();
    let row = |what: &str, series: &Series| {
        series.row(what, "ms", "commit alone", steal, Target::Ours(1.0))
    };
    Ok(vec![row("member_p50_ms", &p50), row("member_p99_ms", &p99)])
}

/// What is timed does reach the kernel: a join is read back from it.
fn prove_commits(kernel: &mut Kernel, compiler: &mut Compiler) -> Result<()> {
    let (id, pod) = member(MEMBERS);
    for pod in [Some(pod), None] {
        compiler.set_endpoint(&id, pod);
        kernel.nft_commit(&compiler.resolve()).context("join")?;
        let read = kernel
            .nft_read()
            .context("our table")?
            .context("our table is gone")?;
        ensure!(
            read == *compiler.ruleset(),
            "the kernel's table is not the compiler's"
        );
    }
    Ok(())
}

/// The floor: the same transaction, ready made.
fn commit(kernel: &mut Kernel, ops: &[Op]) -> Result<f64> {
    let start = Instant::now();
    kernel.nft_commit(ops).context("the floor's transaction")?;
    Ok(milliseconds(start))
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// One local pod that admits only pods labelled `role: member`, and all those pods elsewhere.
fn compiler() -> Compiler {
    let mut compiler = Compiler::new(Options::default());
    compiler.set_namespace(NAMESPACE, Some(Labels::default()));
    let members = PolicyPeer::Pods {
        namespaces: None,
        pods: Selector::Eq("role".to_owned(), "member".to_owned()),
    };
    let rule = PolicyRule {
        peers: Some(vec![members]),
        ports: None,
    };
    let policy = NetworkPolicy {
        namespace: NAMESPACE.to_owned(),
        name: "members".to_owned(),
        pod_selector: Selector::Eq("role".to_owned(), "server".to_owned()),
        ingress: Some(vec![rule]),
        egress: None,
    };
    let policy = policy::Policy::Kubernetes(policy);
    compiler.set_policy(&policy.key(), Some(policy));
    let server = endpoint(
        "server",
        "server",
        Ipv4Addr::new(10, 245, 0, 1),
        Some(1_048_576),
    );
    compiler.set_endpoint(&EndpointId(format!("{NAMESPACE}/server")), Some(server));
    for number in 0..MEMBERS {
        let (id, pod) = member(number);
        compiler.set_endpoint(&id, Some(pod));
    }
    compiler
}

fn member(number: u32) -> (EndpointId, Endpoint) {
    let name = format!("member{number}");
    let pod = endpoint(&name, "member", Ipv4Addr::from(FIRST + number), None);
    (EndpointId(format!("{NAMESPACE}/{name}")), pod)
}

fn endpoint(name: &str, role: &str, address: Ipv4Addr, local: Option<u32>) -> Endpoint {
    Endpoint {
        namespace: NAMESPACE.to_owned(),
        pod: name.to_owned(),
        labels: [("role".to_owned(), role.to_owned())].into_iter().collect(),
        ports: Vec::new(),
        ips: vec![IpAddr::V4(address)],
        local,
        labels_known: true,
        service_account: None,
        profiles: vec![],
    }
}
