//! Reads of an object only what the model reads, so that the rest is never held in memory: the
//! bookkeeping of `managedFields` alone is often half of an object.

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Value};
use std::fmt;

/// What of a value is kept. A value of another shape than expected is kept whole: its reader says
/// what is wrong with it.
#[derive(Debug)]
pub(super) enum Keep {
    /// All of it.
    All,
    /// Of a mapping, these fields.
    Fields(&'static [(&'static str, Keep)]),
    /// Of a mapping, the fields whose names contain this text.
    Named(&'static str),
    /// Of every element of a list, this.
    Each(&'static Keep),
}

impl Keep {
    /// What is kept of the field; none if nothing is.
    fn of(&self, field: &str) -> Option<&Keep> {
        match self {
            Self::All | Self::Each(_) => Some(&Self::All),
            Self::Fields(fields) => {
                let mut all = fields.iter();
                all.find(|(name, _)| *name == field).map(|(_, keep)| keep)
            }
            Self::Named(part) => field.contains(part).then_some(&Self::All),
        }
    }
}

impl<'de> DeserializeSeed<'de> for &Keep {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Keep::All => Value::deserialize(deserializer),
            Keep::Fields(_) | Keep::Named(_) | Keep::Each(_) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for &Keep {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(name) = fields.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.of(&name) {
                Some(keep) => {
                    kept.insert(name.into_owned(), fields.next_value_seed(keep)?);
                }
                None => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value::Object(kept))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let each = match self {
            Keep::Each(each) => each,
            Keep::All | Keep::Fields(_) | Keep::Named(_) => &Keep::All,
        };
        let mut kept = Vec::new();
        while let Some(element) = elements.next_element_seed(each)? {
            kept.push(element);
        }
        Ok(Value::Array(kept))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn slim(keep: &Keep, text: &str) -> Value {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = keep.deserialize(&mut deserializer).unwrap();
        deserializer.end().unwrap();
        value
    }

    static POD: Keep = Keep::Fields(&[
        (
            "metadata",
            Keep::Fields(&[("name", Keep::All), ("annotations", Keep::Named("calico"))]),
        ),
        (
            "spec",
            Keep::Fields(&[(
                "containers",
                Keep::Each(&Keep::Fields(&[("ports", Keep::All)])),
            )]),
        ),
    ]);

    #[test]
    fn only_what_is_named_is_kept() {
        let text = json!({
            "kind": "Pod",
            "metadata": {"name": "a\n", "managedFields": [{"a": 1}], "annotations": {"calico/x": "1", "y": "2"}},
            "spec": {"containers": [{"image": "i", "ports": [{"n": 1.5}]}, {"image": "j"}], "volumes": []},
        });
        let kept = json!({
            "metadata": {"name": "a\n", "annotations": {"calico/x": "1"}},
            "spec": {"containers": [{"ports": [{"n": 1.5}]}, {}]},
        });
        assert_eq!(slim(&POD, &text.to_string()), kept);
    }

    #[test]
    fn what_has_another_shape_is_left_to_its_reader() {
        let text = json!({"metadata": ["x", {"name": "y"}], "spec": {"containers": {"a": 1}}});
        assert_eq!(slim(&POD, &text.to_string()), text);
        assert_eq!(slim(&POD, "-3"), json!(-3));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[a-c]|metadata|spec|containers", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_kept_is_as_it_was(value in any_value()) {
            let kept = slim(&POD, &value.to_string());
            prop_assert_eq!(slim(&POD, &kept.to_string()), kept.clone());
            prop_assert_eq!(slim(&Keep::All, &value.to_string()), value.clone());
            prop_assert_eq!(&kept["metadata"]["name"], &value["metadata"]["name"]);
        }
    }
}
