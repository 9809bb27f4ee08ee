//! Names that derive from content.

use std::hash::{Hash, Hasher};

/// Characters of a content hash in a name: 80 bits in base 32.
const LENGTH: usize = 16;
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// The content of `value` in 16 letters and digits, the same in every process and on every node.
pub(crate) fn content_name(value: &impl Hash) -> String {
    let mut hasher = SipHasher128::new();
    value.hash(&mut hasher);
    let mut bits = hasher.finish128();
    (0..LENGTH)
        .map(|_| {
            let digit = DIGITS[(bits & 31) as usize];
            bits >>= 5;
            char::from(digit)
        })
        .collect()
}

/// 64 bits of the content of `value`.
pub(crate) fn content_number(value: &impl Hash) -> u64 {
    let mut hasher = SipHasher128::new();
    value.hash(&mut hasher);
    hasher.finish128() as u64
}

/// `value` in base 32.
pub(crate) fn base32(mut value: usize) -> String {
    let mut digits = vec![];
    loop {
        digits.push(char::from(DIGITS[value & 31]));
        value >>= 5;
        if value == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

/// SipHash-2-4 with a 128-bit result and fixed keys. The hashers of `std` may change with the
/// compiler; these names must not, or an upgrade would replace every chain.
struct SipHasher128 {
    state: [u64; 4],
    tail: u64,
    tail_length: u32,
    length: u64,
}

impl SipHasher128 {
    fn new() -> Self {
        let (k0, k1) = (0x6f63_6963_6174_2f70_u64, 0x6f6c_6963_7920_7631_u64);
        Self {
            state: [
                k0 ^ 0x736f_6d65_7073_6575,
                k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
                k0 ^ 0x6c79_6765_6e65_7261,
                k1 ^ 0x7465_6462_7974_6573,
            ],
            tail: 0,
            tail_length: 0,
            length: 0,
        }
    }

    fn round(&mut self) {
        let [a, b, c, d] = &mut self.state;
        *a = a.wrapping_add(*b);
        *c = c.wrapping_add(*d);
        *b = b.rotate_left(13) ^ *a;
        *d = d.rotate_left(16) ^ *c;
        *a = a.rotate_left(32);
        *c = c.wrapping_add(*b);
        *a = a.wrapping_add(*d);
        *b = b.rotate_left(17) ^ *c;
        *d = d.rotate_left(21) ^ *a;
        *c = c.rotate_left(32);
    }

    fn word(&mut self, word: u64) {
        self.state[3] ^= word;
        self.round();
        self.round();
        self.state[0] ^= word;
    }

    fn finish128(mut self) -> u128 {
        let last = self.tail | (self.length << 56);
        self.word(last);
        self.state[2] ^= 0xee;
        (0..4).for_each(|_| self.round());
        let low = self.state.iter().fold(0, |all, word| all ^ word);
        self.state[1] ^= 0xdd;
        (0..4).for_each(|_| self.round());
        let high = self.state.iter().fold(0, |all, word| all ^ word);
        (u128::from(high) << 64) | u128::from(low)
    }
}

impl Hasher for SipHasher128 {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.tail |= u64::from(*byte) << (8 * self.tail_length);
            self.tail_length += 1;
            if self.tail_length == 8 {
                let word = self.tail;
                self.word(word);
                self.tail = 0;
                self.tail_length = 0;
            }
        }
        self.length = self.length.wrapping_add(bytes.len() as u64);
    }

    fn finish(&self) -> u64 {
        unreachable!("invariant: content names use all 128 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_agrees_with_the_published_vector_of_siphash_2_4_128() {
        let key: [u8; 16] = std::array::from_fn(|i| i as u8);
        let half = |at: usize| u64::from_le_bytes(key[at..at + 8].try_into().unwrap());
        let (k0, k1) = (half(0), half(8));
        let mut hasher = SipHasher128::new();
        hasher.state = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        let expected = [
            0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55,
            0x02, 0x93,
        ];
        assert_eq!(hasher.finish128().to_le_bytes(), expected);
    }

    #[test]
    fn names_differ_with_content_and_are_stable() {
        assert_eq!(content_name(&"a"), content_name(&"a"));
        assert_ne!(content_name(&"a"), content_name(&"b"));
        assert_ne!(content_name(&("a", "b")), content_name(&("ab", "")));
    }
}
