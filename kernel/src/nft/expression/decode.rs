//! Attributes as expressions.

use super::Expression;
use super::{
    DATA, FIB_ADDRESS_TYPE, FIB_DESTINATION, ICMPX_PORT_UNREACHABLE, NAME, NAT_DESTINATION,
    NAT_MAPPED, NAT_PORTS, NAT_SOURCE, QUEUE_BYPASS, REJECT_ICMPX, REJECT_TCP_RESET, ROUTE_TCP_MSS,
    TCP_OPTION, TO_NETWORK,
};
use crate::netlink::{Attributes, be_u16, be_u32};
use crate::nft::wire::{DATA_IS_VERDICT, DATA_VALUE, OBJECT_COUNTER, VERDICT_CHAIN, VERDICT_CODE};
use policy::ruleset::Verdict;

impl Expression {
    /// Reads a list element; `None` for anything that we never write.
    pub(in crate::nft) fn decode(element: Attributes<'_>) -> Option<Self> {
        let name = element.text(NAME)?;
        let data = element.inside(DATA);
        let value = |kind| data.inside(kind).find(DATA_VALUE).map(<[u8]>::to_vec);
        let word = |kind| data.be_u32(kind).and_then(word);
        let expression = match name.as_str() {
            "meta" if data.find(1).is_none() => Self::SetMeta {
                key: data.be_u32(2)?,
                from: word(3)?,
            },
            "meta" => Self::Meta {
                key: data.be_u32(2)?,
                to: word(1)?,
            },
            "ct" if data.find(1).is_none() => Self::SetCt {
                key: data.be_u32(2)?,
                from: word(4)?,
            },
            "ct" if data.find(3).is_none() => Self::Ct {
                key: data.be_u32(2)?,
                to: word(1)?,
            },
            "payload" => Self::Payload {
                base: data.be_u32(2)?,
                offset: data.be_u32(3)?,
                length: data.be_u32(4)?,
                to: word(1)?,
            },
            "cmp" => Self::Compare {
                from: word(1)?,
                op: data.be_u32(2)?,
                with: value(3)?,
            },
            "bitwise" if data.be_u32(6).unwrap_or(0) == 0 => Self::Bitwise {
                from: word(1)?,
                to: word(2)?,
                mask: value(4)?,
                xor: value(5)?,
            },
            "lookup" => Self::Lookup {
                set: data.text(1)?,
                from: word(2)?,
                invert: data.be_u32(5).unwrap_or(0) & 1 != 0,
                verdict: match data.be_u32(3) {
                    Some(0) => true,
                    Some(_) => return None,
                    None => false,
                },
            },
            "immediate" if data.be_u32(1) == Some(0) => {
                Self::Immediate(decode_verdict(data.inside(2))?)
            }
            "immediate" => Self::Value {
                to: word(1)?,
                bytes: value(2)?,
            },
            "fib"
                if data.be_u32(2) == Some(FIB_ADDRESS_TYPE)
                    && data.be_u32(3) == Some(FIB_DESTINATION) =>
            {
                Self::DestinationType { to: word(1)? }
            }
            "nat" if data.be_u32(1) == Some(NAT_DESTINATION) && plain_nat(data) => Self::Dnat {
                family: data.be_u32(2)?,
                address: word(3)?,
                port: word(5)?,
            },
            "counter" => Self::Counter,
            "objref" if data.be_u32(1) == Some(OBJECT_COUNTER) => Self::NamedCounter(data.text(2)?),
            "notrack" => Self::NoTrack,
            "reject" if data.be_u32(1) == Some(REJECT_TCP_RESET) => Self::RejectTcpReset,
            "reject"
                if data.be_u32(1) == Some(REJECT_ICMPX)
                    && data.find(2) == Some(&[ICMPX_PORT_UNREACHABLE]) =>
            {
                Self::Reject
            }
            "limit" if data.be_u32(4) == Some(0) && data.be_u32(5).unwrap_or(0) == 0 => {
                let number = |kind| data.find(kind)?.try_into().ok().map(u64::from_be_bytes);
                Self::Limit {
                    rate: number(1)?,
                    unit: number(2)?,
                    burst: data.be_u32(3)?,
                }
            }
            "log" if (3..=6).all(|kind| data.find(kind).is_none()) => Self::Log {
                group: data.find(1).and_then(be_u16)?,
                prefix: data.text(2)?,
            },
            "nat" if data.be_u32(1) == Some(NAT_SOURCE) && data.find(3) == data.find(4) => {
                Self::Snat {
                    family: data.be_u32(2)?,
                    address: word(3)?,
                    ports: ports(data, 5)?,
                    flags: data.be_u32(7).unwrap_or(0) & !NAT_MAPPED,
                }
            }
            "masq" => Self::Masquerade {
                flags: data.find(1).map_or(Some(0), be_u32)? & !NAT_PORTS,
                ports: ports(data, 2)?,
            },
            "queue" => {
                let number = |kind| data.find(kind).and_then(be_u16);
                if number(2) != Some(1) || number(3) != Some(QUEUE_BYPASS) {
                    return None;
                }
                Self::Queue { number: number(1)? }
            }
            "rt" if data.be_u32(2) == Some(ROUTE_TCP_MSS) => Self::RouteMss { to: word(1)? },
            "byteorder" if data.be_u32(3) == Some(TO_NETWORK) && data.be_u32(5) == Some(2) => {
                Self::ToNetworkOrder {
                    from: word(1)?,
                    to: word(2)?,
                    length: data.be_u32(4)?,
                }
            }
            "exthdr" if data.be_u32(6) == Some(TCP_OPTION) && data.find(1).is_none() => {
                Self::SetTcpOption {
                    kind: *data.find(2)?.first()?,
                    offset: data.be_u32(3)?,
                    length: data.be_u32(4)?,
                    from: word(7)?,
                }
            }
            _ => return None,
        };
        Some(expression)
    }
}

/// The registers of the first and last port, where there are any.
fn ports(data: Attributes<'_>, first: u16) -> Option<Option<(u32, u32)>> {
    let register = |kind| data.be_u32(kind).map(word);
    match (register(first), register(first + 1)) {
        (None, _) => Some(None),
        (Some(Some(first)), Some(Some(last))) => Some(Some((first, last))),
        _ => None,
    }
}

/// The kernel tells a single address or port as a range of one, and the flags that follow from
/// there being an address and a port.
fn plain_nat(data: Attributes<'_>) -> bool {
    let same = |first, last| {
        data.find(last)
            .is_none_or(|last| data.find(first) == Some(last))
    };
    same(3, 4) && same(5, 6) && data.be_u32(7).unwrap_or(NAT_MAPPED) == NAT_MAPPED
}

fn word(register: u32) -> Option<u32> {
    match register {
        1..=4 => Some((register - 1) * 4),
        8..=23 => Some(register - 8),
        _ => None,
    }
}

/// The verdict in a data attribute.
pub(in crate::nft) fn decode_verdict(data: Attributes<'_>) -> Option<Verdict> {
    let verdict = data.inside(DATA_IS_VERDICT);
    let chain = verdict.text(VERDICT_CHAIN);
    match (verdict.be_u32(VERDICT_CODE)? as i32, chain) {
        (0, None) => Some(Verdict::Drop),
        (1, None) => Some(Verdict::Accept),
        (-5, None) => Some(Verdict::Return),
        (-3, Some(chain)) => Some(Verdict::Jump(chain)),
        (-4, Some(chain)) => Some(Verdict::Goto(chain)),
        _ => None,
    }
}
