//! Where the policies that `why`, `diff` and `lint` are about come from: the agent, or manifests.

use crate::ctl::{PolicyView, Question};
use datastore::{load, load_text};
use felix_core::cluster::View;
use felix_core::lint::{Finding, faults};
use felix_core::objects::Objects;
use model::Update;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The policies of the agent, unless a directory is named.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// Ask no agent: read every manifest below this directory, pods and namespaces too
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) dir: Option<PathBuf>,
}

/// What manifests say, and what is the matter with them.
pub(super) struct Manifests {
    /// As they were read; the standard input can be read but once.
    pub(super) updates: Vec<Update>,
    pub(super) objects: Objects,
    pub(super) faults: Vec<Finding>,
}

impl Source {
    /// All that is known of policies.
    pub(super) fn view(&self, run_dir: &Path) -> Result<PolicyView, String> {
        let Some(dir) = &self.dir else {
            let answer = super::ask(run_dir, &Question::PolicyView)?;
            return super::value_of(answer);
        };
        let manifests = Manifests::read(&[dir])?;
        manifests.warn();
        Ok(PolicyView {
            view: View::of_objects(&manifests.objects),
            connections: None,
        })
    }
}

impl Manifests {
    /// Reads files and directories; `-` is the standard input.
    pub(super) fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Self, String> {
        let mut updates = vec![];
        for path in paths.iter().map(AsRef::as_ref) {
            let failed = |error: std::io::Error| format!("{}: {error}", path.display());
            if path == Path::new("-") {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map_err(failed)?;
                updates.extend(load_text(&text, "-"));
            } else {
                updates.extend(load(path).map_err(failed)?);
            }
        }
        let mut objects = Objects::default();
        for update in &updates {
            objects.apply(update.clone());
        }
        let faults = faults(&objects);
        Ok(Self {
            updates,
            objects,
            faults,
        })
    }

    /// Tells on the standard error what is wrong; the answer is about the rest.
    pub(super) fn warn(&self) {
        for Finding {
            object,
            field,
            message,
            ..
        } in &self.faults
        {
            let colon = if field.is_empty() { "" } else { ": " };
            eprintln!("ocicat: {object}: {field}{colon}{message}");
        }
    }
}
