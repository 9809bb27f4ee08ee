//! `ocicat migrate`: what would become of the objects of an existing Calico.

use super::formatted;
use super::table::Table;
use crate::cli::Output;
use crate::options::ClusterArgs;
use datastore::kubernetes::{ApiError, Cluster};
use felix_core::migrate::{Allocation, Finding, Outcome, Report, examine};
use hyper::Method;
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Collections of `crd.projectcalico.org/v1`.
const COLLECTIONS: [&str; 22] = [
    "bgpconfigurations",
    "bgpfilters",
    "bgppeers",
    "blockaffinities",
    "caliconodestatuses",
    "clusterinformations",
    "felixconfigurations",
    "globalnetworkpolicies",
    "globalnetworksets",
    "hostendpoints",
    "ipamblocks",
    "ipamconfigs",
    "ipamhandles",
    "ippools",
    "ipreservations",
    "kubecontrollersconfigurations",
    "networkpolicies",
    "networksets",
    "stagedglobalnetworkpolicies",
    "stagedkubernetesnetworkpolicies",
    "stagednetworkpolicies",
    "tiers",
];
/// Objects of one answer.
const PAGE: usize = 500;

#[derive(Debug, clap::Args)]
pub(super) struct Migrate {
    /// Print what would be taken over, changed and refused, and change nothing
    #[arg(long, required = true)]
    dry_run: bool,
    /// Read these files (YAML or JSON, - for the standard input) and no cluster
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<PathBuf>,
    #[command(flatten)]
    api: ClusterArgs,
}

impl Migrate {
    /// The report, and whether anything is refused.
    pub(super) fn run(&self, output: Output) -> Result<(String, bool), String> {
        let documents = match self.filename.is_empty() {
            true => self.stored()?,
            false => files(&self.filename)?,
        };
        let report = examine(&documents);
        let refused = report
            .findings
            .iter()
            .any(|f| f.outcome == Outcome::Refused);
        Ok((formatted(output, &report, || text(&report))?, refused))
    }

    fn stored(&self) -> Result<Vec<Value>, String> {
        let cluster = Cluster::connect(&self.api.options()).map_err(|error| error.to_string())?;
        let all = async {
            let mut found = Vec::new();
            for collection in COLLECTIONS {
                found.extend(pages(&cluster, collection).await?);
            }
            Ok(found)
        };
        let all: Result<_, ApiError> = cluster.runtime().block_on(all);
        all.map_err(|error| error.to_string())
    }
}

/// A collection that the cluster does not know is empty.
async fn pages(cluster: &Cluster, collection: &str) -> Result<Vec<Value>, ApiError> {
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let path =
            format!("/apis/crd.projectcalico.org/v1/{collection}?limit={PAGE}&continue={token}");
        let mut page = match cluster.call(Method::GET, &path, None, None).await {
            Ok(page) => page,
            Err(error) if error.code() == Some(404) => return Ok(found),
            Err(error) => return Err(error),
        };
        let next = page["metadata"]["continue"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if let Value::Array(items) = page["items"].take() {
            found.extend(items);
        }
        if next.is_empty() {
            return Ok(found);
        }
        token = next;
    }
}

fn files(paths: &[PathBuf]) -> Result<Vec<Value>, String> {
    let mut found = Vec::new();
    for path in paths {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut text = String::new();
        if path == Path::new("-") {
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| failed(&error))?;
        } else {
            text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
        }
        found.extend(datastore::documents(&text).map_err(|error| failed(&error))?);
    }
    Ok(found)
}

fn text(report: &Report) -> String {
    if report.findings.is_empty() {
        return "no object of Calico is there\n".to_owned();
    }
    let mut table = Table::new(["OBJECT", "WHAT", "WHY"]);
    for Finding {
        outcome,
        object,
        reasons,
    } in &report.findings
    {
        let what = match outcome {
            Outcome::Refused => "refused",
            Outcome::Changed => "taken over, with a difference",
            Outcome::Left => "not needed",
            Outcome::Taken => "taken over",
        };
        table.row([object.clone(), what.to_owned(), reasons.join("; ")]);
    }
    let mut text = table.to_string();
    if !report.allocations.is_empty() {
        let mut table = Table::new(["ADDRESS", "NODE", "HANDLE", "USED BY"]);
        for Allocation {
            node,
            address,
            handle,
            used_by,
            ..
        } in &report.allocations
        {
            table.row([
                address.clone(),
                node.clone(),
                handle.clone(),
                used_by.clone(),
            ]);
        }
        text += &format!("\naddresses in use\n{table}");
    }
    text
}
