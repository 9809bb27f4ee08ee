//! Any JSON as a manifest: never a panic, and what agents write reads back as it was, what is
//! held in a block too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Object;
use model::manifest::{Parsed, block_allocations, block_with, parse, to_manifest};

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
        if let Object::IpamBlock(block) = object
            && let Some(held) = block_allocations(&block, &document)
        {
            let written = block_with(&block, &held);
            assert_eq!(block_allocations(&block, &written), Some(held));
        }
    }
});
