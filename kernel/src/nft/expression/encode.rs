//! Expressions as attributes.

use super::Expression;
use super::{
    DATA, FIB_ADDRESS_TYPE, FIB_DESTINATION, ICMPX_PORT_UNREACHABLE, NAME, NAT_DESTINATION,
    NAT_PORTS, NAT_SOURCE, QUEUE_BYPASS, REJECT_ICMPX, REJECT_TCP_RESET, ROUTE_TCP_MSS, TCP_OPTION,
    TO_NETWORK,
};
use crate::netlink::Encoder;
use crate::nft::wire::{DATA_IS_VERDICT, DATA_VALUE, OBJECT_COUNTER, VERDICT_CHAIN, VERDICT_CODE};
use policy::ruleset::Verdict;

impl Expression {
    /// Appends a list element with the expression.
    pub(in crate::nft) fn encode(&self, encoder: &mut Encoder) {
        encoder.nested(1, |encoder| {
            encoder.string(NAME, self.name());
            encoder.nested(DATA, |encoder| self.encode_data(encoder));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::Ct { .. } => "ct",
            Self::Compare { .. } => "cmp",
            Self::Bitwise { .. } => "bitwise",
            Self::Lookup { .. } => "lookup",
            Self::Immediate(_) | Self::Value { .. } => "immediate",
            Self::DestinationType { .. } => "fib",
            Self::Dnat { .. } => "nat",
            Self::Counter => "counter",
            Self::NamedCounter(_) => "objref",
            Self::SetCt { .. } => "ct",
            Self::NoTrack => "notrack",
            Self::RejectTcpReset | Self::Reject => "reject",
            Self::Limit { .. } => "limit",
            Self::Log { .. } => "log",
            Self::Snat { .. } => "nat",
            Self::Masquerade { .. } => "masq",
            Self::Queue { .. } => "queue",
            Self::SetMeta { .. } => "meta",
            Self::RouteMss { .. } => "rt",
            Self::ToNetworkOrder { .. } => "byteorder",
            Self::SetTcpOption { .. } => "exthdr",
        }
    }

    fn encode_data(&self, e: &mut Encoder) {
        match self {
            Self::Meta { key, to } | Self::Ct { key, to } => {
                e.be_u32(1, register(*to));
                e.be_u32(2, *key);
            }
            Self::Payload {
                base,
                offset,
                length,
                to,
            } => {
                e.be_u32(1, register(*to));
                e.be_u32(2, *base);
                e.be_u32(3, *offset);
                e.be_u32(4, *length);
            }
            Self::Compare { from, op, with } => {
                e.be_u32(1, register(*from));
                e.be_u32(2, *op);
                e.nested(3, |e| e.attribute(DATA_VALUE, with));
            }
            Self::Bitwise {
                from,
                to,
                mask,
                xor,
            } => {
                e.be_u32(1, register(*from));
                e.be_u32(2, register(*to));
                e.be_u32(3, mask.len() as u32);
                e.nested(4, |e| e.attribute(DATA_VALUE, mask));
                e.nested(5, |e| e.attribute(DATA_VALUE, xor));
            }
            Self::Lookup {
                set,
                from,
                invert,
                verdict,
            } => {
                e.string(1, set);
                e.be_u32(2, register(*from));
                if *verdict {
                    e.be_u32(3, 0);
                }
                if *invert {
                    e.be_u32(5, 1);
                }
            }
            Self::Immediate(verdict) => {
                e.be_u32(1, 0);
                e.nested(2, |e| encode_verdict(e, verdict));
            }
            Self::Value { to, bytes } => {
                e.be_u32(1, register(*to));
                e.nested(2, |e| e.attribute(DATA_VALUE, bytes));
            }
            Self::DestinationType { to } => {
                e.be_u32(1, register(*to));
                e.be_u32(2, FIB_ADDRESS_TYPE);
                e.be_u32(3, FIB_DESTINATION);
            }
            Self::Dnat {
                family,
                address,
                port,
            } => {
                e.be_u32(1, NAT_DESTINATION);
                e.be_u32(2, *family);
                e.be_u32(3, register(*address));
                e.be_u32(5, register(*port));
            }
            Self::Counter | Self::NoTrack => {}
            Self::NamedCounter(name) => {
                e.be_u32(1, OBJECT_COUNTER);
                e.string(2, name);
            }
            Self::SetCt { key, from } => {
                e.be_u32(2, *key);
                e.be_u32(4, register(*from));
            }
            Self::RejectTcpReset => e.be_u32(1, REJECT_TCP_RESET),
            Self::Reject => {
                e.be_u32(1, REJECT_ICMPX);
                e.attribute(2, &[ICMPX_PORT_UNREACHABLE]);
            }
            Self::Limit { rate, unit, burst } => {
                e.attribute(1, &rate.to_be_bytes());
                e.attribute(2, &unit.to_be_bytes());
                e.be_u32(3, *burst);
                e.be_u32(4, 0);
            }
            Self::Log { group, prefix } => {
                e.attribute(1, &group.to_be_bytes());
                e.string(2, prefix);
            }
            Self::Queue { number } => {
                for (kind, value) in [(1, *number), (2, 1), (3, QUEUE_BYPASS)] {
                    e.attribute(kind, &value.to_be_bytes());
                }
            }
            Self::Snat {
                family,
                address,
                ports,
                flags,
            } => {
                e.be_u32(1, NAT_SOURCE);
                e.be_u32(2, *family);
                e.be_u32(3, register(*address));
                if let Some((first, last)) = ports {
                    e.be_u32(5, register(*first));
                    e.be_u32(6, register(*last));
                }
                e.be_u32(7, *flags);
            }
            Self::Masquerade { flags, ports } => {
                let chosen = ports.map_or(0, |_| NAT_PORTS);
                e.be_u32(1, *flags | chosen);
                if let Some((first, last)) = ports {
                    e.be_u32(2, register(*first));
                    e.be_u32(3, register(*last));
                }
            }
            Self::SetMeta { key, from } => {
                e.be_u32(2, *key);
                e.be_u32(3, register(*from));
            }
            Self::RouteMss { to } => {
                e.be_u32(1, register(*to));
                e.be_u32(2, ROUTE_TCP_MSS);
            }
            Self::ToNetworkOrder { from, to, length } => {
                e.be_u32(1, register(*from));
                e.be_u32(2, register(*to));
                e.be_u32(3, TO_NETWORK);
                e.be_u32(4, *length);
                e.be_u32(5, 2);
            }
            Self::SetTcpOption {
                kind,
                offset,
                length,
                from,
            } => {
                e.attribute(2, &[*kind]);
                e.be_u32(3, *offset);
                e.be_u32(4, *length);
                e.be_u32(6, TCP_OPTION);
                e.be_u32(7, register(*from));
            }
        }
    }
}

/// `NFT_REG_*` of a word: the kernel prefers the name of the 16 byte register that starts there.
fn register(word: u32) -> u32 {
    if word.is_multiple_of(4) {
        1 + word / 4
    } else {
        8 + word
    }
}

/// Appends a verdict to a data attribute.
pub(in crate::nft) fn encode_verdict(encoder: &mut Encoder, verdict: &Verdict) {
    let (code, chain): (i32, Option<&str>) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Return => (-5, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
    };
    encoder.nested(DATA_IS_VERDICT, |encoder| {
        encoder.be_u32(VERDICT_CODE, code as u32);
        if let Some(chain) = chain {
            encoder.string(VERDICT_CHAIN, chain);
        }
    });
}
