//! Named network namespaces, as `ip netns` keeps them.

use crate::netlink::Errno;
use crate::raw;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::LinkNameSpaceType;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where `ip netns` keeps its files.
pub const DIRECTORY: &str = "/run/netns";
/// `NSFS_MAGIC`.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// A namespace could not be created, opened, entered or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetnsError {
    /// The file exists, but no namespace is behind it: its owner is gone, or it never was one.
    #[error("{}: not a network namespace", path.display())]
    NotANamespace {
        /// The file.
        path: PathBuf,
    },
    /// A name that is no file name.
    #[error("{name:?} is not a name for a namespace")]
    Name {
        /// The name.
        name: String,
    },
    /// One step was refused.
    #[error("{}: {step}: {errno}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What was to be done.
        step: &'static str,
        /// Why not.
        errno: Errno,
    },
    /// The thread could not move into the namespace.
    #[error("cannot enter the namespace: {0}")]
    Enter(Errno),
}

/// Opens the file of a namespace.
pub fn open(path: &Path) -> Result<OwnedFd, NetnsError> {
    let refused = |errno: rustix::io::Errno| refusal(path, "open", errno);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(refused)?;
    let kind = rustix::fs::fstatfs(&file).map_err(refused)?.f_type as u64;
    if kind != NSFS_MAGIC {
        return Err(NetnsError::NotANamespace {
            path: path.to_owned(),
        });
    }
    Ok(file)
}

/// Path of the namespace with this name.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Creates a namespace that `ip netns` knows by this name, and opens it. Its loopback is down.
pub fn create(name: &str) -> Result<OwnedFd, NetnsError> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(NetnsError::Name {
            name: name.to_owned(),
        });
    }
    share_directory()?;
    let path = path(name);
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|errno| refusal(&path, "create", errno))?;
    let target = path.clone();
    let mounted = on_thread(move || {
        raw::unshare_network().map_err(|errno| refusal(&target, "unshare", errno))?;
        rustix::mount::mount_bind("/proc/thread-self/ns/net", &target)
            .map_err(|errno| refusal(&target, "mount", errno))
    });
    if let Err(error) = mounted {
        let _ = std::fs::remove_file(&path);
        return Err(error);
    }
    open(&path)
}

/// Removes the name. The namespace lives on while something is in it.
pub fn delete(name: &str) -> Result<(), NetnsError> {
    let path = path(name);
    match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
        // The file is there without a mount when its creator was interrupted.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(refusal(&path, "unmount", errno)),
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(NetnsError::Refused {
            path,
            step: "remove",
            errno: error.into(),
        }),
        _ => Ok(()),
    }
}

/// Runs something inside a namespace, on a thread of its own. A panic there is one here.
pub fn run<T: Send>(
    namespace: BorrowedFd<'_>,
    inside: impl FnOnce() -> T + Send,
) -> Result<T, NetnsError> {
    on_thread(|| {
        rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
            .map_err(|errno| NetnsError::Enter(errno.into()))?;
        Ok(inside())
    })
}

/// Opens a `NETLINK_ROUTE` socket inside a namespace, for use from anywhere.
pub fn route_socket(namespace: BorrowedFd<'_>) -> Result<OwnedFd, NetnsError> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    // NETLINK_ROUTE is protocol 0, the family's default.
    run(namespace, || {
        socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
    })?
    .map_err(|errno| NetnsError::Enter(errno.into()))
}

/// The calling thread's namespace.
pub fn current() -> Result<OwnedFd, NetnsError> {
    open(Path::new("/proc/thread-self/ns/net"))
}

fn on_thread<T: Send>(
    work: impl FnOnce() -> Result<T, NetnsError> + Send,
) -> Result<T, NetnsError> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Makes the directory a shared mount, so that namespaces appear to everybody, as `ip netns` does.
fn share_directory() -> Result<(), NetnsError> {
    let directory = Path::new(DIRECTORY);
    let failed = |step| move |errno: rustix::io::Errno| refusal(Path::new(DIRECTORY), step, errno);
    std::fs::create_dir_all(directory).map_err(|error| NetnsError::Refused {
        path: directory.to_owned(),
        step: "create",
        errno: error.into(),
    })?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    if rustix::mount::mount_change(directory, shared).is_ok() {
        return Ok(());
    }
    rustix::mount::mount_bind_recursive(directory, directory).map_err(failed("mount"))?;
    rustix::mount::mount_change(directory, shared).map_err(failed("share"))
}

fn refusal(path: &Path, step: &'static str, errno: rustix::io::Errno) -> NetnsError {
    NetnsError::Refused {
        path: path.to_owned(),
        step,
        errno: errno.into(),
    }
}
