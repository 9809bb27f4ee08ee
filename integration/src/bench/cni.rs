//! CNI ADD and DEL, exec to exit; the first packet; and an agent that starts beside many pods.

mod echo;
mod floor;

use super::ROUNDS;
use super::report::{Row, Series, Target, quantile};
use super::steal::Steal;
use crate::lab::pod::{Plugin, PodSpec};
use crate::lab::{Agent, Lab, Netns, Store};
use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use kernel::Kernel;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Sequential ADDs, and then DELs, of each plugin in every round.
const ADDS: usize = 200;
/// Where distributions keep the reference plugins.
const REFERENCE: [&str; 2] = ["/usr/lib/cni/ptp", "/opt/cni/bin/ptp"];

/// ADDs that begin at the same time.
const AT_ONCE: usize = 100;
/// Pods whose first packet is timed.
const FIRST_PACKETS: usize = 1000;
/// Pods of a node whose agent starts again.
const ADOPTED: usize = 250;
/// How often the agent starts again.
const RESTARTS: usize = 10;

pub(super) fn run() -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let (mut agent, ours) = our_node(&lab)?;
    agent.wait_ready(Duration::from_secs(30))?;
    let theirs = reference(&lab)?;
    let floor = floor::Floor::new(&lab)?;
    let mut rows = sequential(&lab, &ours, &theirs, &floor)?;
    rows.extend(at_once(&lab, &ours, &theirs)?);
    rows.extend(first_packets(&lab, &ours)?);
    rows.push(adoption(&lab, &mut agent, &ours)?);
    Ok(rows)
}

fn sequential(lab: &Lab, ours: &Plugin, theirs: &Plugin, floor: &floor::Floor) -> Result<Vec<Row>> {
    let steal = Steal::now();
    let mut series: [Series; 6] = Default::default();
    for round in 0..ROUNDS {
        // Who goes first changes, so that neither always finds the caches warm.
        let sides = if round % 2 == 0 {
            [ours, theirs]
        } else {
            [theirs, ours]
        };
        let mut times = Vec::new();
        for side in sides {
            times.push(measure(lab, side, ADDS)?);
        }
        if round % 2 == 1 {
            times.swap(0, 1);
        }
        let alone = floor.measure(lab, ADDS)?;
        let [ours, theirs] = &times[..] else {
            unreachable!("invariant: two sides")
        };
        series[0].push(quantile(&ours.add, 0.5), quantile(&theirs.add, 0.5));
        series[1].push(quantile(&ours.add, 0.99), quantile(&theirs.add, 0.99));
        series[2].push(quantile(&ours.del, 0.5), quantile(&theirs.del, 0.5));
        series[3].push(quantile(&ours.del, 0.99), quantile(&theirs.del, 0.99));
        series[4].push(quantile(&ours.add, 0.5), quantile(&alone, 0.5));
        series[5].push(quantile(&ours.add, 0.99), quantile(&alone, 0.99));
    }
    let steal = steal.share_since();
    let row = |at: usize, name, beside, target| {
        let series: &Series = &series[at];
        series.row(name, "ms", beside, steal, target)
    };
    let untargeted = |row: Row| Row {
        target: None,
        ..row
    };
    Ok(vec![
        row(0, "add_p50", "ptp", Target::Ratio(0.35)),
        row(1, "add_p99", "ptp", Target::Ours(5.0)),
        row(2, "del_p50", "ptp", Target::Ratio(0.1)),
        row(3, "del_p99", "ptp", Target::Ratio(0.1)),
        untargeted(row(4, "add_p50_floor", "netlink", Target::Ratio(1.0))),
        untargeted(row(5, "add_p99_floor", "netlink", Target::Ratio(1.0))),
    ])
}

