//! Which statement some expressions may be, by the first of them.

use super::parts::{
    AT_LEAST, AT_MOST, BASE_NETWORK, BASE_TRANSPORT, CT_MARK, CT_STATE, EQUAL, FIELDS, IFNAMSIZ,
    IPPROTO_ICMPV6, META_IIFNAME, META_L4PROTO, META_MARK, META_NFPROTO, META_OIFNAME, NOT_EQUAL,
    TCP_FLAGS, icmp_number, load, nfproto, state_bits,
};
use crate::nft::expression::Expression as E;
use policy::ruleset::{CtState, Family, Statement as S};
use std::net::IpAddr;

pub(super) fn guess(expressions: &[E]) -> Option<S> {
    match expressions {
        [E::Meta { key, .. }, E::Compare { op, with, .. }, rest @ ..] => {
            guess_meta(*key, *op, with, rest)
        }
        [E::Ct { key: CT_STATE, .. }, E::Bitwise { mask, .. }, ..] => {
            let bits = u32::from_ne_bytes(mask.as_slice().try_into().ok()?);
            let states = [
                CtState::EstablishedOrRelated,
                CtState::Established,
                CtState::Invalid,
                CtState::Untracked,
            ];
            states
                .into_iter()
                .find(|state| state_bits(*state) == bits)
                .map(S::CtState)
        }
        [
            E::Ct { key: CT_MARK, .. },
            E::Bitwise { xor, .. },
            E::SetCt { .. },
            ..,
        ] => xor
            .as_slice()
            .try_into()
            .ok()
            .map(u32::from_ne_bytes)
            .map(S::SetCtMarkBits),
        [E::NoTrack, ..] => Some(S::NoTrack),
        [E::RejectTcpReset, ..] => Some(S::RejectTcpReset),
        [E::Reject, ..] => Some(S::Reject),
        [E::NamedCounter(name), ..] => Some(S::NamedCounter(name.clone())),
        [E::Ct { key: CT_MARK, .. }, E::Bitwise { mask, .. }, ..] => mask
            .as_slice()
            .try_into()
            .ok()
            .map(u32::from_ne_bytes)
            .map(S::CtMarkBits),
        [
            E::Payload {
                base: BASE_NETWORK, ..
            },
            E::Bitwise { .. },
            ..,
        ] => Some(S::Ipv6LinkLocalSource),
        [
            E::Payload {
                base: BASE_TRANSPORT,
                ..
            },
            E::Compare { .. },
            ..,
        ] => {
            let (first, last) = bounds(&expressions[1..])?;
            let port = |bytes: &[u8]| bytes.try_into().ok().map(u16::from_be_bytes);
            Some(S::DportRange(port(first)?, port(last)?))
        }
        [E::Immediate(verdict), ..] => Some(S::Verdict(verdict.clone())),
        [E::Counter, ..] => Some(S::Counter),
        [E::Limit { rate, burst, .. }, ..] => Some(S::Limit {
            per_second: u32::try_from(*rate).ok()?,
            burst: *burst,
        }),
        [E::Log { group, prefix }, ..] => Some(S::Log {
            group: *group,
            prefix: prefix.clone(),
        }),
        [E::Queue { number }, ..] => Some(S::Queue(*number)),
        [E::DestinationType { .. }, ..] => Some(S::LocalDestination),
        [
            E::Value { bytes: first, .. },
            E::Value { bytes: last, .. },
            E::Masquerade { .. },
            ..,
        ] => Some(S::MasqueradePorts {
            first: port(first)?,
            last: port(last)?,
        }),
        [E::Value { bytes, .. }, E::Snat { .. }, ..] => Some(S::Snat {
            address: address(bytes)?,
            ports: None,
        }),
        [
            E::Value { bytes, .. },
            E::Value { bytes: first, .. },
            E::Value { bytes: last, .. },
            E::Snat { .. },
            ..,
        ] => Some(S::Snat {
            address: address(bytes)?,
            ports: Some((port(first)?, port(last)?)),
        }),
        [E::Value { bytes, .. }, E::Value { bytes: single, .. }, ..] => Some(S::Dnat {
            address: address(bytes)?,
            port: port(single)?,
        }),
        [E::Masquerade { .. }, ..] => Some(S::Masquerade),
        [
            E::Meta { key: META_MARK, .. },
            E::Bitwise { xor, .. },
            E::SetMeta { .. },
            ..,
        ] => {
            let bits = xor.as_slice().try_into().ok();
            bits.map(u32::from_ne_bytes).map(S::SetMarkBits)
        }
        _ => guess_look_up(expressions),
    }
}

