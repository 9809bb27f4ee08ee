//! Reading attributes. Malformed input ends the iteration; it never panics.

/// The attributes in a slice of bytes: (kind without flag bits, value).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

impl<'a> Attributes<'a> {
    /// The first attribute of a kind.
    pub(crate) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.by_ref()
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }

    /// The attributes inside the first attribute of a kind; none if it is missing.
    pub(crate) fn inside(self, kind: u16) -> Attributes<'a> {
        Attributes(self.find(kind).unwrap_or(&[]))
    }

    /// A string attribute.
    pub(crate) fn text(self, kind: u16) -> Option<String> {
        self.find(kind).and_then(text)
    }

    /// A 32 bit attribute in network byte order.
    pub(crate) fn be_u32(self, kind: u16) -> Option<u32> {
        self.find(kind).and_then(be_u32)
    }
}

/// A string without its terminating zero, if it is UTF-8.
pub(crate) fn text(value: &[u8]) -> Option<String> {
    let end = value
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).ok().map(str::to_owned)
}

/// A number in network byte order.
pub(crate) fn be_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// A number in network byte order.
pub(crate) fn be_u16(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.try_into().ok()?))
}

/// A number in host byte order.
pub(crate) fn ne_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_attributes_end_the_iteration() {
        for bytes in [
            &[][..],
            &[4],
            &[0, 0, 0, 0],
            &[9, 0, 1, 0, 1],
            &[3, 0, 1, 0, 1, 1, 1, 1],
        ] {
            assert_eq!(Attributes(bytes).next(), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_last_attribute_may_lack_its_padding() {
        let bytes = [5, 0, 1, 0, 7, 0, 0, 0, 6, 0, 2, 0x80, 8, 9];
        let found: Vec<_> = Attributes(&bytes).collect();
        assert_eq!(found, [(1, &[7][..]), (2, &[8, 9][..])]);
    }
}
