//! `ocicat diff`: which connections manifests would open and close.

use super::formatted;
use super::source::{Manifests, Source};
use crate::cli::Output;
use felix_core::diff::{Change, cut, diff};
use felix_core::revoke::LiveFlow;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// How many pods a line names.
const NAMED: usize = 3;

#[derive(Debug, clap::Args)]
pub(super) struct Diff {
    /// Manifests that would be applied: files, directories, or - for the standard input
    #[arg(short, long, required = true, value_name = "FILE")]
    filename: Vec<PathBuf>,
    #[command(flatten)]
    to: Source,
}

#[derive(Debug, Serialize)]
struct Report {
    changes: Vec<Change>,
    /// Live connections of this node that would be cut; none where nobody can say.
    cut: Option<Vec<LiveFlow>>,
}

impl Diff {
    /// The report, and whether anything changes.
    pub(super) fn run(&self, run_dir: &Path, output: Output) -> Result<(String, bool), String> {
        let manifests = Manifests::read(&self.filename)?;
        manifests.warn();
        let known = self.to.view(run_dir)?;
        let after = known.view.clone().with(manifests.updates);
        let cut = known.connections.map(|live| {
            let cut = cut(&known.view, &after, &live);
            cut.into_iter().copied().collect::<Vec<_>>()
        });
        let changes = diff(&known.view, &after);
        let changed = !changes.is_empty();
        let report = Report { changes, cut };
        formatted(output, &report, || text(&report)).map(|text| (text, changed))
    }
}

fn text(report: &Report) -> String {
    if report.changes.is_empty() {
        return "no connection changes its verdict\n".to_owned();
    }
    let mut text = String::new();
    for change in &report.changes {
        let word = if change.opens { "OPENS" } else { "CLOSES" };
        let (source, destination) = (named(&change.source), named(&change.destination));
        let services = change.services.join(", ");
        let family = change
            .family
            .as_ref()
            .map(|family| format!(" ({family} only)"));
        let family = family.unwrap_or_default();
        let _ = writeln!(
            text,
            "{word:<7} {source} -> {destination}  {services}{family}"
        );
        let _ = writeln!(text, "        now   {}", change.before);
        let _ = writeln!(text, "        then  {}", change.after);
    }
    for flow in report.cut.iter().flatten() {
        let _ = writeln!(text, "CUTS    {flow}");
    }
    text
}

fn named(pods: &[String]) -> String {
    let first = pods[..pods.len().min(NAMED)].join(", ");
    match pods.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more like these"),
    }
}
