//! Frames with checksums.

use super::{CorruptionReason, MAX_RECORD};

/// Bytes before the payload.
pub(crate) const OVERHEAD: usize = 12;

pub(crate) fn wrap(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("invariant: a record is short")
        .to_be_bytes();
    let mut bytes = Vec::with_capacity(OVERHEAD + payload.len());
    bytes.extend(length);
    bytes.extend(crc32c(&length).to_be_bytes());
    bytes.extend(crc32c(payload).to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The first frame's payload; none at the end or where it is cut short.
pub(crate) fn unwrap(bytes: &[u8]) -> Result<Option<&[u8]>, CorruptionReason> {
    let Some((head, rest)) = bytes.split_first_chunk::<OVERHEAD>() else {
        return Ok(None);
    };
    let [l0, l1, l2, l3, c0, c1, c2, c3, p0, p1, p2, p3] = *head;
    let length = [l0, l1, l2, l3];
    if crc32c(&length).to_be_bytes() != [c0, c1, c2, c3] {
        return Err(CorruptionReason::Length);
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_RECORD {
        return Err(CorruptionReason::Length);
    }
    let Some(payload) = rest.get(..length) else {
        return Ok(None);
    };
    if crc32c(payload).to_be_bytes() != [p0, p1, p2, p3] {
        return Err(CorruptionReason::Checksum);
    }
    Ok(Some(payload))
}

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize]
    })
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_the_check_values_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn a_length_beyond_the_limit_is_damage_even_with_a_good_checksum() {
        let length = u32::MAX.to_be_bytes();
        let mut bytes = length.to_vec();
        bytes.extend(crc32c(&length).to_be_bytes());
        bytes.extend([0; 4]);
        assert_eq!(unwrap(&bytes), Err(CorruptionReason::Length));
    }
}
