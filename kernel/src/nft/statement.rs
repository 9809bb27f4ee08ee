//! Statements as expressions, and back.
//!
//! [`raise`] guesses a statement from the first expressions and accepts it only if [`lower`] makes
//! exactly these expressions of it: the two cannot disagree.

use super::expression::Expression as E;
use policy::ruleset::{CtState, Family, Field, KeyType, Statement as S};
use std::net::IpAddr;

const META_MARK: u32 = 3;
const META_IIF: u32 = 4;
const META_OIF: u32 = 5;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_MARK: u32 = 3;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_ICMPV6: u8 = 58;
const IPPROTO_TCP: u8 = 6;
/// Where the flags are in a TCP header, and two of them.
const TCP_FLAGS: u32 = 13;
const TCP_SYN: u8 = 2;
const TCP_RST: u8 = 4;
/// `TCPOPT_MAXSEG`.
const TCP_OPTION_MSS: u8 = 2;
const IFNAMSIZ: usize = 16;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const RANDOM_FULLY: u32 = 1 << 4;
/// `NF_CT_STATE_INVALID_BIT`; `NF_CT_STATE_BIT` of established and of related.
const STATE_INVALID: u32 = 1;
const STATE_ESTABLISHED: u32 = 2;
const STATE_RELATED: u32 = 4;
/// `NF_CT_STATE_UNTRACKED_BIT`.
const STATE_UNTRACKED: u32 = 1 << 6;
/// Type of a route to an address of this host.
const RTN_LOCAL: u32 = 2;

/// The expressions of a statement.
pub(super) fn lower(statement: &S) -> Vec<E> {
    match statement {
        S::Family(family) => meta_is(META_NFPROTO, EQUAL, vec![nfproto(*family)]),
        S::IifnamePrefix { prefix, negate } => {
            meta_is(META_IIFNAME, operator(*negate), prefix.as_bytes().to_vec())
        }
        S::OifnamePrefix { prefix, negate } => {
            meta_is(META_OIFNAME, operator(*negate), prefix.as_bytes().to_vec())
        }
        S::Iifname(name) => meta_is(META_IIFNAME, EQUAL, padded(name)),
        S::Oifname(name) => meta_is(META_OIFNAME, EQUAL, padded(name)),
        S::L4Proto(number) => meta_is(META_L4PROTO, EQUAL, vec![*number]),
        S::DportRange(first, last) => {
            let load = load(Field::Dport, 0);
            within(
                load,
                first.to_be_bytes().to_vec(),
                last.to_be_bytes().to_vec(),
            )
        }
        S::CtState(state) => ct_bits(CT_STATE, state_bits(*state), NOT_EQUAL, 0),
        S::CtMarkBits(bits) => ct_bits(CT_MARK, *bits, EQUAL, *bits),
        S::Icmpv6Type { first, last } => {
            let load = E::Payload {
                base: BASE_TRANSPORT,
                offset: 0,
                length: 1,
                to: 0,
            };
            let mut expressions = meta_is(META_L4PROTO, EQUAL, vec![IPPROTO_ICMPV6]);
            expressions.extend(within(load, vec![*first], vec![*last]));
            expressions
        }
        S::Icmp {
            family,
            icmp_type,
            code,
            negate,
        } => icmp(*family, *icmp_type, *code, *negate),
        S::SetCtMarkBits(bits) => vec![
            E::Ct {
                key: CT_MARK,
                to: 0,
            },
            E::Bitwise {
                from: 0,
                to: 0,
                mask: (!bits).to_ne_bytes().to_vec(),
                xor: bits.to_ne_bytes().to_vec(),
            },
            E::SetCt {
                key: CT_MARK,
                from: 0,
            },
        ],
        S::NoTrack => vec![E::NoTrack],
        S::RejectTcpReset => vec![E::RejectTcpReset],
        S::NamedCounter(name) => vec![E::NamedCounter(name.clone())],
        S::Ipv6LinkLocalSource => link_local_source(),
        S::Lookup {
            fields,
            set,
            negate,
        } => look_up(fields, set, *negate, false),
        S::VerdictMap { fields, map } => look_up(fields, map, false, true),
        S::Counter => vec![E::Counter],
        S::Limit { per_second, burst } => {
            vec![E::Limit {
                rate: u64::from(*per_second),
                unit: 1,
                burst: *burst,
            }]
        }
        S::Log { group, prefix } => vec![E::Log {
            group: *group,
            prefix: prefix.clone(),
        }],
        S::Queue(number) => vec![E::Queue { number: *number }],
        S::LocalDestination => vec![
            E::DestinationType { to: 0 },
            E::Compare {
                from: 0,
                op: EQUAL,
                with: RTN_LOCAL.to_ne_bytes().to_vec(),
            },
        ],
        S::Dnat { address, port } => dnat(*address, *port),
        S::Masquerade => vec![E::Masquerade {
            flags: RANDOM_FULLY,
            ports: None,
        }],
        S::MasqueradePorts { first, last } => vec![
            value(0, first.to_be_bytes().to_vec()),
            value(4, last.to_be_bytes().to_vec()),
            E::Masquerade {
                flags: RANDOM_FULLY,
                ports: Some((0, 4)),
            },
        ],
        S::Snat { address, ports } => snat(*address, *ports),
        S::SetMarkBits(bits) => vec![
            E::Meta {
                key: META_MARK,
                to: 0,
            },
            E::Bitwise {
                from: 0,
                to: 0,
                mask: (!bits).to_ne_bytes().to_vec(),
                xor: bits.to_ne_bytes().to_vec(),
            },
            E::SetMeta {
                key: META_MARK,
                from: 0,
            },
        ],
        S::ClampMss => clamp_mss(),
        S::Verdict(verdict) => vec![E::Immediate(verdict.clone())],
    }
}

