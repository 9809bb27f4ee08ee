//! CNI ADD and DEL, exec to exit.

use super::ROUNDS;
use super::report::{Row, Series, Target, quantile};
use super::steal::Steal;
use crate::lab::pod::{Plugin, PodSpec};
use crate::lab::{Agent, Lab, Netns, Store};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Sequential ADDs, and then DELs, of each plugin in every round.
const ADDS: usize = 200;
/// Where distributions keep the reference plugins.
const REFERENCE: [&str; 2] = ["/usr/lib/cni/ptp", "/opt/cni/bin/ptp"];

pub(super) fn run() -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let (mut agent, ours) = our_node(&lab)?;
    agent.wait_ready(Duration::from_secs(30))?;
    let theirs = reference(&lab)?;
    let steal = Steal::now();
    let mut series: [Series; 4] = Default::default();
    for round in 0..ROUNDS {
        // Who goes first changes, so that neither always finds the caches warm.
        let sides = if round % 2 == 0 {
            [&ours, &theirs]
        } else {
            [&theirs, &ours]
        };
        let mut times = Vec::new();
        for side in sides {
            times.push(measure(&lab, side, ADDS)?);
        }
        if round % 2 == 1 {
            times.swap(0, 1);
        }
        let [ours, theirs] = &times[..] else {
            unreachable!("invariant: two sides")
        };
        series[0].push(quantile(&ours.add, 0.5), quantile(&theirs.add, 0.5));
        series[1].push(quantile(&ours.add, 0.99), quantile(&theirs.add, 0.99));
        series[2].push(quantile(&ours.del, 0.5), quantile(&theirs.del, 0.5));
        series[3].push(quantile(&ours.del, 0.99), quantile(&theirs.del, 0.99));
    }
    let steal = steal.share_since();
    let names = ["add_p50", "add_p99", "del_p50", "del_p99"];
    let row = |(name, series): (&str, &Series)| {
        let mut row = series.row(name, "ms", "ptp", steal, Target::Ratio(0.5));
        if name.starts_with("del") {
            row.target = None;
        }
        row
    };
    Ok(names.into_iter().zip(&series).map(row).collect())
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
        let name = format!("pod{number}");
        let spec = PodSpec {
            namespace: "bench".to_owned(),
            name: name.clone(),
            labels: BTreeMap::new(),
        };
        let netns = lab.netns(&name)?;
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
