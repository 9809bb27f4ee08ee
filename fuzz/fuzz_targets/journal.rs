//! Any bytes as a journal: never a panic, and what is read compacts to the same state.
#![no_main]

use ipam::journal::{State, compact, replay};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let replayed = replay(data);
    assert!(replayed.valid_len <= data.len());
    let state = State::from_records(&replayed.records);
    let again = replay(&compact(&state));
    assert!(again.corrupt.is_none());
    assert_eq!(State::from_records(&again.records), state);
});
