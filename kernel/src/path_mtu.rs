//! Path MTUs that the kernel has learnt (RFC 1191, RFC 8201), and routes that keep to them.
//!
//! A VXLAN device does not tell the senders behind it: it sends the packet that is too long and
//! drops nothing, and who forwards does not trust what was learnt. A route with a locked MTU is
//! kept to, and what is too long for it is answered with "fragmentation needed".

use crate::kernel::Kernel;
use crate::message::{GET_ROUTE, MAIN_TABLE};
use crate::netlink::{Flags, Frame, NetlinkError, Socket};
use crate::route::{RTA_DST, RTA_METRICS, RTA_TABLE, RTAX_MTU, RouteError};
use model::dataplane::{NextHop, Route, RouteKind};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// `RTM_F_CLONED`: what was learnt for single destinations.
const LEARNT: u32 = 0x200;

/// MTU in bytes of the way to a gateway through an interface.
pub type PathMtus = BTreeMap<(u32, IpAddr), u32>;

impl Kernel {
    /// Destinations to which the kernel knows a path MTU of its own, in bytes.
    pub fn learnt_mtus(&mut self) -> Result<BTreeMap<IpAddr, u32>, RouteError> {
        let mut learnt = dump(&mut self.route, libc::AF_INET).map_err(RouteError::Dump)?;
        learnt.extend(dump(&mut self.route, libc::AF_INET6).map_err(RouteError::Dump)?);
        Ok(learnt)
    }

    /// From now on routes to these gateways have a locked MTU, and others none. Answers what
    /// differs from before: such routes are as they were until they are replaced.
    pub fn set_path_mtus(&mut self, mtus: PathMtus) -> Vec<(u32, IpAddr)> {
        let before = std::mem::replace(&mut self.path_mtus, mtus);
        let all = before.keys().chain(self.path_mtus.keys());
        let differs = |key: &&(u32, IpAddr)| before.get(key) != self.path_mtus.get(key);
        all.filter(differs).copied().collect()
    }
}

/// The least MTU of the ways that a route has.
pub(crate) fn of_route(route: &Route, mtus: &PathMtus) -> Option<u32> {
    let RouteKind::Via(hops) = &route.kind else {
        return None;
    };
    let known = |hop: &NextHop| mtus.get(&(hop.ifindex?, hop.gateway)).copied();
    hops.iter().filter_map(known).min()
}

fn dump(socket: &mut Socket, family: i32) -> Result<BTreeMap<IpAddr, u32>, NetlinkError> {
    socket.dump(
        |encoder| {
            let mut fixed = [0; 12];
            fixed[0] = family as u8;
            fixed[8..].copy_from_slice(&LEARNT.to_ne_bytes());
            encoder.message(GET_ROUTE, Flags::DUMP, &fixed, |encoder| {
                encoder.u32(RTA_TABLE, u32::from(MAIN_TABLE));
            });
        },
        BTreeMap::new,
        |learnt, frame| learnt.extend(exception(frame)),
    )
}

fn exception(frame: Frame<'_>) -> Option<(IpAddr, u32)> {
    let flags = u32::from_ne_bytes(frame.payload().get(8..12)?.try_into().ok()?);
    let attributes = frame.attributes(12);
    let address = attributes.find(RTA_DST)?;
    let v4 = <[u8; 4]>::try_from(address).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from));
    let mtu = attributes.inside(RTA_METRICS).find(RTAX_MTU)?;
    let mtu = u32::from_ne_bytes(mtu.try_into().ok()?);
    (flags & LEARNT != 0).then_some((address.ok()?, mtu))
}