/// Seconds until the last of many ADDs has ended, and milliseconds of one of them.
fn at_once(lab: &Lab, ours: &Plugin, theirs: &Plugin) -> Result<Vec<Row>> {
    let steal = Steal::now();
    let (mut all, mut one) = (Series::default(), Series::default());
    for round in 0..ROUNDS {
        let sides = if round % 2 == 0 {
            [ours, theirs]
        } else {
            [theirs, ours]
        };
        let mut results = Vec::new();
        for side in sides {
            results.push(burst(lab, side)?);
        }
        if round % 2 == 1 {
            results.swap(0, 1);
        }
        all.push(results[0].0, results[1].0);
        one.push(results[0].1, results[1].1);
    }
    let steal = steal.share_since();
    Ok(vec![
        all.row("add_100_at_once_s", "s", "ptp", steal, Target::Ours(0.6)),
        one.row("add_100_one_p99", "ms", "ptp", steal, Target::Ours(400.0)),
    ])
}

/// Seconds of all, and the 99th percentile of one in milliseconds.
fn burst(lab: &Lab, plugin: &Plugin) -> Result<(f64, f64)> {
    let pods: Vec<(PodSpec, Netns)> = (0..AT_ONCE)
        .map(|number| pod(lab, number))
        .collect::<Result<_>>()?;
    let start = Instant::now();
    let times: Vec<Result<f64>> = std::thread::scope(|scope| {
        let add = |(spec, netns)| {
            scope.spawn(move || {
                let start = Instant::now();
                plugin.call("ADD", spec, netns, &json!({}))?;
                Ok(start.elapsed().as_secs_f64() * 1e3)
            })
        };
        let threads: Vec<_> = pods
            .iter()
            .map(|(spec, netns)| add((spec, netns)))
            .collect();
        let times = threads.into_iter().map(|thread| thread.join());
        times
            .map(|time| time.expect("invariant: a benchmark's thread does not panic"))
            .collect()
    });
    let all = start.elapsed().as_secs_f64();
    let times: Vec<f64> = times.into_iter().collect::<Result<_>>()?;
    for (spec, netns) in pods {
        plugin.call("DEL", &spec, &netns, &json!({}))?;
        netns.delete()?;
    }
    Ok((all, quantile(&times, 0.99)))
}

/// From the end of ADD: how long the first packet from the node takes, there and back. And from the
/// end of DEL: how long the namespace has its interface yet.
fn first_packets(lab: &Lab, plugin: &Plugin) -> Result<Vec<Row>> {
    let steal = Steal::now();
    let (mut times, mut gone) = (Vec::new(), Vec::new());
    for number in 0..FIRST_PACKETS {
        let (spec, netns) = pod(lab, number)?;
        let result = plugin.call("ADD", &spec, &netns, &json!({}))?;
        let address = result["ips"][0]["address"].as_str().context("an address")?;
        let address: IpNet = address.parse()?;
        let echo = plugin.node.within(|| echo::first(address.addr()))??;
        times.push(echo.as_secs_f64() * 1e3);
        plugin.call("DEL", &spec, &netns, &json!({}))?;
        let start = Instant::now();
        netns.within(|| -> Result<()> {
            let mut kernel = Kernel::open()?;
            while kernel.links()?.iter().any(|link| link.name == "eth0") {}
            Ok(())
        })??;
        gone.push(start.elapsed().as_secs_f64() * 1e3);
        netns.delete()?;
    }
    let steal = steal.share_since();
    let row = |what, times: &[f64], target| {
        let mut series = Series::default();
        series.push(quantile(times, 0.99), f64::NAN);
        println!("{what}: slowest {:.3} ms", quantile(times, 1.0));
        series.row(what, "ms", "", steal, Target::Ours(target))
    };
    Ok(vec![
        row("first_packet_p99_ms", &times, 1.0),
        row("del_clean_p99_ms", &gone, 100.0),
    ])
}

