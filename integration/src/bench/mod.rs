//! `cargo lab bench`: ratios to a floor or a peer measured in the same run.
//!
//! Absolute times say more about the machine than about us. So ours and theirs alternate, each
//! pair gives a ratio, and the median of the ratios is what is compared with a target. A target
//! between the quartiles is neither met nor missed: the run can't tell.

mod bgp;
mod cni;
mod policy_audit;
mod policy_calc;
mod policy_cold;
mod policy_cost;
mod policy_update;
mod policy_world;
mod report;
mod routing;
mod size;
mod steal;

pub(crate) use report::quantile;
pub use report::{Better, Report, Row, Series, Target};
pub(crate) use steal::Steal;

use anyhow::{Context, Result, bail, ensure};
use std::path::Path;

/// How often ours and theirs alternate.
pub const ROUNDS: usize = 10;

/// A benchmark.
struct Bench {
    name: &'static str,
    /// What it measures, and beside what.
    what: &'static str,
    run: fn() -> Result<Vec<Row>>,
}

const BENCHES: [Bench; 14] = [
    Bench {
        name: "bgp",
        what: "the BGP speaker on its own: bgp-converge, bgp-fanout and bgp-mesh",
        run: bgp::run,
    },
    Bench {
        name: "bgp-converge",
        what: "a million prefixes through a BGP speaker to one peer, beside BIRD 2 and FRR",
        run: bgp::converge,
    },
    Bench {
        name: "bgp-fanout",
        what: "100,000 and 10,000 prefixes to 30 peers, beside BIRD 2 and FRR",
        run: bgp::fanout,
    },
    Bench {
        name: "bgp-mesh",
        what: "a node of a full mesh: memory, and keepalives on time",
        run: bgp::mesh,
    },
    Bench {
        name: "bgp-fib",
        what: "100,000 routes of a peer into the kernel, by way of the agent",
        run: bgp::fib,
    },
    Bench {
        name: "cni",
        what: "CNI ADD and DEL, exec to exit, beside the reference plugins ptp and host-local",
        run: cni::run,
    },
    Bench {
        name: "kube",
        what: "100 pods on a real Kubernetes, scheduled to Ready, beside ptp and host-local there",
        run: crate::kube::bench::run,
    },
    Bench {
        name: "policy-calc",
        what: "250,000 endpoints and 10,000 policies told to an agent's core, then 1,000 updates a second",
        run: policy_calc::run,
    },
    Bench {
        name: "policy-cold",
        what: "100,000 pods, 10,000 policies and 110 local pods into an empty kernel",
        run: policy_cold::run,
    },
    Bench {
        name: "policy-cost",
        what: "packets and connections through 1 to 1,000 policies, beside a chain per policy and none",
        run: policy_cost::run,
    },
    Bench {
        name: "policy-update",
        what: "members and policies that come, beside the ready-made nft transactions; audits",
        run: policy_update::run,
    },
    Bench {
        name: "routing",
        what: "pod to pod, one node and two, beside routed veths, a bridge and tunnels by hand",
        run: routing::run,
    },
    Bench {
        name: "routing-load",
        what: "latency of requests at a constant rate, pod to pod over two nodes, beside the nodes themselves",
        run: routing::load::run,
    },
    Bench {
        name: "size",
        what: "binaries and resident memory",
        run: size::run,
    },
];

/// Runs a benchmark, prints its rows, and writes them as JSON.
///
/// # Errors
/// There is none of this name, or it can't be run.
pub fn run(name: &str, json: Option<&Path>) -> Result<()> {
    let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) else {
        let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        bail!(
            "there is no benchmark {name}; there are {}",
            names.join(", ")
        );
    };
    println!("{name}: {}", bench.what);
    publish(name, json, bench.run)
}

/// Prints rows, and writes them as JSON.
///
/// # Errors
/// They can't be measured or written, or a part of them was not measured; the rest is printed and
/// written all the same.
pub(crate) fn publish(
    name: &str,
    json: Option<&Path>,
    measure: impl FnOnce() -> Result<Vec<Row>>,
) -> Result<()> {
    let report = Report {
        bench: name.to_owned(),
        machine: report::machine(),
        rows: measure()?,
    };
    print!("{report}");
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report).context("report")?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    let failed = report.rows.iter().filter(|row| row.failure.is_some());
    let failed: Vec<&str> = failed.map(|row| row.what.as_str()).collect();
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_fails_fails_the_benchmark_and_leaves_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.json");
        let rows = |failed: bool| {
            let good = Row::alone("good", "ms", &[1.0], 0.0);
            let bad = Row::failed("memory", "the cluster is gone".to_owned());
            let bad = failed.then_some(bad);
            Ok([good].into_iter().chain(bad).collect())
        };
        publish("kube", Some(&path), || rows(false)).unwrap();
        let error = publish("kube", Some(&path), || rows(true)).unwrap_err();
        assert_eq!(error.to_string(), "not measured: memory");
        let text = std::fs::read_to_string(&path).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["rows"][0]["ours"], 1.0);
        assert_eq!(json["rows"][1]["failure"], "the cluster is gone");
    }
}
