//! `ocicat lint`: what is probably not meant.

use super::formatted;
use super::source::{Manifests, Source};
use super::table::Table;
use crate::cli::Output;
use felix_core::cluster::View;
use felix_core::lint::{Finding, lint};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Lint {
    /// Only these manifests: files, directories, or - for the standard input. With --dir, as part
    /// of what is there
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<PathBuf>,
    #[command(flatten)]
    among: Source,
}

impl Lint {
    /// The findings, and whether there are any.
    pub(super) fn run(&self, run_dir: &Path, output: Output) -> Result<(String, bool), String> {
        let findings = self.findings(run_dir)?;
        let text = formatted(output, &findings, || text(&findings))?;
        Ok((text, !findings.is_empty()))
    }

    fn findings(&self, run_dir: &Path) -> Result<Vec<Finding>, String> {
        let mut findings = if self.filename.is_empty() {
            match &self.among.dir {
                None => lint(&self.among.view(run_dir)?.view),
                Some(dir) => {
                    let manifests = Manifests::read(&[dir])?;
                    let found = lint(&View::of_objects(&manifests.objects));
                    [manifests.faults, found].concat()
                }
            }
        } else {
            let manifests = Manifests::read(&self.filename)?;
            let objects = manifests.objects.all();
            let own: BTreeSet<String> = objects.map(|object| object.key().to_string()).collect();
            let view = match &self.among.dir {
                None => View::of_objects(&manifests.objects),
                Some(_) => self.among.view(run_dir)?.view.with(manifests.updates),
            };
            let found = lint(&view).into_iter();
            let found = found.filter(|finding| own.contains(&finding.object));
            manifests.faults.into_iter().chain(found).collect()
        };
        findings.sort();
        Ok(findings)
    }
}

fn text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing found\n".to_owned();
    }
    let mut table = Table::new(["OBJECT", "CHECK", "FIELD", "WHAT"]);
    for Finding {
        object,
        check,
        field,
        message,
    } in findings
    {
        table.row([
            object.clone(),
            check.clone(),
            field.clone(),
            message.clone(),
        ]);
    }
    table.to_string()
}
