//! Messages and attributes into one buffer, which is sent as one datagram.

/// `NLM_F_*` flags of a request; `NLM_F_REQUEST` is always set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags(u16);

impl Flags {
    /// No answer unless it fails.
    pub(crate) const QUIET: Self = Self(1);
    /// Create, or leave what is there.
    pub(crate) const CREATE: Self = Self(1 | 0x400);
    /// Create, fail if it is there.
    pub(crate) const CREATE_EXCLUSIVE: Self = Self(1 | 0x400 | 0x200);
    /// Create or replace.
    pub(crate) const REPLACE: Self = Self(1 | 0x400 | 0x100);
    /// Create at the end of a list.
    pub(crate) const APPEND: Self = Self(1 | 0x400 | 0x800);
    /// Everything there is.
    pub(crate) const DUMP: Self = Self(1 | 0x300);
    const ACK: u16 = 4;
}

/// Builds a datagram of several messages, each with its own sequence number.
#[derive(Debug)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
    first_sequence: u32,
    /// Where each message starts.
    starts: Vec<usize>,
}

impl Encoder {
    /// The first message gets `first_sequence`, the others follow.
    pub(crate) fn new(first_sequence: u32) -> Self {
        Self {
            bytes: Vec::new(),
            first_sequence,
            starts: Vec::new(),
        }
    }

    /// Appends a message: its fixed header, then attributes by `body`. Answers its sequence number.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: Flags,
        fixed: &[u8],
        body: impl FnOnce(&mut Self),
    ) -> u32 {
        let start = self.bytes.len();
        let sequence = self.first_sequence.wrapping_add(self.starts.len() as u32);
        self.starts.push(start);
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.0.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(fixed);
        self.pad();
        body(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        sequence
    }

    /// Asks for an acknowledgement of the message `index`.
    pub(crate) fn acknowledge(&mut self, index: usize) {
        let at = self.starts[index] + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | Flags::ACK;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }

    /// An attribute with these bytes.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4)
            .expect("invariant: callers split attributes below 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// An attribute of attributes (`NLA_F_NESTED`).
    pub(crate) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.container(kind | 0x8000, body);
    }

    /// Like [`Self::nested`], for the older attributes that do not carry the flag.
    pub(crate) fn container(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        body(self);
        let length = u16::try_from(self.bytes.len() - start)
            .expect("invariant: callers split attributes below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Bytes without a header, padded: structures inside an attribute.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// A string with its terminating zero.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    /// A number in host byte order.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// A number in network byte order.
    pub(crate) fn be_u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Number of messages so far.
    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The sequence number of the first message.
    pub(crate) fn first_sequence(&self) -> u32 {
        self.first_sequence
    }

    /// The datagram.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}
