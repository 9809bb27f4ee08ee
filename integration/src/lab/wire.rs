//! What captured packets say, outside and inside.

use super::capture::Recording;
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const LINK_TYPE_ETHERNET: u32 = 1;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_IPV4: u8 = 4;
const PROTOCOL_IPV6: u8 = 41;
const PROTOCOL_UDP: u8 = 17;
const FRAGMENT_HEADER: u8 = 44;
const VXLAN_PORT: u16 = 4789;
/// UDP, VXLAN and the inner Ethernet header.
const VXLAN_HEADERS: usize = 8 + 8 + 14;

/// How a packet is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrapping {
    /// IP in IP, either family in either (protocols 4 and 41).
    IpInIp,
    /// VXLAN (RFC 7348).
    Vxlan,
}

/// An IP header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// TTL, or hop limit.
    pub ttl: u8,
    /// TOS, or traffic class: DSCP and ECN.
    pub tos: u8,
    /// Must not be fragmented. Always true of IPv6 packets.
    pub df: bool,
    /// A part of a packet.
    pub fragment: bool,
    /// Of what it carries.
    pub protocol: u8,
    /// Octets with the header; more than the MTU where the kernel splits later (GSO).
    pub length: usize,
}

/// An IP packet, or one inside another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// What is around it.
    pub outer: Option<(Wrapping, Header)>,
    /// The packet itself.
    pub inner: Header,
}

impl Recording {
    /// All IP packets, as they were on the wire.
    ///
    /// # Errors
    /// The file is no capture of an Ethernet interface.
    pub fn wire(&self) -> Result<Vec<Packet>> {
        let bytes = std::fs::read(self.file()).context("the capture")?;
        let word = |at: usize| -> Option<u32> {
            Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        ensure!(
            word(0) == Some(0xa1b2_c3d4) && word(20) == Some(LINK_TYPE_ETHERNET),
            "not a capture of an Ethernet interface"
        );
        let mut packets = Vec::new();
        let mut at = 24;
        while let Some(length) = word(at + 8) {
            let start = at + 16;
            let end = start + usize::try_from(length)?;
            // The last record of a capture that was cut off.
            let Some(frame) = bytes.get(start..end) else {
                break;
            };
            packets.extend(ethernet(frame));
            at = end;
        }
        Ok(packets)
    }
}

fn ethernet(frame: &[u8]) -> Option<Packet> {
    let kind = u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?);
    [ETHERTYPE_IPV4, ETHERTYPE_IPV6]
        .contains(&kind)
        .then(|| packet(&frame[14..]))?
}

fn packet(bytes: &[u8]) -> Option<Packet> {
    let (header, payload) = ip(bytes)?;
    if header.fragment {
        return Some(plain(header));
    }
    let wrapped = match header.protocol {
        PROTOCOL_IPV4 | PROTOCOL_IPV6 => Some((Wrapping::IpInIp, ip(payload)?.0)),
        PROTOCOL_UDP if port(payload, 2)? == VXLAN_PORT => {
            Some((Wrapping::Vxlan, ip(payload.get(VXLAN_HEADERS..)?)?.0))
        }
        _ => None,
    };
    Some(match wrapped {
        Some((wrapping, inner)) => Packet {
            outer: Some((wrapping, header)),
            inner,
        },
        None => plain(header),
    })
}

fn plain(inner: Header) -> Packet {
    Packet { outer: None, inner }
}

fn port(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The header, and what follows it.
fn ip(bytes: &[u8]) -> Option<(Header, &[u8])> {
    match bytes.first()? >> 4 {
        4 => ipv4(bytes),
        6 => ipv6(bytes),
        _ => None,
    }
}

fn ipv4(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets).into())
    };
    let flags = port(bytes, 6)?;
    let header = Header {
        source: address(12)?,
        destination: address(16)?,
        ttl: bytes[8],
        tos: bytes[1],
        df: flags & 0x4000 != 0,
        fragment: flags & 0x3fff != 0,
        protocol: bytes[9],
        length: port(bytes, 2)?.into(),
    };
    let payload = bytes.get(usize::from(bytes[0] & 15) * 4..)?;
    Some((header, payload))
}

fn ipv6(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets).into())
    };
    let next = *bytes.get(6)?;
    let fragment = next == FRAGMENT_HEADER;
    let header = Header {
        source: address(8)?,
        destination: address(24)?,
        ttl: bytes[7],
        tos: bytes[0] << 4 | bytes[1] >> 4,
        df: true,
        fragment,
        protocol: if fragment { *bytes.get(40)? } else { next },
        length: usize::from(port(bytes, 4)?) + 40,
    };
    Some((header, bytes.get(40..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let length = (20 + payload.len()) as u16;
        let mut bytes = vec![0x45, 0x28, 0, 0, 0, 0, 0x40, 0, 63, protocol, 0, 0];
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn what_is_inside_a_tunnel_is_told_from_what_is_around_it() {
        let inner = v4(1, &[8; 8]);
        let bare = packet(&inner).unwrap();
        assert_eq!(bare.outer, None);
        assert_eq!(
            (bare.inner.ttl, bare.inner.tos, bare.inner.df),
            (63, 0x28, true)
        );
        let ipip = packet(&v4(4, &inner)).unwrap();
        assert_eq!(ipip.inner, bare.inner);
        assert_eq!(ipip.outer.as_ref().unwrap().0, Wrapping::IpInIp);
        let mut vxlan = vec![0; VXLAN_HEADERS];
        vxlan[2..4].copy_from_slice(&VXLAN_PORT.to_be_bytes());
        vxlan.extend(&inner);
        let vxlan = packet(&v4(17, &vxlan)).unwrap();
        assert_eq!(vxlan.inner, bare.inner);
        assert_eq!(vxlan.outer.unwrap().1.length, 28 + VXLAN_HEADERS + 20);
    }

    #[test]
    fn a_frame_that_is_cut_off_is_no_packet() {
        let whole = v4(4, &v4(1, &[8; 8]));
        for length in 0..40 {
            assert_eq!(packet(&whole[..length]), None);
        }
    }
}
