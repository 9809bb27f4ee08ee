//! The syntax of single values. Each check answers what the value should be, with its article, so
//! that `"X" is not ANSWER` is the message.

use super::reader::{Item, Problem};
use ipnet::IpNet;
use serde_json::Value;
use std::net::IpAddr;

type Check = Result<(), &'static str>;

/// RFC 1123 label: up to 63 of `a-z 0-9 -`, a letter or digit at both ends.
pub(super) fn label(text: &str) -> Check {
    let good = text.len() <= 63 && is_label(text);
    good.then_some(())
        .ok_or("an RFC 1123 label (at most 63 of a-z, 0-9 and -)")
}

/// RFC 1123 subdomain: labels joined by dots, up to 253 characters.
pub(super) fn subdomain(text: &str) -> Check {
    let good = text.len() <= 253 && text.split('.').all(is_label);
    good.then_some(())
        .ok_or("an RFC 1123 subdomain (at most 253 of a-z, 0-9, - and .)")
}

/// What can stand in a message and identify something, if nothing more.
pub(super) fn printable(text: &str) -> Check {
    let good = !text.is_empty() && text.len() <= 253 && !text.chars().any(char::is_control);
    good.then_some(())
        .ok_or("a name of at most 253 printable characters")
}

/// IANA service name (RFC 6335 section 5.1), in lower case as Kubernetes demands.
pub(super) fn port_name(text: &str) -> Check {
    let good = text.len() <= 15
        && is_label(text)
        && !text.contains("--")
        && text.bytes().any(|b| b.is_ascii_lowercase());
    good.then_some(())
        .ok_or("a port name (at most 15 of a-z, 0-9 and -, with a letter; a number has no quotes)")
}

/// Name of a port of a Calico endpoint.
pub(super) fn endpoint_port_name(text: &str) -> Check {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let good = (1..=128).contains(&text.len())
        && text.bytes().all(inside)
        && !text.bytes().all(|b| b.is_ascii_digit());
    good.then_some(())
        .ok_or("a port name (at most 128 of a-z, A-Z, 0-9, _, . and -, not a number)")
}

/// A domain name of two labels or more, or `*.` and one.
pub(super) fn domain_name(text: &str) -> Check {
    let name = text.strip_suffix('.').unwrap_or(text);
    let name = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let at_end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        bytes.len() <= 63
            && bytes.iter().copied().all(inside)
            && at_end(bytes.first())
            && at_end(bytes.last())
    };
    let good = name.len() <= 253 && name.contains('.') && name.split('.').all(label);
    good.then_some(())
        .ok_or("a domain name such as \"www.example.org\" or \"*.example.org\"")
}

/// Kubernetes' qualified name: `[subdomain/]name`.
pub(super) fn label_key(text: &str) -> Check {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let good = prefix.is_none_or(|p| subdomain(p).is_ok()) && !name.is_empty() && is_value(name);
    good.then_some(()).ok_or("a label key ([prefix/]name)")
}

/// Kubernetes' label value: empty, or up to 63 characters.
pub(super) fn label_value(text: &str) -> Check {
    is_value(text)
        .then_some(())
        .ok_or("a label value (at most 63 of a-z, A-Z, 0-9, -, _ and .)")
}

