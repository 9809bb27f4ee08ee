//! BGP messages as a load generator needs them: built before the clock starts, and read no further
//! than to the prefixes. Independent of `bgp-core`, which is what is measured.

use anyhow::{Result, bail, ensure};
use std::io::{ErrorKind, Read};
use std::net::Ipv4Addr;
use std::ops::Range;

pub(super) const OPEN: u8 = 1;
pub(super) const UPDATE: u8 = 2;
pub(super) const NOTIFICATION: u8 = 3;
pub(super) const KEEPALIVE: u8 = 4;

/// Octets of a header.
const HEADER: usize = 19;
/// The longest message.
const LONGEST: usize = 4096;
/// Octets of an UPDATE besides attributes and prefixes.
const FIXED: usize = HEADER + 4;
/// The first prefix, 20.0.0.0/24, without its last octet.
const FIRST: u32 = 20 << 16;

/// Prefix `number`: /24s that follow each other.
fn prefix(number: u32) -> [u8; 4] {
    let [_, a, b, c] = (FIRST + number).to_be_bytes();
    [24, a, b, c]
}

/// The number of a prefix, if it is one of ours.
fn number(length: u8, address: u32) -> Option<u32> {
    (length == 24).then(|| (address >> 8).checked_sub(FIRST))?
}

fn message(kind: u8, body: &[&[u8]], out: &mut Vec<u8>) {
    let length = HEADER + body.iter().map(|part| part.len()).sum::<usize>();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&(length as u16).to_be_bytes());
    out.push(kind);
    for part in body {
        out.extend_from_slice(part);
    }
}

/// An OPEN with IPv4 unicast, route refresh and four-octet AS numbers.
pub(super) fn open(asn: u32, hold_time: u16, id: Ipv4Addr) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 2, 0, 65, 4];
    capabilities.extend_from_slice(&asn.to_be_bytes());
    let length = capabilities.len() as u8;
    let short = u16::try_from(asn).unwrap_or(23456).to_be_bytes();
    let mut out = Vec::new();
    let parameters = [length + 2, 2, length];
    let body: [&[u8]; 6] = [
        &[4],
        &short,
        &hold_time.to_be_bytes(),
        &id.octets(),
        &parameters,
        &capabilities,
    ];
    message(OPEN, &body, &mut out);
    out
}

pub(super) fn keepalive() -> Vec<u8> {
    let mut out = Vec::new();
    message(KEEPALIVE, &[], &mut out);
    out
}

/// Who announces: it decides AS_PATH and NEXT_HOP.
#[derive(Debug, Clone, Copy)]
pub(super) struct Announcer {
    pub(super) asn: u32,
    pub(super) ibgp: bool,
    pub(super) address: Ipv4Addr,
}

impl Announcer {
    /// Attribute set `set`: ORIGIN, AS_PATH, NEXT_HOP, MULTI_EXIT_DISC, LOCAL_PREF within an AS,
    /// three COMMUNITIES.
    fn attributes(&self, set: u32) -> Vec<u8> {
        let mut path = vec![100_000 + set % 97, 200_000 + set % 9973, 300_000 + set];
        if !self.ibgp {
            path.insert(0, self.asn);
        }
        let mut value = vec![2, path.len() as u8];
        value.extend(path.into_iter().flat_map(u32::to_be_bytes));
        let communities: Vec<u8> = (0..3)
            .flat_map(|k| (((64_900 + k) << 16) | ((set + 7 * k) & 0xffff)).to_be_bytes())
            .collect();
        let mut out = Vec::with_capacity(80);
        let mut put = |flags: u8, code: u8, value: &[u8]| {
            out.extend_from_slice(&[flags, code, value.len() as u8]);
            out.extend_from_slice(value);
        };
        put(0x40, 1, &[0]);
        put(0x40, 2, &value);
        put(0x40, 3, &self.address.octets());
        put(0x80, 4, &(set & 0xffff).to_be_bytes());
        if self.ibgp {
            put(0x40, 5, &100_u32.to_be_bytes());
        }
        put(0xc0, 8, &communities);
        out
    }

    /// UPDATEs that announce these prefixes, `per_set` of them with each attribute set.
    pub(super) fn announce(&self, prefixes: Range<u32>, per_set: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(prefixes.len() * 16);
        let mut next = prefixes.start;
        while next < prefixes.end {
            let attributes = self.attributes(next / per_set);
            let end = prefixes.end.min((next / per_set + 1) * per_set);
            let room = (LONGEST - FIXED - attributes.len()) as u32 / 4;
            let end = end.min(next + room);
            let nlri: Vec<u8> = (next..end).flat_map(prefix).collect();
            let length = (attributes.len() as u16).to_be_bytes();
            message(UPDATE, &[&[0; 2], &length, &attributes, &nlri], &mut out);
            next = end;
        }
        out
    }
}

