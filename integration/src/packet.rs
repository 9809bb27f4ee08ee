//! First packets of connections, byte by byte: what the kernel has no socket for (SCTP), or would
//! follow up on by itself.

use std::net::IpAddr;

/// `IPPROTO_*`
pub const ICMP: u8 = 1;
/// `IPPROTO_*`
pub const TCP: u8 = 6;
/// `IPPROTO_*`
pub const UDP: u8 = 17;
/// `IPPROTO_*`
pub const GRE: u8 = 47;
/// `IPPROTO_*`
pub const ICMPV6: u8 = 58;
/// `IPPROTO_*`
pub const SCTP: u8 = 132;

/// RFC 9260, section 3.2.
pub(crate) const SCTP_INIT: u8 = 1;
/// RFC 9260, section 3.2.
pub(crate) const SCTP_INIT_ACK: u8 = 2;
/// RFC 9260, section 3.3.3.1: the parameter that a peer has to send back.
const STATE_COOKIE: u16 = 7;
/// Common header, chunk header, and the fixed part of INIT and INIT ACK.
const SCTP_FIXED: usize = 12 + 4 + 16;
const TCP_SYN: u8 = 2;
const HOP_LIMIT: u8 = 64;

/// The first packet of a connection, from its L4 header on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First {
    /// Source address: it is in checksums.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// L4 protocol number.
    pub protocol: u8,
    /// Source and destination port, of TCP, UDP and SCTP.
    pub ports: (u16, u16),
    /// Type and code, of ICMP and ICMPv6.
    pub icmp: (u8, u8),
    /// Comes back from [`number_of`]. Not 0, which no SCTP association has.
    pub number: u32,
}

