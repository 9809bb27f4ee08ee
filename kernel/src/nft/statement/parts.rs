//! What statements are made of: numbers of `linux/netfilter/nf_tables.h`, and expressions that
//! belong together.

use crate::nft::expression::Expression as E;
use policy::ruleset::{CtState, Family, Field, KeyType};
use std::net::IpAddr;

pub(super) const META_MARK: u32 = 3;
pub(super) const META_IIF: u32 = 4;
pub(super) const META_OIF: u32 = 5;
pub(super) const META_IIFNAME: u32 = 6;
pub(super) const META_OIFNAME: u32 = 7;
pub(super) const META_NFPROTO: u32 = 15;
pub(super) const META_L4PROTO: u32 = 16;
pub(super) const CT_STATE: u32 = 0;
pub(super) const CT_MARK: u32 = 3;
pub(super) const BASE_NETWORK: u32 = 1;
pub(super) const BASE_TRANSPORT: u32 = 2;
pub(super) const EQUAL: u32 = 0;
pub(super) const NOT_EQUAL: u32 = 1;
pub(super) const AT_MOST: u32 = 3;
pub(super) const AT_LEAST: u32 = 5;
pub(super) const IPPROTO_ICMP: u8 = 1;
pub(super) const IPPROTO_ICMPV6: u8 = 58;
pub(super) const IPPROTO_TCP: u8 = 6;
/// Where the flags are in a TCP header, and two of them.
pub(super) const TCP_FLAGS: u32 = 13;
pub(super) const TCP_SYN: u8 = 2;
pub(super) const TCP_RST: u8 = 4;
/// `TCPOPT_MAXSEG`.
pub(super) const TCP_OPTION_MSS: u8 = 2;
pub(super) const IFNAMSIZ: usize = 16;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
pub(super) const RANDOM_FULLY: u32 = 1 << 4;
/// `NF_CT_STATE_INVALID_BIT`; `NF_CT_STATE_BIT` of established and of related.
pub(super) const STATE_INVALID: u32 = 1;
pub(super) const STATE_ESTABLISHED: u32 = 2;
pub(super) const STATE_RELATED: u32 = 4;
/// `NF_CT_STATE_UNTRACKED_BIT`.
pub(super) const STATE_UNTRACKED: u32 = 1 << 6;
/// Type of a route to an address of this host.
pub(super) const RTN_LOCAL: u32 = 2;

pub(super) fn meta_is(key: u32, op: u32, with: Vec<u8>) -> Vec<E> {
    vec![E::Meta { key, to: 0 }, E::Compare { from: 0, op, with }]
}

/// Compares what `load` reads with one value or a range, as nft does.
pub(super) fn within(load: E, first: Vec<u8>, last: Vec<u8>) -> Vec<E> {
    let compare = |op, with| E::Compare { from: 0, op, with };
    if first == last {
        return vec![load, compare(EQUAL, first)];
    }
    vec![load, compare(AT_LEAST, first), compare(AT_MOST, last)]
}

pub(super) fn ct_bits(key: u32, mask: u32, op: u32, with: u32) -> Vec<E> {
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

pub(super) fn look_up(fields: &[Field], set: &str, invert: bool, verdict: bool) -> Vec<E> {
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

pub(super) const FIELDS: [Field; 9] = [
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
pub(super) fn load(field: Field, to: u32) -> E {
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
pub(in crate::nft) fn words(key: KeyType) -> u32 {
    key.len().div_ceil(4) as u32
}

pub(super) fn icmp_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => IPPROTO_ICMP,
        Family::Ipv6 => IPPROTO_ICMPV6,
    }
}

pub(super) fn icmp(family: Family, icmp_type: u8, code: Option<u8>, negate: bool) -> Vec<E> {
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

/// `ip6 saddr fe80::/10`.
pub(super) fn link_local_source() -> Vec<E> {
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

/// `rt mtu` counts octets of a segment, in the order of this host.
pub(super) fn clamp_mss() -> Vec<E> {
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

/// The name of one interface, as long as names can be.
pub(super) fn padded(name: &str) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(IFNAMSIZ.max(padded.len()), 0);
    padded
}

/// An IPv6 address takes four words, and nft leaves as many to an IPv4 one.
pub(super) fn value(to: u32, bytes: Vec<u8>) -> E {
    E::Value { to, bytes }
}

pub(super) fn snat(address: IpAddr, ports: Option<(u16, u16)>) -> Vec<E> {
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

pub(super) fn dnat(address: IpAddr, port: u16) -> Vec<E> {
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

pub(super) fn state_bits(state: CtState) -> u32 {
    match state {
        CtState::EstablishedOrRelated => STATE_ESTABLISHED | STATE_RELATED,
        CtState::Established => STATE_ESTABLISHED,
        CtState::Invalid => STATE_INVALID,
        CtState::Untracked => STATE_UNTRACKED,
    }
}

pub(super) fn nfproto(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 2,
        Family::Ipv6 => 10,
    }
}

pub(super) fn operator(negate: bool) -> u32 {
    if negate { NOT_EQUAL } else { EQUAL }
}
