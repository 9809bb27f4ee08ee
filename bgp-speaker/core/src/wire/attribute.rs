//! Reading path attributes one by one: flags, values, and what RFC 7606 section 7 wants done about
//! each that is malformed.

use std::net::Ipv4Addr;

use super::as_path::{self, PathFault};
use super::open::AS_TRANS;
use super::reader::{Reader, items};
use super::{AsPath, Attributes, ErrorCode, Origin, SessionParams, UnknownAttribute};

pub(super) const ORIGIN: u8 = 1;
pub(super) const AS_PATH: u8 = 2;
pub(super) const NEXT_HOP: u8 = 3;
pub(super) const MULTI_EXIT_DISC: u8 = 4;
pub(super) const LOCAL_PREF: u8 = 5;
pub(super) const ATOMIC_AGGREGATE: u8 = 6;
pub(super) const AGGREGATOR: u8 = 7;
pub(super) const COMMUNITIES: u8 = 8;
pub(super) const ORIGINATOR_ID: u8 = 9;
pub(super) const CLUSTER_LIST: u8 = 10;
pub(super) const MP_REACH_NLRI: u8 = 14;
pub(super) const MP_UNREACH_NLRI: u8 = 15;
pub(super) const EXTENDED_COMMUNITIES: u8 = 16;
pub(super) const AS4_PATH: u8 = 17;
pub(super) const AS4_AGGREGATOR: u8 = 18;
pub(super) const LARGE_COMMUNITIES: u8 = 32;
pub(super) const ONLY_TO_CUSTOMER: u8 = 35;

pub(super) const OPTIONAL: u8 = 0x80;
pub(super) const TRANSITIVE: u8 = 0x40;
pub(super) const PARTIAL: u8 = 0x20;
pub(super) const EXTENDED_LENGTH: u8 = 0x10;
/// Flags of the multiprotocol attributes as we write them.
pub(super) const MP_FLAGS: u8 = OPTIONAL | EXTENDED_LENGTH;

/// A malformed attribute that does not end the session by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Leave the attribute out.
    Discard(&'static str),
    /// Withdraw the routes. The code is for the case in which there are none to be found.
    Withdraw(ErrorCode, &'static str),
}

const LENGTH: ErrorCode = ErrorCode::ATTRIBUTE_LENGTH;

/// What the attributes other than MP_REACH_NLRI and MP_UNREACH_NLRI have said so far.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) attributes: Attributes,
    pub(super) next_hop: Option<Ipv4Addr>,
    pub(super) as4_path: Option<AsPath>,
    pub(super) as4_aggregator: Option<(u32, Ipv4Addr)>,
}

/// The Optional and Transitive bits that a type must have; `None` for one that we do not know.
pub(super) fn required_flags(code: u8) -> Option<u8> {
    match code {
        ORIGIN | AS_PATH | NEXT_HOP | LOCAL_PREF | ATOMIC_AGGREGATE => Some(TRANSITIVE),
        MULTI_EXIT_DISC | ORIGINATOR_ID | CLUSTER_LIST | MP_REACH_NLRI | MP_UNREACH_NLRI => {
            Some(OPTIONAL)
        }
        AGGREGATOR | COMMUNITIES | EXTENDED_COMMUNITIES | AS4_PATH | AS4_AGGREGATOR
        | LARGE_COMMUNITIES | ONLY_TO_CUSTOMER => Some(OPTIONAL | TRANSITIVE),
        _ => None,
    }
}

/// The registered name of a type that we know.
pub(super) fn name(code: u8) -> Option<&'static str> {
    Some(match code {
        ORIGIN => "ORIGIN",
        AS_PATH => "AS_PATH",
        NEXT_HOP => "NEXT_HOP",
        MULTI_EXIT_DISC => "MULTI_EXIT_DISC",
        LOCAL_PREF => "LOCAL_PREF",
        ATOMIC_AGGREGATE => "ATOMIC_AGGREGATE",
        AGGREGATOR => "AGGREGATOR",
        COMMUNITIES => "COMMUNITIES",
        ORIGINATOR_ID => "ORIGINATOR_ID",
        CLUSTER_LIST => "CLUSTER_LIST",
        MP_REACH_NLRI => "MP_REACH_NLRI",
        MP_UNREACH_NLRI => "MP_UNREACH_NLRI",
        EXTENDED_COMMUNITIES => "EXTENDED_COMMUNITIES",
        AS4_PATH => "AS4_PATH",
        AS4_AGGREGATOR => "AS4_AGGREGATOR",
        LARGE_COMMUNITIES => "LARGE_COMMUNITIES",
        ONLY_TO_CUSTOMER => "ONLY_TO_CUSTOMER",
        _ => return None,
    })
}