impl First {
    /// The bytes after the IP header: a SYN, a datagram, an INIT, an ICMP message; anything else
    /// is a header of GRE.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![];
        bytes.extend(self.ports.0.to_be_bytes());
        bytes.extend(self.ports.1.to_be_bytes());
        let number = self.number.to_be_bytes();
        match self.protocol {
            TCP => {
                bytes.extend(number);
                bytes.extend([0; 4]);
                bytes.extend([5 << 4, TCP_SYN, 0xff, 0xff, 0, 0, 0, 0]);
                self.put_checksum(&mut bytes, 16);
            }
            UDP => {
                bytes.extend([0, 12, 0, 0]);
                bytes.extend(number);
                self.put_checksum(&mut bytes, 6);
            }
            SCTP => return sctp(self.ports, 0, SCTP_INIT, self.number, &[]),
            ICMP | ICMPV6 => {
                bytes = vec![self.icmp.0, self.icmp.1, 0, 0];
                bytes.extend(number);
                // Messages that are longer than an echo are longer by this.
                bytes.extend([0; 16]);
                self.put_checksum(&mut bytes, 2);
            }
            _ => {
                bytes = vec![0, 0, 8, 0];
                bytes.extend(number);
            }
        }
        bytes
    }

    /// Likewise, with an IP header. The kernel fills in what is left out of that of IPv4.
    pub fn with_ip_header(&self) -> Vec<u8> {
        let payload = self.bytes();
        let length = payload.len() as u16;
        let mut bytes = match self.destination {
            IpAddr::V4(_) => {
                let mut header = vec![0x45, 0];
                header.extend((20 + length).to_be_bytes());
                header.extend([0, 0, 0, 0, HOP_LIMIT, self.protocol, 0, 0]);
                header
            }
            IpAddr::V6(_) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(length.to_be_bytes());
                header.extend([self.protocol, HOP_LIMIT]);
                header
            }
        };
        bytes.extend(octets(self.source));
        bytes.extend(octets(self.destination));
        bytes.extend(payload);
        bytes
    }

    fn put_checksum(&self, bytes: &mut [u8], at: usize) {
        let mut sum = match self.protocol {
            ICMP => 0,
            protocol => {
                let length = bytes.len() as u32;
                words(&octets(self.source))
                    + words(&octets(self.destination))
                    + u32::from(protocol)
                    + length
            }
        };
        sum += words(bytes);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        bytes[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn words(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    let word = |two: &[u8]| {
        let low = two.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([two[0], low]))
    };
    words.map(word).sum()
}

/// The number in a packet that [`First`] made; none in any other, answers to it among them.
pub fn number_of(protocol: u8, bytes: &[u8]) -> Option<u32> {
    let at = match protocol {
        TCP if bytes.get(13) == Some(&TCP_SYN) => 4,
        UDP if bytes.len() == 12 => 8,
        SCTP if bytes.get(12) == Some(&SCTP_INIT) => 16,
        ICMP | ICMPV6 | GRE => 4,
        _ => return None,
    };
    let number = bytes.get(at..at + 4)?;
    number.try_into().ok().map(u32::from_be_bytes)
}

/// An SCTP packet with an INIT or INIT ACK; `cookie` is carried as the state cookie.
pub(crate) fn sctp(
    (source, destination): (u16, u16),
    verification_tag: u32,
    chunk: u8,
    initiate_tag: u32,
    cookie: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SCTP_FIXED + 4 + cookie.len());
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend(verification_tag.to_be_bytes());
    bytes.extend([0; 4]);
    let parameter = if cookie.is_empty() {
        0
    } else {
        4 + cookie.len()
    };
    bytes.extend([chunk, 0]);
    bytes.extend((20 + parameter as u16).to_be_bytes());
    bytes.extend(initiate_tag.to_be_bytes());
    // Window, streams out and in, first TSN.
    bytes.extend(65_536_u32.to_be_bytes());
    bytes.extend([0, 1, 0, 1]);
    bytes.extend(initiate_tag.to_be_bytes());
    if !cookie.is_empty() {
        bytes.extend(STATE_COOKIE.to_be_bytes());
        bytes.extend((parameter as u16).to_be_bytes());
        bytes.extend(cookie);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let checksum = crc32c(&bytes);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// What matters of an SCTP packet with an INIT or INIT ACK.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SctpInit<'a> {
    pub(crate) ports: (u16, u16),
    pub(crate) verification_tag: u32,
    pub(crate) chunk: u8,
    pub(crate) initiate_tag: u32,
    pub(crate) cookie: &'a [u8],
}

/// Reads one that [`sctp`] made.
pub(crate) fn sctp_init(bytes: &[u8]) -> Option<SctpInit<'_>> {
    let two = |at: usize| {
        let two = bytes.get(at..at + 2)?;
        two.try_into().ok().map(u16::from_be_bytes)
    };
    let four = |at: usize| {
        let four = bytes.get(at..at + 4)?;
        four.try_into().ok().map(u32::from_be_bytes)
    };
    let cookie = match (two(SCTP_FIXED), two(SCTP_FIXED + 2)) {
        (Some(STATE_COOKIE), Some(length)) => {
            bytes.get(SCTP_FIXED + 4..SCTP_FIXED + usize::from(length))?
        }
        _ => &[],
    };
    Some(SctpInit {
        ports: (two(0)?, two(2)?),
        verification_tag: four(4)?,
        chunk: *bytes.get(12)?,
        initiate_tag: four(16)?,
        cookie,
    })
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_sctp_is_that_of_castagnoli() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_number_survives_in_every_protocol_and_is_in_no_answer() {
        for protocol in [ICMP, TCP, UDP, GRE, ICMPV6, SCTP] {
            let first = First {
                source: [10, 0, 0, 1].into(),
                destination: [10, 0, 0, 2].into(),
                protocol,
                ports: (40_000, 80),
                icmp: (8, 0),
                number: 0xdead_beef,
            };
            assert_eq!(number_of(protocol, &first.bytes()), Some(0xdead_beef));
        }
        let answer = sctp((80, 40_000), 7, SCTP_INIT_ACK, 9, b"web");
        assert_eq!(number_of(SCTP, &answer), None);
        let init = sctp_init(&answer).unwrap();
        assert_eq!((init.verification_tag, init.cookie), (7, &b"web"[..]));
    }

    #[test]
    fn a_sum_over_a_packet_with_its_checksum_is_all_ones() {
        let first = First {
            source: "fd00::1".parse().unwrap(),
            destination: "fd00::2".parse().unwrap(),
            protocol: TCP,
            ports: (40_000, 80),
            icmp: (0, 0),
            number: 77,
        };
        let bytes = first.bytes();
        let pseudo = words(&octets(first.source)) + words(&octets(first.destination));
        let mut sum = pseudo + u32::from(TCP) + bytes.len() as u32 + words(&bytes);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        assert_eq!(sum, 0xffff);
    }
}