/// From the start of an agent to its readiness, with pods to adopt.
fn adoption(lab: &Lab, agent: &mut Agent, plugin: &Plugin) -> Result<Row> {
    let pods: Vec<(PodSpec, Netns)> = (0..ADOPTED)
        .map(|number| {
            let (spec, netns) = pod(lab, number)?;
            plugin.call("ADD", &spec, &netns, &json!({}))?;
            Ok((spec, netns))
        })
        .collect::<Result<_>>()?;
    let steal = Steal::now();
    let mut series = Series::default();
    for _ in 0..RESTARTS {
        agent.kill()?;
        let start = Instant::now();
        agent.start()?;
        while !matches!(agent.health("/readyz"), Ok((200, _))) {
            ensure!(
                start.elapsed() < Duration::from_secs(30),
                "the agent is not ready"
            );
        }
        series.push(start.elapsed().as_secs_f64() * 1e3, f64::NAN);
    }
    let steal = steal.share_since();
    for (spec, netns) in pods {
        plugin.call("DEL", &spec, &netns, &json!({}))?;
        netns.delete()?;
    }
    Ok(series.row("restart_250_ms", "ms", "", steal, Target::Ours(200.0)))
}

fn pod(lab: &Lab, number: usize) -> Result<(PodSpec, Netns)> {
    let name = format!("pod{number}");
    let netns = lab.netns(&name)?;
    let spec = PodSpec {
        namespace: "bench".to_owned(),
        name,
        labels: BTreeMap::new(),
    };
    Ok((spec, netns))
}

/// Milliseconds of each call.
struct Times {
    add: Vec<f64>,
    del: Vec<f64>,
}

fn measure(lab: &Lab, plugin: &Plugin, count: usize) -> Result<Times> {
    let mut times = Times {
        add: Vec::new(),
        del: Vec::new(),
    };
    let mut pods: Vec<(PodSpec, Netns, Value)> = Vec::new();
    for number in 0..count {
        let (spec, netns) = pod(lab, number)?;
        let start = Instant::now();
        let result = plugin.call("ADD", &spec, &netns, &json!({}))?;
        times.add.push(start.elapsed().as_secs_f64() * 1e3);
        pods.push((spec, netns, result));
    }
    for (spec, netns, result) in pods {
        let extra = json!({ "prevResult": result });
        let start = Instant::now();
        plugin.call("DEL", &spec, &netns, &extra)?;
        times.del.push(start.elapsed().as_secs_f64() * 1e3);
        netns.delete()?;
    }
    Ok(times)
}

/// One node without peers, and a policy in force for its pods.
fn our_node(lab: &Lab) -> Result<(Agent, Plugin)> {
    let netns = lab.netns("ours")?;
    netns.ip([
        "link add eth0 type veth peer name eth0p",
        "addr add 10.10.1.11/24 dev eth0",
        "link set eth0 up",
        "link set eth0p up",
    ])?;
    let store = Store::new(lab.dir().join("datastore"))?;
    let manifests = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata:\n  name: n1\n\
        spec:\n  bgp:\n    ipv4Address: 10.10.1.11/24\n\
        ---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: bench\n\
        ---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: pods\n\
        spec:\n  cidr: 10.244.0.0/16\n  blockSize: 26\n  ipipMode: Never\n\
        ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: deny\n  namespace: bench\n\
        spec:\n  podSelector: {}\n  policyTypes: [Ingress]\n";
    store.write("bench.yaml", manifests)?;
    let mut agent = Agent::new(lab, &netns, "n1", &store)?;
    agent.start()?;
    let plugin = Plugin::ocicat(&agent)?;
    Ok((agent, plugin))
}

/// `ptp` with `host-local`, in a node namespace of its own.
fn reference(lab: &Lab) -> Result<Plugin> {
    let binary = REFERENCE.iter().map(Path::new).find(|path| path.is_file());
    let binary = binary
        .context("the reference plugins are missing (Debian's containernetworking-plugins)")?;
    ensure!(
        binary.with_file_name("host-local").is_file(),
        "host-local is missing beside {}",
        binary.display()
    );
    Ok(Plugin {
        binary: binary.to_owned(),
        config: json!({
            "cniVersion": "1.0.0",
            "name": format!("{}reference", lab.prefix()),
            "type": "ptp",
            "ipam": {
                "type": "host-local",
                "subnet": "10.245.0.0/16",
                "dataDir": lab.dir().join("host-local"),
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }),
        node: lab.netns("theirs")?,
    })
}
