//! `cargo lab bench`: ratios to a floor or a peer measured in the same run.
//!
//! Absolute times say more about the machine than about us. So ours and theirs alternate, each
//! pair gives a ratio, and the median of the ratios is what is compared with a target. A target
//! between the quartiles is neither met nor missed: the run can't tell.

mod cni;
mod policy_update;
mod report;
mod size;
mod steal;

pub use report::{Better, Report, Row, Series};

use anyhow::{Context, Result, bail};
use std::path::Path;

/// How often ours and theirs alternate.
pub const ROUNDS: usize = 10;

/// The benchmarks: name, what it measures, and how.
const BENCHES: [(&str, &str, fn() -> Result<Vec<Row>>); 3] = [
    (
        "cni",
        "CNI ADD and DEL, exec to exit, beside the reference plugins ptp and host-local",
        cni::run,
    ),
    (
        "policy-update",
        "one member joining a set of 10,000, beside a bare nft transaction",
        policy_update::run,
    ),
    ("size", "binaries and resident memory", size::run),
];

/// Runs a benchmark, prints its rows, and writes them as JSON.
///
/// # Errors
/// There is none of this name, or it can't be run.
pub fn run(name: &str, json: Option<&Path>) -> Result<()> {
    let Some((name, what, bench)) = BENCHES.iter().find(|(known, _, _)| *known == name) else {
        let names: Vec<&str> = BENCHES.iter().map(|(name, _, _)| *name).collect();
        bail!(
            "there is no benchmark {name}; there are {}",
            names.join(", ")
        );
    };
    println!("{name}: {what}");
    let report = Report {
        bench: (*name).to_owned(),
        machine: report::machine(),
        rows: bench()?,
    };
    print!("{report}");
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report).context("report")?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(())
}
