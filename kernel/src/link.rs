//! Links.

use crate::kernel::Kernel;
use crate::message::{self, DELETE_LINK, GET_LINK, ifinfomsg};
use crate::netlink::{Errno, Flags, NetlinkError, Socket};
use model::dataplane::Link;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

pub(crate) const IFLA_ADDRESS: u16 = 1;
pub(crate) const IFLA_IFNAME: u16 = 3;
pub(crate) const IFLA_MTU: u16 = 4;
pub(crate) const IFLA_LINKINFO: u16 = 18;
pub(crate) const IFLA_IFALIAS: u16 = 20;
const IFLA_EXT_MASK: u16 = 29;
/// `RTEXT_FILTER_SKIP_STATS`: no counters.
const SKIP_STATISTICS: u32 = 8;

/// A link could not be read, created or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// A link of this name is there already.
    #[error("interface {name}: the name is taken")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A link with this index is there already; choose another.
    #[error("interface {name}: index {ifindex} is taken")]
    IndexTaken {
        /// The name that was asked for.
        name: String,
        /// The index.
        ifindex: u32,
    },
    /// The pod's namespace has a link of this name already.
    #[error("interface {name}: the pod already has an interface {pod_name}")]
    PodNameTaken {
        /// The name of the host end.
        name: String,
        /// The name of the pod end.
        pod_name: String,
    },
    /// The kernel lacks this kind of link.
    #[error("interface {name}: this kernel has no {kind}")]
    Unsupported {
        /// The name.
        name: String,
        /// Kind of the link.
        kind: &'static str,
    },
    /// There is such a link, and it is of another kind.
    #[error("interface {name}: it is a {found}, not a {wanted}")]
    WrongKind {
        /// The name.
        name: String,
        /// What it should be.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// Another tunnel has the same end points.
    #[error("interface {name}: another ipip tunnel has the same local address {local}")]
    TunnelTaken {
        /// The name.
        name: String,
        /// The local address.
        local: std::net::Ipv4Addr,
    },
    /// Another device takes what comes for every such tunnel.
    #[error("interface {name}: another external ip6tnl device is there, and there can be only one")]
    ExternalTaken {
        /// The name.
        name: String,
    },
    /// One step of several was refused.
    #[error("interface {name}: {step}: {source}")]
    Refused {
        /// The name, or the index where only that is known.
        name: String,
        /// What was to be done.
        step: &'static str,
        /// Why not.
        source: NetlinkError,
    },
    /// A parameter of the link could not be set.
    #[error(transparent)]
    Sysctl(#[from] crate::SysctlError),
    /// The links could not be read.
    #[error("cannot read the links: {0}")]
    Dump(#[source] NetlinkError),
    /// A thread could not be started.
    #[error("cannot start a thread that deletes interface {ifindex}: {errno}")]
    Thread {
        /// The link.
        ifindex: u32,
        /// Why.
        errno: Errno,
    },
}

impl LinkError {
    pub(crate) fn refused(name: &str, step: &'static str) -> impl FnOnce(NetlinkError) -> Self {
        move |source| Self::Refused {
            name: name.to_owned(),
            step,
            source,
        }
    }
}

impl Kernel {
    /// All links of this namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, LinkError> {
        dump(&mut self.route).map_err(LinkError::Dump)
    }

    /// The link with this index as it is now, if there is one.
    pub fn link(&mut self, ifindex: u32) -> Result<Option<Link>, LinkError> {
        by_index(&mut self.route, ifindex).map_err(LinkError::Dump)
    }

    /// Removes a link. One that is not there is no failure.
    ///
    /// The kernel takes some 20 ms for this; [`Self::delete_link_in_background`] does not wait.
    pub fn delete_link(&mut self, ifindex: u32) -> Result<(), LinkError> {
        delete(&mut self.route, ifindex)
    }

    /// Removes a link on a thread of its own, whose handle tells how it ended.
    pub fn delete_link_in_background(
        &self,
        ifindex: u32,
    ) -> Result<std::thread::JoinHandle<Result<(), LinkError>>, LinkError> {
        let failed = |errno| LinkError::Thread { ifindex, errno };
        let mut socket = Socket::open(crate::netlink::Protocol::Route).map_err(failed)?;
        std::thread::Builder::new()
            .name(format!("delete-link-{ifindex}"))
            .spawn(move || delete(&mut socket, ifindex))
            .map_err(|error| failed(error.into()))
    }
}

fn delete(socket: &mut Socket, ifindex: u32) -> Result<(), LinkError> {
    let mut request = socket.encoder();
    request.message(DELETE_LINK, Flags::QUIET, &ifinfomsg(ifindex, 0, 0), |_| {});
    match socket.request(request) {
        Err(error) if error.is(libc::ENODEV) => Ok(()),
        done => done.map_err(LinkError::refused(&format!("#{ifindex}"), "delete")),
    }
}

/// All links of the socket's namespace.
pub(crate) fn dump(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    socket.dump(
        |encoder| {
            encoder.message(GET_LINK, Flags::DUMP, &[0; 16], |encoder| {
                encoder.u32(IFLA_EXT_MASK, SKIP_STATISTICS);
            });
        },
        Vec::new,
        |links, frame| {
            if let Some(RouteNetlinkMessage::NewLink(message)) = message::parse(frame) {
                links.extend(link(&message));
            }
        },
    )
}

/// The link of this name, if there is one.
pub(crate) fn by_name(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    one(socket, 0, Some(name))
}

/// The link with this index, if there is one.
pub(crate) fn by_index(socket: &mut Socket, ifindex: u32) -> Result<Option<Link>, NetlinkError> {
    one(socket, ifindex, None)
}

fn one(
    socket: &mut Socket,
    ifindex: u32,
    name: Option<&str>,
) -> Result<Option<Link>, NetlinkError> {
    let found = socket.dump(
        |encoder| {
            encoder.message(
                GET_LINK,
                Flags::QUIET,
                &ifinfomsg(ifindex, 0, 0),
                |encoder| {
                    encoder.u32(IFLA_EXT_MASK, SKIP_STATISTICS);
                    if let Some(name) = name {
                        encoder.string(IFLA_IFNAME, name);
                    }
                },
            );
        },
        || None,
        |found, frame| {
            if let Some(RouteNetlinkMessage::NewLink(message)) = message::parse(frame) {
                *found = link(&message);
            }
        },
    );
    match found {
        Err(error) if error.is(libc::ENODEV) => Ok(None),
        found => found,
    }
}

/// A link as a message describes it; `None` for messages about bridge ports and the like.
pub(crate) fn link(message: &LinkMessage) -> Option<Link> {
    let header = &message.header;
    if u8::from(header.interface_family) != libc::AF_UNSPEC as u8 {
        return None;
    }
    let mut link = Link {
        ifindex: header.index,
        name: String::new(),
        alias: None,
        kind: None,
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        mtu: 0,
        mac: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::LinkInfo(info) => {
                link.kind = info.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(link)
}
