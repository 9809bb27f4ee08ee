//! Communities of three kinds, as operators write them.

use crate::wire::Attributes;
use std::fmt;
use std::str::FromStr;

/// A community.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997, such as `65000:100`.
    Standard(u32),
    /// RFC 8092, such as `4200000000:1:2`.
    Large([u32; 3]),
    /// RFC 4360, as 16 hexadecimal digits after `ext:`.
    Extended([u8; 8]),
}

impl Community {
    /// RFC 8326: the path is about to go away.
    pub const GRACEFUL_SHUTDOWN: Self = Self::Standard(0xffff_0000);
    /// RFC 9494: the path is a last resort.
    pub const LLGR_STALE: Self = Self::Standard(0xffff_0006);
    /// RFC 9494: the path must not become a last resort.
    pub const NO_LLGR: Self = Self::Standard(0xffff_0007);
    /// RFC 1997: not to another AS.
    pub const NO_EXPORT: Self = Self::Standard(0xffff_ff01);
    /// RFC 1997: to nobody.
    pub const NO_ADVERTISE: Self = Self::Standard(0xffff_ff02);
    /// RFC 1997: not to another AS, not even within a confederation.
    pub const NO_EXPORT_SUBCONFED: Self = Self::Standard(0xffff_ff03);

    /// Whether a route carries it.
    pub fn is_on(&self, attributes: &Attributes) -> bool {
        match self {
            Self::Standard(value) => attributes.communities.contains(value),
            Self::Large(value) => attributes.large_communities.contains(value),
            Self::Extended(value) => attributes.extended_communities.contains(value),
        }
    }

    pub(crate) fn add_to(&self, attributes: &mut Attributes) {
        if self.is_on(attributes) {
            return;
        }
        match self {
            Self::Standard(value) => attributes.communities.push(*value),
            Self::Large(value) => attributes.large_communities.push(*value),
            Self::Extended(value) => attributes.extended_communities.push(*value),
        }
    }

    pub(crate) fn remove_from(&self, attributes: &mut Attributes) {
        match self {
            Self::Standard(value) => attributes.communities.retain(|other| other != value),
            Self::Large(value) => attributes.large_communities.retain(|other| other != value),
            Self::Extended(value) => attributes
                .extended_communities
                .retain(|other| other != value),
        }
    }
}

/// Names of the registered communities that operators use (RFC 1997, RFC 8326, RFC 9494, RFC 7999).
const NAMES: [(&str, Community); 7] = [
    ("graceful-shutdown", Community::GRACEFUL_SHUTDOWN),
    ("llgr-stale", Community::LLGR_STALE),
    ("no-llgr", Community::NO_LLGR),
    ("blackhole", Community::Standard(0xffff_029a)),
    ("no-export", Community::NO_EXPORT),
    ("no-advertise", Community::NO_ADVERTISE),
    ("no-export-subconfed", Community::NO_EXPORT_SUBCONFED),
];

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = NAMES.iter().find(|(_, known)| known == self) {
            return f.write_str(name);
        }
        match self {
            Self::Standard(value) => write!(f, "{}:{}", value >> 16, value & 0xffff),
            Self::Large([global, first, second]) => write!(f, "{global}:{first}:{second}"),
            Self::Extended(octets) => write!(f, "ext:{:016x}", u64::from_be_bytes(*octets)),
        }
    }
}

/// A text that is no community.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no community: write 65000:100, 65000:1:2, ext: and 16 hexadecimal digits, or a registered name such as no-export"
)]
pub struct CommunityError {
    /// The text.
    pub text: String,
}

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| CommunityError {
            text: text.to_owned(),
        })
    }
}

fn parse(text: &str) -> Option<Community> {
    if let Some((_, known)) = NAMES.iter().find(|(name, _)| *name == text) {
        return Some(*known);
    }
    if let Some(digits) = text.strip_prefix("ext:") {
        let octets = u64::from_str_radix(digits, 16).ok()?.to_be_bytes();
        return (digits.len() == 16).then_some(Community::Extended(octets));
    }
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [high, low] => {
            let (high, low): (u16, u16) = (number(high)?, number(low)?);
            Some(Community::Standard(u32::from(high) << 16 | u32::from(low)))
        }
        [global, first, second] => Some(Community::Large([
            number(global)?,
            number(first)?,
            number(second)?,
        ])),
        _ => None,
    }
}

/// Digits only: no sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}
