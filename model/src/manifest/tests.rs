//! What documents are read as.

mod bgp;
mod calico_policy;
mod cluster_policy;
mod endpoints;
mod errors;
mod felix;
mod network_policy;
mod properties;
mod topology;

use super::{Parsed, parse};
use crate::object::Object;
use serde_json::Value;

/// The object and the warnings of a document that must be valid.
fn valid(document: &Value) -> (Object, Vec<String>) {
    match parse(document) {
        Ok(Parsed::Valid { object, warnings }) => (object, warnings),
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
