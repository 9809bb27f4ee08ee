//! Capabilities (RFC 5492).

use super::reader::{Reader, items};
use super::{Capability, ErrorCode, Family, GracefulRestart, WireError};

const RESTARTING: u8 = 0x80;
const NOTIFICATION: u8 = 0x40;
const FORWARDING: u8 = 0x80;

/// Appends the capabilities of one optional parameter.
pub(super) fn decode_all(value: &[u8], out: &mut Vec<Capability>) -> Result<(), WireError> {
    let malformed = |reason| WireError::new(ErrorCode::OPEN_UNSPECIFIC, reason);
    let mut reader = Reader::new(value);
    while let Some(code) = reader.u8() {
        let value = reader
            .block8()
            .ok_or_else(|| malformed("a capability is cut short"))?;
        let known = decode_known(code, value);
        // Taken as absent it would make the two sides read each other's AS_PATHs differently.
        if code == 65 && known.is_none() {
            return Err(malformed("the 4-octet AS number capability is malformed"));
        }
        out.push(known.unwrap_or_else(|| Capability::Unknown {
            code,
            value: value.to_vec(),
        }));
    }
    Ok(())
}

/// `None` for a code that we do not know and for a value that can't be read.
fn decode_known(code: u8, value: &[u8]) -> Option<Capability> {
    let mut reader = Reader::new(value);
    let capability = match code {
        1 => {
            let (afi, _reserved, safi) = (reader.u16()?, reader.u8()?, reader.u8()?);
            Capability::MultiProtocol(Family { afi, safi })
        }
        2 => Capability::RouteRefresh,
        5 => return decode_extended_next_hop(value),
        6 => Capability::ExtendedMessage,
        9 => Capability::Role(reader.u8()?),
        64 => return decode_graceful_restart(value),
        65 => Capability::FourOctetAs(reader.u32()?),
        69 => return decode_add_path(value),
        70 => Capability::EnhancedRouteRefresh,
        71 => return decode_long_lived(value),
        73 => Capability::Fqdn {
            host: String::from_utf8(reader.block8()?.to_vec()).ok()?,
            domain: String::from_utf8(reader.block8()?.to_vec()).ok()?,
        },
        _ => return None,
    };
    reader.is_empty().then_some(capability)
}

fn family(afi: [u8; 2], safi: u8) -> Family {
    let afi = u16::from_be_bytes(afi);
    Family { afi, safi }
}

fn decode_extended_next_hop(value: &[u8]) -> Option<Capability> {
    let entries = items::<6>(value)?.iter();
    let entries = entries.map(|&[a, b, c, d, e, f]| {
        // The SAFI takes two octets here, unlike everywhere else.
        let safi = u8::try_from(u16::from_be_bytes([c, d])).ok()?;
        Some((family([a, b], safi), u16::from_be_bytes([e, f])))
    });
    entries
        .collect::<Option<_>>()
        .map(Capability::ExtendedNextHop)
}

fn decode_graceful_restart(value: &[u8]) -> Option<Capability> {
    let (&[high, low], families) = value.split_first_chunk::<2>()?;
    let families = items::<4>(families)?.iter();
    Some(Capability::GracefulRestart(GracefulRestart {
        restarting: high & RESTARTING != 0,
        notification: high & NOTIFICATION != 0,
        restart_time: u16::from_be_bytes([high & 0x0f, low]),
        families: families
            .map(|&[a, b, safi, flags]| (family([a, b], safi), flags & FORWARDING != 0))
            .collect(),
    }))
}

/// RFC 7911 section 4: a direction other than 1, 2, 3 makes all of it not understood.
fn decode_add_path(value: &[u8]) -> Option<Capability> {
    let entries = items::<4>(value)?.iter();
    let entries = entries.map(|&[a, b, safi, direction]| {
        matches!(direction, 1..=3).then_some((family([a, b], safi), direction))
    });
    entries.collect::<Option<_>>().map(Capability::AddPath)
}

