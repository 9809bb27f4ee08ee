//! rtnetlink messages, written by hand and read by `netlink-packet-route`.

use crate::netlink::{Encoder, Flags, Frame};
use netlink_packet_core::NetlinkMessage;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use std::net::IpAddr;

pub(crate) const NEW_LINK: u16 = 16;
pub(crate) const DELETE_LINK: u16 = 17;
pub(crate) const GET_LINK: u16 = 18;
pub(crate) const SET_LINK: u16 = 19;
pub(crate) const NEW_ADDRESS: u16 = 20;
pub(crate) const DELETE_ADDRESS: u16 = 21;
pub(crate) const GET_ADDRESS: u16 = 22;
pub(crate) const NEW_ROUTE: u16 = 24;
pub(crate) const DELETE_ROUTE: u16 = 25;
pub(crate) const GET_ROUTE: u16 = 26;
pub(crate) const NEW_NEIGHBOUR: u16 = 28;
pub(crate) const DELETE_NEIGHBOUR: u16 = 29;
pub(crate) const GET_NEIGHBOUR: u16 = 30;

/// `RT_SCOPE_*`.
pub(crate) const SCOPE_UNIVERSE: u8 = 0;
pub(crate) const SCOPE_LINK: u8 = 253;
pub(crate) const SCOPE_HOST: u8 = 254;
pub(crate) const SCOPE_NOWHERE: u8 = 255;

/// The main table, `RT_TABLE_MAIN`.
pub(crate) const MAIN_TABLE: u8 = 254;

/// `AF_INET` or `AF_INET6`.
pub(crate) fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// The bytes of an address in network byte order.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// `struct ifinfomsg`.
pub(crate) fn ifinfomsg(ifindex: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// Sets a link up.
pub(crate) fn link_up(encoder: &mut Encoder, ifindex: u32) -> u32 {
    let up = libc::IFF_UP as u32;
    encoder.message(SET_LINK, Flags::QUIET, &ifinfomsg(ifindex, up, up), |_| {})
}

/// Adds an address, or leaves it. IPv6 addresses skip duplicate address detection.
pub(crate) fn add_address(
    encoder: &mut Encoder,
    ifindex: u32,
    address: IpAddr,
    prefix_length: u8,
    scope: u8,
) -> u32 {
    let fixed = ifaddrmsg(ifindex, address, prefix_length, scope);
    encoder.message(NEW_ADDRESS, Flags::REPLACE, &fixed, |encoder| {
        encoder.attribute(2, &octets(address));
        encoder.attribute(1, &octets(address));
    })
}

/// Adds a single address, or leaves it, that is never chosen as a source: of scope host, or
/// deprecated (RFC 4862 section 5.5.4).
pub(crate) fn add_quiet_address(encoder: &mut Encoder, ifindex: u32, address: IpAddr) -> u32 {
    const IFA_CACHEINFO: u16 = 6;
    let (length, scope) = match address {
        IpAddr::V4(_) => (32, SCOPE_HOST),
        IpAddr::V6(_) => (128, SCOPE_UNIVERSE),
    };
    let fixed = ifaddrmsg(ifindex, address, length, scope);
    encoder.message(NEW_ADDRESS, Flags::REPLACE, &fixed, |encoder| {
        encoder.attribute(2, &octets(address));
        encoder.attribute(1, &octets(address));
        if address.is_ipv6() {
            // `struct ifa_cacheinfo`: preferred for no time, valid for ever.
            let mut lifetimes = [0; 16];
            lifetimes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
            encoder.attribute(IFA_CACHEINFO, &lifetimes);
        }
    })
}

/// Removes an address.
pub(crate) fn delete_address(
    encoder: &mut Encoder,
    ifindex: u32,
    address: IpAddr,
    prefix_length: u8,
) -> u32 {
    let fixed = ifaddrmsg(ifindex, address, prefix_length, 0);
    encoder.message(DELETE_ADDRESS, Flags::QUIET, &fixed, |encoder| {
        encoder.attribute(2, &octets(address));
    })
}

/// Adds or replaces a neighbour entry that never expires.
pub(crate) fn permanent_neighbour(
    encoder: &mut Encoder,
    ifindex: u32,
    address: IpAddr,
    mac: [u8; 6],
) -> u32 {
    let mut fixed = [0; 12];
    fixed[0] = family(address);
    fixed[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    fixed[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    encoder.message(NEW_NEIGHBOUR, Flags::REPLACE, &fixed, |encoder| {
        encoder.attribute(1, &octets(address));
        encoder.attribute(2, &mac);
    })
}

/// `NUD_PERMANENT`.
pub(crate) const NUD_PERMANENT: u16 = 0x80;

/// A message as the crate parses it. One that it can't parse is no object of ours: we write only
/// what it knows.
pub(crate) fn parse(frame: Frame<'_>) -> Option<RouteNetlinkMessage> {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(frame.whole) {
        Ok(message) => match message.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        },
        Err(error) => {
            tracing::debug!(kind = frame.kind, %error, "ignored a netlink message");
            None
        }
    }
}

fn ifaddrmsg(ifindex: u32, address: IpAddr, prefix_length: u8, scope: u8) -> [u8; 8] {
    const IFA_F_NODAD: u8 = 2;
    let mut fixed = [0; 8];
    fixed[0] = family(address);
    fixed[1] = prefix_length;
    fixed[2] = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
    fixed[3] = scope;
    fixed[4..].copy_from_slice(&ifindex.to_ne_bytes());
    fixed
}
