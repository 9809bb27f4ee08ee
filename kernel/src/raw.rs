//! The only `unsafe` code of this crate.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// Makes a netlink socket of a descriptor that is one.
pub(crate) fn netlink_socket(descriptor: OwnedFd) -> netlink_sys::Socket {
    // SAFETY: the descriptor is open and owned; the socket becomes its one owner and closes it.
    // A descriptor that is no netlink socket only makes system calls fail.
    unsafe { netlink_sys::Socket::from_raw_fd(descriptor.into_raw_fd()) }
}

/// Moves the calling thread into a network namespace of its own.
pub(crate) fn unshare_network() -> rustix::io::Result<()> {
    // SAFETY: unshare(CLONE_NEWNET) leaves memory, descriptors and the file system view alone; the
    // hazards of rustix's contract concern CLONE_FILES and CLONE_FS.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
}
