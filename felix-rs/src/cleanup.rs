//! `ocicat-node cleanup`: a node without us, after the agent has gone for good.
//!
//! What carries our marks goes, and nothing else: no list is kept of what was made. First what
//! would bring more of it (the configuration of the plugin), then links, routes, next hops,
//! tunnels, and the table last, so that nothing is forwarded without policy in between.

use crate::agent::is_ours;
use clap::Parser;
use kernel::{Kernel, LinkError, NextHopError, NftError, OpenError, RouteError};
use model::names;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Parameters that the agent sets for the whole node.
const PARAMETERS: &str = "net.ipv4.ip_forward, net.ipv6.conf.all.forwarding, \
                          net.ipv6.conf.INTERFACE.accept_ra";

/// Remove everything of Ocicat from this node and nothing else. Pods of this node lose their network.
#[derive(Debug, Parser)]
#[command(name = "ocicat-node cleanup", version)]
struct Cleanup {
    /// Directory of the sockets
    #[arg(long, default_value = names::RUN_DIR)]
    run_dir: PathBuf,
    /// Directory of the journal and the snapshot
    #[arg(long, default_value = names::STATE_DIR)]
    state_dir: PathBuf,
    /// Also forget which pod has which address: only where no pod of this node is left
    #[arg(long)]
    state: bool,
    /// Directory of the host where container runtimes look for CNI plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    cni_bin: PathBuf,
    /// Directory of the host where container runtimes look for CNI configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    cni_conf: PathBuf,
}

/// Why not everything could be removed.
#[derive(Debug, thiserror::Error)]
enum CleanupError {
    #[error("{path}: an agent is running: end it first")]
    Running { path: PathBuf },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("{0}")]
    Link(#[from] LinkError),
    #[error("{0}")]
    Route(#[from] RouteError),
    #[error("{0}")]
    NextHop(#[from] NextHopError),
    #[error("{0}")]
    Table(#[from] NftError),
}

/// Whether the executable was called as `ocicat-node cleanup`.
pub(crate) fn is_called() -> bool {
    std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == "cleanup")
}

pub(crate) fn run() -> ExitCode {
    let args = std::env::args_os();
    let cleanup = Cleanup::parse_from(args.take(1).chain(std::env::args_os().skip(2)));
    match cleanup.remove() {
        Ok(()) => {
            println!("left as they are: {PARAMETERS}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ocicat-node cleanup: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Cleanup {
    fn remove(&self) -> Result<(), CleanupError> {
        let _locks = [lock(&self.run_dir)?, lock(&self.state_dir)?];
        remove_file(&self.cni_conf.join(names::CNI_CONFIG))?;
        remove_file(&self.cni_bin.join(names::CNI_PLUGIN))?;
        let mut kernel = Kernel::open()?;
        links(&mut kernel)?;
        routes(&mut kernel)?;
        for device in names::TUNNEL_DEVICES {
            let there = kernel.links()?.iter().any(|link| link.name == device);
            kernel.remove_tunnel(device)?;
            let stays = kernel.links()?.iter().any(|link| link.name == device);
            if there && !stays {
                println!("removed tunnel {device}");
            }
        }
        if kernel.nft_delete()? {
            println!("removed nft table inet {}", names::NFT_TABLE);
        }
        for name in ["cni.sock", "ctl.sock", "lock"] {
            remove_file(&self.run_dir.join(name))?;
        }
        self.forget()?;
        // Only where nothing of somebody else is in it.
        let _ = fs::remove_dir(&self.run_dir);
        Ok(())
    }

    /// The journal says which addresses pods have, which an agent that comes back must know.
    fn forget(&self) -> Result<(), CleanupError> {
        if !self.state_dir.exists() {
            return Ok(());
        }
        if !self.state {
            println!("kept {}: --state removes it", self.state_dir.display());
            return Ok(());
        }
        fs::remove_dir_all(&self.state_dir).map_err(failed(&self.state_dir))?;
        println!("removed {}", self.state_dir.display());
        Ok(())
    }
}

fn links(kernel: &mut Kernel) -> Result<(), CleanupError> {
    let ours: Vec<_> = kernel.links()?.into_iter().filter(is_ours).collect();
    for link in &ours {
        kernel.delete_link(link.ifindex)?;
    }
    println!("removed {} links of pods", ours.len());
    Ok(())
}

fn routes(kernel: &mut Kernel) -> Result<(), CleanupError> {
    let ours = kernel.routes()?.into_iter().filter(|route| route.ours);
    let destinations: Vec<_> = ours.map(|route| route.route.dest).collect();
    if let Some((_, error)) = kernel.delete_routes(&destinations).into_iter().next() {
        return Err(error.into());
    }
    // Next hops that no route names any more are found by reading the routes.
    kernel.routes()?;
    kernel.remove_unused_next_hops()?;
    println!("removed {} routes", destinations.len());
    Ok(())
}

/// Held while cleaning up, so that no agent starts meanwhile. None where there is no folder.
fn lock(folder: &Path) -> Result<Option<File>, CleanupError> {
    if !folder.exists() {
        return Ok(None);
    }
    let path = folder.join("lock");
    let file = File::create(&path).map_err(failed(&path))?;
    file.try_lock()
        .map_err(|_| CleanupError::Running { path })?;
    Ok(Some(file))
}

fn remove_file(path: &Path) -> Result<(), CleanupError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(path)(error)),
        Ok(()) => {
            println!("removed {}", path.display());
            Ok(())
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CleanupError {
    let path = path.to_owned();
    move |source| CleanupError::File { path, source }
}