/// The statements that these expressions are; `None` if they are not of our making.
pub(super) fn raise(mut expressions: &[E]) -> Option<Vec<S>> {
    let mut statements = Vec::new();
    while !expressions.is_empty() {
        let statement = guess(expressions)?;
        expressions = expressions.strip_prefix(lower(&statement).as_slice())?;
        statements.push(statement);
    }
    Some(statements)
}

fn guess(expressions: &[E]) -> Option<S> {
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

/// `rt mtu` counts octets of a segment, in the order of this host.
fn clamp_mss() -> Vec<E> {
    let mut expressions = meta_is(META_L4PROTO, EQUAL, vec![IPPROTO_TCP]);
    expressions.extend([
        E::Payload {
            base: BASE_TRANSPORT,
            offset: TCP_FLAGS,
            length: 1,
            to: 0,
        },
        E::Bitwise {
            from: 0,
            to: 0,
            mask: vec![TCP_SYN | TCP_RST],
            xor: vec![0],
        },
        E::Compare {
            from: 0,
            op: EQUAL,
            with: vec![TCP_SYN],
        },
        E::RouteMss { to: 0 },
        E::ToNetworkOrder {
            from: 0,
            to: 0,
            length: 2,
        },
        E::SetTcpOption {
            kind: TCP_OPTION_MSS,
            offset: 2,
            length: 2,
            from: 0,
        },
    ]);
    expressions
}

fn icmp_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => IPPROTO_ICMP,
        Family::Ipv6 => IPPROTO_ICMPV6,
    }
}

fn icmp(family: Family, icmp_type: u8, code: Option<u8>, negate: bool) -> Vec<E> {
    let with: Vec<u8> = [icmp_type].into_iter().chain(code).collect();
    let mut expressions = meta_is(META_L4PROTO, EQUAL, vec![icmp_number(family)]);
    expressions.push(E::Payload {
        base: BASE_TRANSPORT,
        offset: 0,
        length: with.len() as u32,
        to: 0,
    });
    expressions.push(E::Compare {
        from: 0,
        op: operator(negate),
        with,
    });
    expressions
}

/// The name of one interface, as long as names can be.
fn padded(name: &str) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(IFNAMSIZ.max(padded.len()), 0);
    padded
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

const FIELDS: [Field; 9] = [
    Field::Iif,
    Field::Oif,
    Field::Ipv4Saddr,
    Field::Ipv4Daddr,
    Field::Ipv6Saddr,
    Field::Ipv6Daddr,
    Field::L4Proto,
    Field::Sport,
    Field::Dport,
];

/// Loads a field into the register that starts at a word.
fn load(field: Field, to: u32) -> E {
    let meta = |key| E::Meta { key, to };
    let length = field.key_type().len() as u32;
    let payload = |base, offset| E::Payload {
        base,
        offset,
        length,
        to,
    };
    match field {
        Field::Iif => meta(META_IIF),
        Field::Oif => meta(META_OIF),
        Field::L4Proto => meta(META_L4PROTO),
        Field::Ipv4Saddr => payload(BASE_NETWORK, 12),
        Field::Ipv4Daddr => payload(BASE_NETWORK, 16),
        Field::Ipv6Saddr => payload(BASE_NETWORK, 8),
        Field::Ipv6Daddr => payload(BASE_NETWORK, 24),
        Field::Sport => payload(BASE_TRANSPORT, 0),
        Field::Dport => payload(BASE_TRANSPORT, 2),
    }
}

