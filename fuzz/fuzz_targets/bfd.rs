//! Whatever arrives as a BFD control packet is discarded or written back as it was read, and a
//! session that takes it keeps a bounded schedule.
#![no_main]

use bgp_core::bfd::{Packet, Profile, Session};
use libfuzzer_sys::fuzz_target;
use std::num::NonZeroU32;
use std::time::Instant;

fuzz_target!(|datagrams: Vec<Vec<u8>>| {
    let now = Instant::now();
    let mut session = Session::new(Profile::default(), NonZeroU32::MIN, 1, now);
    for octets in &datagrams {
        let Ok(packet) = Packet::decode(octets) else {
            continue;
        };
        let encoded = packet.encode();
        assert_eq!(Packet::decode(&encoded), Ok(packet));
        session.receive(&packet, now);
        let answers = std::iter::from_fn(|| session.transmit(now)).take(3).count();
        assert!(answers < 3);
    }
});
