//! A byte stream in two pieces into the framer, each frame into the decoder; an OPEN in front of
//! the same bytes. However the stream is cut, the same comes out.
#![no_main]

use bgp_core::wire::{Framer, Message, SessionParams, WireError, decode, encode_open};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    read(&[stream]);
    let (first, second) = stream.split_at(usize::from(cut).min(stream.len()));
    assert_eq!(read(&[first, second]), read(&[stream]));

    let length = u16::try_from(19 + stream.len()).unwrap_or(u16::MAX);
    let header = [&[0xff; 16][..], &length.to_be_bytes(), &[1]].concat();
    for message in read(&[&header, stream]).0 {
        if let Message::Open(open) = message {
            assert_eq!(read(&[&encode_open(&open)]).0, [Message::Open(open)]);
        }
    }
});

fn read(pieces: &[&[u8]]) -> (Vec<Message>, Option<WireError>) {
    let params = SessionParams::default();
    let mut framer = Framer::new();
    let mut messages = Vec::new();
    for piece in pieces {
        framer.push(piece);
        loop {
            let decoded = match framer.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => decode(&frame, &params),
                Err(error) => Err(error),
            };
            match decoded {
                Ok(message) => messages.push(message),
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}
