//! Next hop objects (`RTM_NEWNEXTHOP`, Linux 5.3; `Documentation/networking/nexthop-group-resilient.rst`).
//!
//! Routes with several next hops name a group that they share with all routes that have the same
//! ones. Losing a next hop is then one message however many routes lead through it, and none at
//! all where its link goes down: the kernel takes it out of its groups by itself.
//!
//! Objects of ours are recognised by [`RT_PROTOCOL`], and what is there is read before it is
//! added to. An object never changes its meaning, except that a group loses members: another
//! group is made for other members, and what no route names is removed by
//! [`Kernel::remove_unused_next_hops`].

use crate::kernel::Kernel;
use crate::message::{family, octets};
use crate::netlink::{Encoder, Flags, Frame, NetlinkError, Socket, ne_u32};
use model::dataplane::{NextHop, Route, RouteKind};
use model::names::RT_PROTOCOL;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

const NEW_NEXT_HOP: u16 = 104;
/// `RTM_DELNEXTHOP`.
pub(crate) const DELETE_NEXT_HOP: u16 = 105;
const GET_NEXT_HOP: u16 = 106;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const RTNH_F_ONLINK: u32 = 4;
/// `struct nhmsg`.
const FIXED: usize = 8;
/// `struct nexthop_grp`.
const GROUP_ENTRY: usize = 8;
/// Where ids of ours begin; those of routing daemons are small.
const FIRST_ID: u32 = 0x7a00_0000;
/// How many ids there are for the first choice.
const IDS: u32 = 1 << 24;

/// Next hop objects could not be read or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NextHopError {
    /// They could not be read.
    #[error("cannot read the next hop objects: {0}")]
    Dump(#[source] NetlinkError),
    /// One could not be removed.
    #[error("next hop {id}: {source}")]
    Remove {
        /// Its number.
        id: u32,
        /// Why not.
        source: NetlinkError,
    },
}

/// What an object that is no group stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    gateway: IpAddr,
    ifindex: u32,
    onlink: bool,
}

/// Members by number, each with its weight, ordered.
type Group = Vec<(u32, u8)>;

/// The next hop objects that there are.
#[derive(Debug, Default)]
struct Objects {
    members: BTreeMap<Member, u32>,
    groups: BTreeMap<Group, u32>,
    /// Numbers in use, by others as well.
    taken: BTreeSet<u32>,
}

/// Whether groups can be used: the kernel has them, and shows what is in them wherever it shows a
/// route (`nexthop_compat_mode`, on by default).
pub(crate) fn probe(route: &mut Socket, sysctl_root: &Path) -> bool {
    let shown = std::fs::read_to_string(sysctl_root.join("ipv4/nexthop_compat_mode"));
    shown.is_ok_and(|value| value.trim() == "1") && read(route).is_ok()
}

impl Kernel {
    /// The groups for these routes, made where they are missing. A route that can't have one is
    /// left out.
    pub(crate) fn next_hop_groups(&mut self, routes: &[&Route]) -> BTreeMap<Vec<NextHop>, u32> {
        let shared = |route: &&Route| match &route.kind {
            RouteKind::Via(hops) if self.shares(hops) => Some(hops.clone()),
            _ => None,
        };
        let wanted: BTreeSet<Vec<NextHop>> = routes.iter().filter_map(shared).collect();
        if wanted.is_empty() {
            return BTreeMap::new();
        }
        let mut objects = match read(&mut self.route) {
            Ok(objects) => objects,
            Err(error) => {
                tracing::warn!(%error, "next hop objects can't be read: routes do without");
                return BTreeMap::new();
            }
        };
        let mut groups = BTreeMap::new();
        for hops in wanted {
            match objects.ensure_group(&mut self.route, &hops) {
                Ok(Some(id)) => drop(groups.insert(hops, id)),
                Ok(None) => {}
                Err(error) => tracing::debug!(?hops, %error, "no group for these next hops"),
            }
        }
        self.next_hops_in_use.extend(groups.values());
        groups
    }

