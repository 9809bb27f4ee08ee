//! UPDATE, the way out: as many messages as it takes.

use std::net::IpAddr;

use super::framer::{HEADER_LENGTH, MAX_EXTENDED_LENGTH, MAX_LENGTH, MessageType};
use super::writer::{begin_message, fill_length, finish_message};
use super::{
    Attributes, Family, NextHop, Nlri, SessionParams, attribute, attribute_encoder, multiprotocol,
    nlri,
};

/// LOCAL_PREF that an internal peer gets for a route without one: RFC 4271 section 5.1.5 wants it
/// sent, and there are peers that take its absence for an error.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// Octets of an UPDATE besides attributes and NLRI: header and two lengths.
const FIXED: usize = HEADER_LENGTH + 4;
/// Flags, type and length of MP_REACH_NLRI and MP_UNREACH_NLRI, which are written in the extended
/// form since their length is known last.
const MP_HEADER: usize = 4;

/// AFI, SAFI and the reserved octet of MP_REACH_NLRI beside its header and next hop.
const MP_REACH_FIXED: usize = MP_HEADER + 4;
/// Octets of an IPv6 prefix with a path identifier.
const LONGEST_NLRI: usize = 4 + 1 + 16;

/// Attributes and next hop, encoded for all sessions with the same parameters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct EncodedAttributes {
    /// The next hop as MP_REACH_NLRI has it, if it goes there, then the attributes.
    octets: Box<[u8]>,
    /// Octets of the next hop.
    next_hop: u8,
}

impl EncodedAttributes {
    fn form(&self) -> Form<'_> {
        let (next_hop, attributes) = self
            .octets
            .split_at_checked(usize::from(self.next_hop))
            .unwrap_or_default();
        if next_hop.is_empty() {
            Form::Announce { attributes }
        } else {
            Form::MpReach {
                attributes,
                next_hop,
            }
        }
    }
}

/// What can't be said in an UPDATE on this session. Nothing was appended then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Attributes leave no room for a prefix.
    #[error("the attributes take {length} octets and leave no room for {prefix} in a message")]
    AttributesTooLong {
        /// Octets of the attributes.
        length: usize,
        /// The prefix that found no room.
        prefix: ipnet::IpNet,
    },
    /// A prefix of another family than the one asked for.
    #[error("{prefix} is not of the family being encoded")]
    OtherFamily {
        /// The prefix.
        prefix: ipnet::IpNet,
    },
    /// IPv6 prefixes with an IPv4 next hop, or the other way round without RFC 8950.
    #[error("{next_hop} can't be the next hop of {family} on this session")]
    NextHop {
        /// The next hop.
        next_hop: IpAddr,
        /// The family of the prefixes.
        family: Family,
    },
    /// Neither IPv4 nor IPv6 unicast.
    #[error("{family} is not a family that can be encoded")]
    UnknownFamily {
        /// The family.
        family: Family,
    },
}

/// Builds UPDATEs for one session, or for all sessions with equal parameters.
///
/// Messages are appended back to back and are at most 4096 octets long; where the attributes alone
/// take more and RFC 8654 was agreed on, up to 65535.
#[derive(Debug, Clone, Copy)]
pub struct UpdateEncoder<'a> {
    params: &'a SessionParams,
}

impl<'a> UpdateEncoder<'a> {
    /// An encoder for sessions with these parameters.
    pub fn new(params: &'a SessionParams) -> Self {
        Self { params }
    }

    /// Announces prefixes of `family`, which share attributes and next hop. Returns how many
    /// messages were appended; none without prefixes.
    ///
    /// LOCAL_PREF ([`DEFAULT_LOCAL_PREF`] if there is none), ORIGINATOR_ID and CLUSTER_LIST go to
    /// internal peers only. Numbers that a 2-octet peer can't take become AS_TRANS, with AS4_PATH
    /// and AS4_AGGREGATOR beside them. Unknown attributes get the Partial bit.
    ///
    /// # Errors
    /// [`EncodeError`]; `out` is as before then.
    pub fn announce(
        &self,
        family: Family,
        attributes: &Attributes,
        next_hop: NextHop,
        prefixes: impl IntoIterator<Item = Nlri>,
        out: &mut Vec<u8>,
    ) -> Result<usize, EncodeError> {
        let encoded = self.encode_attributes(family, attributes, next_hop)?;
        self.pack(family, encoded.form(), prefixes, out)
    }