fn guess_meta(key: u32, op: u32, with: &[u8], rest: &[E]) -> Option<S> {
    let negate = op == NOT_EQUAL;
    let name = || {
        let end = with
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(with.len());
        String::from_utf8(with[..end].to_vec()).ok()
    };
    match key {
        META_NFPROTO => [Family::Ipv4, Family::Ipv6]
            .into_iter()
            .find(|family| with == [nfproto(*family)])
            .map(S::Family),
        META_IIFNAME if with.len() >= IFNAMSIZ => Some(S::Iifname(name()?)),
        META_IIFNAME => Some(S::IifnamePrefix {
            prefix: name()?,
            negate,
        }),
        META_OIFNAME if with.len() >= IFNAMSIZ => Some(S::Oifname(name()?)),
        META_OIFNAME => Some(S::OifnamePrefix {
            prefix: name()?,
            negate,
        }),
        META_L4PROTO => match rest {
            [payload, compare, ..] if guess_icmp(with, payload, compare).is_some() => {
                guess_icmp(with, payload, compare)
            }
            [
                E::Payload {
                    base: BASE_TRANSPORT,
                    offset: 0,
                    length: 1,
                    ..
                },
                rest @ ..,
            ] if with == [IPPROTO_ICMPV6] => {
                let (first, last) = bounds(rest)?;
                Some(S::Icmpv6Type {
                    first: *first.first()?,
                    last: *last.first()?,
                })
            }
            [
                E::Payload {
                    base: BASE_TRANSPORT,
                    offset: TCP_FLAGS,
                    ..
                },
                E::Bitwise { .. },
                ..,
            ] => Some(S::ClampMss),
            _ => with.first().copied().map(S::L4Proto),
        },
        _ => None,
    }
}

/// A message of ICMP, or of ICMPv6 that [`S::Icmpv6Type`] does not say: one with a code, or any
/// other than one.
fn guess_icmp(protocol: &[u8], payload: &E, compare: &E) -> Option<S> {
    let E::Payload {
        base: BASE_TRANSPORT,
        offset: 0,
        ..
    } = payload
    else {
        return None;
    };
    let E::Compare { op, with, .. } = compare else {
        return None;
    };
    let family = [Family::Ipv4, Family::Ipv6]
        .into_iter()
        .find(|family| protocol == [icmp_number(*family)])?;
    let negate = *op == NOT_EQUAL;
    let (icmp_type, code) = match with.as_slice() {
        [icmp_type] => (*icmp_type, None),
        [icmp_type, code] => (*icmp_type, Some(*code)),
        _ => return None,
    };
    let plain = family == Family::Ipv6 && code.is_none() && !negate;
    (!plain).then_some(S::Icmp {
        family,
        icmp_type,
        code,
        negate,
    })
}

fn guess_look_up(expressions: &[E]) -> Option<S> {
    let mut fields = Vec::new();
    for expression in expressions {
        match expression {
            E::Lookup {
                set, verdict: true, ..
            } => {
                return Some(S::VerdictMap {
                    fields,
                    map: set.clone(),
                });
            }
            E::Lookup { set, invert, .. } => {
                return Some(S::Lookup {
                    fields,
                    set: set.clone(),
                    negate: *invert,
                });
            }
            E::Meta { to, .. } | E::Payload { to, .. } => fields.push(
                FIELDS
                    .into_iter()
                    .find(|field| load(*field, *to) == *expression)?,
            ),
            _ => return None,
        }
    }
    None
}

fn bounds(expressions: &[E]) -> Option<(&[u8], &[u8])> {
    match expressions {
        [
            E::Compare {
                op: EQUAL, with, ..
            },
            ..,
        ] => Some((with, with)),
        [
            E::Compare {
                op: AT_LEAST,
                with: first,
                ..
            },
            E::Compare {
                op: AT_MOST,
                with: last,
                ..
            },
            ..,
        ] => Some((first, last)),
        _ => None,
    }
}

/// An address as it is in a register.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn port(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().ok().map(u16::from_be_bytes)
}
