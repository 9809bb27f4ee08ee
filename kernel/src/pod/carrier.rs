//! From "up" to "takes packets".
//!
//! An end that comes up before its peer has a queue that drops everything (`noop_qdisc`) until
//! the kernel's link watch has seen its carrier, some time later on another thread. Only then its
//! operational state (RFC 2863) is up. Since Linux 6.8 asking for the state of a link lets the
//! link watch go first, so that the first question is the last; before, its notification is
//! waited for.

use super::PodError;
use crate::kernel::{Kernel, open};
use crate::message::{self, GET_LINK, ifinfomsg};
use crate::netlink::{Flags, NetlinkError, Protocol, Socket};
use model::dataplane::PodLink;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

const IFLA_IFNAME: u16 = 3;
/// `RTNLGRP_LINK`
const LINK_GROUP: u32 = 1;

/// An end of a link: by index, or by name.
#[derive(Debug, Clone, Copy)]
enum End<'a> {
    Index(u32),
    Name(&'a str),
}

impl Kernel {
    /// Waits until both ends of a pod's link take packets, or for `limit`. Answers whether they do.
    pub fn await_pod_link(
        &mut self,
        pod: &PodLink,
        pod_socket: BorrowedFd<'_>,
        limit: Duration,
    ) -> Result<bool, PodError> {
        let deadline = Instant::now() + limit;
        let refused = |source| PodError::Refused {
            name: pod.pod_name.clone(),
            step: "wait for its carrier".to_owned(),
            source,
        };
        let host = End::Index(pod.host_ifindex);
        if !is_up(&mut self.route, host).map_err(refused)? {
            let mut events =
                open(Protocol::Route).map_err(|error| PodError::Socket(error.errno))?;
            if !await_end(&mut events, host, deadline).map_err(refused)? {
                return Ok(false);
            }
        }
        let mut socket = Socket::adopt(pod_socket, Protocol::Route).map_err(PodError::Socket)?;
        let inside = End::Name(&pod.pod_name);
        if is_up(&mut socket, inside).map_err(refused)? {
            return Ok(true);
        }
        await_end(&mut socket, inside, deadline).map_err(refused)
    }
}

/// Subscribes before it asks, so that no change is missed.
fn await_end(socket: &mut Socket, end: End<'_>, deadline: Instant) -> Result<bool, NetlinkError> {
    socket.join(LINK_GROUP).map_err(NetlinkError::Socket)?;
    loop {
        if is_up(socket, end)? {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut poll_fd = [PollFd::new(socket, PollFlags::IN)];
        match poll(&mut poll_fd, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(NetlinkError::Socket(errno.into())),
        }
        while let Ok(Some(_)) = socket.receive() {}
    }
}

/// Whether the operational state is up.
fn is_up(socket: &mut Socket, end: End<'_>) -> Result<bool, NetlinkError> {
    let index = match end {
        End::Index(index) => index,
        End::Name(_) => 0,
    };
    let encode = |encoder: &mut crate::netlink::Encoder| {
        let fixed = ifinfomsg(index, 0, 0);
        encoder.message(GET_LINK, Flags::QUIET, &fixed, |encoder| {
            if let End::Name(name) = end {
                encoder.string(IFLA_IFNAME, name);
            }
        });
    };
    socket.dump(
        encode,
        || false,
        |up, frame| {
            if let Some(RouteNetlinkMessage::NewLink(link)) = message::parse(frame) {
                *up = link
                    .attributes
                    .contains(&LinkAttribute::OperState(State::Up));
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns;
    use std::os::fd::AsFd;
    use std::process::Command;

    fn ip(args: &str) {
        let status = Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(status.success(), "ip {args}");
    }

    #[test]
    fn an_end_is_waited_for_until_its_peer_is_up_and_no_longer_than_said() {
        let name = format!("krnl-carrier-{}", std::process::id());
        let namespace = netns::create(&name).unwrap();
        // It lives on as long as its descriptor.
        netns::delete(&name).unwrap();
        netns::run(namespace.as_fd(), || {
            ip("link add one type veth peer name two");
            ip("link set one up");
            let mut socket = Socket::open(Protocol::Route).unwrap();
            let mut wait = |limit| await_end(&mut socket, End::Name("one"), Instant::now() + limit);
            assert_eq!(wait(Duration::from_millis(1)), Ok(false));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    netns::run(namespace.as_fd(), || ip("link set two up")).unwrap();
                });
                assert_eq!(wait(Duration::from_secs(10)), Ok(true));
            });
        })
        .unwrap();
    }
}
