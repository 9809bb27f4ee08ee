//! The command line of the agent. Flags and environment are read here and nowhere else.

use crate::default_pools::DefaultPools;
use crate::store::{Api, Source};
use clap::Parser;
use datastore::kubernetes::ClusterOptions;
use felix_core::autodetect::Method;
use model::names;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ocicat's node agent: routes, BGP, policy and addresses of one node.
#[derive(Debug, Clone, Parser)]
#[command(name = "ocicat-node", version)]
pub(crate) struct Options {
    /// Name of this node's Node object
    #[arg(long, env = "NODE_NAME")]
    pub(crate) node_name: String,
    /// What holds the cluster's objects: a directory of YAML, or the word kubernetes
    #[arg(long, env = "OCICAT_DATASTORE", value_name = "DIRECTORY|kubernetes")]
    pub(crate) datastore: PathBuf,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) pools: DefaultPools,
    /// Directory of the sockets
    #[arg(long, default_value = names::RUN_DIR)]
    pub(crate) run_dir: PathBuf,
    /// Directory of the journal and the snapshot; must survive a reboot
    #[arg(long, default_value = names::STATE_DIR)]
    pub(crate) state_dir: PathBuf,
    /// Directory where the CNI plugin keeps deletions while the agent is away, as in its
    /// configuration's `spoolDir`; without it, where the plugin puts it by itself
    #[arg(long)]
    pub(crate) spool_dir: Option<PathBuf>,
    /// Directory of the host where container runtimes look for CNI plugins, such as /opt/cni/bin:
    /// the plugin is put there, and kept there
    #[arg(long, value_name = "DIR")]
    pub(crate) install_cni_bin: Option<PathBuf>,
    /// The plugin to install; without it, `ocicat-cni` beside this executable
    #[arg(long, value_name = "FILE", requires = "install_cni_bin")]
    pub(crate) cni_plugin: Option<PathBuf>,
    /// Directory of the host where container runtimes look for CNI configurations, such as
    /// /etc/cni/net.d: ours is put there once this node serves pods
    #[arg(long, value_name = "DIR")]
    pub(crate) install_cni_conf: Option<PathBuf>,
    /// Where the kernel's network parameters can be written
    #[arg(long, value_name = "DIR", default_value = "/proc/sys/net")]
    pub(crate) sysctl_dir: PathBuf,
    /// How this node's IPv4 address is found where its Node object has none, by Calico's names:
    /// first-found, can-reach=ADDRESS, interface=REGEX,..., skip-interface=REGEX,..., cidr=CIDR,...,
    /// kubernetes-internal-ip. An address that the object has is never changed: one that differs is
    /// told
    #[arg(long, env = "IP_AUTODETECTION_METHOD", value_name = "METHOD")]
    pub(crate) ip_autodetection_method: Option<Method>,
    /// Likewise the IPv6 address; without a method none is looked for
    #[arg(long, env = "IP6_AUTODETECTION_METHOD", value_name = "METHOD")]
    pub(crate) ip6_autodetection_method: Option<Method>,
    /// Port of /healthz and /readyz on the loopback address
    #[arg(long, default_value_t = names::HEALTH_PORT)]
    pub(crate) health_port: u16,
    /// What becomes of live connections that a change of policy denies: on cuts them in both
    /// directions, off leaves them until they end
    #[arg(long, value_enum, default_value = "on")]
    pub(crate) revoke_connections: Switch,
    /// The one bit of connection marks that says that a connection was cut; the others are left alone
    #[arg(long, default_value_t = names::REVOKED_MARK, value_parser = one_bit)]
    pub(crate) revoked_mark: u32,
    /// Whether TCP connections that pods open are told the MTU of their ways (the MSS option of SYNs
    /// is lowered): for networks that drop "fragmentation needed"
    #[arg(long, value_enum, default_value = "off")]
    pub(crate) clamp_mss: Switch,
    /// How often addresses are compared with what the kernel and the datastore have, in seconds;
    /// what is empty or gone is given back on the second look
    #[arg(long, default_value = "60", value_parser = seconds)]
    pub(crate) ipam_interval: Duration,
    /// How long a node has to be gone from the datastore, in seconds, before its blocks are freed;
    /// at least three times the interval
    #[arg(long, default_value = "900", value_parser = seconds)]
    pub(crate) node_grace: Duration,
    /// Whether denied packets are reported with the policy that denied them, some of them each second
    #[arg(long, value_enum, default_value = "on")]
    pub(crate) drop_log: Switch,
    /// The nflog group that they take
    #[arg(long, default_value_t = names::DROP_LOG_GROUP)]
    pub(crate) drop_log_group: u16,
    /// The nflog group of name queries of pods, while policies speak of names
    #[arg(long, default_value_t = names::DNS_LOG_GROUP)]
    pub(crate) dns_log_group: u16,
    /// What is logged: error, warn, info, debug, or a filter such as felix_rs=debug
    #[arg(long, default_value = "info", env = "OCICAT_LOG")]
    pub(crate) log: String,
    /// Print what would be done to the kernel and change nothing
    #[arg(long)]
    pub(crate) plan: bool,
}

