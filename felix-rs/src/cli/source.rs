//! Where the policies that `why`, `diff` and `lint` are about come from: the agent, or manifests.

use crate::ctl::{PolicyView, Question};
use crate::options::ClusterArgs;
use datastore::kubernetes::Cluster;
use datastore::{load, load_text};
use felix_core::cluster::View;
use felix_core::lint::{Finding, faults};
use felix_core::objects::Objects;
use model::Update;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The policies of the agent, unless a directory or a cluster is to be read.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// Ask no agent: read every manifest below this directory, pods and namespaces too
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "cluster")]
    dir: Option<PathBuf>,
    /// Ask no agent: read the objects of a Kubernetes cluster
    #[arg(long)]
    cluster: bool,
    #[command(flatten)]
    api: ClusterArgs,
}

/// What manifests say, and what is the matter with them.
pub(super) struct Manifests {
    /// As they were read; the standard input can be read but once.
    pub(super) updates: Vec<Update>,
    pub(super) objects: Objects,
    pub(super) faults: Vec<Finding>,
}

impl Source {
    /// What the directory or the cluster holds; none where the agent is to be asked.
    pub(super) fn manifests(&self) -> Result<Option<Manifests>, String> {
        match &self.dir {
            Some(dir) => Manifests::read(&[dir]).map(Some),
            None if self.cluster => Manifests::of_cluster(&self.api).map(Some),
            None => Ok(None),
        }
    }

    /// Whether a directory or a cluster is to be read.
    pub(super) fn is_named(&self) -> bool {
        self.cluster || self.dir.is_some()
    }

    /// All that is known of policies.
    pub(super) fn view(&self, run_dir: &Path) -> Result<PolicyView, String> {
        let Some(manifests) = self.manifests()? else {
            let answer = super::ask(run_dir, &Question::PolicyView)?;
            return super::value_of(answer);
        };
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
        Ok(Self::of(updates))
    }

    /// Reads a cluster, once and whole.
    fn of_cluster(api: &ClusterArgs) -> Result<Self, String> {
        let cluster = Cluster::connect(&api.options()).map_err(|error| error.to_string())?;
        let mut stream = cluster.watch("");
        let mut updates = vec![];
        loop {
            match stream.blocking_recv() {
                Some(Update::InSync) => return Ok(Self::of(updates)),
                Some(Update::Lost { reason }) => return Err(reason),
                Some(update) => updates.push(update),
                None => return Err("the API is no longer read".to_owned()),
            }
        }
    }

    fn of(updates: Vec<Update>) -> Self {
        let mut objects = Objects::default();
        for update in &updates {
            objects.apply(update.clone());
        }
        let faults = faults(&objects);
        Self {
            updates,
            objects,
            faults,
        }
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
