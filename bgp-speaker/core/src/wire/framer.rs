//! From a stream of bytes to whole messages, with the checks of RFC 4271 section 6.1.

use super::reader::Reader;
use super::writer::{begin_message, finish_message};
use super::{ErrorCode, WireError};

/// Octets of a message header: marker, length, type.
pub const HEADER_LENGTH: usize = 19;
/// The longest message without RFC 8654, in octets with header.
pub const MAX_LENGTH: usize = 4096;
/// The longest message with RFC 8654; OPEN and KEEPALIVE stay at [`MAX_LENGTH`].
pub const MAX_EXTENDED_LENGTH: usize = 65535;

const MARKER: [u8; 16] = [0xff; 16];

/// The type field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // named after the RFC
pub enum MessageType {
    Open,
    Update,
    Notification,
    Keepalive,
    RouteRefresh,
}

impl MessageType {
    /// The octet on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }

    /// The type of an octet, if we know it.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Open,
            2 => Self::Update,
            3 => Self::Notification,
            4 => Self::Keepalive,
            5 => Self::RouteRefresh,
            _ => return None,
        })
    }

    /// The lengths that a message of this type may have, header included.
    fn allows(self, length: usize, extended: bool) -> bool {
        let longest = if extended {
            MAX_EXTENDED_LENGTH
        } else {
            MAX_LENGTH
        };
        match self {
            Self::Open => (29..=MAX_LENGTH).contains(&length),
            Self::Update => (23..=longest).contains(&length),
            Self::Notification => (21..=longest).contains(&length),
            Self::Keepalive => length == HEADER_LENGTH,
            Self::RouteRefresh => (23..=longest).contains(&length),
        }
    }
}

/// One whole message whose header is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    kind: MessageType,
    bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The type of the message.
    pub fn kind(&self) -> MessageType {
        self.kind
    }

    /// The whole message, header included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the header.
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LENGTH..).unwrap_or_default()
    }
}

/// Cuts a byte stream into frames.
///
/// A stream that has gone wrong stays so: the same error is returned from then on, whatever is
/// pushed.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Where the first octet not yet handed out is in `buffer`.
    start: usize,
    extended: bool,
}

impl Framer {
    /// A framer at the beginning of a stream, with messages of up to 4096 octets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows messages of up to 65535 octets: both sides have announced RFC 8654.
    pub fn set_extended_message(&mut self, extended: bool) {
        self.extended = extended;
    }

    /// Appends what was received. Frames are to be drained before more is pushed, so that the
    /// buffer stays within one message and one read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Octets received that no frame has been made of.
    pub fn buffered(&self) -> usize {
        self.buffer.len().saturating_sub(self.start)
    }

    /// The next whole message; `None` until more is pushed.
    ///
    /// # Errors
    /// Message Header Error: 1/1 with a bad marker, 1/2 with the length as data, 1/3 with the type
    /// as data. The header is judged as soon as it is there, without waiting for the body.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, WireError> {
        let pending = self.buffer.get(self.start..).unwrap_or_default();
        let Some((kind, length)) = check_header(pending, self.extended)? else {
            return Ok(None);
        };
        let Some(bytes) = pending.get(..length) else {
            return Ok(None);
        };
        self.start += length;
        Ok(Some(Frame { kind, bytes }))
    }
}

/// KEEPALIVE (RFC 4271 section 4.4).
pub fn encode_keepalive() -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LENGTH);
    let start = begin_message(&mut out, MessageType::Keepalive);
    finish_message(&mut out, start);
    out
}

