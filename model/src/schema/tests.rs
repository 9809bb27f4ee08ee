//! Readers and schemas agree, shown by documents that have every field of every schema.

use super::{Definition, cluster_network_policy, definitions};
use crate::manifest::{Parsed, asked, parse};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

const EVERY_FIELD: &str = include_str!("../../../deploy/every-field.yaml");
const CLUSTER_POLICY: &str = include_str!("../../../deploy/objects/cluster-policy.yaml");

/// Kinds that agents do not read: written for other programs, or asked of nodes.
pub(super) const NOT_READ: [&str; 5] = [
    "BlockAffinity",
    "CalicoNodeStatus",
    "ClusterInformation",
    "IPAMConfiguration",
    "IPAMHandle",
];

/// Fields of rules that no document can have: the API server and the reader refuse them in words.
const NEVER: [&str; 4] = [
    "spec.ingress[].http",
    "spec.egress[].http",
    "spec.ingress[].destination.services",
    "spec.egress[].source.services",
];

pub(super) fn documents() -> Vec<Value> {
    serde_saphyr::from_multiple(EVERY_FIELD).expect("the examples are YAML")
}

pub(super) fn of_kind<'a>(
    documents: &'a [Value],
    kind: &'a str,
) -> impl Iterator<Item = &'a Value> {
    documents
        .iter()
        .filter(move |document| document["kind"] == kind)
}

/// Paths of all fields of a schema below `path`, with `[]` for the items of lists.
fn fields(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, field) in properties {
            let path = format!("{path}.{name}");
            fields(field, &path, found);
            found.insert(path);
        }
    }
    if schema["items"].is_object() {
        fields(&schema["items"], &format!("{path}[]"), found);
    }
}

/// Likewise of a document. The user's own keys are no fields.
fn stated(schema: &Value, value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) if schema["additionalProperties"].is_null() => {
            for (name, value) in map {
                let path = format!("{path}.{name}");
                stated(&schema["properties"][name], value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(items) => {
            let path = format!("{path}[]");
            items
                .iter()
                .for_each(|item| stated(&schema["items"], item, &path, found));
        }
        _ => {}
    }
}

/// What is asked of `spec`, as paths of a schema.
fn asked_of_spec() -> BTreeSet<String> {
    let without_indexes = |path: String| {
        let mut text = String::new();
        let mut inside = false;
        for c in path.chars() {
            inside = (inside || c == '[') && c != ']';
            if !inside || c == '[' {
                text.push(c);
            }
        }
        text
    };
    let all = asked::taken().into_iter().map(without_indexes);
    all.filter(|path| path.starts_with("spec.")).collect()
}

fn spec(definition: &Definition) -> Value {
    definition.spec.clone().into_value()
}

/// Reads documents of a kind, which must all be valid and hold nothing that is unknown.
fn read_all<'a>(documents: impl Iterator<Item = &'a Value>) -> BTreeSet<String> {
    asked::taken();
    for document in documents {
        match parse(document) {
            Ok(Parsed::Valid { warnings, .. }) => {
                let unknown: Vec<_> = warnings.iter().filter(|w| w.contains("unknown")).collect();
                assert_eq!(unknown, Vec::<&String>::new(), "{document}");
            }
            other => panic!("{document}: {other:?}"),
        }
    }
    asked_of_spec()
}

#[test]
fn the_examples_have_every_field_of_every_schema_and_no_other() {
    let documents = documents();
    for definition in definitions() {
        let mut expected = BTreeSet::new();
        fields(&spec(&definition), "spec", &mut expected);
        expected.retain(|path| !NEVER.iter().any(|never| path.starts_with(never)));
        let mut found = BTreeSet::new();
        for document in of_kind(&documents, definition.kind) {
            stated(&spec(&definition), &document["spec"], "spec", &mut found);
        }
        let missing: Vec<_> = expected.difference(&found).collect();
        let unknown: Vec<_> = found.difference(&expected).collect();
        assert!(
            missing.is_empty() && unknown.is_empty(),
            "{}: the examples lack {missing:?}, and the schema lacks {unknown:?}",
            definition.kind
        );
    }
}

