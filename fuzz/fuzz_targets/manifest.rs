//! Any JSON as a manifest: never a panic, and what agents write reads back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::manifest::{Parsed, parse, to_manifest};

fuzz_target!(|data: &[u8]| {
    let Ok(document) = serde_json::from_slice(data) else {
        return;
    };
    if let Ok(Parsed::Valid { object, .. }) = parse(&document)
        && let Some(written) = to_manifest(&object)
    {
        let Ok(Parsed::Valid { object: again, .. }) = parse(&written) else {
            panic!("what was written can't be read: {written}");
        };
        assert_eq!(object, again);
    }
});