fn check_header(pending: &[u8], extended: bool) -> Result<Option<(MessageType, usize)>, WireError> {
    if pending.iter().zip(&MARKER).any(|(have, want)| have != want) {
        return Err(WireError::new(
            ErrorCode::CONNECTION_NOT_SYNCHRONIZED,
            "the marker is not all ones",
        ));
    }
    let mut reader = Reader::new(pending);
    let header = (|| Some((reader.take(MARKER.len())?, reader.u16()?, reader.u8()?)))();
    let Some((_, length, code)) = header else {
        return Ok(None);
    };
    let bad_length =
        |reason| WireError::with_data(ErrorCode::BAD_MESSAGE_LENGTH, &length.to_be_bytes(), reason);
    let octets = usize::from(length);
    let longest = if extended {
        MAX_EXTENDED_LENGTH
    } else {
        MAX_LENGTH
    };
    if !(HEADER_LENGTH..=longest).contains(&octets) {
        return Err(bad_length("the message length is out of bounds"));
    }
    let kind = MessageType::from_code(code).ok_or_else(|| {
        WireError::with_data(
            ErrorCode::BAD_MESSAGE_TYPE,
            &[code],
            "the message type is unknown",
        )
    })?;
    if !kind.allows(octets, extended) {
        return Err(bad_length("the message length does not fit its type"));
    }
    Ok(Some((kind, octets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: u16, code: u8) -> Vec<u8> {
        let mut bytes = MARKER.to_vec();
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.push(code);
        bytes
    }

    fn error_of(bytes: &[u8]) -> (u8, u8, Vec<u8>) {
        let mut framer = Framer::new();
        framer.push(bytes);
        let notification = framer.next_frame().expect_err("a bad header").notification;
        (notification.code, notification.subcode, notification.data)
    }

    #[test]
    fn a_message_is_whole_however_the_stream_is_cut() {
        let mut stream = encode_keepalive();
        stream.extend(header(23, 2));
        stream.extend([0, 0, 0, 0]);
        stream.extend(encode_keepalive());
        for size in 1..=stream.len() {
            let mut framer = Framer::new();
            let mut kinds = Vec::new();
            for piece in stream.chunks(size) {
                framer.push(piece);
                while let Some(frame) = framer.next_frame().unwrap() {
                    kinds.push((frame.kind(), frame.bytes().len(), frame.body().len()));
                }
            }
            let expected = [
                (MessageType::Keepalive, 19, 0),
                (MessageType::Update, 23, 4),
                (MessageType::Keepalive, 19, 0),
            ];
            assert_eq!(kinds, expected, "in pieces of {size}");
            assert_eq!(framer.buffered(), 0);
        }
    }

    #[test]
    fn a_bad_marker_is_noticed_at_its_first_octet() {
        assert_eq!(error_of(b"GET / HTTP/1.1"), (1, 1, vec![]));
        let mut late = header(19, 4);
        late[15] = 0xfe;
        assert_eq!(error_of(&late), (1, 1, vec![]));
    }

    #[test]
    fn lengths_out_of_bounds_are_named_in_the_data() {
        for (length, code) in [
            (0, 4),
            (18, 9),
            (4097, 9),
            (18, 4),
            (20, 4),
            (28, 1),
            (4097, 2),
            (65535, 2),
            (22, 2),
            (20, 3),
            (22, 5),
        ] {
            let (error, subcode, data) = error_of(&header(length, code));
            assert_eq!((error, subcode), (1, 2), "length {length} of type {code}");
            assert_eq!(data, length.to_be_bytes());
        }
    }

    #[test]
    fn an_unknown_type_is_named_in_the_data() {
        for code in [0, 6, 9, 255] {
            assert_eq!(error_of(&header(19, code)), (1, 3, vec![code]));
        }
    }

    #[test]
    fn extended_messages_are_for_updates_but_not_for_open() {
        let mut framer = Framer::new();
        framer.set_extended_message(true);
        let mut update = header(65535, 2);
        update.resize(65535, 0);
        framer.push(&update);
        assert_eq!(framer.next_frame().unwrap().unwrap().bytes().len(), 65535);
        framer.push(&header(4097, 1));
        assert_eq!(framer.next_frame().unwrap_err().notification.subcode, 2);
    }

    #[test]
    fn a_broken_stream_stays_broken() {
        let mut framer = Framer::new();
        framer.push(&header(19, 9));
        let first = framer.next_frame().unwrap_err();
        framer.push(&encode_keepalive());
        assert_eq!(framer.next_frame().unwrap_err(), first);
    }
}