/// How the API of a Kubernetes cluster is reached.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClusterArgs {
    /// Kubeconfig of the cluster, or several with a colon in between; without it, the service
    /// account of the pod
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<std::ffi::OsString>,
    /// URL of an API server, in the place of the one that the kubeconfig or the pod's environment
    /// names; given several times, the next is asked while one does not answer
    #[arg(
        long,
        env = "OCICAT_API_SERVERS",
        value_delimiter = ',',
        value_name = "URL"
    )]
    api_server: Vec<String>,
    /// The namespace of the agent's pod: Secrets that BGP objects name, Leases
    #[arg(long, env = "POD_NAMESPACE", default_value = names::NAMESPACE)]
    pod_namespace: String,
}

impl ClusterArgs {
    /// As the datastore takes them.
    pub(crate) fn options(&self) -> ClusterOptions {
        let files = self.kubeconfig.iter().flat_map(std::env::split_paths);
        ClusterOptions {
            kubeconfig: files.filter(|path| !path.as_os_str().is_empty()).collect(),
            servers: self.api_server.clone(),
            namespace: self.pod_namespace.clone(),
        }
    }
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// A time in seconds, at least a tenth of one.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds >= 0.1);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| "a number of seconds is needed, such as 60".to_owned())
}

/// A mark of one bit, decimal or hexadecimal (0x…).
fn one_bit(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let bit = number.ok().filter(|number| number.is_power_of_two());
    bit.ok_or_else(|| "a number with one bit set is needed, such as 0x20000000".to_owned())
}

impl Options {
    /// What holds the cluster's objects.
    pub(crate) fn datastore(&self) -> Source {
        if self.datastore.as_os_str() == "kubernetes" {
            Source::Kubernetes(Api::new(self.cluster.options()))
        } else {
            Source::Directory(self.datastore.clone())
        }
    }

    /// The plugin that is installed.
    pub(crate) fn cni_plugin(&self) -> PathBuf {
        self.cni_plugin.clone().unwrap_or_else(|| {
            let own = std::env::current_exe().unwrap_or_default();
            own.with_file_name("ocicat-cni")
        })
    }

    /// The file `name` in the directory of the sockets.
    pub(crate) fn socket(&self, path: &str) -> PathBuf {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.run_dir.join(name)
    }

    /// Where deletions wait: by default beside the state for the default sockets, which are lost
    /// in a reboot, and beside the sockets for an agent elsewhere. The plugin decides alike.
    pub(crate) fn spool(&self) -> PathBuf {
        self.spool_dir.clone().unwrap_or_else(|| {
            let by_default = self.run_dir == Path::new(names::RUN_DIR);
            let base = if by_default {
                Path::new(names::STATE_DIR)
            } else {
                &self.run_dir
            };
            base.join("spool")
        })
    }
}