    /// Attributes and next hop as they go into UPDATEs with prefixes of `family`.
    pub(crate) fn encode_attributes(
        &self,
        family: Family,
        attributes: &Attributes,
        next_hop: NextHop,
    ) -> Result<EncodedAttributes, EncodeError> {
        check_family(family)?;
        let classic = match (family, next_hop.address) {
            (Family::IPV4, IpAddr::V4(_)) => true,
            (Family::IPV4, IpAddr::V6(_)) if self.params.extended_next_hop => false,
            (Family::IPV6, IpAddr::V6(_)) => false,
            (_, next_hop) => return Err(EncodeError::NextHop { next_hop, family }),
        };
        let mut octets = Vec::with_capacity(128);
        let classic_next_hop = match next_hop.address {
            IpAddr::V4(address) if classic => Some(address),
            _ => {
                multiprotocol::encode_next_hop(&next_hop, &mut octets);
                None
            }
        };
        let next_hop = octets.len();
        attribute_encoder::encode(attributes, classic_next_hop, self.params, &mut octets);
        Ok(EncodedAttributes {
            octets: octets.into(),
            next_hop: u8::try_from(next_hop).unwrap_or(u8::MAX),
        })
    }

    /// Announces prefixes with attributes that were encoded for `family` and equal parameters.
    ///
    /// # Errors
    /// [`EncodeError::AttributesTooLong`] unless [`UpdateEncoder::has_room`].
    pub(crate) fn announce_encoded(
        &self,
        family: Family,
        attributes: &EncodedAttributes,
        prefixes: impl IntoIterator<Item = Nlri>,
        out: &mut Vec<u8>,
    ) -> Result<usize, EncodeError> {
        self.pack(family, attributes.form(), prefixes, out)
    }

    /// Whether a message has room for any prefix beside these attributes.
    pub(crate) fn has_room(&self, attributes: &EncodedAttributes) -> bool {
        let limit = if self.params.extended_message {
            MAX_EXTENDED_LENGTH
        } else {
            MAX_LENGTH
        };
        attributes.octets.len() + FIXED + MP_REACH_FIXED + LONGEST_NLRI <= limit
    }

    /// Withdraws prefixes of `family`. Returns how many messages were appended.
    ///
    /// # Errors
    /// [`EncodeError`]; `out` is as before then.
    pub fn withdraw(
        &self,
        family: Family,
        prefixes: impl IntoIterator<Item = Nlri>,
        out: &mut Vec<u8>,
    ) -> Result<usize, EncodeError> {
        check_family(family)?;
        let form = if family == Family::IPV4 {
            Form::Withdraw
        } else {
            Form::MpUnreach
        };
        self.pack(family, form, prefixes, out)
    }

    /// The End-of-RIB marker of a family (RFC 4724 section 2).
    pub fn end_of_rib(&self, family: Family, out: &mut Vec<u8>) {
        let form = if family == Family::IPV4 {
            Form::Withdraw
        } else {
            Form::MpUnreach
        };
        let open = form.begin(family, out);
        form.finish(open, out);
    }

    fn pack(
        &self,
        family: Family,
        form: Form<'_>,
        prefixes: impl IntoIterator<Item = Nlri>,
        out: &mut Vec<u8>,
    ) -> Result<usize, EncodeError> {
        let before = out.len();
        let packed = self.pack_messages(family, form, prefixes, out);
        if packed.is_err() {
            out.truncate(before);
        }
        packed
    }

    fn pack_messages(
        &self,
        family: Family,
        form: Form<'_>,
        prefixes: impl IntoIterator<Item = Nlri>,
        out: &mut Vec<u8>,
    ) -> Result<usize, EncodeError> {
        let add_path = self.params.add_path_send.contains(&family);
        let mut messages = 0;
        let mut current: Option<Open> = None;
        for nlri in prefixes {
            if Family::of(&nlri.prefix) != family {
                return Err(EncodeError::OtherFamily {
                    prefix: nlri.prefix,
                });
            }
            let length = nlri::encoded_length(&nlri, add_path);
            if let Some(open) = current
                && out.len() - open.start + form.trailer() + length > open.limit
            {
                form.finish(open, out);
                current = None;
            }
            if current.is_none() {
                let mut open = form.begin(family, out);
                open.limit = self.limit(&form, open, &nlri, length, out.len())?;
                messages += 1;
                current = Some(open);
            }
            nlri::encode(&nlri, add_path, out);
        }
        if let Some(open) = current {
            form.finish(open, out);
        }
        Ok(messages)
    }

