//! The parts that schemas are built of.

use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;

/// A structural schema, as `apiextensions.k8s.io/v1` takes it: OpenAPI v3 without what makes types
/// depend on values, with the extensions `x-kubernetes-*`.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema(Map<String, Value>);

/// A mapping with these fields. What is not named is pruned by the API server.
pub(super) fn object<const N: usize>(fields: [(&str, Schema); N]) -> Schema {
    let properties: Map<_, _> = fields
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema.into_value()))
        .collect();
    typed("object").with("properties", Value::Object(properties))
}

/// A mapping with the user's keys.
pub(super) fn map_of(item: Schema) -> Schema {
    typed("object").with("additionalProperties", item.into_value())
}

/// A list; its items are replaced as a whole.
pub(super) fn list(item: Schema) -> Schema {
    typed("array").with("items", item.into_value())
}

pub(super) fn text() -> Schema {
    typed("string")
}

pub(super) fn boolean() -> Schema {
    typed("boolean")
}

/// A number with or without a fraction.
pub(super) fn number() -> Schema {
    typed("number")
}

pub(super) fn integer(range: RangeInclusive<i64>) -> Schema {
    typed("integer")
        .with("format", json!("int64"))
        .with("minimum", json!(range.start()))
        .with("maximum", json!(range.end()))
}

/// An integer that is not negative.
pub(super) fn count() -> Schema {
    typed("integer")
        .with("format", json!("int64"))
        .with("minimum", json!(0))
}

/// An integer in `range`, or a string that matches `pattern`.
pub(super) fn integer_or_text(range: RangeInclusive<i64>, pattern: &str) -> Schema {
    Schema(Map::new())
        .with("x-kubernetes-int-or-string", json!(true))
        .with(
            "anyOf",
            json!([{ "type": "integer" }, { "type": "string" }]),
        )
        .with("minimum", json!(range.start()))
        .with("maximum", json!(range.end()))
        .with("pattern", json!(pattern))
}

/// One of these names.
pub(super) fn one_of(names: &[&str]) -> Schema {
    text().with("enum", json!(names))
}

/// One of these names; the empty one stands for none.
pub(super) fn one_of_or_empty(names: &[&str]) -> Schema {
    one_of(&[&[""], names].concat())
}

fn typed(name: &str) -> Schema {
    Schema(Map::from_iter([("type".to_owned(), json!(name))]))
}

impl Schema {
    fn with(mut self, key: &str, value: Value) -> Self {
        self.0.insert(key.to_owned(), value);
        self
    }

    /// With one more field.
    pub(super) fn field(mut self, name: &str, schema: Schema) -> Self {
        self.0["properties"][name] = schema.into_value();
        self
    }

    /// What it is for, in the words of `kubectl explain`.
    pub(super) fn about(self, words: &str) -> Self {
        self.with("description", json!(words))
    }

    pub(super) fn required(self, names: &[&str]) -> Self {
        self.with("required", json!(names))
    }

    /// At most this many characters.
    pub(super) fn longest(self, characters: usize) -> Self {
        self.with("maxLength", json!(characters))
    }

    pub(super) fn not_empty(self) -> Self {
        let least = if self.0["type"] == "array" {
            "minItems"
        } else {
            "minLength"
        };
        self.with(least, json!(1))
    }

    /// At most this many items.
    pub(super) fn most(self, items: usize) -> Self {
        self.with("maxItems", json!(items))
    }

    pub(super) fn pattern(self, expression: &str) -> Self {
        self.with("pattern", json!(expression))
    }

    pub(super) fn format(self, name: &str) -> Self {
        self.with("format", json!(name))
    }

    pub(super) fn nullable(self) -> Self {
        self.with("nullable", json!(true))
    }

    /// Items are told apart by this field, so that several writers can own some each.
    pub(super) fn keyed_by(self, field: &str) -> Self {
        self.with("x-kubernetes-list-type", json!("map"))
            .with("x-kubernetes-list-map-keys", json!([field]))
    }

    /// Fields that are not named are kept: where one narrows what an object allows, its reader
    /// must see it to fail closed.
    pub(super) fn keeps_unknown(self) -> Self {
        self.with("x-kubernetes-preserve-unknown-fields", json!(true))
    }

    /// A rule in the Common Expression Language, about `self`, and what is said if it is false.
    pub(super) fn rule(mut self, expression: &str, message: &str) -> Self {
        let rule = json!({ "rule": expression, "message": message });
        let rules = self
            .0
            .entry("x-kubernetes-validations")
            .or_insert_with(|| json!([]));
        if let Value::Array(rules) = rules {
            rules.push(rule);
        }
        self
    }

    /// As it stands in a manifest.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}