fn is_label(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_value(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let at_end = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.iter().copied().all(inside)
        && at_end(bytes.first())
        && at_end(bytes.last())
}

/// Name of a network interface (`IFNAMSIZ` holds 15 characters and a zero).
pub(super) fn interface(text: &str) -> Check {
    is_interface(text, "_.-")
        .then_some(())
        .ok_or("a name of an interface (at most 15 of a-z, A-Z, 0-9, _, . and -)")
}

/// Name of an interface in which `*` stands for any characters.
pub(super) fn interface_pattern(text: &str) -> Check {
    is_interface(text, "_.-*")
        .then_some(())
        .ok_or("a pattern for names of interfaces (at most 15 of a-z, A-Z, 0-9, _, ., - and *)")
}

fn is_interface(text: &str, others: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    (1..=15).contains(&text.len()) && text.chars().all(inside)
}

/// A prefix, or an address, which is a prefix of one. Host bits are dropped with a warning.
pub(super) fn network(item: &Item<'_>, warnings: &mut Vec<String>) -> Result<IpNet, Problem> {
    let what = "a CIDR such as \"10.0.0.0/8\"";
    let network = match item.parse::<IpAddr>(what) {
        Ok(address) => IpNet::from(address),
        Err(_) => item.parse::<IpNet>(what)?,
    };
    let truncated = network.trunc();
    if network != truncated {
        warnings.push(item.warning(&format!("{network} has host bits set, read as {truncated}")));
    }
    Ok(truncated)
}

/// A prefix as Kubernetes still takes it from objects of old: numbers of an IPv4 address may begin
/// with zeros, which do not make them octal (`ParseCIDRSloppy`).
pub(super) fn old_network(item: &Item<'_>) -> Result<IpNet, Problem> {
    let text = item.as_text()?;
    let plain = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    let network = match text.split_once('/') {
        Some((address, length)) if !address.contains(':') => {
            let parts: Vec<_> = address.split('.').map(plain).collect();
            format!("{}/{length}", parts.join(".")).parse().ok()
        }
        _ => text.parse().ok(),
    };
    network.ok_or_else(|| item.is_not("a CIDR"))
}

/// A prefix whose host bits are zero.
pub(super) fn exact_network(item: &Item<'_>) -> Result<IpNet, Problem> {
    let network: IpNet = item.parse("a CIDR such as \"10.244.0.0/16\"")?;
    let truncated = network.trunc();
    if network != truncated {
        return Err(item.problem(format!(
            "\"{network}\" has host bits set; its network is \"{truncated}\""
        )));
    }
    Ok(network)
}

/// Key of a Secret (`IsConfigMapKey` of Kubernetes).
pub(super) fn secret_key(text: &str) -> Check {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let good = (1..=253).contains(&text.len()) && text.bytes().all(inside);
    good.then_some(())
        .ok_or("a key of a Secret (at most 253 of a-z, A-Z, 0-9, _, . and -)")
}

/// A number in decimal digits, without a sign.
pub(super) fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// An AS number: 1 to 4294967295 as a number or a string, or RFC 5396 asdot (`"1.10"`).
pub(super) fn as_number(item: &Item<'_>) -> Result<u32, Problem> {
    let number = match item.value() {
        Value::Number(number) if number.is_f64() => {
            return Err(item.problem("write an AS number with a dot in quotes"));
        }
        Value::Number(number) => number
            .as_u64()
            .and_then(|number| u32::try_from(number).ok()),
        Value::String(text) => parse_as_number(text),
        _ => None,
    };
    number
        .filter(|number| *number != 0)
        .ok_or_else(|| item.is_not("an AS number (1 to 4294967295)"))
}

fn parse_as_number(text: &str) -> Option<u32> {
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('.') {
        Some((high, low)) if digits(high) && digits(low) => {
            let (high, low): (u16, u16) = (high.parse().ok()?, low.parse().ok()?);
            Some(u32::from(high) << 16 | u32::from(low))
        }
        None if digits(text) => text.parse().ok(),
        _ => None,
    }
}

/// A Go duration of whole seconds, such as `90s`, `2m` or `1h0m30s`, of at most `most` seconds.
pub(super) fn seconds<T>(item: &Item<'_>, most: T) -> Result<T, Problem>
where
    T: TryFrom<u64> + PartialOrd + std::fmt::Display,
{
    let found = item
        .value()
        .as_str()
        .and_then(parse_seconds)
        .and_then(|found| T::try_from(found).ok())
        .filter(|found| *found <= most);
    found.ok_or_else(|| {
        item.is_not(&format!(
            "a duration in whole seconds such as \"120s\", at most {most}s"
        ))
    })
}

/// A Go duration in whole milliseconds, such as `50ms`, or in whole seconds.
pub(super) fn milliseconds(
    item: &Item<'_>,
    range: std::ops::RangeInclusive<u32>,
) -> Result<u32, Problem> {
    let number = |text: &str| match text.strip_suffix("ms") {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        Some(_) => None,
        None => parse_seconds(text).and_then(|seconds| seconds.checked_mul(1000)),
    };
    let found = item.value().as_str().and_then(number);
    let found = found.and_then(|found| u32::try_from(found).ok());
    found.filter(|found| range.contains(found)).ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        item.is_not(&format!(
            "a duration such as \"50ms\", {least}ms to {most}ms"
        ))
    })
}

fn parse_seconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let length = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..length].parse().ok()?;
        let unit = match rest.as_bytes()[length] {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[length + 1..];
    }
    (!text.is_empty()).then_some(total)
}

/// An address that a node or a peer can have.
pub(super) fn unicast(item: &Item<'_>, address: IpAddr) -> Result<(), Problem> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return Err(item.is_not("a unicast address"));
    }
    Ok(())
}