    /// How long the message that has just been begun may become.
    fn limit(
        &self,
        form: &Form<'_>,
        open: Open,
        nlri: &Nlri,
        length: usize,
        end: usize,
    ) -> Result<usize, EncodeError> {
        let least = end - open.start + form.trailer() + length;
        if least <= MAX_LENGTH {
            return Ok(MAX_LENGTH);
        }
        if self.params.extended_message && least <= MAX_EXTENDED_LENGTH {
            return Ok(MAX_EXTENDED_LENGTH);
        }
        Err(EncodeError::AttributesTooLong {
            length: least - FIXED - length,
            prefix: nlri.prefix,
        })
    }
}

fn check_family(family: Family) -> Result<(), EncodeError> {
    match nlri::Unicast::of(family) {
        Some(_) => Ok(()),
        None => Err(EncodeError::UnknownFamily { family }),
    }
}

/// Which field the prefixes go into.
#[derive(Debug, Clone, Copy)]
enum Form<'a> {
    Withdraw,
    Announce {
        attributes: &'a [u8],
    },
    MpUnreach,
    MpReach {
        attributes: &'a [u8],
        /// With its length.
        next_hop: &'a [u8],
    },
}

/// A message whose prefixes are being written.
#[derive(Debug, Clone, Copy)]
struct Open {
    start: usize,
    limit: usize,
}

/// Where a message has the length of its withdrawn routes.
const WITHDRAWN_LENGTH: usize = HEADER_LENGTH;
/// Where a message without withdrawn routes has the length of its attributes.
const ATTRIBUTES_LENGTH: usize = HEADER_LENGTH + 2;

impl Form<'_> {
    /// Appends what comes before the prefixes.
    fn begin(&self, family: Family, out: &mut Vec<u8>) -> Open {
        let start = begin_message(out, MessageType::Update);
        match self {
            Self::Withdraw => out.extend_from_slice(&[0; 2]),
            Self::Announce { attributes } => {
                out.extend_from_slice(&[0; 4]);
                out.extend_from_slice(attributes);
                fill_length(out, start + ATTRIBUTES_LENGTH);
            }
            Self::MpUnreach => {
                out.extend_from_slice(&[0; 4]);
                out.extend_from_slice(&[attribute::MP_FLAGS, attribute::MP_UNREACH_NLRI, 0, 0]);
                out.extend_from_slice(&family.afi.to_be_bytes());
                out.push(family.safi);
            }
            // RFC 7606 section 5.1 wants it to be the first attribute.
            Self::MpReach { next_hop, .. } => {
                out.extend_from_slice(&[0; 4]);
                out.extend_from_slice(&[attribute::MP_FLAGS, attribute::MP_REACH_NLRI, 0, 0]);
                out.extend_from_slice(&family.afi.to_be_bytes());
                out.push(family.safi);
                out.extend_from_slice(next_hop);
                out.push(0);
            }
        }
        Open {
            start,
            limit: MAX_LENGTH,
        }
    }

    /// Octets that [`Form::finish`] appends.
    fn trailer(&self) -> usize {
        match self {
            Self::Withdraw => 2,
            Self::Announce { .. } | Self::MpUnreach => 0,
            Self::MpReach { attributes, .. } => attributes.len(),
        }
    }

    /// Appends what comes after the prefixes, and fills in the lengths.
    fn finish(&self, open: Open, out: &mut Vec<u8>) {
        let start = open.start;
        let mp_length = start + FIXED + MP_HEADER - 2;
        match self {
            Self::Withdraw => {
                fill_length(out, start + WITHDRAWN_LENGTH);
                out.extend_from_slice(&[0; 2]);
            }
            Self::Announce { .. } => {}
            Self::MpUnreach => {
                fill_length(out, mp_length);
                fill_length(out, start + ATTRIBUTES_LENGTH);
            }
            Self::MpReach { attributes, .. } => {
                fill_length(out, mp_length);
                out.extend_from_slice(attributes);
                fill_length(out, start + ATTRIBUTES_LENGTH);
            }
        }
        finish_message(out, start);
    }
}