#[test]
fn readers_know_every_field_of_their_schema_and_ask_for_no_other() {
    let documents = documents();
    for definition in definitions() {
        if NOT_READ.contains(&definition.kind) {
            continue;
        }
        let asked = read_all(of_kind(&documents, definition.kind));
        let mut known = BTreeSet::new();
        fields(&spec(&definition), "spec", &mut known);
        let beyond: Vec<_> = asked.difference(&known).collect();
        assert!(
            beyond.is_empty(),
            "{}: asked for, and not in the schema: {beyond:?}",
            definition.kind
        );
    }
}

#[test]
fn the_reader_of_cluster_network_policies_asks_for_no_field_beyond_the_schema() {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(CLUSTER_POLICY).expect("the examples are YAML");
    let definition = cluster_network_policy();
    let asked = read_all(of_kind(&documents, definition.kind));
    let mut known = BTreeSet::new();
    fields(&spec(&definition), "spec", &mut known);
    assert!(asked.len() > 5, "{asked:?}");
    let beyond: Vec<_> = asked.difference(&known).collect();
    assert!(beyond.is_empty(), "{beyond:?}");
}

#[test]
fn a_name_that_the_schema_does_not_list_is_refused_by_the_reader() {
    let documents = documents();
    let mut tried = 0;
    for definition in definitions() {
        if NOT_READ.contains(&definition.kind) {
            continue;
        }
        for document in of_kind(&documents, definition.kind) {
            let mut wrong = Vec::new();
            replace_names(&spec(&definition), &document["spec"], &mut |spec| {
                let mut document = document.clone();
                document["spec"] = spec;
                wrong.push(document);
            });
            for document in wrong {
                tried += 1;
                let refused = !matches!(parse(&document), Ok(Parsed::Valid { .. }));
                assert!(refused, "accepted: {document}");
            }
        }
    }
    assert!(tried > 50, "{tried}");
}

/// Calls `each` with every form of `value` in which one name of an enumeration is another.
fn replace_names(schema: &Value, value: &Value, each: &mut dyn FnMut(Value)) {
    if schema["enum"].is_array() {
        each(json!("NoSuchName"));
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, field) in map {
                replace_names(&schema["properties"][name], field, &mut |field| {
                    let mut map: Map<_, _> = map.clone();
                    map.insert(name.clone(), field);
                    each(Value::Object(map));
                });
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                replace_names(&schema["items"], item, &mut |item| {
                    let mut items = items.clone();
                    items[index] = item;
                    each(Value::Array(items));
                });
            }
        }
        _ => {}
    }
}

#[test]
fn what_narrows_a_policy_or_a_filter_is_kept_where_it_is_unknown() {
    let kept = |kind: &str, path: &[&str]| {
        let definitions = definitions();
        let definition = definitions.iter().find(|d| d.kind == kind).expect(kind);
        let mut schema = &spec(definition);
        for part in path {
            schema = match *part {
                "[]" => &schema["items"],
                name => &schema["properties"][name],
            };
        }
        assert_eq!(
            schema["x-kubernetes-preserve-unknown-fields"], true,
            "{kind} {path:?}"
        );
    };
    for direction in ["ingress", "egress"] {
        for path in [
            vec![direction, "[]"],
            vec![direction, "[]", "source"],
            vec![direction, "[]", "destination"],
            vec![direction, "[]", "source", "services"],
            vec![direction, "[]", "source", "serviceAccounts"],
            vec![direction, "[]", "icmp"],
            vec![direction, "[]", "notICMP"],
        ] {
            kept("GlobalNetworkPolicy", &path);
            kept("NetworkPolicy", &path);
        }
    }
    for list in ["importV4", "exportV4", "importV6", "exportV6"] {
        kept("BGPFilter", &[list, "[]"]);
        kept("BGPFilter", &[list, "[]", "operations", "[]"]);
    }
    kept("BGPPeer", &["password"]);
    kept("FelixConfiguration", &[]);
}

#[test]
fn names_of_kinds_do_not_collide() {
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    for definition in definitions() {
        let singular = definition.kind.to_lowercase();
        let own = [definition.plural, &singular];
        let all = own
            .into_iter()
            .chain(definition.short_names.iter().copied());
        for name in all {
            let earlier = names.insert(name.to_owned(), definition.kind);
            assert!(
                earlier.is_none(),
                "{name}: {earlier:?} and {}",
                definition.kind
            );
        }
    }
}
