//! What others change, as it happens.

use crate::kernel::{OpenError, open};
use crate::message::{self, DELETE_NEIGHBOUR, DELETE_ROUTE, NEW_NEIGHBOUR, NEW_ROUTE};
use crate::netlink::{Errno, Frame, Protocol, Socket};
use crate::route::{KernelRoute, kernel_route};
use crate::vtep::NeighbourEntry;
use crate::{address, link, next_hop, raw};
use model::dataplane::{Address, Link};
use model::names::NFT_TABLE;
use netlink_packet_route::RouteNetlinkMessage;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;
use tokio::sync::mpsc;

/// `RTNLGRP_*`: link, neighbours, IPv4 and IPv6 addresses, IPv4 and IPv6 routes, next hop objects.
const ROUTE_GROUPS: [u32; 7] = [1, 3, 5, 9, 7, 11, 32];
/// `NFNLGRP_NFTABLES`.
const NFT_GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`, the high byte of a message's type.
const NFT_SUBSYSTEM: u16 = 10;
/// Events that may wait for the receiver before the kernel has to keep them.
const QUEUE: usize = 4096;
/// How long the thread outlives its receiver at most.
const NOTICE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};

/// A change that the kernel reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelEvent {
    /// A link is there, or changed. The kernel drops IPv4 routes of a link that goes down without
    /// an event of their own.
    Link(Link),
    /// A link is gone, and so are its routes.
    LinkGone {
        /// Its index.
        ifindex: u32,
        /// Its name.
        name: String,
    },
    /// The node has an address.
    Address(Address),
    /// The node lost an address.
    AddressGone(Address),
    /// A neighbour or forwarding entry is there or changed; by us and the kernel as well.
    Neighbour(NeighbourEntry),
    /// Likewise, it is gone.
    NeighbourGone(NeighbourEntry),
    /// A route of the main table was added or replaced.
    Route(KernelRoute),
    /// A route of the main table was removed.
    RouteGone {
        /// Which.
        route: KernelRoute,
        /// The netlink port of whose request it was; 0 is the kernel's own doing.
        port: u32,
    },
    /// A next hop object of ours was removed, and IPv4 routes through it alone went without an
    /// event of their own. Those that went with their link are not reported.
    NextHopGone {
        /// Whose request it was ([`crate::Kernel::route_port_id`]).
        port: u32,
    },
    /// Somebody else changed our nft table.
    OurTableChanged,
    /// Events were lost: only new dumps tell what is there.
    Overrun,
}

/// Starts a thread that reports changes in the calling thread's network namespace. Changes of our
/// nft table that came from `nft_port_id` ([`crate::Kernel::nft_port_id`]) and of routes that came
/// from `route_port_id` ([`crate::Kernel::route_port_id`]) are not reported; 0 is nobody's.
///
/// What happens after this returns is reported; a dump that follows completes the picture. The
/// thread ends soon after the receiver is dropped.
pub fn monitor(
    nft_port_id: u32,
    route_port_id: u32,
) -> Result<mpsc::Receiver<KernelEvent>, OpenError> {
    let mut route = open(Protocol::Route)?;
    if route_port_id != 0 {
        let filtered = raw::attach_filter(route.as_fd(), &mut without_routes_of(route_port_id));
        filtered.map_err(|errno| OpenError {
            what: "filtered route event",
            errno: errno.into(),
        })?;
    }
    for group in ROUTE_GROUPS {
        route.join(group).map_err(|errno| OpenError {
            what: "route event",
            errno,
        })?;
    }
    let mut nft = open(Protocol::Netfilter)?;
    nft.join(NFT_GROUP).map_err(|errno| OpenError {
        what: "nf_tables event",
        errno,
    })?;
    let (events, receiver) = mpsc::channel(QUEUE);
    std::thread::Builder::new()
        .name("kernel-monitor".into())
        .spawn(move || watch(route, nft, nft_port_id, &events))
        .map_err(|error| OpenError {
            what: "kernel event",
            errno: error.into(),
        })?;
    Ok(receiver)
}

/// A program that lets all messages through but those about routes that this port asked for. The
/// kernel yields the processor at each change while a listener's queue is half full: a hundred
/// thousand routes of our own must not fill it.
fn without_routes_of(port: u32) -> [libc::sock_filter; 7] {
    // linux/bpf_common.h
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // `struct nlmsghdr`, in host order, of which loads make network order.
    const TYPE: u32 = 4;
    const PORT: u32 = 12;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let kind = |kind: u16| u16::from_be_bytes(kind.to_ne_bytes()).into();
    [
        step(LOAD_WORD, 0, 0, PORT),
        step(JUMP_EQUAL, 0, 3, u32::from_be_bytes(port.to_ne_bytes())),
        step(LOAD_HALF, 0, 0, TYPE),
        step(JUMP_EQUAL, 2, 0, kind(NEW_ROUTE)),
        step(JUMP_EQUAL, 1, 0, kind(DELETE_ROUTE)),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ]
}

fn watch(mut route: Socket, mut nft: Socket, own: u32, events: &mpsc::Sender<KernelEvent>) {
    while !events.is_closed() {
        let mut ready = [
            PollFd::new(&route, PollFlags::IN),
            PollFd::new(&nft, PollFlags::IN),
        ];
        // An interrupted wait is a short one.
        let _ = poll(&mut ready, Some(&NOTICE));
        let read = drain(&mut route, events, route_event).and_then(|()| {
            drain(&mut nft, events, |frame| {
                foreign(frame, own).then_some(KernelEvent::OurTableChanged)
            })
        });
        if read.is_none() {
            return;
        }
    }
}

/// Reads what is queued; `None` when nobody listens any more.
fn drain(
    socket: &mut Socket,
    events: &mpsc::Sender<KernelEvent>,
    event: impl Fn(Frame<'_>) -> Option<KernelEvent>,
) -> Option<()> {
    loop {
        match socket.receive() {
            Ok(None) => return Some(()),
            Ok(Some(datagram)) => {
                let mut told = false;
                for event in Frame::split(datagram).filter_map(&event) {
                    // A transaction is many messages and one change.
                    let changed = event == KernelEvent::OurTableChanged;
                    if changed && std::mem::replace(&mut told, true) {
                        continue;
                    }
                    events.blocking_send(event).ok()?;
                }
            }
            Err(Errno(libc::ENOBUFS)) => events.blocking_send(KernelEvent::Overrun).ok()?,
            Err(errno) => {
                // The receiver sees the end of the channel.
                tracing::error!(%errno, "kernel events cannot be read");
                return None;
            }
        }
    }
}

fn route_event(frame: Frame<'_>) -> Option<KernelEvent> {
    match frame.kind {
        NEW_NEIGHBOUR => return NeighbourEntry::read(frame).map(KernelEvent::Neighbour),
        DELETE_NEIGHBOUR => return NeighbourEntry::read(frame).map(KernelEvent::NeighbourGone),
        next_hop::DELETE_NEXT_HOP => {
            let ours = next_hop::is_ours(frame);
            return ours.then_some(KernelEvent::NextHopGone { port: frame.port });
        }
        _ => {}
    }
    match message::parse(frame)? {
        RouteNetlinkMessage::NewLink(m) => link::link(&m).map(KernelEvent::Link),
        RouteNetlinkMessage::DelLink(m) => link::link(&m).map(|link| KernelEvent::LinkGone {
            ifindex: link.ifindex,
            name: link.name,
        }),
        RouteNetlinkMessage::NewAddress(m) => address::address(&m).map(KernelEvent::Address),
        RouteNetlinkMessage::DelAddress(m) => address::address(&m).map(KernelEvent::AddressGone),
        RouteNetlinkMessage::NewRoute(m) => kernel_route(&m).map(KernelEvent::Route),
        RouteNetlinkMessage::DelRoute(m) => {
            let port = frame.port;
            kernel_route(&m).map(|route| KernelEvent::RouteGone { route, port })
        }
        _ => None,
    }
}

/// Whether a message is about our table and not of our doing. The table's name is attribute 1 of
/// every kind of object.
fn foreign(frame: Frame<'_>, own: u32) -> bool {
    const NEW_GENERATION: u16 = NFT_SUBSYSTEM << 8 | 15;
    frame.kind >> 8 == NFT_SUBSYSTEM
        && frame.kind != NEW_GENERATION
        && frame.port != own
        && frame.payload().first() == Some(&crate::nft::FAMILY_INET)
        && frame.attributes(4).text(1).as_deref() == Some(NFT_TABLE)
}