/// UPDATEs that withdraw these prefixes.
pub(super) fn withdraw(prefixes: Range<u32>) -> Vec<u8> {
    let numbers: Vec<u32> = prefixes.collect();
    let mut out = Vec::with_capacity(numbers.len() * 5);
    for part in numbers.chunks((LONGEST - FIXED) / 4) {
        let nlri: Vec<u8> = part.iter().copied().flat_map(prefix).collect();
        let length = (nlri.len() as u16).to_be_bytes();
        message(UPDATE, &[&length, &nlri, &[0; 2]], &mut out);
    }
    out
}

/// Cuts a connection's octets into messages.
#[derive(Debug)]
pub(super) struct Messages<R> {
    from: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Messages<R> {
    /// With room for `capacity` octets, two messages at least.
    pub(super) fn new(from: R, capacity: usize) -> Self {
        Self {
            from,
            buffer: vec![0; capacity.max(2 * LONGEST)],
            start: 0,
            end: 0,
        }
    }

    /// Type and body of the next message; `None` at the end of the connection.
    pub(super) fn next(&mut self) -> Result<Option<(u8, &[u8])>> {
        let length = loop {
            let have = &self.buffer[self.start..self.end];
            if let Some(&[a, b]) = have.get(16..18) {
                let length = usize::from(u16::from_be_bytes([a, b]));
                ensure!(
                    (HEADER..=LONGEST).contains(&length),
                    "a message of {length}"
                );
                if have.len() >= length {
                    break length;
                }
            }
            if !self.fill()? {
                return Ok(None);
            }
        };
        let message = &self.buffer[self.start..self.start + length];
        self.start += length;
        Ok(Some((message[HEADER - 1], &message[HEADER..])))
    }

    fn fill(&mut self) -> Result<bool> {
        if self.buffer.len() - self.end < LONGEST {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        loop {
            match self.from.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.end += count;
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What an UPDATE says about our prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Announced(u32),
    Withdrawn(u32),
}

/// Reads the body of an UPDATE, also one that uses the multiprotocol attributes for IPv4.
pub(super) fn read_update(body: &[u8], mut said: impl FnMut(Said)) -> Result<()> {
    let (withdrawn, rest) = block(body)?;
    let (mut attributes, nlri) = block(rest)?;
    prefixes(withdrawn, |number| said(Said::Withdrawn(number)))?;
    prefixes(nlri, |number| said(Said::Announced(number)))?;
    while nlri.is_empty() && attributes.len() >= 3 {
        let long = attributes[0] & 0x10 != 0;
        let (value, rest) = if long {
            block(&attributes[2..])?
        } else {
            let length = usize::from(attributes[2]);
            ensure!(attributes.len() >= 3 + length, "a torn attribute");
            attributes[3..].split_at(length)
        };
        match (attributes[1], value) {
            (14, [0, 1, 1, length, rest @ ..]) if rest.len() > usize::from(*length) => {
                let nlri = &rest[usize::from(*length) + 1..];
                prefixes(nlri, |number| said(Said::Announced(number)))?;
            }
            (15, [0, 1, 1, nlri @ ..]) => {
                prefixes(nlri, |number| said(Said::Withdrawn(number)))?;
            }
            _ => {}
        }
        attributes = rest;
    }
    Ok(())
}

/// A block that is preceded by its length, and what follows.
fn block(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>().unwrap_or((&[0; 2], &[]));
    let length = usize::from(u16::from_be_bytes(*length));
    match rest.split_at_checked(length) {
        Some(parts) => Ok(parts),
        None => bail!("a torn UPDATE"),
    }
}

fn prefixes(mut bytes: &[u8], mut said: impl FnMut(u32)) -> Result<()> {
    while let [length, rest @ ..] = bytes {
        let octets = usize::from(*length).div_ceil(8);
        ensure!(octets <= 4 && octets <= rest.len(), "a torn prefix");
        let mut address = [0; 4];
        address[..octets].copy_from_slice(&rest[..octets]);
        if let Some(number) = number(*length, u32::from_be_bytes(address)) {
            said(number);
        }
        bytes = &rest[octets..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(stream: &[u8]) -> Vec<Said> {
        let mut messages = Messages::new(stream, 0);
        let mut all = Vec::new();
        while let Some((kind, body)) = messages.next().expect("sound messages") {
            assert_eq!(kind, UPDATE);
            read_update(body, |said| all.push(said)).expect("a sound UPDATE");
        }
        all
    }

    #[test]
    fn what_is_built_is_read_again() {
        let announcer = Announcer {
            asn: 65001,
            ibgp: false,
            address: Ipv4Addr::new(10, 99, 0, 2),
        };
        let announced: Vec<Said> = (3..5000).map(Said::Announced).collect();
        for per_set in [8, 5000] {
            assert_eq!(said(&announcer.announce(3..5000, per_set)), announced);
        }
        let withdrawn: Vec<Said> = (3..5000).map(Said::Withdrawn).collect();
        assert_eq!(said(&withdraw(3..5000)), withdrawn);
    }
}
