//! Every field of every kind is wrong in turn.

use super::tests::{NOT_READ, documents, of_kind};
use super::{cluster_network_policy, definitions};
use crate::manifest::{Parsed, parse};
use serde_json::{Value, json};

const CLUSTER_POLICY: &str = include_str!("../../../deploy/objects/cluster-policy.yaml");

/// A form of a document in which one value is another.
struct Wrong {
    /// As messages name it.
    path: String,
    document: Value,
}

/// Every form of `document` in which one value below `spec` is what `other` makes of it.
fn each(document: &Value, other: &dyn Fn(&str, &Value) -> Option<Value>) -> Vec<Wrong> {
    let mut places = Vec::new();
    collect(&document["spec"], "spec", "/spec", &mut places);
    let wrong = |(path, pointer): (String, String)| {
        let mut document = document.clone();
        let value = document.pointer_mut(&pointer)?;
        *value = other(&path, value)?;
        Some(Wrong { path, document })
    };
    places.into_iter().filter_map(wrong).collect()
}

fn collect(value: &Value, path: &str, pointer: &str, places: &mut Vec<(String, String)>) {
    places.push((path.to_owned(), pointer.to_owned()));
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let escaped = name.replace('~', "~0").replace('/', "~1");
                let (path, pointer) = (format!("{path}.{name}"), format!("{pointer}/{escaped}"));
                collect(value, &path, &pointer, places);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                let (path, pointer) = (format!("{path}[{index}]"), format!("{pointer}/{index}"));
                collect(value, &path, &pointer, places);
            }
        }
        _ => {}
    }
}

fn read_documents() -> Vec<Value> {
    let all = documents();
    let mut read: Vec<Value> = definitions()
        .iter()
        .filter(|definition| !NOT_READ.contains(&definition.kind))
        .flat_map(|definition| of_kind(&all, definition.kind).cloned())
        .collect();
    let policies: Vec<Value> =
        serde_saphyr::from_multiple(CLUSTER_POLICY).expect("the examples are YAML");
    read.extend(of_kind(&policies, cluster_network_policy().kind).cloned());
    read
}

/// Fields that say nothing to an agent, whatever stands there.
const MEANINGLESS: [&str; 3] = [
    ".metadata",
    "spec.performanceHints",
    "spec.programClusterRoutes",
];
/// Of blocks these are read, by every agent; who holds which address is read by its owner alone.
const OF_BLOCKS: [&str; 3] = ["spec", "spec.cidr", "spec.affinity"];

fn is_read(kind: &str, path: &str) -> bool {
    match kind {
        "IPAMBlock" => OF_BLOCKS.contains(&path),
        _ => !MEANINGLESS.iter().any(|part| path.contains(part)),
    }
}

/// Wrong values that nothing is said about. A refusal names the field or what holds it.
fn unnamed(other: &dyn Fn(&str, &Value) -> Option<Value>) -> Vec<String> {
    let (mut silent, mut tried) = (Vec::new(), 0);
    for document in read_documents() {
        let kind = document["kind"].as_str().unwrap_or_default();
        for Wrong { path, document } in each(&document, other) {
            if !is_read(kind, &path) {
                continue;
            }
            tried += 1;
            let parsed = parse(&document);
            let named = match &parsed {
                Ok(Parsed::Invalid { invalid, .. }) => {
                    let rest = path.strip_prefix(&invalid.field);
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
                        && (invalid.field != "spec" || path == "spec")
                }
                Ok(Parsed::Valid { warnings, .. }) => warnings.iter().any(|w| w.contains(&path)),
                Ok(Parsed::Ignored { .. }) | Err(_) => false,
            };
            if !named {
                silent.push(format!("{kind} {path}: {parsed:?}"));
            }
        }
    }
    assert!(tried > 20, "{tried}");
    silent
}

#[test]
fn a_value_of_another_type_is_named() {
    let silent = unnamed(&|_, value| match value {
        Value::Object(_) | Value::Array(_) => Some(json!(7.5)),
        _ => Some(json!({ "no": ["such"] })),
    });
    assert_eq!(silent, [""; 0]);
}

#[test]
fn a_text_that_is_nonsense_is_named() {
    /// What people may write as they like.
    const FREE: [&str; 4] = [".shutdown", ".logPrefix", ".profiles[0]", ".labelsToApply."];
    let silent = unnamed(&|path, value| {
        let name_of_a_rule = path.contains("gress[") && path.ends_with("].name");
        let free = name_of_a_rule || FREE.iter().any(|part| path.contains(part));
        (value.is_string() && !free).then(|| json!("\u{1}nonsense= ("))
    });
    assert_eq!(silent, [""; 0]);
}

#[test]
fn a_number_that_is_out_of_range_is_named() {
    let silent = unnamed(&|path, value| {
        let free = path == "spec.order";
        (value.is_number() && !free).then(|| json!(-9_000_000_000_000_000_000_i64))
    });
    assert_eq!(silent, [""; 0]);
}
