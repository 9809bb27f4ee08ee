//! Statements as expressions, and back.
//!
//! [`raise`] guesses a statement from the first expressions and accepts it only if [`lower`] makes
//! exactly these expressions of it: the two cannot disagree.
mod guess;
mod parts;

use super::expression::Expression as E;
use guess::guess;
use parts::{
    BASE_TRANSPORT, CT_MARK, CT_STATE, EQUAL, IPPROTO_ICMPV6, META_IIFNAME, META_L4PROTO,
    META_MARK, META_NFPROTO, META_OIFNAME, NOT_EQUAL, RANDOM_FULLY, RTN_LOCAL, clamp_mss, ct_bits,
    dnat, icmp, link_local_source, load, look_up, meta_is, nfproto, operator, padded, snat,
    state_bits, value, within,
};
use policy::ruleset::{Field, Statement as S};

pub(super) use parts::words;

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
        S::Reject => vec![E::Reject],
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
