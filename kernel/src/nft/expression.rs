//! Expressions: what rules are made of in the kernel.

use super::wire::OBJECT_COUNTER;
use super::wire::{DATA_IS_VERDICT, DATA_VALUE, VERDICT_CHAIN, VERDICT_CODE};
use crate::netlink::{Attributes, Encoder, be_u16, be_u32};
use policy::ruleset::Verdict;

const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`.
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_DESTINATION: u32 = 2;
/// `NFT_REJECT_TCP_RST`.
const REJECT_TCP_RESET: u32 = 1;
/// `NFT_QUEUE_FLAG_BYPASS`
const QUEUE_BYPASS: u16 = 1;
/// `NFT_RT_TCPMSS`, `NFT_BYTEORDER_HTON`, `NFT_EXTHDR_OP_TCPOPT`.
const ROUTE_TCP_MSS: u32 = 3;
const TO_NETWORK: u32 = 1;
const TCP_OPTION: u32 = 1;
/// `NFT_NAT_DNAT`.
const NAT_DESTINATION: u32 = 1;
/// `NFT_NAT_SNAT`.
const NAT_SOURCE: u32 = 0;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`.
const NAT_PORTS: u32 = 2;
/// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED`.
const NAT_MAPPED: u32 = 3;

/// One expression. Registers are numbers of 32 bit words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    Meta {
        key: u32,
        to: u32,
    },
    Payload {
        base: u32,
        offset: u32,
        length: u32,
        to: u32,
    },
    Ct {
        key: u32,
        to: u32,
    },
    Compare {
        from: u32,
        op: u32,
        with: Vec<u8>,
    },
    Bitwise {
        from: u32,
        to: u32,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// With `verdict`, takes the verdict of the element.
    Lookup {
        set: String,
        from: u32,
        invert: bool,
        verdict: bool,
    },
    Immediate(Verdict),
    /// Loads bytes.
    Value {
        to: u32,
        bytes: Vec<u8>,
    },
    /// `NFT_FIB_RESULT_ADDRTYPE` of the destination.
    DestinationType {
        to: u32,
    },
    /// `NFT_NAT_DNAT` to an address and a port in registers.
    Dnat {
        family: u32,
        address: u32,
        port: u32,
    },
    Counter,
    /// `NFT_OBJECT_COUNTER` by name.
    NamedCounter(String),
    /// Stores a register.
    SetCt {
        key: u32,
        from: u32,
    },
    NoTrack,
    RejectTcpReset,
    Limit {
        rate: u64,
        unit: u64,
        burst: u32,
    },
    Log {
        group: u16,
        prefix: String,
    },
    /// `NFT_NAT_SNAT` to an address and ports in registers.
    Snat {
        family: u32,
        address: u32,
        ports: Option<(u32, u32)>,
        flags: u32,
    },
    /// With ports in registers.
    Masquerade {
        flags: u32,
        ports: Option<(u32, u32)>,
    },
    /// Stores a register.
    SetMeta {
        key: u32,
        from: u32,
    },
    /// One queue, with bypass.
    Queue {
        number: u16,
    },
    /// `NFT_RT_TCPMSS` of the packet's route and of the way back.
    RouteMss {
        to: u32,
    },
    /// Two octets at a time.
    ToNetworkOrder {
        from: u32,
        to: u32,
        length: u32,
    },
    /// Stores a register in an option of the TCP header.
    SetTcpOption {
        kind: u8,
        offset: u32,
        length: u32,
        from: u32,
    },
}

impl Expression {
    /// Appends a list element with the expression.
    pub(super) fn encode(&self, encoder: &mut Encoder) {
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
            Self::RejectTcpReset => "reject",
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

    /// Reads a list element; `None` for anything that we never write.
    pub(super) fn decode(element: Attributes<'_>) -> Option<Self> {
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

/// `NFT_REG_*` of a word: the kernel prefers the name of the 16 byte register that starts there.
fn register(word: u32) -> u32 {
    if word.is_multiple_of(4) {
        1 + word / 4
    } else {
        8 + word
    }
}

fn word(register: u32) -> Option<u32> {
    match register {
        1..=4 => Some((register - 1) * 4),
        8..=23 => Some(register - 8),
        _ => None,
    }
}

/// Appends a verdict to a data attribute.
pub(super) fn encode_verdict(encoder: &mut Encoder, verdict: &Verdict) {
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

/// The verdict in a data attribute.
pub(super) fn decode_verdict(data: Attributes<'_>) -> Option<Verdict> {
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
