//! What documents are read as.

mod bgp;
mod calico_policy;
mod cluster_policy;
mod endpoints;
mod errors;
mod felix;
mod generated;
mod network_policy;
mod properties;
mod topology;

use super::{Parsed, parse, to_manifest};
use crate::object::Object;
use serde_json::Value;

/// The object and the warnings of a document that must be valid. What is written of the object, if
/// anything, must read back as the same object, and so must the object's snapshot.
fn valid(document: &Value) -> (Object, Vec<String>) {
    match parse(document) {
        Ok(Parsed::Valid { object, warnings }) => {
            if let Some(written) = to_manifest(&object) {
                match parse(&written) {
                    Ok(Parsed::Valid { object: again, .. }) => assert_eq!(again, object),
                    other => panic!("{written}: {other:?}"),
                }
            }
            let snapshot = serde_json::to_string(&object).expect("objects are JSON");
            let again: Object = serde_json::from_str(&snapshot).expect("a snapshot can be read");
            assert_eq!(again, object);
            (object, warnings)
        }
        other => panic!("{document}: {other:?}"),
    }
}

/// The object of a document that must be valid without a warning.
fn clean(document: &Value) -> Object {
    let (object, warnings) = valid(document);
    assert_eq!(warnings, [""; 0], "{document}");
    object
}

/// The message and the fallback for a document that must be invalid.
fn invalid(document: &Value) -> (String, Option<Object>) {
    match parse(document) {
        Ok(Parsed::Invalid { invalid, fallback }) => (invalid.to_string(), fallback),
        other => panic!("{document}: {other:?}"),
    }
}