/// Reads one attribute into `decoded`.
pub(super) fn decode(
    flags: u8,
    code: u8,
    value: &[u8],
    params: &SessionParams,
    decoded: &mut Decoded,
) -> Result<(), Fault> {
    // These are discarded whatever they look like.
    match code {
        LOCAL_PREF | ORIGINATOR_ID | CLUSTER_LIST if !params.ibgp => {
            return Err(Fault::Discard("only internal peers may send it"));
        }
        AS4_PATH | AS4_AGGREGATOR if params.four_octet_as => {
            return Err(Fault::Discard("from a peer with 4-octet AS numbers"));
        }
        _ => {}
    }
    match required_flags(code) {
        None => return decode_unknown(flags, code, value, decoded),
        Some(required) if flags & (OPTIONAL | TRANSITIVE) != required => {
            return Err(match code {
                // RFC 6793 section 6.
                AS4_PATH | AS4_AGGREGATOR => Fault::Discard("flags do not fit the type"),
                _ => Fault::Withdraw(ErrorCode::ATTRIBUTE_FLAGS, "flags do not fit the type"),
            });
        }
        Some(_) => {}
    }
    decode_value(code, value, params, decoded)
}

fn decode_value(
    code: u8,
    value: &[u8],
    params: &SessionParams,
    decoded: &mut Decoded,
) -> Result<(), Fault> {
    let to = &mut decoded.attributes;
    match code {
        ORIGIN => to.origin = origin(value)?,
        AS_PATH => to.as_path = path(value, params)?,
        NEXT_HOP => decoded.next_hop = Some(fixed::<4>(value, "NEXT_HOP is not 4 octets")?.into()),
        MULTI_EXIT_DISC => {
            to.med = Some(number(value, "MULTI_EXIT_DISC is not 4 octets")?);
        }
        LOCAL_PREF => to.local_pref = Some(number(value, "LOCAL_PREF is not 4 octets")?),
        ATOMIC_AGGREGATE if value.is_empty() => to.atomic_aggregate = true,
        ATOMIC_AGGREGATE => return Err(Fault::Discard("ATOMIC_AGGREGATE has a value")),
        AGGREGATOR => to.aggregator = Some(aggregator(value, params.four_octet_as)?),
        COMMUNITIES => {
            let items = list::<4>(value, "COMMUNITIES is not a list of 4 octets each")?;
            to.communities = items.iter().map(|&item| u32::from_be_bytes(item)).collect();
        }
        ORIGINATOR_ID => {
            let id = fixed::<4>(value, "ORIGINATOR_ID is not 4 octets")?;
            to.originator_id = Some(id.into());
        }
        CLUSTER_LIST => {
            let items = list::<4>(value, "CLUSTER_LIST is not a list of 4 octets each")?;
            to.cluster_list = items.iter().map(|&item| item.into()).collect();
        }
        EXTENDED_COMMUNITIES => {
            let what = "EXTENDED_COMMUNITIES is not a list of 8 octets each";
            to.extended_communities = list::<8>(value, what)?.to_vec();
        }
        AS4_PATH => decoded.as4_path = Some(as4_path(value)?),
        AS4_AGGREGATOR => decoded.as4_aggregator = Some(aggregator(value, true)?),
        LARGE_COMMUNITIES => {
            let what = "LARGE_COMMUNITIES is not a list of 12 octets each";
            to.large_communities = list::<12>(value, what)?.iter().map(large).collect();
        }
        ONLY_TO_CUSTOMER => {
            to.otc = Some(number(value, "ONLY_TO_CUSTOMER is not 4 octets")?);
        }
        _ => {}
    }
    Ok(())
}

