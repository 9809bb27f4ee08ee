//! A DNS message (RFC 1035 section 4): its question, and the addresses that it answers with.

use std::collections::BTreeSet;
use std::net::IpAddr;

const HEADER: usize = 12;
/// `QR` and `RCODE` of the flags.
const ANSWER: u16 = 0x8000;
const RESPONSE_CODE: u16 = 0x000f;
const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
const CLASS_INTERNET: u16 = 1;
/// RFC 1035 section 2.3.4.
const MAX_NAME: usize = 255;
/// Records that are looked at; an honest answer over UDP has fewer.
const MAX_RECORDS: usize = 512;

/// What of a message counts here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: u16,
    pub(super) is_answer: bool,
    /// The name that was asked for, in lower case, without a final dot.
    pub(super) question: String,
    /// Addresses of the question's name, also by way of CNAMEs, with their time to live in
    /// seconds: the least on the way.
    pub(super) addresses: Vec<(IpAddr, u32)>,
}

impl Message {
    /// `None` for anything but a question of one name, or a successful answer to one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let flags = u16_at(bytes, 2)?;
        let is_answer = flags & ANSWER != 0;
        if u16_at(bytes, 4)? != 1 || is_answer && flags & RESPONSE_CODE != 0 {
            return None;
        }
        let mut at = HEADER;
        let question = name(bytes, &mut at)?;
        at += 4;
        let mut message = Self {
            id: u16_at(bytes, 0)?,
            is_answer,
            question,
            addresses: Vec::new(),
        };
        if is_answer {
            let count = usize::from(u16_at(bytes, 6)?).min(MAX_RECORDS);
            message.addresses = addresses(bytes, at, count, &message.question);
        }
        Some(message)
    }
}

/// The addresses of `question`. CNAMEs come before what they lead to, in every answer that a
/// resolver sends; one that comes later is not followed.
fn addresses(bytes: &[u8], mut at: usize, count: usize, question: &str) -> Vec<(IpAddr, u32)> {
    let mut aliases = BTreeSet::from([question.to_owned()]);
    let mut least = u32::MAX;
    let mut found = Vec::new();
    for _ in 0..count {
        let Some(record) = record(bytes, &mut at) else {
            break;
        };
        if record.class != CLASS_INTERNET || !aliases.contains(&record.name) {
            continue;
        }
        // A time to live with its first bit set is zero (RFC 2181 section 8).
        let lifetime = if record.lifetime >> 31 == 0 {
            record.lifetime
        } else {
            0
        };
        let address = match record.kind {
            TYPE_CNAME => {
                let mut target = record.data_at;
                if let Some(target) = name(bytes, &mut target) {
                    aliases.insert(target);
                    least = least.min(lifetime);
                }
                continue;
            }
            TYPE_A => <[u8; 4]>::try_from(record.data).map(IpAddr::from).ok(),
            TYPE_AAAA => <[u8; 16]>::try_from(record.data).map(IpAddr::from).ok(),
            _ => None,
        };
        found.extend(address.map(|address| (address, lifetime.min(least))));
    }
    found
}

struct Record<'a> {
    name: String,
    kind: u16,
    class: u16,
    lifetime: u32,
    data: &'a [u8],
    data_at: usize,
}

fn record<'a>(bytes: &'a [u8], at: &mut usize) -> Option<Record<'a>> {
    let name = name(bytes, at)?;
    let length = usize::from(u16_at(bytes, *at + 8)?);
    let data_at = *at + 10;
    let record = Record {
        name,
        kind: u16_at(bytes, *at)?,
        class: u16_at(bytes, *at + 2)?,
        lifetime: u32::from(u16_at(bytes, *at + 4)?) << 16 | u32::from(u16_at(bytes, *at + 6)?),
        data: bytes.get(data_at..data_at + length)?,
        data_at,
    };
    *at = data_at + length;
    Some(record)
}

/// A name, and where what follows it begins. A pointer (RFC 1035 section 4.1.4) leads backwards
/// only, so that there is no loop.
fn name(bytes: &[u8], at: &mut usize) -> Option<String> {
    let mut name = String::new();
    let mut from = *at;
    let mut after = None;
    let mut bound = from;
    loop {
        let length = usize::from(*bytes.get(from)?);
        match length {
            0 => {
                *at = after.unwrap_or(from + 1);
                return Some(name);
            }
            1..=63 => {
                let label = bytes.get(from + 1..from + 1 + length)?;
                if !name.is_empty() {
                    name.push('.');
                }
                // A dot or a byte that is no letter inside a label must not look like another name.
                let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'.';
                if !label.iter().all(plain) || name.len() + length > MAX_NAME {
                    return None;
                }
                let text = label
                    .iter()
                    .map(|byte| char::from(byte.to_ascii_lowercase()));
                name.extend(text);
                from += 1 + length;
            }
            192.. => {
                let target = (length & 63) << 8 | usize::from(*bytes.get(from + 1)?);
                after.get_or_insert(from + 2);
                if target >= bound {
                    return None;
                }
                (from, bound) = (target, target);
            }
            _ => return None,
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}
