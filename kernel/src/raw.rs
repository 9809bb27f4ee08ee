//! The only `unsafe` code of this crate.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

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

/// Has the kernel ask a program (`struct sock_filter`, linux/filter.h) about every message before it
/// queues it.
pub(crate) fn attach_filter(
    socket: BorrowedFd<'_>,
    program: &mut [libc::sock_filter],
) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel copies `length` instructions, which `program` points to, and checks them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