fn decode_long_lived(value: &[u8]) -> Option<Capability> {
    let entries = items::<7>(value)?.iter();
    let entries = entries.map(|&[a, b, safi, flags, t1, t2, t3]| {
        let stale_time = u32::from_be_bytes([0, t1, t2, t3]);
        (family([a, b], safi), flags & FORWARDING != 0, stale_time)
    });
    Some(Capability::LongLivedGracefulRestart(entries.collect()))
}

/// Appends one capability; entries beyond 255 octets of value are left out.
pub(super) fn encode(capability: &Capability, out: &mut Vec<u8>) {
    let mut value = Vec::new();
    let (code, entry) = encode_value(capability, &mut value);
    let fits = value.len().min(255 / entry * entry);
    value.truncate(fits);
    out.extend_from_slice(&[code, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
    out.extend_from_slice(&value);
}

/// Writes the value; returns the code and the size of what may be cut off from the end.
fn encode_value(capability: &Capability, out: &mut Vec<u8>) -> (u8, usize) {
    match capability {
        Capability::MultiProtocol(family) => {
            out.extend_from_slice(&family.afi.to_be_bytes());
            out.extend_from_slice(&[0, family.safi]);
            (1, 4)
        }
        Capability::RouteRefresh => (2, 1),
        Capability::ExtendedNextHop(entries) => {
            for (family, next_hop) in entries {
                out.extend_from_slice(&family.afi.to_be_bytes());
                out.extend_from_slice(&[0, family.safi]);
                out.extend_from_slice(&next_hop.to_be_bytes());
            }
            (5, 6)
        }
        Capability::ExtendedMessage => (6, 1),
        Capability::Role(role) => {
            out.push(*role);
            (9, 1)
        }
        Capability::GracefulRestart(restart) => {
            encode_graceful_restart(restart, out);
            (64, 1)
        }
        Capability::FourOctetAs(number) => {
            out.extend_from_slice(&number.to_be_bytes());
            (65, 4)
        }
        Capability::AddPath(entries) => {
            for (family, direction) in entries {
                out.extend_from_slice(&family.afi.to_be_bytes());
                out.extend_from_slice(&[family.safi, *direction]);
            }
            (69, 4)
        }
        Capability::EnhancedRouteRefresh => (70, 1),
        Capability::LongLivedGracefulRestart(entries) => {
            for (family, forwarding, stale_time) in entries {
                out.extend_from_slice(&family.afi.to_be_bytes());
                out.extend_from_slice(&[family.safi, flag(*forwarding, FORWARDING)]);
                let [_, low @ ..] = (*stale_time).min(0x00ff_ffff).to_be_bytes();
                out.extend_from_slice(&low);
            }
            (71, 7)
        }
        Capability::Fqdn { host, domain } => {
            encode_name(host, out);
            encode_name(domain, out);
            (73, 1)
        }
        Capability::Unknown { code, value } => {
            out.extend_from_slice(value);
            (*code, 1)
        }
    }
}

fn encode_graceful_restart(restart: &GracefulRestart, out: &mut Vec<u8>) {
    let [high, low] = restart.restart_time.min(0x0fff).to_be_bytes();
    let flags = flag(restart.restarting, RESTARTING) | flag(restart.notification, NOTIFICATION);
    out.extend_from_slice(&[high | flags, low]);
    // 63 families take 252 of the 253 octets left.
    for (family, forwarding) in restart.families.iter().take(63) {
        out.extend_from_slice(&family.afi.to_be_bytes());
        out.extend_from_slice(&[family.safi, flag(*forwarding, FORWARDING)]);
    }
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

/// Each name gets half of the 255 octets.
fn encode_name(name: &str, out: &mut Vec<u8>) {
    let name = name.get(..name.floor_char_boundary(126)).unwrap_or(name);
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name.as_bytes());
}
