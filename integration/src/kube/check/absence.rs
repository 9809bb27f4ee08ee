//! The API server is away, or has forgotten.

use super::lifecycle::kill_agent;
use super::world::{AGENT, CONTROL, Member, SYSTEM, World, node_names, text};
use super::{policy, world};
use crate::kube::shape::NODES;
use crate::lab::probe::Probe;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub(super) fn short(world: &mut World) -> Result<String> {
    away(world, Duration::ZERO)
}

pub(super) fn long(world: &mut World) -> Result<String> {
    away(world, Duration::from_secs(600))
}

/// At least `at_least` without an API server.
fn away(world: &mut World, at_least: Duration) -> Result<String> {
    world.base()?;
    policy::close(world)?;
    let start = Instant::now();
    world.cluster.stop(CONTROL, "apiserver", "KILL")?;
    let outcome = without_api(world, start + at_least);
    let took = start.elapsed();
    kubelet(world, "CONT")?;
    world.cluster.start(CONTROL, "apiserver")?;
    world.until("the API server", || {
        world.kubectl(&["get", "--raw=/readyz"]).map(drop)
    })?;
    if outcome.is_err() {
        policy::open(world)?;
    }
    let said = outcome?;
    world.agents_ready()?;
    world.renew_base()?;
    policy::is_closed(world)?;
    policy::open(world)?;
    world.base_is_connected()?;
    for node in &NODES {
        world.nothing_is_left(node.name)?;
    }
    Ok(format!("{said}; away for {:.0} s", took.as_secs_f64()))
}

/// Pods go and come by the runtime alone; policy holds for old and for restarted agents.
fn without_api(world: &World, until: Instant) -> Result<String> {
    let leaving = base(world, "base-4")?;
    let id = world.sandbox(&leaving.node, "base", &leaving.name)?;
    let address = leaving.addresses[0].to_string();
    world.cri(&leaving.node, &["remove", &id])?;
    let routes = world
        .cluster
        .netns(&leaving.node)
        .run(&["ip", "-4", "route"])?;
    ensure!(
        !routes
            .lines()
            .any(|line| line.starts_with(&format!("{address} "))),
        "the route of {address} is still there"
    );
    kubelet(world, "STOP")?;
    let comer = run_sandbox(world, "n1", "without-api-1")?;
    reached_by_its_node_alone(world, &comer)?;
    policy_holds(world)?;
    kubelet(world, "CONT")?;
    kill_agent(world, "n1")?;
    kubelet(world, "STOP")?;
    let other = run_sandbox(world, "n1", "without-api-2")?;
    reached_by_its_node_alone(world, &other)?;
    policy_holds(world)?;
    let mut rounds = 1;
    while Instant::now() < until {
        // What is watched here is time passing.
        std::thread::sleep(Duration::from_secs(20).min(until - Instant::now()));
        policy_holds(world)?;
        rounds += 1;
    }
    for sandbox in [comer, other] {
        match world.cri("n1", &["remove", &sandbox.id]) {
            // The kubelet was faster, while it brought the agent back.
            Err(error) if format!("{error:#}").contains("code = NotFound") => {}
            removed => drop(removed?),
        }
    }
    Ok(format!(
        "2 pods made, 3 removed, an agent killed, policy looked at {rounds} times"
    ))
}

/// The kubelet of n1 takes pods down that it does not know; it brings a killed agent back.
fn kubelet(world: &World, signal: &str) -> Result<()> {
    let pid = world.cluster.exec("n1", &["pidof", "kubelet"])?;
    let signal = format!("-{signal}");
    world
        .cluster
        .exec("n1", &["kill", &signal, pid.trim()])
        .map(drop)
}

/// A sandbox that the runtime made without kubelet.
struct Sandbox {
    id: String,
    probe: Probe,
    addresses: Vec<std::net::IpAddr>,
}

