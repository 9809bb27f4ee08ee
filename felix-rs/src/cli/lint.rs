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
    /// Only these manifests: files, directories, or - for the standard input. With --dir or --cluster,
    /// as part of what is there
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
            match self.among.manifests()? {
                None => lint(&self.among.view(run_dir)?.view),
                Some(manifests) => {
                    let found = lint(&View::of_objects(&manifests.objects));
                    [manifests.faults, found].concat()
                }
            }
        } else {
            let manifests = Manifests::read(&self.filename)?;
            let objects = manifests.objects.all();
            let own: BTreeSet<String> = objects.map(|object| object.key().to_string()).collect();
            let view = if self.among.is_named() {
                self.among.view(run_dir)?.view.with(manifests.updates)
            } else {
                View::of_objects(&manifests.objects)
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
