//! One object of the API -> updates.

use super::resource::{Resource, Source};
use super::workload;
use model::manifest::{self, Parsed};
use model::{Kind, ObjectKey, Update, names};
use serde::de::DeserializeSeed;
use serde_json::Value;
use serde_json::value::RawValue;
use std::hash::{DefaultHasher, Hash, Hasher};

/// An object, slimmed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    /// Its name, behind its namespace and a slash where it has one.
    pub(super) name: Box<str>,
    /// `metadata.resourceVersion`
    pub(super) version: String,
    /// What is kept of it, without the version.
    pub(super) value: Value,
}

impl Item {
    /// Reads what is kept of an object.
    pub(super) fn read(resource: &Resource, raw: &RawValue) -> Result<Self, String> {
        let mut deserializer = serde_json::Deserializer::from_str(raw.get());
        let mut value = resource
            .keep
            .deserialize(&mut deserializer)
            .map_err(|error| error.to_string())?;
        let mut text = |field: &str| match value["metadata"].get_mut(field).map(Value::take) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let version = text("resourceVersion").unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err("an object without a name".to_owned());
        };
        let metadata = &mut value["metadata"];
        metadata["name"] = Value::from(name.as_str());
        let name = match namespace {
            Some(namespace) => {
                metadata["namespace"] = Value::from(namespace.as_str());
                format!("{namespace}/{name}")
            }
            None => name,
        };
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.retain(|_, value| !value.is_null());
        }
        value["apiVersion"] = Value::from(resource.api_version);
        value["kind"] = Value::from(resource.kind.as_str());
        Ok(Self {
            name: name.into(),
            version,
            value,
        })
    }

    /// Of what is kept: equal for objects that are read alike.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.value.to_string().hash(&mut hasher);
        hasher.finish()
    }
}

/// What is said of an object.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) updates: Vec<Update>,
    /// The node of the pod's endpoint, if it has one.
    pub(super) endpoint: Option<String>,
}

/// What an object that is new or changed means. `before` is the node of the endpoint that was said
/// for it, `own` the node that asks.
pub(super) fn set(source: &Source, mut item: Item, before: Option<&str>, own: &str) -> Said {
    let mut said = Said::default();
    let endpoint = match source.resource.kind {
        Kind::Pod => workload::take_endpoint(&mut item.value, own),
        _ => None,
    };
    match manifest::parse(&item.value) {
        Ok(Parsed::Valid { object, warnings }) => {
            let object = in_place(object);
            said.updates.push(Update::Apply { object, warnings });
        }
        Ok(Parsed::Invalid { invalid, fallback }) => {
            said.updates.push(Update::Reject { invalid, fallback });
        }
        Ok(Parsed::Ignored { kind, reason }) => {
            tracing::warn!(%source, name = %item.name, kind, "{reason}; ignored");
        }
        Err(error) => tracing::warn!(%source, name = %item.name, %error, "ignored"),
    }
    if let Some(before) = before
        && endpoint.as_ref().is_none_or(|now| now.node != before)
    {
        let key = workload::key(&item.name, before);
        said.updates.insert(0, Update::Delete(key));
    }
    if let Some(endpoint) = endpoint {
        said.endpoint = Some(endpoint.node.clone());
        said.updates.push(Update::Apply {
            object: model::Object::WorkloadEndpoint(endpoint),
            warnings: Vec::new(),
        });
    }
    said
}

/// What it means that an object is gone.
pub(super) fn gone(source: &Source, name: &str, before: Option<&str>) -> Vec<Update> {
    let endpoint = before.map(|node| Update::Delete(workload::key(name, node)));
    let kind = source.resource.kind;
    let key = match name.split_once('/') {
        Some(_) if kind == Kind::Secret => {
            let (_, name) = name.split_once('/').unwrap_or_default();
            ObjectKey::namespaced(kind, names::SECRETS_NAMESPACE, name)
        }
        Some((namespace, name)) => ObjectKey::namespaced(kind, namespace, name),
        None => ObjectKey::global(kind, name),
    };
    endpoint.into_iter().chain([Update::Delete(key)]).collect()
}

/// Secrets stand in the agent's namespace, whatever it is called in this cluster.
fn in_place(object: model::Object) -> model::Object {
    match object {
        model::Object::Secret(secret) => model::Object::Secret(model::Secret {
            namespace: names::SECRETS_NAMESPACE.to_owned(),
            ..secret
        }),
        other => other,
    }
}