    /// Whether a route with these next hops shares a group with others: there are several, and each
    /// is a gateway on a known interface, not one whose outer header the route itself says.
    pub fn shares(&self, hops: &[NextHop]) -> bool {
        let plain = |hop: &NextHop| {
            let encapsulates = |ifindex| self.encapsulating.contains_key(&ifindex);
            hop.ifindex.is_some_and(|ifindex| !encapsulates(ifindex))
        };
        self.features.next_hop_groups && hops.len() > 1 && hops.iter().all(plain)
    }

    /// Takes a gateway that is known to be dead out of all groups, and so away from all routes
    /// through them, by one message. Routes that lead through it alone stay as they are. Answers
    /// whether there was anything to do.
    ///
    /// `ifindex` says on which link a link-local gateway is.
    pub fn drop_next_hop(
        &mut self,
        gateway: IpAddr,
        ifindex: Option<u32>,
    ) -> Result<bool, NextHopError> {
        if !self.features.next_hop_groups {
            return Ok(false);
        }
        let objects = read(&mut self.route).map_err(NextHopError::Dump)?;
        let dead = objects.members.iter();
        let dead = dead.filter(|(member, _)| {
            member.gateway == gateway && ifindex.is_none_or(|ifindex| member.ifindex == ifindex)
        });
        let dead: Vec<u32> = dead.map(|(_, id)| *id).collect();
        remove(&mut self.route, &dead)?;
        Ok(!dead.is_empty())
    }

    /// Removes the objects that no route names, as of the last [`Self::routes`] and what has been
    /// written since. Answers how many there were.
    pub fn remove_unused_next_hops(&mut self) -> Result<usize, NextHopError> {
        if !self.features.next_hop_groups {
            return Ok(0);
        }
        let objects = read(&mut self.route).map_err(NextHopError::Dump)?;
        let in_use = &self.next_hops_in_use;
        let (used, unused): (Vec<_>, Vec<_>) = objects
            .groups
            .iter()
            .partition(|(_, id)| in_use.contains(id));
        let members: BTreeSet<u32> = used
            .into_iter()
            .flat_map(|(group, _)| group.iter().map(|(id, _)| *id))
            .collect();
        let lone = objects.members.values().filter(|id| !members.contains(id));
        // Groups first: one that loses its last member goes by itself.
        let unused: Vec<u32> = unused
            .into_iter()
            .map(|(_, id)| *id)
            .chain(lone.copied())
            .collect();
        remove(&mut self.route, &unused)?;
        Ok(unused.len())
    }
}

impl Objects {
    /// The number of the group of these next hops; `None` where one of them has no interface.
    fn ensure_group(
        &mut self,
        socket: &mut Socket,
        hops: &[NextHop],
    ) -> Result<Option<u32>, NetlinkError> {
        let mut group = Group::new();
        for hop in hops {
            let Some(ifindex) = hop.ifindex else {
                return Ok(None);
            };
            let member = Member {
                gateway: hop.gateway,
                ifindex,
                onlink: hop.onlink,
            };
            group.push((self.ensure_member(socket, member)?, hop.weight.max(1)));
        }
        if let Some(id) = self.groups.get(&group) {
            return Ok(Some(*id));
        }
        let entries = group.iter().flat_map(|(id, weight)| {
            let [a, b, c, d] = id.to_ne_bytes();
            [a, b, c, d, weight - 1, 0, 0, 0]
        });
        let entries: Vec<u8> = entries.collect();
        let id = self.free_id(&entries);
        let mut request = socket.encoder();
        let fixed = nhmsg(libc::AF_UNSPEC as u8, 0);
        request.message(NEW_NEXT_HOP, Flags::CREATE_EXCLUSIVE, &fixed, |encoder| {
            encoder.u32(NHA_ID, id);
            encoder.attribute(NHA_GROUP, &entries);
        });
        socket.request(request)?;
        self.taken.insert(id);
        self.groups.insert(group, id);
        Ok(Some(id))
    }

