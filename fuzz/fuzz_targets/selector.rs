//! Any text as a selector: never a panic, and a selector's own text means the same selector.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Selector;

fuzz_target!(|text: &str| {
    if let Ok(selector) = Selector::parse_calico(text) {
        let again = Selector::parse_calico(&selector.to_string());
        assert_eq!(again.as_ref(), Ok(&selector));
    }
});
