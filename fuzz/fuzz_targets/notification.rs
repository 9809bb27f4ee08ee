//! The body of a NOTIFICATION: its words are free of control characters, and it survives the wire.
#![no_main]

use bgp_core::wire::{Framer, Message, SessionParams, decode, encode_notification};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let length = u16::try_from(19 + body.len()).unwrap_or(u16::MAX);
    let header = [&[0xff; 16][..], &length.to_be_bytes(), &[3]].concat();
    let stream = [&header, body].concat();
    let mut framer = Framer::new();
    framer.push(&stream);
    let Ok(Some(frame)) = framer.next_frame() else {
        return;
    };
    let Ok(Message::Notification(notification)) = decode(&frame, &SessionParams::default()) else {
        panic!("every NOTIFICATION is readable");
    };
    assert!(!notification.to_string().chars().any(char::is_control));
    assert_eq!(encode_notification(&notification), stream);
});
