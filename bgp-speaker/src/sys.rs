//! System calls that no crate carries: TCP MD5 signatures, least TTLs, the TTL of a datagram, and
//! real-time scheduling of a thread. The only `unsafe` code of this crate.
#![allow(unsafe_code)]

use ipnet::IpNet;
use socket2::SockAddr;
use std::io::{self, IoSliceMut};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// linux/tcp.h.
const TCP_MD5SIG: libc::c_int = 14;
const TCP_MD5SIG_EXT: libc::c_int = 32;
const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;
const TCP_MD5SIG_MAXKEYLEN: usize = bgp_core::Password::MAX_OCTETS;

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct TcpMd5Sig {
    address: socket2::SockAddrStorage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: libc::c_int,
    key: [u8; TCP_MD5SIG_MAXKEYLEN],
}

/// Signs and checks the segments exchanged with `peers` (RFC 2385), in place of an earlier key for
/// the same addresses; without `password`, no longer. The socket is of the peers' IP version.
///
/// # Errors
/// Those of setsockopt(2): `ENOPROTOOPT` if the kernel has no TCP MD5, `ENOMEM` if there are more
/// keys than `net.core.optmem_max` has room for.
pub(crate) fn set_md5_password(
    socket: impl AsFd,
    peers: IpNet,
    password: Option<&str>,
) -> io::Result<()> {
    let key = password.unwrap_or_default().as_bytes();
    let address = SockAddr::from(SocketAddr::new(peers.addr(), 0));
    let host = peers.prefix_len() == peers.max_prefix_len();
    let mut option = TcpMd5Sig {
        address: address.as_storage(),
        flags: if host { 0 } else { TCP_MD5SIG_FLAG_PREFIX },
        prefix_length: peers.prefix_len(),
        key_length: key.len().try_into().map_err(io::Error::other)?,
        interface: 0,
        key: [0; TCP_MD5SIG_MAXKEYLEN],
    };
    let Some(place) = option.key.get_mut(..key.len()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    place.copy_from_slice(key);
    let name = if host { TCP_MD5SIG } else { TCP_MD5SIG_EXT };
    set_option(socket.as_fd(), libc::IPPROTO_TCP, name, &option)
}

/// Has the kernel drop TCP segments with a lower TTL or hop limit (RFC 5082).
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn set_min_ttl(socket: impl AsFd, ipv4: bool, ttl: u8) -> io::Result<()> {
    let (level, name) = if ipv4 {
        (libc::IPPROTO_IP, libc::IP_MINTTL)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT)
    };
    set_option(socket.as_fd(), level, name, &libc::c_int::from(ttl))
}

/// Has the kernel keep the headers of the first segment of accepted connections, for
/// [`first_ttl`].
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn keep_first_headers(listener: impl AsFd) -> io::Result<()> {
    set_option(listener.as_fd(), libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, &1)
}

/// The TTL or hop limit of the first segment of an accepted connection. It can be asked for once;
/// none for a connection that we have opened.
pub(crate) fn first_ttl(socket: impl AsFd, ipv4: bool) -> Option<u8> {
    let mut headers = [0_u8; 128];
    let mut length = mem::size_of_val(&headers) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets into `headers`, and how many into `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVED_SYN,
            headers.as_mut_ptr().cast(),
            &mut length,
        )
    };
    let headers = headers.get(..length as usize).filter(|_| result == 0)?;
    // RFC 791 section 3.1, RFC 8200 section 3.
    headers.get(if ipv4 { 8 } else { 7 }).copied()
}

/// Takes ICMPv6 messages of these types only (RFC 3542 section 3.2).
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn set_icmpv6_filter(socket: impl AsFd, types: &[u8]) -> io::Result<()> {
    /// linux/icmpv6.h; a bit that is set blocks.
    const ICMPV6_FILTER: libc::c_int = 1;
    let mut blocked = [u32::MAX; 8];
    for kind in types {
        blocked[usize::from(kind >> 5)] &= !(1 << (kind & 31));
    }
    set_option(
        socket.as_fd(),
        libc::IPPROTO_ICMPV6,
        ICMPV6_FILTER,
        &blocked,
    )
}

/// Has [`receive`] tell the TTL or hop limit of datagrams.
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn set_receive_ttl(socket: impl AsFd, ipv4: bool) -> io::Result<()> {
    let (level, name) = if ipv4 {
        (libc::IPPROTO_IP, libc::IP_RECVTTL)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT)
    };
    set_option(socket.as_fd(), level, name, &1)
}

/// A datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) length: usize,
    pub(crate) from: SocketAddr,
    /// None if the kernel did not say.
    pub(crate) ttl: Option<u8>,
}

/// Receives a datagram, without waiting for one; what does not fit into `buffer` is lost.
///
/// # Errors
/// Those of recvmsg(2).
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    let socket = socket.as_fd().as_raw_fd();
    let mut slices = [IoSliceMut::new(buffer)];
    // Room for one control message, aligned as cmsghdr(3) wants it.
    let mut control = [0_u64; 8];
    let mut ttl = None;
    // SAFETY: `try_init` passes room for an address and its length. `message` points to that, to
    // one slice that is valid for writing (IoSliceMut has the layout of iovec) and to `control`,
    // with the lengths of each; all outlive the call. CMSG_FIRSTHDR yields null or a header inside
    // the `msg_controllen` octets that the kernel has written, and the data of a TTL is an int.
    let (length, from) = unsafe {
        SockAddr::try_init(|address, address_length| {
            let mut message: libc::msghdr = mem::zeroed();
            message.msg_name = address.cast();
            message.msg_namelen = *address_length;
            message.msg_iov = slices.as_mut_ptr().cast();
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = mem::size_of_val(&control) as _;
            let length = libc::recvmsg(socket, &mut message, libc::MSG_DONTWAIT);
            let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
            *address_length = message.msg_namelen;
            if let Some(header) = libc::CMSG_FIRSTHDR(&message).as_ref() {
                let kind = (header.cmsg_level, header.cmsg_type);
                if kind == (libc::IPPROTO_IP, libc::IP_TTL)
                    || kind == (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)
                {
                    let data = libc::CMSG_DATA(header).cast::<libc::c_int>();
                    ttl = u8::try_from(data.read_unaligned()).ok();
                }
            }
            Ok(length)
        })?
    };
    let from = from.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    Ok(Datagram { length, from, ttl })
}

/// Runs the calling thread before all that are not real-time ones, where that is permitted
/// (`CAP_SYS_NICE` or `RLIMIT_RTPRIO`). Its children are ordinary again.
///
/// # Errors
/// Those of sched_setscheduler(2): `EPERM`.
pub(crate) fn set_real_time() -> io::Result<()> {
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `parameters` is a valid sched_param, whose only field that Linux reads is set, and
    // outlives the call. 0 is the calling thread.
    let result = unsafe {
        let mut parameters: libc::sched_param = mem::zeroed();
        parameters.sched_priority = 1;
        libc::sched_setscheduler(0, policy, &parameters)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set_option<T>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the kernel reads as many octets from `value` as it has; every `T` above is an integer,
    // an array of them or a `repr(C)` structure.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The host as a prefix.
pub(crate) fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}
