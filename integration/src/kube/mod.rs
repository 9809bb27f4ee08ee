//! `cargo lab kube`: a real Kubernetes in namespaces, and what Ocicat promises on it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`shape`] | names and addresses: two racks, three nodes, a host outside |
//! | [`cache`] | binaries and images, built once from Kubernetes' Go module |
//! | [`cluster`] | the cluster: up, down, `kubectl`, power switches |
//! | [`machine`] | process 1 of a node: its mounts and its services |
//! | `check` | `cargo lab kube test`: the promises |
//! | `services`, `pki`, `fabric`, `cgroup`, `host`, `image` | what a machine is made of |

pub(crate) mod bench;
pub mod cache;
mod cgroup;
mod check;
pub mod cluster;
mod fabric;
mod host;
mod image;
pub mod machine;
mod pki;
mod reference;
mod services;
pub mod shape;

pub use bench::BenchOptions;
pub use cache::Cache;
pub use check::TestOptions;
pub use cluster::{Cluster, Options};

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use std::os::unix::process::CommandExt;

/// Who implements Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // the names say it
pub enum Proxy {
    Nftables,
    Iptables,
    None,
}

impl Proxy {
    /// As kube-proxy's configuration calls it; none without kube-proxy.
    fn mode(self) -> Option<&'static str> {
        match self {
            Self::Nftables => Some("nftables"),
            Self::Iptables => Some("iptables"),
            Self::None => None,
        }
    }
}

/// `cargo lab kube ...`.
#[derive(Debug, Subcommand)]
pub enum KubeCommand {
    /// Builds what clusters are made of, once: Kubernetes from its Go module, and test images
    Build,
    /// Makes a cluster without a pod network: a control plane and three nodes in two racks
    Up {
        /// Names the cluster; several can be up
        #[arg(long, default_value = "ock")]
        prefix: String,
        /// Who implements Services
        #[arg(long, value_enum, default_value_t = Proxy::Nftables)]
        proxy: Proxy,
        /// Also a network of the reference plugins ptp and host-local, to compare with
        #[arg(long)]
        reference: bool,
    },
    /// Makes a cluster, installs Ocicat as a user would, and checks what it promises
    Test(TestOptions),
    /// Measures on a cluster of its own what `cargo lab bench kube` does, or a part of it
    Bench(BenchOptions),
    /// Looks at the cluster of the current context of kubectl, whatever it runs on: pods on all
    /// nodes, a Service, a NetworkPolicy
    Check {
        /// An agnhost that the nodes can get
        #[arg(long, default_value = "registry.k8s.io/e2e-test-images/agnhost:2.53")]
        image: String,
    },
    /// Removes the cluster with everything it left
    Down {
        /// Which cluster
        #[arg(long, default_value = "ock")]
        prefix: String,
    },
    /// kubectl as the cluster's administrator
    Kubectl {
        /// Which cluster
        #[arg(long, default_value = "ock")]
        prefix: String,
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// A command on a machine: cp, n1, n2, n3, tor1, tor2, out
    Exec {
        /// Which cluster
        #[arg(long, default_value = "ock")]
        prefix: String,
        /// Which machine
        machine: String,
        /// The command and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

/// Does what was asked for; whether it succeeded.
///
/// # Errors
/// What failed.
pub fn run(command: KubeCommand) -> Result<bool> {
    match command {
        KubeCommand::Build => Cache::locate().fill()?,
        KubeCommand::Up {
            prefix,
            proxy,
            reference,
        } => {
            Cache::locate().fill()?;
            let cluster = Cluster::up(&Options { prefix, proxy })?;
            if reference {
                reference::install(&cluster)?;
            }
            print!("{}", cluster.kubectl(&["get", "nodes", "-o", "wide"])?);
        }
        KubeCommand::Test(options) => return check::run(&options),
        KubeCommand::Bench(options) => {
            crate::bench::publish("kube", options.json.as_deref(), || bench::measure(&options))?;
        }
        KubeCommand::Check { image } => {
            println!("{}", check::anywhere::Anywhere::current(&image).check()?);
        }
        KubeCommand::Down { prefix } => Cluster::named(&prefix).down()?,
        KubeCommand::Kubectl { prefix, arguments } => {
            let mut kubectl = Cluster::named(&prefix).kubectl_command()?;
            // Returns only if there is no such program.
            return Err(kubectl.args(arguments).exec()).context("kubectl");
        }
        KubeCommand::Exec {
            prefix,
            machine,
            command,
        } => {
            let mut there = Cluster::named(&prefix).command(&machine)?;
            return Err(there.args(command).exec()).context("nsenter");
        }
    }
    Ok(true)
}
