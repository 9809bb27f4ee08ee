//! Frames on the agent's socket: a 4-byte big-endian length, and that many bytes of JSON.

use model::cni::MAX_FRAME;
use std::io::{self, Read, Write};

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side closed the connection before the first byte.
    #[error("the connection was closed without one")]
    Closed,
    /// The other side closed the connection in the middle.
    #[error("the connection was closed after {got} of {expected} bytes")]
    Truncated {
        /// Bytes that came, the length's four included.
        got: usize,
        /// Bytes of the frame, or 4 where not even the length is complete.
        expected: usize,
    },
    /// Longer than [`MAX_FRAME`].
    #[error("{length} bytes are more than {MAX_FRAME}")]
    TooLong {
        /// The length.
        length: usize,
    },
    /// Reading or writing failed; `WouldBlock` is a time-out of the socket.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A payload with its length in front, ready to be written in one go.
pub fn frame(payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let length = payload.len();
    let too_long = FrameError::TooLong { length };
    let head = u32::try_from(length)
        .ok()
        .filter(|_| length <= MAX_FRAME)
        .ok_or(too_long)?;
    let mut bytes = Vec::with_capacity(4 + length);
    bytes.extend(head.to_be_bytes());
    bytes.extend(payload);
    Ok(bytes)
}

/// Writes one frame.
pub fn write_frame(writer: &mut impl Write, payload: &[u8]) -> Result<(), FrameError> {
    writer.write_all(&frame(payload)?)?;
    Ok(writer.flush()?)
}

/// Reads one frame.
pub fn read_frame(reader: &mut impl Read) -> Result<Vec<u8>, FrameError> {
    let mut head = Vec::with_capacity(4);
    match reader.by_ref().take(4).read_to_end(&mut head)? {
        0 => return Err(FrameError::Closed),
        4 => {}
        got => return Err(FrameError::Truncated { got, expected: 4 }),
    }
    let length = head
        .iter()
        .fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length > MAX_FRAME {
        return Err(FrameError::TooLong { length });
    }
    let mut payload = Vec::new();
    let got = reader.take(length as u64).read_to_end(&mut payload)?;
    if got < length {
        return Err(FrameError::Truncated {
            got: got + 4,
            expected: length + 4,
        });
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for payload in [&b""[..], b"{}", &[7; 70_000]] {
            let mut bytes = Vec::new();
            write_frame(&mut bytes, payload).unwrap();
            bytes.extend(b"more");
            assert_eq!(read_frame(&mut bytes.as_slice()).unwrap(), payload);
        }
    }

    #[test]
    fn broken_frames_say_how() {
        let cases: [(&[u8], &str); 5] = [
            (b"", "the connection was closed without one"),
            (b"\0\0", "the connection was closed after 2 of 4 bytes"),
            (
                b"\0\0\0\x05abc",
                "the connection was closed after 7 of 9 bytes",
            ),
            (b"\x00\x10\x00\x01", "1048577 bytes are more than 1048576"),
            (b"HTTP/1.1 400", "1213486160 bytes are more than 1048576"),
        ];
        for (mut bytes, expected) in cases {
            assert_eq!(read_frame(&mut bytes).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_payload_that_nobody_would_accept_is_not_written() {
        let mut bytes = Vec::new();
        let error = write_frame(&mut bytes, &vec![0; MAX_FRAME + 1]).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { length } if length == MAX_FRAME + 1));
        assert!(bytes.is_empty());
    }
}
