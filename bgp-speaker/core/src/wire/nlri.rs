//! Prefixes as RFC 4271 section 4.3 and RFC 4760 section 5 write them, with the path identifiers
//! of RFC 7911.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::reader::Reader;
use super::{Family, Nlri};

/// The unicast families, whose prefixes can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unicast {
    V4,
    V6,
}

impl Unicast {
    pub(super) fn of(family: Family) -> Option<Self> {
        match family {
            Family::IPV4 => Some(Self::V4),
            Family::IPV6 => Some(Self::V6),
            _ => None,
        }
    }
}

/// Reads all of `bytes` as prefixes and appends them; host bits are cleared.
/// `Err` says what is wrong: there is then no telling where the next prefix begins.
pub(super) fn decode(
    bytes: &[u8],
    family: Unicast,
    add_path: bool,
    out: &mut Vec<Nlri>,
) -> Result<(), &'static str> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let path_id = if add_path {
            reader.u32().ok_or("a path identifier is cut short")?
        } else {
            0
        };
        let length = reader.u8().ok_or("a prefix is cut short")?;
        let prefix = match family {
            Unicast::V4 => {
                let address = prefix_octets::<4>(&mut reader, length)?;
                Ipv4Net::new(address.into(), length).map(|net| IpNet::V4(net.trunc()))
            }
            Unicast::V6 => {
                let address = prefix_octets::<16>(&mut reader, length)?;
                Ipv6Net::new(address.into(), length).map(|net| IpNet::V6(net.trunc()))
            }
        }
        .map_err(|_| "a prefix is longer than its family allows")?;
        out.push(Nlri { prefix, path_id });
    }
    Ok(())
}

fn prefix_octets<const N: usize>(
    reader: &mut Reader<'_>,
    length: u8,
) -> Result<[u8; N], &'static str> {
    let mut address = [0; N];
    let count = usize::from(length).div_ceil(8);
    let target = address
        .get_mut(..count)
        .ok_or("a prefix is longer than its family allows")?;
    target.copy_from_slice(reader.take(count).ok_or("a prefix is cut short")?);
    Ok(address)
}

/// Octets that `nlri` takes on the wire.
pub(super) fn encoded_length(nlri: &Nlri, add_path: bool) -> usize {
    let path_id = if add_path { 4 } else { 0 };
    path_id + 1 + usize::from(nlri.prefix.prefix_len()).div_ceil(8)
}

/// Appends one prefix.
pub(super) fn encode(nlri: &Nlri, add_path: bool, out: &mut Vec<u8>) {
    if add_path {
        out.extend_from_slice(&nlri.path_id.to_be_bytes());
    }
    let length = nlri.prefix.prefix_len();
    let count = usize::from(length).div_ceil(8);
    out.push(length);
    let octets: &[u8] = match nlri.prefix {
        IpNet::V4(net) => &net.network().octets(),
        IpNet::V6(net) => &net.network().octets(),
    };
    out.extend_from_slice(octets.get(..count).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], family: Unicast, add_path: bool) -> Result<Vec<String>, &'static str> {
        let mut out = Vec::new();
        decode(bytes, family, add_path, &mut out)?;
        Ok(out
            .iter()
            .map(|nlri| format!("{}#{}", nlri.prefix, nlri.path_id))
            .collect())
    }

    #[test]
    fn host_bits_are_cleared() {
        assert_eq!(
            read(&[17, 10, 255, 255], Unicast::V4, false).unwrap(),
            ["10.255.128.0/17#0"]
        );
        assert_eq!(
            read(&[3, 0xff], Unicast::V6, false).unwrap(),
            ["e000::/3#0"]
        );
    }

    #[test]
    fn path_identifiers_are_read_where_they_were_agreed_on() {
        let bytes = [0, 0, 0, 7, 0, 0, 0, 0, 8, 8, 10];
        assert_eq!(
            read(&bytes, Unicast::V4, true).unwrap(),
            ["0.0.0.0/0#7", "10.0.0.0/8#8"]
        );
    }

    #[test]
    fn prefixes_out_of_bounds_are_refused() {
        for (bytes, family) in [
            (&[33, 1, 2, 3, 4, 5][..], Unicast::V4),
            (&[255; 40][..], Unicast::V6),
            (&[129; 20][..], Unicast::V6),
            (&[24, 10, 0][..], Unicast::V4),
            (&[128, 0x20, 1][..], Unicast::V6),
        ] {
            assert!(read(bytes, family, false).is_err(), "{bytes:?}");
        }
        assert!(read(&[0, 0, 0], Unicast::V4, true).is_err());
        assert!(read(&[0, 0, 0, 1], Unicast::V4, true).is_err());
    }
}