    fn ensure_member(&mut self, socket: &mut Socket, member: Member) -> Result<u32, NetlinkError> {
        if let Some(id) = self.members.get(&member) {
            return Ok(*id);
        }
        let gateway = octets(member.gateway);
        let mut content = gateway.clone();
        content.extend(member.ifindex.to_ne_bytes());
        let id = self.free_id(&content);
        let flags = if member.onlink { RTNH_F_ONLINK } else { 0 };
        let fixed = nhmsg(family(member.gateway), flags);
        let mut request = socket.encoder();
        request.message(NEW_NEXT_HOP, Flags::CREATE_EXCLUSIVE, &fixed, |encoder| {
            encoder.u32(NHA_ID, id);
            encoder.u32(NHA_OIF, member.ifindex);
            encoder.attribute(NHA_GATEWAY, &gateway);
        });
        socket.request(request)?;
        self.taken.insert(id);
        self.members.insert(member, id);
        Ok(id)
    }

    /// A number that follows from the content (FNV-1a), or the next one that is free.
    fn free_id(&self, content: &[u8]) -> u32 {
        let hash = content.iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        let mut id = FIRST_ID + hash % IDS;
        while self.taken.contains(&id) {
            id += 1;
        }
        id
    }
}

fn nhmsg(family: u8, flags: u32) -> [u8; FIXED] {
    let mut fixed = [0; FIXED];
    fixed[0] = family;
    fixed[2] = RT_PROTOCOL;
    fixed[4..].copy_from_slice(&flags.to_ne_bytes());
    fixed
}

fn read(socket: &mut Socket) -> Result<Objects, NetlinkError> {
    let ask = |encoder: &mut Encoder| {
        encoder.message(GET_NEXT_HOP, Flags::DUMP, &[0; FIXED], |_| {});
    };
    socket.dump(ask, Objects::default, |objects, frame| {
        if frame.kind == NEW_NEXT_HOP {
            objects.note(frame);
        }
    })
}

impl Objects {
    fn note(&mut self, frame: Frame<'_>) {
        let attributes = frame.attributes(FIXED);
        let Some(id) = attributes.find(NHA_ID).and_then(ne_u32) else {
            return;
        };
        self.taken.insert(id);
        if !is_ours(frame) {
            return;
        }
        if let Some(entries) = attributes.find(NHA_GROUP) {
            let group = entries.chunks_exact(GROUP_ENTRY).filter_map(|entry| {
                Some((ne_u32(entry.get(..4)?)?, entry.get(4)?.saturating_add(1)))
            });
            self.groups.insert(group.collect(), id);
        } else if let Some(member) = member(frame) {
            self.members.insert(member, id);
        }
    }
}

/// Whether a message is about an object of ours.
pub(crate) fn is_ours(frame: Frame<'_>) -> bool {
    frame.payload().get(2) == Some(&RT_PROTOCOL)
}

fn member(frame: Frame<'_>) -> Option<Member> {
    let attributes = frame.attributes(FIXED);
    let gateway = attributes.find(NHA_GATEWAY)?;
    let gateway = match <[u8; 4]>::try_from(gateway) {
        Ok(octets) => IpAddr::from(Ipv4Addr::from(octets)),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(gateway).ok()?).into(),
    };
    let flags = ne_u32(frame.payload().get(4..FIXED)?)?;
    Some(Member {
        gateway,
        ifindex: attributes.find(NHA_OIF).and_then(ne_u32)?,
        onlink: flags & RTNH_F_ONLINK != 0,
    })
}

fn remove(socket: &mut Socket, ids: &[u32]) -> Result<(), NextHopError> {
    let refused = socket.batch(ids, |encoder, id| {
        let fixed = [0; FIXED];
        encoder.message(DELETE_NEXT_HOP, Flags::QUIET, &fixed, |encoder| {
            encoder.u32(NHA_ID, *id);
        });
    });
    let mut refused = refused
        .into_iter()
        .filter(|(_, error)| !error.is(libc::ENOENT));
    match refused.next() {
        Some((index, source)) => Err(NextHopError::Remove {
            id: ids[index],
            source,
        }),
        None => Ok(()),
    }
}
