//! Address arithmetic on both families at once.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address as a number.
pub(crate) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The address of `like`'s family with this number.
pub(crate) fn address(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(number as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// Number of host bits.
pub(crate) fn host_bits(net: IpNet) -> u8 {
    net.max_prefix_len() - net.prefix_len()
}

/// The prefix of this length that holds the address; the length is capped at the family's.
pub(crate) fn prefix_of(ip: IpAddr, length: u8) -> IpNet {
    let max = if ip.is_ipv4() { 32 } else { 128 };
    IpNet::new(ip, length.min(max))
        .expect("invariant: the length was capped")
        .trunc()
}

/// True where the two share an address.
pub(crate) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}
