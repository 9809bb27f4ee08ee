//! `ocicat doctor`: what of this host stands in the agent's way, or will.

mod host;
mod mtu;

use super::table::Table;
use super::{Output, ask, formatted, value_of};
use crate::ctl::{NodeReport, PathsReport, Question};
use serde::Serialize;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    #[command(subcommand)]
    about: Option<About>,
}

#[derive(Debug, clap::Subcommand)]
enum About {
    /// The MTU of the paths to the other nodes, by echoes that nobody may fragment
    Mtu(mtu::Mtu),
}

/// Something that is wrong, or will be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Finding {
    /// What it is about.
    subject: String,
    /// What is wrong, and what to do.
    what: String,
}

fn finding(subject: impl Into<String>, what: impl Into<String>) -> Finding {
    Finding {
        subject: subject.into(),
        what: what.into(),
    }
}

impl Doctor {
    /// The findings, and whether there are any.
    pub(super) fn run(&self, run_dir: &Path, output: Output) -> Result<(String, bool), String> {
        if let Some(About::Mtu(mtu)) = &self.about {
            return mtu.run(run_dir, output);
        }
        let mut findings = host::findings();
        match agent(run_dir) {
            Ok(told) => findings.extend(told),
            Err(error) => findings.push(finding("agent", error)),
        }
        findings.sort();
        let text = formatted(output, &findings, || text(&findings))?;
        Ok((text, !findings.is_empty()))
    }
}

/// What the agent itself says, and routes of others that win over its own.
fn agent(run_dir: &Path) -> Result<Vec<Finding>, String> {
    let report: NodeReport = value_of(ask(run_dir, &Question::Status)?)?;
    let paths: PathsReport = value_of(ask(run_dir, &Question::Paths)?)?;
    let readiness = report.readiness;
    let said = readiness.reasons.into_iter().chain(readiness.notes);
    let said = said.map(|sentence| finding("agent", sentence));
    let overridden = paths.overridden.into_iter();
    let overridden = overridden.map(|route| finding("routes", route));
    Ok(said.chain(overridden).collect())
}

fn text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing found\n".to_owned();
    }
    let mut table = Table::new(["ABOUT", "WHAT"]);
    for found in findings {
        table.row([found.subject.clone(), found.what.clone()]);
    }
    table.to_string()
}
