//! The headers of a packet that a rule logged: as much as names the flow.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// What the headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// L4 protocol (`IPPROTO_*`).
    pub protocol: u8,
    /// Source and destination port, of protocols that have ports, in the first fragment.
    pub ports: Option<(u16, u16)>,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// Where the payload of the L4 header begins; of UDP only.
    pub payload: Option<usize>,
}

impl Header {
    /// Reads the start of a packet; `None` where it is too short or no IP.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => None,
        }
    }

    fn parse_v4(bytes: &[u8]) -> Option<Self> {
        let length = usize::from(bytes[0] & 0xf) * 4;
        let fragment = u16::from_be_bytes(bytes.get(6..8)?.try_into().ok()?) & 0x1fff;
        let address = |at: usize| <[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok();
        let header = Self {
            source: Ipv4Addr::from(address(12)?).into(),
            destination: Ipv4Addr::from(address(16)?).into(),
            protocol: bytes[9],
            ports: None,
            icmp: None,
            payload: None,
        };
        Some(match fragment {
            0 if length >= 20 => header.with_l4(bytes, length),
            _ => header,
        })
    }

    /// Extension headers are stepped over (RFC 8200 section 4).
    fn parse_v6(bytes: &[u8]) -> Option<Self> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const DESTINATION: u8 = 60;
        let address = |at: usize| <[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok();
        let mut header = Self {
            source: Ipv6Addr::from(address(8)?).into(),
            destination: Ipv6Addr::from(address(24)?).into(),
            protocol: bytes[6],
            ports: None,
            icmp: None,
            payload: None,
        };
        let mut at = 40;
        loop {
            let length = match header.protocol {
                HOP_BY_HOP | ROUTING | DESTINATION => {
                    let Some(length) = bytes.get(at + 1) else {
                        return Some(header);
                    };
                    8 + usize::from(*length) * 8
                }
                FRAGMENT => {
                    let first = bytes.get(at + 2..at + 4).is_some_and(|field| {
                        u16::from_be_bytes([field[0], field[1]]) & 0xfff8 == 0
                    });
                    if !first {
                        header.protocol = bytes.get(at).copied().unwrap_or(FRAGMENT);
                        return Some(header);
                    }
                    8
                }
                _ => return Some(header.with_l4(bytes, at)),
            };
            header.protocol = bytes[at];
            at += length;
            if at >= bytes.len() {
                return Some(header);
            }
        }
    }

    fn with_l4(mut self, bytes: &[u8], at: usize) -> Self {
        let field = |at: usize| {
            let bytes = bytes.get(at..at + 2)?;
            Some(u16::from_be_bytes([bytes[0], bytes[1]]))
        };
        match self.protocol {
            TCP | UDP | SCTP | UDP_LITE => self.ports = field(at).zip(field(at + 2)),
            ICMP | ICMPV6 => self.icmp = bytes.get(at).copied().zip(bytes.get(at + 1).copied()),
            _ => {}
        }
        let payload = at + 8;
        self.payload = (self.protocol == UDP && payload <= bytes.len()).then_some(payload);
        self
    }
}

/// `tcp/80`, `icmp type 8 code 0`, `protocol 47`.
impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.protocol {
            ICMP => "icmp",
            TCP => "tcp",
            UDP => "udp",
            ICMPV6 => "icmpv6",
            SCTP => "sctp",
            other => return write!(f, "protocol {other}"),
        };
        f.write_str(name)?;
        if let Some((_, port)) = self.ports {
            write!(f, "/{port}")?;
        }
        if let Some((kind, code)) = self.icmp {
            write!(f, " type {kind} code {code}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(protocol: u8, l4: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend(l4);
        bytes
    }

    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        bytes.extend(Ipv6Addr::LOCALHOST.octets());
        bytes.extend(Ipv6Addr::LOCALHOST.octets());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn ports_and_types_are_read_where_they_are() {
        let syn = [0x9c, 0x40, 0, 80, 0, 0, 0, 0];
        let extended = [TCP, 0, 0, 0, 0, 0, 0, 0, 0x9c, 0x40, 0, 80];
        let first_fragment = [UDP, 0, 0, 1, 0, 0, 0, 0, 0x9c, 0x40, 0, 53];
        let later_fragment = [UDP, 0, 0, 9, 0, 0, 0, 0, 0x9c, 0x40, 0, 53];
        for (packet, expected) in [
            (v4(TCP, &syn), "tcp/80"),
            (v4(ICMP, &[8, 0]), "icmp type 8 code 0"),
            (v4(47, &syn), "protocol 47"),
            (v4(TCP, &[]), "tcp"),
            (v6(TCP, &syn), "tcp/80"),
            (v6(0, &extended), "tcp/80"),
            (v6(44, &first_fragment), "udp/53"),
            (v6(44, &later_fragment), "udp"),
            (v6(ICMPV6, &[128, 0]), "icmpv6 type 128 code 0"),
        ] {
            assert_eq!(
                Header::parse(&packet).map(|h| h.to_string()).as_deref(),
                Some(expected)
            );
        }
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let mut packet = v4(UDP, &[0x9c, 0x40, 0, 53]);
        packet[7] = 8;
        assert_eq!(Header::parse(&packet).and_then(|h| h.ports), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::parse(&bytes);
        }
    }
}
