//! Any bytes as a logged packet, and its payload as an answer to a query: never a panic, and only
//! the name that was asked for gets addresses.
#![no_main]

use felix_core::dns::Names;
use felix_core::packet::Header;
use libfuzzer_sys::fuzz_target;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const POD: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fuzz_target!(|bytes: &[u8]| {
    let _ = Header::parse(bytes);
    let (query, answer) = bytes.split_at(bytes.len() / 2);
    let mut names = Names::default();
    names.on_query(POD, 53, query, Duration::ZERO, |_| true);
    names.on_answer(POD, 53, answer, Duration::ZERO);
    assert!(names.take_changed().len() <= 1);
});
