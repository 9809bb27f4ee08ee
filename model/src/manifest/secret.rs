//! Kubernetes `v1` `Secret`. No message of this reader repeats a value.

use super::Body;
use super::reader::{Item, Problem};
use super::syntax;
use crate::object::{Object, Secret, SecretValue};
use std::collections::BTreeMap;

pub(super) fn read(body: &mut Body<'_>) -> Result<Object, Problem> {
    body.root.ignore(&["type", "immutable"]);
    let mut data = BTreeMap::new();
    let encoded = |text: &str| base64(text).ok_or("is not base64 (RFC 4648 section 4)");
    if let Some(item) = body.root.take("data") {
        add(item, encoded, &mut data)?;
    }
    // Kubernetes lets it win over `data`.
    if let Some(item) = body.root.take("stringData") {
        add(item, |text| Ok(text.as_bytes().to_vec()), &mut data)?;
    }
    Ok(Object::Secret(Secret {
        namespace: body.namespace.clone(),
        name: body.name.clone(),
        data,
    }))
}

fn add(
    item: Item<'_>,
    decode: impl Fn(&str) -> Result<Vec<u8>, &'static str>,
    data: &mut BTreeMap<String, SecretValue>,
) -> Result<(), Problem> {
    // What is not a mapping would be shown.
    if !(item.value().is_object() || item.value().is_null()) {
        return Err(item.problem("must be a mapping"));
    }
    if item.value().is_null() {
        return Ok(());
    }
    for (key, item) in item.fields()?.all() {
        if syntax::secret_key(key).is_err() {
            return Err(item.problem("has a name that is no key of a Secret"));
        }
        // A null is the empty value.
        let text = match item.value() {
            serde_json::Value::Null => "",
            serde_json::Value::String(text) => text,
            _ => return Err(item.problem("must be a string")),
        };
        let bytes = decode(text).map_err(|reason| item.problem(reason))?;
        data.insert(key.to_owned(), SecretValue::new(bytes));
    }
    Ok(())
}

/// Bytes in base64 with padding; line breaks are ignored, as Kubernetes does.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b"\r\n".contains(b)).collect();
    if !digits.len().is_multiple_of(4) {
        return None;
    }
    let padding = digits.iter().rev().take_while(|b| **b == b'=').count();
    if padding > 2 {
        return None;
    }
    let digits = &digits[..digits.len() - padding];
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for digit in group {
            bits = bits << 6 | u32::from(sextet(*digit)?);
        }
        bits <<= 6 * (4 - group.len());
        let [_, a, b, c] = bits.to_be_bytes();
        bytes.extend(&[a, b, c][..group.len() - 1]);
    }
    Some(bytes)
}

fn sextet(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Parsed, parse, to_manifest};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn secret(fields: Value) -> Parsed {
        let mut document = json!({ "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": "bgp", "namespace": "kube-system" } });
        for (name, value) in fields.as_object().unwrap() {
            document[name] = value.clone();
        }
        parse(&document).unwrap()
    }

    #[test]
    fn the_vectors_of_rfc_4648_section_10() {
        let vectors = [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9v\nYg==\n", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ];
        for (text, bytes) in vectors {
            assert_eq!(base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        for text in ["Z", "Zg", "Zg=", "Z===", "====", "Zm9v!A==", "Zg==Zg=="] {
            assert_eq!(base64(text), None, "{text}");
        }
    }

    #[test]
    fn plain_text_wins_over_encoded_text_and_nothing_shows_a_value() {
        let said = secret(json!({
            "data": { "rack1": "aHVudGVyMg==", "rack2": "aHVudGVyMg==" },
            "stringData": { "rack2": "swordfish" },
        }));
        let Parsed::Valid { object, warnings } = said else {
            panic!("{said:?}");
        };
        assert!(warnings.is_empty(), "{warnings:?}");
        let Object::Secret(secret) = &object else {
            panic!("{object:?}");
        };
        let values: Vec<_> = secret.data.values().map(SecretValue::expose).collect();
        assert_eq!(values, [&b"hunter2"[..], b"swordfish"]);
        let shown = format!("{object:?}{}", serde_json::to_string(&object).unwrap());
        for value in ["hunter2", "swordfish", "aHVudGVyMg"] {
            assert!(!shown.contains(value), "{shown}");
        }
        assert_eq!(to_manifest(&object), None);
    }

    #[test]
    fn mistakes_name_the_key_and_never_the_value() {
        let mistakes = [
            (json!({ "data": { "a": "hunter2" } }), "data.a"),
            (json!({ "data": { "a": 4711 } }), "data.a"),
            (
                json!({ "stringData": { "a": ["hunter2"] } }),
                "stringData.a",
            ),
            (json!({ "data": "hunter2" }), "data"),
            (json!({ "stringData": { "a b": "hunter2" } }), "stringData"),
        ];
        for (fields, field) in mistakes {
            let Parsed::Invalid { invalid, fallback } = secret(fields.clone()) else {
                panic!("{fields} was accepted");
            };
            let said = invalid.to_string();
            assert!(said.starts_with("Secret/kube-system/bgp: "), "{said}");
            assert!(invalid.field.starts_with(field), "{said}");
            assert!(
                !said.contains("hunter2") && !said.contains("4711"),
                "{said}"
            );
            assert_eq!(fallback, None);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_the_decoder_and_every_result_has_the_length_of_its_text(text in "[A-Za-z0-9+/=\n]{0,40}") {
            if let Some(bytes) = base64(&text) {
                let digits = text.bytes().filter(|b| !b"\n=".contains(b)).count();
                prop_assert_eq!(bytes.len(), digits * 3 / 4);
            }
        }
    }
}