/// Transitive ones are kept as they are, others dropped without a word. One that calls itself
/// well-known should be known to us: its routes are withdrawn rather than the session ended, since
/// whoever attached it may be far away.
fn decode_unknown(flags: u8, code: u8, value: &[u8], decoded: &mut Decoded) -> Result<(), Fault> {
    if flags & OPTIONAL == 0 {
        let reason = "an unknown attribute that calls itself well-known";
        return Err(Fault::Withdraw(
            ErrorCode::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE,
            reason,
        ));
    }
    if flags & TRANSITIVE != 0 {
        decoded.attributes.unknown.push(UnknownAttribute {
            flags: flags & (OPTIONAL | TRANSITIVE | PARTIAL),
            code,
            value: value.to_vec(),
        });
    }
    Ok(())
}

fn fixed<const N: usize>(value: &[u8], reason: &'static str) -> Result<[u8; N], Fault> {
    value
        .try_into()
        .map_err(|_| Fault::Withdraw(LENGTH, reason))
}

fn number(value: &[u8], reason: &'static str) -> Result<u32, Fault> {
    fixed(value, reason).map(u32::from_be_bytes)
}

/// A list of at least one item.
fn list<'a, const N: usize>(value: &'a [u8], reason: &'static str) -> Result<&'a [[u8; N]], Fault> {
    items(value)
        .filter(|items| !items.is_empty())
        .ok_or(Fault::Withdraw(LENGTH, reason))
}

fn origin(value: &[u8]) -> Result<Origin, Fault> {
    match fixed(value, "ORIGIN is not 1 octet")? {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        [_] => Err(Fault::Withdraw(
            ErrorCode::INVALID_ORIGIN,
            "ORIGIN has an unknown value",
        )),
    }
}

fn path(value: &[u8], params: &SessionParams) -> Result<AsPath, Fault> {
    let malformed = |reason| Fault::Withdraw(ErrorCode::MALFORMED_AS_PATH, reason);
    let path = as_path::decode(value, params.four_octet_as).map_err(|fault| match fault {
        PathFault::Malformed(reason) => malformed(reason),
        PathFault::Set => malformed("AS_PATH has an AS_SET"),
    })?;
    if path.0.is_empty() && !params.ibgp {
        return Err(malformed("AS_PATH from an external peer is empty"));
    }
    if path.length() > super::MAX_AS_PATH_LENGTH {
        return Err(malformed("AS_PATH has more than 512 AS numbers"));
    }
    Ok(path)
}

/// RFC 6793 section 6 discards a malformed one; RFC 9774 withdraws the routes of one with a set.
fn as4_path(value: &[u8]) -> Result<AsPath, Fault> {
    as_path::decode_as4(value).map_err(|fault| match fault {
        PathFault::Malformed(reason) => Fault::Discard(reason),
        PathFault::Set => Fault::Withdraw(ErrorCode::MALFORMED_AS_PATH, "AS4_PATH has an AS_SET"),
    })
}

fn aggregator(value: &[u8], four_octet: bool) -> Result<(u32, Ipv4Addr), Fault> {
    let mut reader = Reader::new(value);
    let number = if four_octet {
        reader.u32()
    } else {
        reader.u16().map(u32::from)
    };
    match (number, reader.array::<4>()) {
        (Some(0), Some(_)) => Err(Fault::Discard("AS 0 has aggregated")),
        (Some(number), Some(address)) if reader.is_empty() => Ok((number, address.into())),
        _ => Err(Fault::Discard(
            "neither 2 nor 4 octets of AS number and an address",
        )),
    }
}

fn large(item: &[u8; 12]) -> [u32; 3] {
    let &[a, b, c, d, e, f, g, h, i, j, k, l] = item;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_be_bytes)
}

/// Settles what needs all attributes: AS4_PATH and AS4_AGGREGATOR (RFC 6793 section 4.2.3).
pub(super) fn merge_as4(decoded: &mut Decoded) {
    let aggregator = decoded.attributes.aggregator;
    let reaggregated = aggregator.is_some_and(|(number, _)| number != AS_TRANS);
    if reaggregated && decoded.as4_aggregator.is_some() {
        // An old speaker has aggregated since; both AS4 attributes are older than that.
        return;
    }
    if let (Some(_), Some(as4)) = (aggregator, decoded.as4_aggregator) {
        decoded.attributes.aggregator = Some(as4);
    }
    if let Some(as4_path) = decoded.as4_path.take() {
        let path = std::mem::take(&mut decoded.attributes.as_path);
        decoded.attributes.as_path = as_path::merge(path, &as4_path);
    }
}
