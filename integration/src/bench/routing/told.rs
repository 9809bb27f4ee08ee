//! What the kernel tells of routes, read by the one who waits for it: a thread that has to be woken
//! first would be counted as the agent's time.

use crate::lab::Netns;
use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use model::names::RT_PROTOCOL;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// `RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE`
const ROUTES: u32 = 0x40 | 0x400;
/// `RTM_NEWROUTE`, `RTM_DELROUTE`.
const NEW: u16 = 24;
const GONE: u16 = 25;
/// `struct nlmsghdr`, and where `struct rtmsg` after it has the length of the prefix and the protocol.
const HEADER: usize = 16;
const LENGTH: usize = HEADER + 1;
const PROTOCOL: usize = HEADER + 5;
/// `RTA_DST`, which the kernel writes after the table.
const DESTINATION: u16 = 1;
const ATTRIBUTES: usize = HEADER + 12;
const LIMIT: Duration = Duration::from_secs(20);

/// What became of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    There,
    Gone,
}

/// A listener in a namespace.
pub(super) struct Told {
    socket: OwnedFd,
}

impl Told {
    pub(super) fn listen(netns: &Netns) -> Result<Self> {
        let open = || -> Result<OwnedFd, Errno> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            // `NETLINK_ROUTE` is 0, the protocol that is meant by none.
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
            bind(&socket, &SocketAddrNetlink::new(0, ROUTES))?;
            Ok(socket)
        };
        let socket = netns.within(open)?.context("route events")?;
        Ok(Self { socket })
    }

    /// Waits, without sleeping, until the kernel tells this of a route of ours.
    pub(super) fn wait(&self, change: Change, dest: IpNet) -> Result<()> {
        let start = Instant::now();
        let mut buffer = [0; 8192];
        while start.elapsed() < LIMIT {
            let length = match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(error) => return Err(error).context("route events"),
            };
            if says(&buffer[..length], change, dest) {
                return Ok(());
            }
        }
        bail!("{dest} is not {change:?}")
    }
}

/// Whether a message (events come one at a time) is about this route of ours.
fn says(message: &[u8], change: Change, dest: IpNet) -> bool {
    let kind = match change {
        Change::There => NEW,
        Change::Gone => GONE,
    };
    let octets = match dest.network() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    message.get(4..6) == Some(&kind.to_ne_bytes())
        && message.get(LENGTH) == Some(&dest.prefix_len())
        && message.get(PROTOCOL) == Some(&RT_PROTOCOL)
        && attribute(message, DESTINATION) == Some(&octets)
}

/// The value of a route's attribute.
fn attribute(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = message.get(ATTRIBUTES..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Lab;
    use kernel::Kernel;
    use model::dataplane::{Route, RouteKind};

    #[test]
    fn routes_of_ours_that_come_and_go_are_told_and_no_others() -> Result<()> {
        let lab = Lab::new()?;
        let netns = lab.netns("told")?;
        let told = Told::listen(&netns)?;
        let mut kernel = netns.within(Kernel::open)?.context("netlink")?;
        for dest in ["192.0.2.0/26", "2001:db8::/122"] {
            let dest: IpNet = dest.parse()?;
            netns.ip([format!("route add blackhole {dest} metric 7")])?;
            let kind = RouteKind::Blackhole;
            assert!(kernel.replace_routes(&[Route { dest, kind }]).is_empty());
            told.wait(Change::There, dest)?;
            kernel.delete_routes(&[dest]);
            told.wait(Change::Gone, dest)?;
        }
        Ok(())
    }

    #[test]
    fn no_bytes_are_a_route_or_a_panic() {
        let dest = "192.0.2.0/26".parse().unwrap();
        for length in 0..64 {
            for byte in [0, 1, 3, 24, 255] {
                let message = vec![byte; length];
                assert!(!says(&message, Change::There, dest));
            }
        }
    }
}
