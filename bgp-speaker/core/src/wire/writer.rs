//! Writing messages: the header, and lengths that are known only afterwards.

use super::framer::{HEADER_LENGTH, MessageType};

/// Appends a header whose length field is filled in by [`finish_message`]. Returns where the
/// message begins.
pub(super) fn begin_message(out: &mut Vec<u8>, kind: MessageType) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind.code()]);
    start
}

/// Fills in the length of the message that begins at `start` and ends at the end of `out`.
pub(super) fn finish_message(out: &mut [u8], start: usize) {
    let length = out.len().saturating_sub(start);
    put_u16(out, start + HEADER_LENGTH - 3, length);
}

/// Overwrites the two octets at `position`; lengths are bounded by the callers.
pub(super) fn put_u16(out: &mut [u8], position: usize, value: usize) {
    let value = u16::try_from(value).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(position..position + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Fills in a two-octet length field at `position` with the number of octets after it.
pub(super) fn fill_length(out: &mut [u8], position: usize) {
    let length = out.len().saturating_sub(position + 2);
    put_u16(out, position, length);
}
