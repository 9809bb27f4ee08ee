//! A cursor over received bytes that can't be led out of bounds.

/// Reads big-endian fields; `None` where too few bytes are left, and then nothing is consumed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A block that is preceded by its length in one octet.
    pub(super) fn block8(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let length = ahead.u8()?;
        let block = ahead.take(usize::from(length))?;
        *self = ahead;
        Some(block)
    }

    /// A block that is preceded by its length in two octets.
    pub(super) fn block16(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let length = ahead.u16()?;
        let block = ahead.take(usize::from(length))?;
        *self = ahead;
        Some(block)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// Splits a value into items of `N` octets; `None` unless it is a whole number of them.
pub(super) fn items<const N: usize>(value: &[u8]) -> Option<&[[u8; N]]> {
    let (items, rest) = value.as_chunks::<N>();
    rest.is_empty().then_some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_cut_short_consumes_nothing() {
        let mut reader = Reader::new(&[3, 1, 2]);
        assert_eq!(reader.block8(), None);
        assert_eq!(reader.rest(), [3, 1, 2]);
        assert_eq!(reader.block16(), None);
        assert_eq!(reader.u8(), Some(3));
        assert_eq!(reader.u32(), None);
        assert_eq!(reader.u16(), Some(0x0102));
        assert!(reader.is_empty());
    }

    #[test]
    fn items_are_whole_or_nothing() {
        assert_eq!(items::<2>(&[1, 2, 3, 4]), Some(&[[1, 2], [3, 4]][..]));
        assert_eq!(items::<2>(&[1, 2, 3]), None);
    }
}
