//! Expressions: what rules are made of in the kernel.

mod decode;
mod encode;

use policy::ruleset::Verdict;

pub(super) use decode::decode_verdict;
pub(super) use encode::encode_verdict;

const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`.
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_DESTINATION: u32 = 2;
/// `NFT_REJECT_TCP_RST`.
const REJECT_TCP_RESET: u32 = 1;
/// `NFT_REJECT_ICMPX_UNREACH`
const REJECT_ICMPX: u32 = 2;
/// `NFT_REJECT_ICMPX_PORT_UNREACH`
const ICMPX_PORT_UNREACHABLE: u8 = 1;
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
    Reject,
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
