//! MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760), and next hops (RFC 2545, RFC 8950).
//!
//! What is wrong here ends the session: without the prefixes there is nothing to treat as
//! withdrawn (RFC 7606 sections 5.3 and 7.11).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::nlri::{self, Unicast};
use super::reader::Reader;
use super::{Announced, Family, NextHop, Nlri, SessionParams};

/// MP_REACH_NLRI.
#[derive(Debug)]
pub(super) struct Reach {
    /// `None` if the family was not negotiated.
    pub(super) routes: Option<Announced>,
    /// Whether there are prefixes, of whatever family.
    pub(super) has_prefixes: bool,
}

/// MP_UNREACH_NLRI.
#[derive(Debug)]
pub(super) struct Unreach {
    /// `None` if it was not negotiated.
    pub(super) family: Option<Family>,
    pub(super) nlri: Vec<Nlri>,
}

/// Reads the value of an MP_REACH_NLRI; `Err` says what is wrong.
pub(super) fn decode_reach(value: &[u8], params: &SessionParams) -> Result<Reach, &'static str> {
    let mut reader = Reader::new(value);
    let fields = (|| {
        let family = family(&mut reader)?;
        let next_hop = reader.block8()?;
        reader.u8()?; // reserved
        Some((family, next_hop))
    })();
    let (family, next_hop) = fields.ok_or("MP_REACH_NLRI is cut short")?;
    let routes = match negotiated(family, params) {
        None => None,
        Some(unicast) => Some(Announced {
            next_hop: decode_next_hop(unicast, next_hop, params)
                .ok_or("MP_REACH_NLRI has a next hop of a length that its family can't have")?,
            nlri: prefixes(reader.rest(), family, unicast, params)?,
        }),
    };
    Ok(Reach {
        routes,
        has_prefixes: !reader.rest().is_empty(),
    })
}

/// Reads the value of an MP_UNREACH_NLRI; `Err` says what is wrong.
pub(super) fn decode_unreach(
    value: &[u8],
    params: &SessionParams,
) -> Result<Unreach, &'static str> {
    let mut reader = Reader::new(value);
    let family = family(&mut reader).ok_or("MP_UNREACH_NLRI is cut short")?;
    Ok(match negotiated(family, params) {
        None => Unreach {
            family: None,
            nlri: Vec::new(),
        },
        Some(unicast) => Unreach {
            family: Some(family),
            nlri: prefixes(reader.rest(), family, unicast, params)?,
        },
    })
}

fn negotiated(family: Family, params: &SessionParams) -> Option<Unicast> {
    Unicast::of(family).filter(|_| params.families.contains(&family))
}

fn prefixes(
    bytes: &[u8],
    family: Family,
    unicast: Unicast,
    params: &SessionParams,
) -> Result<Vec<Nlri>, &'static str> {
    let mut prefixes = Vec::new();
    let add_path = params.add_path_receive.contains(&family);
    nlri::decode(bytes, unicast, add_path, &mut prefixes)?;
    Ok(prefixes)
}

fn family(reader: &mut Reader<'_>) -> Option<Family> {
    Some(Family {
        afi: reader.u16()?,
        safi: reader.u8()?,
    })
}

/// `None` for a length that the family can't have. Of 32 octets the second half is a link-local
/// address (RFC 2545 section 3); peers without a global one put `::` or the link-local one first.
fn decode_next_hop(family: Unicast, bytes: &[u8], params: &SessionParams) -> Option<NextHop> {
    let mut reader = Reader::new(bytes);
    let ipv6_allowed = family == Unicast::V6 || params.extended_next_hop;
    match bytes.len() {
        4 if family == Unicast::V4 => {
            let address = Ipv4Addr::from(reader.array::<4>()?).into();
            Some(NextHop {
                address,
                link_local: None,
            })
        }
        16 if ipv6_allowed => {
            let address = Ipv6Addr::from(reader.array::<16>()?).into();
            Some(NextHop {
                address,
                link_local: None,
            })
        }
        32 if ipv6_allowed => {
            let first = Ipv6Addr::from(reader.array::<16>()?);
            let second = Ipv6Addr::from(reader.array::<16>()?);
            let link_local = Some(second).filter(Ipv6Addr::is_unicast_link_local);
            let address = if first.is_unspecified() {
                link_local.unwrap_or(first)
            } else {
                first
            };
            Some(NextHop {
                address: address.into(),
                link_local,
            })
        }
        _ => None,
    }
}

/// Whether packets could be sent to it.
pub(super) fn is_usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            !matches!(first, 0 | 127 | 224..=255)
        }
        IpAddr::V6(address) => {
            !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
        }
    }
}

/// Length and next hop: 4, 16 or, with a link-local address (RFC 2545), 32 octets.
pub(super) fn encode_next_hop(next_hop: &NextHop, out: &mut Vec<u8>) {
    match (next_hop.address, next_hop.link_local) {
        (IpAddr::V4(address), _) => {
            out.push(4);
            out.extend_from_slice(&address.octets());
        }
        (IpAddr::V6(address), None) => {
            out.push(16);
            out.extend_from_slice(&address.octets());
        }
        (IpAddr::V6(address), Some(link_local)) => {
            out.push(32);
            out.extend_from_slice(&address.octets());
            out.extend_from_slice(&link_local.octets());
        }
    }
}
