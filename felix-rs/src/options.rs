//! The command line of the agent. Flags and environment are read here and nowhere else.

use clap::Parser;
use model::names;
use std::path::PathBuf;

/// Ocicat's node agent: routes, BGP, policy and addresses of one node.
#[derive(Debug, Clone, Parser)]
#[command(name = "ocicat-node", version)]
pub(crate) struct Options {
    /// Name of this node's Node object
    #[arg(long, env = "NODE_NAME")]
    pub(crate) node_name: String,
    /// Directory of YAML that holds the cluster's objects
    #[arg(long, env = "OCICAT_DATASTORE")]
    pub(crate) datastore: PathBuf,
    /// Directory of the sockets
    #[arg(long, default_value = names::RUN_DIR)]
    pub(crate) run_dir: PathBuf,
    /// Directory of the journal and the snapshot; must survive a reboot
    #[arg(long, default_value = names::STATE_DIR)]
    pub(crate) state_dir: PathBuf,
    /// Port of /healthz and /readyz on the loopback address
    #[arg(long, default_value_t = names::HEALTH_PORT)]
    pub(crate) health_port: u16,
    /// What is logged: error, warn, info, debug, or a filter such as felix_rs=debug
    #[arg(long, default_value = "info", env = "OCICAT_LOG")]
    pub(crate) log: String,
    /// Print what would be done to the kernel and change nothing
    #[arg(long)]
    pub(crate) plan: bool,
}

impl Options {
    /// The file `name` in the directory of the sockets.
    pub(crate) fn socket(&self, path: &str) -> PathBuf {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.run_dir.join(name)
    }
}