fn run_sandbox(world: &World, node: &str, name: &str) -> Result<Sandbox> {
    let config = json!({
        "metadata": {"name": name, "namespace": "base", "uid": format!("{name}-uid"), "attempt": 0},
        "hostname": name,
        "log_directory": "/tmp",
        "labels": {"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "base"},
        "linux": {"cgroup_parent": "/kubepods"},
    });
    let path = format!("/run/{name}.json");
    std::fs::write(world.cluster.inside(node, &path)?, config.to_string()).context("sandbox")?;
    let id = world.until(&format!("a sandbox {name} on {node}"), || {
        Ok(world.cri(node, &["run", &path])?.trim().to_owned())
    })?;
    let status: Value = serde_json::from_str(&world.cri(node, &["inspect", &id])?)?;
    let network = status.pointer("/status/network").context("a network")?;
    let mut addresses = vec![text(network, "/ip").parse().context("an address")?];
    for more in network["additional_ips"].as_array().into_iter().flatten() {
        addresses.push(text(more, "/ip").parse().context("an address")?);
    }
    let probe = Probe::start_at(&world.sandbox_netns(node, &id)?, name)?;
    Ok(Sandbox {
        id,
        probe,
        addresses,
    })
}

/// Nobody knows which policies a pod is under whose object nobody has seen.
fn reached_by_its_node_alone(world: &World, sandbox: &Sandbox) -> Result<()> {
    let tcp = crate::lab::probe::Protocol::Tcp;
    let port = crate::prober::PORTS[0];
    let node = Probe::start(&world.cluster.netns("n1"), "node")?;
    for address in &sandbox.addresses {
        world.until(&format!("{address} from its node"), || {
            let who = node.reach(tcp, *address, port, world::REACH)?;
            ensure!(who == sandbox.probe.name(), "{who} answers");
            Ok(())
        })?;
    }
    for address in &sandbox.addresses {
        let from = base(world, "base-1")?;
        let outcome = from.probe.reach(tcp, *address, port, world::DENIED);
        ensure!(outcome.is_err(), "base-1 reaches {address}");
    }
    Ok(())
}

/// As [`policy::is_closed`], without the pod that has left.
fn policy_holds(world: &World) -> Result<()> {
    let target = base(world, "base-0")?;
    base(world, "base-1")?.reach(target)?;
    for name in ["base-2", "base-3", "base-5"] {
        let outcome = base(world, name)?.probe.reach(
            crate::lab::probe::Protocol::Tcp,
            target.addresses[0],
            crate::prober::PORTS[0],
            world::DENIED,
        );
        ensure!(outcome.is_err(), "{name} reaches base-0");
    }
    Ok(())
}

fn base<'a>(world: &'a World, name: &str) -> Result<&'a Member> {
    let found = world.made_base()?.iter().find(|member| member.name == name);
    found.with_context(|| format!("no pod {name}"))
}

/// The rest of Kubernetes waits for versions that do not come any more, and has to be started anew
/// after a restore (etcd, "Disaster recovery"). The agents have not.
fn restart_kubernetes(world: &World) -> Result<()> {
    let cluster = &world.cluster;
    let controllers = [(CONTROL, "controller-manager"), (CONTROL, "scheduler")];
    let kubelets = node_names().map(|node| (node, "kubelet"));
    for (machine, service) in controllers.into_iter().chain(kubelets) {
        cluster.stop(machine, service, "KILL")?;
        cluster.start(machine, service)?;
    }
    Ok(())
}

/// etcd goes back to what it was before a policy and some pods were made.
pub(super) fn restored(world: &mut World) -> Result<String> {
    world.base()?;
    let data = world.cluster.machine_dir(CONTROL);
    let copy = |from: &str, to: &str| {
        let (from, to) = (data.join(from), data.join(to));
        let mut command = std::process::Command::new("cp");
        crate::lab::process::run(command.arg("-a").arg(from).arg(to))
    };
    world.cluster.stop(CONTROL, "etcd", "TERM")?;
    copy("etcd", "etcd.saved")?;
    world.cluster.start(CONTROL, "etcd")?;
    world.until("the API server", || {
        world.kubectl(&["get", "--raw=/readyz"]).map(drop)
    })?;
    let later = world.pods("later", &["n1", "n3"], 4)?;
    policy::close(world)?;
    drop(later);
    world.cluster.stop(CONTROL, "apiserver", "KILL")?;
    world.cluster.stop(CONTROL, "etcd", "KILL")?;
    std::fs::remove_dir_all(data.join("etcd")).context("etcd's data")?;
    copy("etcd.saved", "etcd")?;
    std::fs::remove_dir_all(data.join("etcd.saved")).context("the copy")?;
    world.cluster.start(CONTROL, "etcd")?;
    world.cluster.start(CONTROL, "apiserver")?;
    world.until("the API server", || {
        world.kubectl(&["get", "--raw=/readyz"]).map(drop)
    })?;
    restart_kubernetes(world)?;
    world.until("what was made later to be forgotten", || {
        ensure!(
            world.kubectl(&["get", "namespace", "later"]).is_err(),
            "it is there"
        );
        Ok(())
    })?;
    world.kubectl(&[
        "-n",
        SYSTEM,
        "rollout",
        "status",
        &format!("daemonset/{AGENT}"),
        "--timeout=180s",
    ])?;
    world.base_is_connected()?;
    let extra = world.pods("after-restore", &["n1", "n2", "n3"], 3)?;
    extra[0].reach(&extra[2])?;
    drop(extra);
    world.remove("after-restore")?;
    for node in &NODES {
        world.nothing_is_left(node.name)?;
    }
    Ok("the policy made later is gone, and nothing else".to_owned())
}