/// Words that a field takes in a concatenation.
pub(super) fn words(key: KeyType) -> u32 {
    key.len().div_ceil(4) as u32
}

fn look_up(fields: &[Field], set: &str, invert: bool, verdict: bool) -> Vec<E> {
    let mut expressions = Vec::with_capacity(fields.len() + 1);
    let mut to = 0;
    for field in fields {
        expressions.push(load(*field, to));
        to += words(field.key_type());
    }
    expressions.push(E::Lookup {
        set: set.to_owned(),
        from: 0,
        invert,
        verdict,
    });
    expressions
}

fn meta_is(key: u32, op: u32, with: Vec<u8>) -> Vec<E> {
    vec![E::Meta { key, to: 0 }, E::Compare { from: 0, op, with }]
}

/// Compares what `load` reads with one value or a range, as nft does.
fn within(load: E, first: Vec<u8>, last: Vec<u8>) -> Vec<E> {
    let compare = |op, with| E::Compare { from: 0, op, with };
    if first == last {
        return vec![load, compare(EQUAL, first)];
    }
    vec![load, compare(AT_LEAST, first), compare(AT_MOST, last)]
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

fn ct_bits(key: u32, mask: u32, op: u32, with: u32) -> Vec<E> {
    let mask = mask.to_ne_bytes().to_vec();
    vec![
        E::Ct { key, to: 0 },
        E::Bitwise {
            from: 0,
            to: 0,
            mask,
            xor: vec![0; 4],
        },
        E::Compare {
            from: 0,
            op,
            with: with.to_ne_bytes().to_vec(),
        },
    ]
}

/// `ip6 saddr fe80::/10`.
fn link_local_source() -> Vec<E> {
    let address = |first: u8, second: u8| {
        let mut bytes = vec![0; 16];
        (bytes[0], bytes[1]) = (first, second);
        bytes
    };
    vec![
        load(Field::Ipv6Saddr, 0),
        E::Bitwise {
            from: 0,
            to: 0,
            mask: address(0xff, 0xc0),
            xor: vec![0; 16],
        },
        E::Compare {
            from: 0,
            op: EQUAL,
            with: address(0xfe, 0x80),
        },
    ]
}

/// An IPv6 address takes four words, and nft leaves as many to an IPv4 one.
fn value(to: u32, bytes: Vec<u8>) -> E {
    E::Value { to, bytes }
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

fn snat(address: IpAddr, ports: Option<(u16, u16)>) -> Vec<E> {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (Family::Ipv4, address.octets().to_vec()),
        IpAddr::V6(address) => (Family::Ipv6, address.octets().to_vec()),
    };
    let mut expressions = vec![value(0, bytes)];
    if let Some((first, last)) = ports {
        expressions.push(value(4, first.to_be_bytes().to_vec()));
        expressions.push(value(8, last.to_be_bytes().to_vec()));
    }
    expressions.push(E::Snat {
        family: u32::from(nfproto(family)),
        address: 0,
        ports: ports.map(|_| (4, 8)),
        flags: RANDOM_FULLY,
    });
    expressions
}

fn dnat(address: IpAddr, port: u16) -> Vec<E> {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (Family::Ipv4, address.octets().to_vec()),
        IpAddr::V6(address) => (Family::Ipv6, address.octets().to_vec()),
    };
    vec![
        E::Value { to: 0, bytes },
        E::Value {
            to: 4,
            bytes: port.to_be_bytes().to_vec(),
        },
        E::Dnat {
            family: u32::from(nfproto(family)),
            address: 0,
            port: 4,
        },
    ]
}

fn state_bits(state: CtState) -> u32 {
    match state {
        CtState::EstablishedOrRelated => STATE_ESTABLISHED | STATE_RELATED,
        CtState::Established => STATE_ESTABLISHED,
        CtState::Invalid => STATE_INVALID,
        CtState::Untracked => STATE_UNTRACKED,
    }
}

fn nfproto(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 2,
        Family::Ipv6 => 10,
    }
}

fn operator(negate: bool) -> u32 {
    if negate { NOT_EQUAL } else { EQUAL }
}
