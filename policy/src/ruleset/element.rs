//! Keys of elements, made from and turned back into fields.

use super::{Element, KeyType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One field of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Interface index.
    Ifindex(u32),
    /// Address of either family.
    Address(IpAddr),
    /// L4 protocol number.
    Proto(u8),
    /// L4 port.
    Port(u16),
}

impl Part {
    /// The type that a set's key has for this field.
    pub fn key_type(self) -> KeyType {
        match self {
            Self::Ifindex(_) => KeyType::Ifindex,
            Self::Address(IpAddr::V4(_)) => KeyType::Ipv4,
            Self::Address(IpAddr::V6(_)) => KeyType::Ipv6,
            Self::Proto(_) => KeyType::Proto,
            Self::Port(_) => KeyType::Port,
        }
    }

    fn push(self, key: &mut Vec<u8>) {
        match self {
            Self::Ifindex(index) => key.extend(index.to_ne_bytes()),
            Self::Address(IpAddr::V4(address)) => key.extend(address.octets()),
            Self::Address(IpAddr::V6(address)) => key.extend(address.octets()),
            Self::Proto(number) => key.push(number),
            Self::Port(number) => key.extend(number.to_be_bytes()),
        }
    }
}

impl Element {
    /// The element of an exact key.
    pub fn exact(parts: &[Part]) -> Self {
        Self {
            key: encode(parts),
            end: None,
        }
    }

    /// The element of a range of each field, both ends included.
    pub fn ranges(parts: &[(Part, Part)]) -> Self {
        let (first, last): (Vec<_>, Vec<_>) = parts.iter().copied().unzip();
        Self {
            key: encode(&first),
            end: Some(encode(&last)),
        }
    }

    /// The element of a range of one field, both ends included.
    pub fn range(first: Part, last: Part) -> Self {
        Self {
            key: encode(&[first]),
            end: Some(encode(&[last])),
        }
    }
}

fn encode(parts: &[Part]) -> Box<[u8]> {
    let mut key = Vec::with_capacity(parts.len() * 4);
    for part in parts {
        part.push(&mut key);
        if parts.len() > 1 {
            key.resize(key.len().next_multiple_of(4), 0);
        }
    }
    key.into_boxed_slice()
}

/// Where the fields of a key begin and end.
pub(crate) fn spans(types: &[KeyType]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let padded = types.len() > 1;
    types.iter().scan(0, move |at, field| {
        let start = *at;
        *at += if padded {
            field.len().next_multiple_of(4)
        } else {
            field.len()
        };
        Some(start..start + field.len())
    })
}

/// Length in bytes of a key of these fields.
pub(super) fn key_length(types: &[KeyType]) -> usize {
    match types {
        [single] => single.len(),
        several => several
            .iter()
            .map(|field| field.len().next_multiple_of(4))
            .sum(),
    }
}

/// The fields of `key`; `None` where its length is not that of `types`.
pub fn decode(types: &[KeyType], key: &[u8]) -> Option<Vec<Part>> {
    if key.len() != key_length(types) {
        return None;
    }
    let mut rest = key;
    let mut parts = Vec::with_capacity(types.len());
    for field in types {
        let padded = if types.len() > 1 {
            field.len().next_multiple_of(4)
        } else {
            field.len()
        };
        let (bytes, after) = rest.split_at_checked(padded)?;
        parts.push(part(*field, &bytes[..field.len()])?);
        rest = after;
    }
    Some(parts)
}

fn part(field: KeyType, bytes: &[u8]) -> Option<Part> {
    Some(match field {
        KeyType::Ifindex => Part::Ifindex(u32::from_ne_bytes(bytes.try_into().ok()?)),
        KeyType::Ipv4 => Part::Address(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        KeyType::Ipv6 => Part::Address(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        KeyType::Proto => Part::Proto(*bytes.first()?),
        KeyType::Port => Part::Port(u16::from_be_bytes(bytes.try_into().ok()?)),
    })
}
