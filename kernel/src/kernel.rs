//! The handle.

use crate::features::Features;
use crate::netlink::{Errno, Protocol, Socket};
use crate::nft::Table;
use crate::path_mtu::PathMtus;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// The kernel, seen from one network namespace. Blocking, and quick: no call waits for anything
/// but the kernel's own work.
///
/// It must be used on threads that are in the namespace in which it was opened, because sysctls
/// are those of the calling thread's namespace.
pub struct Kernel {
    pub(crate) route: Socket,
    route_port: u32,
    pub(crate) nft: Table,
    pub(crate) features: Features,
    pub(crate) sysctl_root: PathBuf,
    /// Tunnel devices, and the IPv4 address that the node itself speaks with through each.
    pub(crate) tunnel_sources: BTreeMap<u32, Ipv4Addr>,
    /// Tunnel devices whose routes say the outer header, and its source.
    pub(crate) encapsulating: BTreeMap<u32, Ipv6Addr>,
    pub(crate) path_mtus: PathMtus,
    /// Next hop objects that routes named when these were last read, or were written since.
    pub(crate) next_hops_in_use: BTreeSet<u32>,
}

/// What differs between environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the kernel's `net` parameters are: `/proc/sys/net`, unless a container mounts a
    /// writable copy elsewhere.
    pub sysctl_root: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sysctl_root: "/proc/sys/net".into(),
        }
    }
}

/// A socket to the kernel could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot open a {what} socket: {errno}")]
pub struct OpenError {
    /// Which socket.
    pub what: &'static str,
    /// Why.
    pub errno: Errno,
}

impl Kernel {
    /// Opens the kernel in the calling thread's network namespace and probes its features. Nothing
    /// is changed.
    pub fn open() -> Result<Self, OpenError> {
        Self::open_with(Options::default())
    }

    /// Like [`Self::open`], in an environment that differs.
    pub fn open_with(options: Options) -> Result<Self, OpenError> {
        let mut route = open(Protocol::Route)?;
        let mut nft = open(Protocol::Netfilter)?;
        let features = Features::probe(&mut route, &mut nft, &options.sysctl_root);
        let port = nft.port().map_err(|errno| OpenError {
            what: "NETLINK_NETFILTER",
            errno,
        })?;
        let route_port = route.port().map_err(|errno| OpenError {
            what: "NETLINK_ROUTE",
            errno,
        })?;
        let nft = Table::new(nft, port, features.nft_owner);
        Ok(Self {
            route,
            route_port,
            nft,
            features,
            sysctl_root: options.sysctl_root,
            tunnel_sources: BTreeMap::new(),
            encapsulating: BTreeMap::new(),
            path_mtus: PathMtus::new(),
            next_hops_in_use: BTreeSet::new(),
        })
    }

    /// What this kernel can do.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The port number of the socket that writes routes and next hops, by which
    /// [`crate::KernelEvent::NextHopGone`] is known to be of our own doing.
    pub fn route_port_id(&self) -> u32 {
        self.route_port
    }

    /// The port number of the socket that writes our nft table; [`crate::monitor`] ignores what
    /// comes from there.
    pub fn nft_port_id(&self) -> u32 {
        self.nft.port()
    }
}

pub(crate) fn open(protocol: Protocol) -> Result<Socket, OpenError> {
    let what = match protocol {
        Protocol::Route => "NETLINK_ROUTE",
        Protocol::Netfilter => "NETLINK_NETFILTER",
    };
    Socket::open(protocol).map_err(|errno| OpenError { what, errno })
}
