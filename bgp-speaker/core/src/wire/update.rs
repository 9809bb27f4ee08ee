//! UPDATE (RFC 4271 section 4.3), read as RFC 7606 revises it.

use super::attribute::{self, Decoded, Fault};
use super::multiprotocol::{self, Reach, Unreach};
use super::nlri::{self, Unicast};
use super::reader::Reader;
use super::{
    Announced, AttributeFault, Disposition, ErrorCode, Family, NextHop, Nlri, SessionParams,
    Update, WireError,
};

/// Longer AS_PATHs have their routes withdrawn: nobody means them, and they have felled others.
pub const MAX_AS_PATH_LENGTH: usize = 512;

/// Discarded attributes that are listed; of those that withdraw routes there is one a type.
const MAX_FAULTS: usize = 16;

const NEXT_HOP_UNUSABLE: Fault = Fault::Withdraw(
    ErrorCode::INVALID_NEXT_HOP,
    "the next hop is no unicast address",
);

/// Decodes what follows the header.
///
/// Withdrawals come before announcements: a prefix that is in both is announced (RFC 4271
/// section 4.3), unless its routes are to be treated as withdrawn.
pub(super) fn decode(body: &[u8], params: &SessionParams) -> Result<Update, WireError> {
    let sections = Sections::split(body).ok_or_else(|| {
        let reason = "the lengths of withdrawn routes and attributes exceed the message";
        WireError::new(ErrorCode::MALFORMED_ATTRIBUTE_LIST, reason)
    })?;
    let ipv4 = Classic::decode(&sections, params)?;
    let mut walk = Walk::new(params);
    walk.attributes(sections.attributes)?;
    walk.settle(&ipv4)?;
    Ok(walk.into_update(ipv4, &sections))
}

/// The three variable fields.
struct Sections<'a> {
    withdrawn: &'a [u8],
    attributes: &'a [u8],
    nlri: &'a [u8],
}

impl<'a> Sections<'a> {
    fn split(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        Some(Self {
            withdrawn: reader.block16()?,
            attributes: reader.block16()?,
            nlri: reader.rest(),
        })
    }

    fn is_empty(&self) -> bool {
        self.withdrawn.is_empty() && self.attributes.is_empty() && self.nlri.is_empty()
    }
}

/// IPv4 prefixes outside of the multiprotocol attributes.
struct Classic {
    withdrawn: Vec<Nlri>,
    announced: Vec<Nlri>,
}

impl Classic {
    fn decode(sections: &Sections<'_>, params: &SessionParams) -> Result<Self, WireError> {
        let add_path = params.add_path_receive.contains(&Family::IPV4);
        let read = |bytes| {
            let mut prefixes = Vec::new();
            nlri::decode(bytes, Unicast::V4, add_path, &mut prefixes)
                .map_err(|reason| WireError::new(ErrorCode::INVALID_NETWORK_FIELD, reason))?;
            Ok(prefixes)
        };
        Ok(Self {
            withdrawn: read(sections.withdrawn)?,
            announced: read(sections.nlri)?,
        })
    }
}

/// The first fault that has routes withdrawn.
struct Withdraw<'a> {
    code: ErrorCode,
    reason: &'static str,
    attribute: &'a [u8],
}

/// One pass over the attributes.
struct Walk<'a> {
    params: &'a SessionParams,
    /// A bit for each type code seen.
    seen: [u128; 2],
    decoded: Decoded,
    reach: Option<Reach>,
    unreach: Option<Unreach>,
    /// The attributes do not end where they should, so that some may not have been seen.
    torn: bool,
    /// The attribute that is being read, from its flags on.
    whole: &'a [u8],
    /// Treat-as-withdraw, and what to say if there is no prefix to do so with.
    withdraw: Option<Withdraw<'a>>,
    faults: Vec<AttributeFault>,
}

impl<'a> Walk<'a> {
    fn new(params: &'a SessionParams) -> Self {
        Self {
            params,
            seen: [0; 2],
            decoded: Decoded::default(),
            reach: None,
            unreach: None,
            torn: false,
            whole: &[],
            withdraw: None,
            faults: Vec::new(),
        }
    }

