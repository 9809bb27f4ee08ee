//! Addresses of the node.

use crate::kernel::Kernel;
use crate::message::{self, GET_ADDRESS};
use crate::netlink::{Flags, NetlinkError, Socket};
use ipnet::IpNet;
use model::dataplane::Address;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};

/// The addresses could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the addresses: {0}")]
pub struct AddressError(#[source] pub NetlinkError);

impl Kernel {
    /// All addresses of this namespace, both families.
    pub fn addresses(&mut self) -> Result<Vec<Address>, AddressError> {
        dump(&mut self.route).map_err(AddressError)
    }
}

/// All addresses of the socket's namespace.
pub(crate) fn dump(socket: &mut Socket) -> Result<Vec<Address>, NetlinkError> {
    socket.dump(
        |encoder| {
            encoder.message(GET_ADDRESS, Flags::DUMP, &[0; 8], |_| {});
        },
        Vec::new,
        |addresses, frame| {
            if let Some(RouteNetlinkMessage::NewAddress(message)) = message::parse(frame) {
                addresses.extend(address(&message));
            }
        },
    )
}

/// `IFA_LOCAL` where there is one: on point-to-point links `IFA_ADDRESS` is the peer's.
pub(crate) fn address(message: &AddressMessage) -> Option<Address> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => found = Some(*address),
            AddressAttribute::Address(address) if found.is_none() => found = Some(*address),
            _ => {}
        }
    }
    let address = IpNet::new(found?, message.header.prefix_len).ok()?;
    Some(Address {
        ifindex: message.header.index,
        address,
    })
}
