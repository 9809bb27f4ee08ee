//! The pod's network namespace.

use crate::Error;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// `f_type` of files that stand for namespaces (`NSFS_MAGIC`).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// What the agent needs to work inside the pod without entering it.
pub(crate) struct PodNamespace {
    namespace: OwnedFd,
    route_socket: OwnedFd,
}

impl PodNamespace {
    /// Enters the namespace and opens a NETLINK_ROUTE socket there. The process stays inside:
    /// pod-side sysctls belong to it, and the agent's socket is reached by path from anywhere.
    pub(crate) fn enter(path: &str) -> Result<Self, Error> {
        let namespace = open(path)?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
            |errno| match errno {
                rustix::io::Errno::INVAL => wrong(path, "is a namespace, but not a network's"),
                errno => kernel("setns into CNI_NETNS", errno),
            },
        )?;
        let flags = SocketFlags::CLOEXEC;
        let route_socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)
            .map_err(|errno| kernel("NETLINK_ROUTE socket in CNI_NETNS", errno))?;
        Ok(Self {
            namespace,
            route_socket,
        })
    }

    /// In the order of the protocol: the namespace, the socket.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.namespace.as_fd(), self.route_socket.as_fd()]
    }
}

fn open(path: &str) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| wrong(path, &std::io::Error::from(errno).to_string()))?;
    let system =
        rustix::fs::fstatfs(&file).map_err(|errno| kernel("fstatfs of CNI_NETNS", errno))?;
    if system.f_type as u64 != NSFS_MAGIC {
        return Err(wrong(path, "is not a network namespace"));
    }
    let identity = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let pod = rustix::fs::fstat(&file).map(identity);
    let own = rustix::fs::stat("/proc/self/ns/net").map(identity);
    if pod.is_ok() && pod == own {
        return Err(wrong(
            path,
            "is the node's own network namespace, not a pod's",
        ));
    }
    Ok(file)
}

fn wrong(path: &str, reason: &str) -> Error {
    Error::Environment {
        variable: "CNI_NETNS",
        reason: format!("{path}: {reason}"),
    }
}

fn kernel(operation: &'static str, errno: rustix::io::Errno) -> Error {
    Error::Kernel {
        operation,
        source: errno.into(),
    }
}