    fn attributes(&mut self, bytes: &'a [u8]) -> Result<(), WireError> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            self.whole = reader.rest();
            let Some((flags, code)) = header(&mut reader) else {
                self.tear(0, "the attributes end within a header");
                break;
            };
            let value = if flags & attribute::EXTENDED_LENGTH == 0 {
                reader.block8()
            } else {
                reader.block16()
            };
            let Some(value) = value else {
                // Where the prefixes themselves are cut off, they can't be withdrawn.
                if matches!(code, attribute::MP_REACH_NLRI | attribute::MP_UNREACH_NLRI) {
                    return Err(optional_error(
                        self.whole,
                        "the attribute exceeds the message",
                    ));
                }
                self.tear(code, "the attribute exceeds the message");
                break;
            };
            let length = self.whole.len() - reader.rest().len();
            self.whole = self.whole.get(..length).unwrap_or_default();
            self.attribute(flags, code, value)?;
        }
        Ok(())
    }

    fn attribute(&mut self, flags: u8, code: u8, value: &[u8]) -> Result<(), WireError> {
        let multiprotocol = matches!(code, attribute::MP_REACH_NLRI | attribute::MP_UNREACH_NLRI);
        if self.mark_seen(code) {
            if multiprotocol {
                let reason = "a multiprotocol attribute appears twice";
                return Err(WireError::new(ErrorCode::MALFORMED_ATTRIBUTE_LIST, reason));
            }
            self.fault(code, Fault::Discard("the attribute appears twice"));
            return Ok(());
        }
        if multiprotocol {
            return self.multiprotocol(flags, code, value);
        }
        if let Err(fault) = attribute::decode(flags, code, value, self.params, &mut self.decoded) {
            self.fault(code, fault);
        }
        Ok(())
    }

    fn multiprotocol(&mut self, flags: u8, code: u8, value: &[u8]) -> Result<(), WireError> {
        let required = attribute::required_flags(code);
        if required != Some(flags & (attribute::OPTIONAL | attribute::TRANSITIVE)) {
            let reason = "flags do not fit the type";
            self.fault(code, Fault::Withdraw(ErrorCode::ATTRIBUTE_FLAGS, reason));
        }
        let whole = self.whole;
        let unreadable = |reason| optional_error(whole, reason);
        let not_negotiated = Fault::Discard("its address family was not negotiated");
        if code == attribute::MP_REACH_NLRI {
            let reach = multiprotocol::decode_reach(value, self.params).map_err(unreadable)?;
            match &reach.routes {
                None => self.fault(code, not_negotiated),
                Some(routes) if !multiprotocol::is_usable(routes.next_hop.address) => {
                    self.fault(code, NEXT_HOP_UNUSABLE);
                }
                Some(_) => {}
            }
            self.reach = Some(reach);
        } else {
            let unreach = multiprotocol::decode_unreach(value, self.params).map_err(unreadable)?;
            if unreach.family.is_none() {
                self.fault(code, not_negotiated);
            }
            self.unreach = Some(unreach);
        }
        Ok(())
    }

    /// What can be judged only with all attributes at hand.
    fn settle(&mut self, ipv4: &Classic) -> Result<(), WireError> {
        let multiprotocol = self.reach.as_ref().is_some_and(|reach| reach.has_prefixes);
        let classic = !ipv4.announced.is_empty();
        if classic || multiprotocol {
            self.require(attribute::ORIGIN, "ORIGIN is missing");
            self.require(attribute::AS_PATH, "AS_PATH is missing");
            if classic {
                self.require(attribute::NEXT_HOP, "NEXT_HOP is missing");
                let next_hop = self.decoded.next_hop;
                if next_hop.is_some_and(|address| !multiprotocol::is_usable(address.into())) {
                    self.fault(attribute::NEXT_HOP, NEXT_HOP_UNUSABLE);
                }
            }
        } else if let Some(fault) = &self.withdraw
            && (self.torn || self.has_others_than_unreach())
        {
            // RFC 7606 section 5.2: there is nothing that could be treated as withdrawn.
            return Err(WireError::with_data(
                fault.code,
                fault.attribute,
                fault.reason,
            ));
        }
        attribute::merge_as4(&mut self.decoded);
        Ok(())
    }

    fn into_update(mut self, ipv4: Classic, sections: &Sections<'_>) -> Update {
        let has_ipv4 = self.params.families.contains(&Family::IPV4);
        let mut update = Update::default();
        if has_ipv4 {
            update.withdrawn = ipv4.withdrawn;
            match self.decoded.next_hop {
                _ if ipv4.announced.is_empty() => {}
                Some(address) => update.announced.push(Announced {
                    next_hop: NextHop {
                        address: address.into(),
                        link_local: None,
                    },
                    nlri: ipv4.announced,
                }),
                // A fault, and these are to be withdrawn.
                None => update.withdrawn.extend(ipv4.announced),
            }
        } else if !(ipv4.withdrawn.is_empty() && ipv4.announced.is_empty()) {
            self.fault(
                0,
                Fault::Discard("IPv4 routes, though the family was not negotiated"),
            );
        }
        update.end_of_rib = self
            .end_of_rib(sections)
            .filter(|family| self.params.families.contains(family));
        if let Some(unreach) = self.unreach {
            update.withdrawn.extend(unreach.nlri);
        }
        let routes = self.reach.and_then(|reach| reach.routes);
        update
            .announced
            .extend(routes.filter(|routes| !routes.nlri.is_empty()));
        if self.withdraw.is_some() {
            let announced = std::mem::take(&mut update.announced);
            update
                .withdrawn
                .extend(announced.into_iter().flat_map(|routes| routes.nlri));
        }
        if !update.announced.is_empty() {
            update.attributes = self.decoded.attributes;
        }
        update.faults = self.faults;
        update
    }

    /// RFC 4724 section 2: an empty UPDATE, or one with nothing but an empty MP_UNREACH_NLRI.
    /// Torn attributes without prefixes have ended the session before.
    fn end_of_rib(&self, sections: &Sections<'_>) -> Option<Family> {
        if sections.is_empty() {
            return Some(Family::IPV4);
        }
        let alone = sections.withdrawn.is_empty()
            && sections.nlri.is_empty()
            && !self.has_others_than_unreach();
        let unreach = self.unreach.as_ref()?;
        unreach.family.filter(|_| alone && unreach.nlri.is_empty())
    }

    fn require(&mut self, code: u8, reason: &'static str) {
        if !self.has_seen(code) {
            let error = ErrorCode::MISSING_WELL_KNOWN_ATTRIBUTE;
            self.fault(code, Fault::Withdraw(error, reason));
        }
    }

    fn tear(&mut self, code: u8, reason: &'static str) {
        self.torn = true;
        self.fault(
            code,
            Fault::Withdraw(ErrorCode::MALFORMED_ATTRIBUTE_LIST, reason),
        );
    }

    fn fault(&mut self, code: u8, fault: Fault) {
        let (disposition, reason) = match fault {
            Fault::Discard(reason) => (Disposition::AttributeDiscard, reason),
            Fault::Withdraw(error, reason) => {
                self.withdraw.get_or_insert(Withdraw {
                    code: error,
                    reason,
                    attribute: if self.torn { &[] } else { self.whole },
                });
                (Disposition::TreatAsWithdraw, reason)
            }
        };
        if disposition == Disposition::TreatAsWithdraw || self.faults.len() < MAX_FAULTS {
            self.faults.push(AttributeFault {
                code,
                disposition,
                reason,
            });
        }
    }

    /// Whether the type had been seen before.
    fn mark_seen(&mut self, code: u8) -> bool {
        let seen = self.has_seen(code);
        let [low, high] = &mut self.seen;
        let half = if code < 128 { low } else { high };
        *half |= 1 << (code % 128);
        seen
    }

    fn has_seen(&self, code: u8) -> bool {
        let [low, high] = self.seen;
        let half = if code < 128 { low } else { high };
        half >> (code % 128) & 1 == 1
    }

    fn has_others_than_unreach(&self) -> bool {
        let [low, high] = self.seen;
        low & !(1 << attribute::MP_UNREACH_NLRI) != 0 || high != 0
    }
}

fn header(reader: &mut Reader<'_>) -> Option<(u8, u8)> {
    Some((reader.u8()?, reader.u8()?))
}

/// RFC 4760 section 7; the data is the attribute.
fn optional_error(attribute: &[u8], reason: &'static str) -> WireError {
    WireError::with_data(ErrorCode::OPTIONAL_ATTRIBUTE, attribute, reason)
}
