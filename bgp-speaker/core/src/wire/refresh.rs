//! ROUTE-REFRESH (RFC 2918, RFC 7313).

use super::framer::{Frame, MessageType};
use super::reader::Reader;
use super::writer::{begin_message, finish_message};
use super::{ErrorCode, Family, RouteRefresh, WireError};

/// ROUTE-REFRESH, 23 octets.
pub fn encode_route_refresh(refresh: &RouteRefresh) -> Vec<u8> {
    let mut out = Vec::with_capacity(23);
    let start = begin_message(&mut out, MessageType::RouteRefresh);
    out.extend_from_slice(&refresh.family.afi.to_be_bytes());
    out.extend_from_slice(&[refresh.subtype, refresh.family.safi]);
    finish_message(&mut out, start);
    out
}

/// Reads the body. Subtypes that RFC 7313 does not know are left to the caller to ignore.
pub(super) fn decode(frame: &Frame<'_>) -> Result<RouteRefresh, WireError> {
    let mut reader = Reader::new(frame.body());
    let fields = (|| Some((reader.u16()?, reader.u8()?, reader.u8()?)))();
    match fields {
        Some((afi, subtype, safi)) if reader.is_empty() => Ok(RouteRefresh {
            family: Family { afi, safi },
            subtype,
        }),
        _ => Err(WireError::with_data(
            ErrorCode::ROUTE_REFRESH_INVALID_LENGTH,
            frame.bytes(),
            "ROUTE-REFRESH is not 23 octets long",
        )),
    }
}
