//! OPEN (RFC 4271 section 4.2), with the optional parameters of RFC 5492 and RFC 9072.

use super::capability;
use super::framer::{Frame, HEADER_LENGTH, MAX_LENGTH, MessageType};
use super::reader::Reader;
use super::writer::{begin_message, fill_length, finish_message};
use super::{Capability, ErrorCode, Open, WireError};

/// Stands for an AS number that does not fit two octets (RFC 6793).
pub const AS_TRANS: u32 = 23456;

const VERSION: u8 = 4;
const PARAMETER_CAPABILITIES: u8 = 2;
/// Marks the extended format of RFC 9072, both as length and as type.
const EXTENDED: u8 = 255;
/// Octets of the body before the optional parameters' length, and room that lengths may take.
const FIXED_BODY: usize = 9;
const PARAMETERS_OVERHEAD: usize = 1 + 1 + 2 + 1 + 2;

/// Decodes an OPEN.
///
/// # Errors
/// 2/1 (with our version as data), 2/2 for AS 0, 2/3 for identifier 0, 2/4, 2/6 for 1 or 2
/// seconds, and 2/0 where lengths contradict each other. Whether AS number and identifier are
/// those expected is for the session to say.
pub fn decode_open(frame: &Frame<'_>) -> Result<Open, WireError> {
    let malformed = || WireError::new(ErrorCode::OPEN_UNSPECIFIC, "OPEN is cut short");
    let mut reader = Reader::new(frame.body());
    let version = reader.u8().ok_or_else(malformed)?;
    if version != VERSION {
        let ours = u16::from(VERSION).to_be_bytes();
        let reason = "the peer speaks another version of BGP than 4";
        return Err(WireError::with_data(
            ErrorCode::UNSUPPORTED_VERSION,
            &ours,
            reason,
        ));
    }
    let short_as = reader.u16().ok_or_else(malformed)?;
    let hold_time = reader.u16().ok_or_else(malformed)?;
    let router_id = reader.array::<4>().ok_or_else(malformed)?.into();
    let capabilities = decode_parameters(reader.rest())?;
    let open = Open {
        as_number: four_octet_as(&capabilities).unwrap_or(u32::from(short_as)),
        hold_time,
        router_id,
        capabilities,
    };
    check(&open, short_as)?;
    Ok(open)
}

fn check(open: &Open, short_as: u16) -> Result<(), WireError> {
    if open.as_number == 0 || short_as == 0 {
        return Err(WireError::new(
            ErrorCode::BAD_PEER_AS,
            "the peer's AS number is 0",
        ));
    }
    if open.router_id.is_unspecified() {
        let reason = "the peer's BGP identifier is 0.0.0.0";
        return Err(WireError::new(ErrorCode::BAD_BGP_IDENTIFIER, reason));
    }
    if matches!(open.hold_time, 1 | 2) {
        let reason = "the peer's hold time is below 3 seconds";
        return Err(WireError::new(ErrorCode::UNACCEPTABLE_HOLD_TIME, reason));
    }
    Ok(())
}

fn four_octet_as(capabilities: &[Capability]) -> Option<u32> {
    capabilities.iter().find_map(|capability| match capability {
        Capability::FourOctetAs(number) => Some(*number),
        _ => None,
    })
}

/// Reads from the optional parameters' length to the end of the message.
fn decode_parameters(bytes: &[u8]) -> Result<Vec<Capability>, WireError> {
    let malformed = |reason| WireError::new(ErrorCode::OPEN_UNSPECIFIC, reason);
    let contradiction = "the optional parameters' length does not fit the message";
    let mut reader = Reader::new(bytes);
    let length = reader.u8().ok_or_else(|| malformed("OPEN is cut short"))?;
    // RFC 9072 section 2: the type tells, whatever the length says, unless the latter is 0.
    let extended = length != 0 && reader.rest().first() == Some(&EXTENDED);
    let parameters = if extended {
        reader.u8().and_then(|_| reader.block16())
    } else {
        reader.take(usize::from(length))
    };
    let parameters = parameters
        .filter(|_| reader.is_empty())
        .ok_or_else(|| malformed(contradiction))?;

    let mut capabilities = Vec::new();
    let mut reader = Reader::new(parameters);
    while let Some(kind) = reader.u8() {
        let value = if extended {
            reader.block16()
        } else {
            reader.block8()
        };
        let value = value.ok_or_else(|| malformed("an optional parameter is cut short"))?;
        if kind != PARAMETER_CAPABILITIES {
            let reason = "an optional parameter is not capabilities";
            return Err(WireError::new(
                ErrorCode::UNSUPPORTED_OPTIONAL_PARAMETER,
                reason,
            ));
        }
        capability::decode_all(value, &mut capabilities)?;
    }
    Ok(capabilities)
}

/// OPEN. Capabilities go into one optional parameter, in the format of RFC 9072 where they are
/// more than 253 octets. One whose value would exceed 255 octets is cut to the whole entries that
/// fit; those that would not fit a message of 4096 octets are left out, the last first.
///
/// The AS number goes into the two-octet field, or AS_TRANS does; it is for the caller to list
/// [`Capability::FourOctetAs`].
pub fn encode_open(open: &Open) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let start = begin_message(&mut out, MessageType::Open);
    out.push(VERSION);
    let short_as = u16::try_from(open.as_number).unwrap_or(AS_TRANS as u16);
    out.extend_from_slice(&short_as.to_be_bytes());
    out.extend_from_slice(&open.hold_time.to_be_bytes());
    out.extend_from_slice(&open.router_id.octets());

    let room = MAX_LENGTH - HEADER_LENGTH - FIXED_BODY - PARAMETERS_OVERHEAD;
    let mut capabilities = Vec::new();
    for capability in &open.capabilities {
        let before = capabilities.len();
        capability::encode(capability, &mut capabilities);
        if capabilities.len() > room {
            capabilities.truncate(before);
            break;
        }
    }
    encode_parameters(&capabilities, &mut out);
    finish_message(&mut out, start);
    out
}

fn encode_parameters(capabilities: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(capabilities.len()) {
        Ok(0) => out.push(0),
        Ok(length @ 1..=253) => {
            out.extend_from_slice(&[length + 2, PARAMETER_CAPABILITIES, length]);
            out.extend_from_slice(capabilities);
        }
        _ => {
            out.extend_from_slice(&[EXTENDED, EXTENDED, 0, 0, PARAMETER_CAPABILITIES, 0, 0]);
            let inner = out.len() - 2;
            out.extend_from_slice(capabilities);
            fill_length(out, inner);
            fill_length(out, inner - 3);
        }
    }
}
