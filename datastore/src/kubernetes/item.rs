//! One object of the API -> updates.

use super::resource::{Resource, Source};
use super::workload;
use model::manifest::{self, Parsed};
use model::{Kind, Object, ObjectKey, Text, Update};
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
        let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
        let Some(metadata) = metadata else {
            return Err("an object without metadata".to_owned());
        };
        let version = match metadata.remove("resourceVersion") {
            Some(Value::String(version)) => version,
            _ => String::new(),
        };
        let text = |field: &str| metadata.get(field).and_then(Value::as_str);
        let name = match (text("namespace"), text("name")) {
            (_, None | Some("")) => return Err("an object without a name".to_owned()),
            (None | Some(""), Some(name)) => name.to_owned(),
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        };
        value["apiVersion"] = Value::from(resource.api_version);
        value["kind"] = Value::from(resource.kind.as_str());
        Ok(Self {
            name: name.into(),
            version,
            value,
        })
    }

    /// What concerns the node `own`: whether pods of others are Ready changes often and does not.
    pub(super) fn seen_from(mut self, own: &str) -> Self {
        if self.value["spec"]["nodeName"] != *own {
            let status = self.value.get_mut("status").and_then(Value::as_object_mut);
            status.and_then(|status| status.remove("conditions"));
        } else if let Some(all) = self.value.pointer_mut("/status/conditions")
            && let Some(all) = all.as_array_mut()
        {
            all.retain(|condition| condition["type"] == "Ready");
        }
        self
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

impl Said {
    /// Makes the pod hold its name where it is held already: a large cluster has many.
    pub(super) fn hold_name(&mut self, name: Text) {
        let pod = self.updates.iter_mut().find_map(|update| match update {
            Update::Apply {
                object: Object::Pod(pod),
                ..
            } => Some(pod),
            _ => None,
        });
        if let Some(pod) = pod
            && pod.name == name
        {
            pod.name = name;
        }
    }
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
        said.endpoint = Some(endpoint.node.to_string());
        said.updates.push(Update::Apply {
            object: Object::WorkloadEndpoint(Box::new(endpoint)),
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
        Some((namespace, name)) => ObjectKey::namespaced(kind, namespace, name),
        None => ObjectKey::global(kind, name),
    };
    endpoint.into_iter().chain([Update::Delete(key)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(kind: Kind, text: &str) -> Result<Item, String> {
        let source = Source::of(kind).unwrap();
        let raw = RawValue::from_string(text.to_owned()).unwrap();
        Item::read(source.resource, &raw)
    }

    fn pod(node: &str) -> Value {
        json!({
            "metadata": {
                "name": "web", "namespace": "shop", "resourceVersion": "7", "managedFields": [1],
                "annotations": {"cni.projectcalico.org/podIP": "10.0.0.5/32", "x": "y"},
            },
            "spec": {"nodeName": node, "volumes": []},
            "status": {"phase": "Running"},
        })
    }

    fn words(said: &Said) -> Vec<String> {
        let word = |update: &Update| match update {
            Update::Apply { object, .. } => object.key().to_string(),
            Update::Delete(key) => format!("gone {key}"),
            other => format!("{other:?}"),
        };
        said.updates.iter().map(word).collect()
    }

    #[test]
    fn a_pod_is_said_with_its_endpoint_and_loses_the_one_on_another_node() {
        let item = read(Kind::Pod, &pod("n2").to_string()).unwrap();
        assert_eq!((&*item.name, &*item.version), ("shop/web", "7"));
        let source = Source::of(Kind::Pod).unwrap();
        let said = set(&source, item.clone(), Some("n3"), "n1");
        let on = |node| format!("WorkloadEndpoint/shop/{node}-k8s-web-eth0");
        let expected = [
            format!("gone {}", on("n3")),
            "Pod/shop/web".into(),
            on("n2"),
        ];
        assert_eq!(words(&said), expected);
        assert_eq!(said.endpoint.as_deref(), Some("n2"));
        let gone = Said {
            updates: gone(&source, &item.name, Some("n2")),
            endpoint: None,
        };
        let expected = [format!("gone {}", on("n2")), "gone Pod/shop/web".into()];
        assert_eq!(words(&gone), expected);
    }

    #[test]
    fn what_agents_write_on_a_pod_is_kept_only_of_the_nodes_own() {
        let source = Source::of(Kind::Pod).unwrap();
        let annotations = |own: &str| {
            let item = read(Kind::Pod, &pod("n2").to_string()).unwrap();
            let said = set(&source, item, None, own);
            match &said.updates[0] {
                Update::Apply {
                    object: Object::Pod(pod),
                    ..
                } => pod.annotations.len(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((annotations("n1"), annotations("n2")), (0, 1));
    }

    #[test]
    fn an_object_that_changed_only_where_nobody_reads_is_the_same() {
        let from = |own: &str, change: &dyn Fn(&mut Value)| {
            let mut pod = pod("n2");
            change(&mut pod);
            let item = read(Kind::Pod, &pod.to_string()).unwrap();
            item.seen_from(own).hash()
        };
        let hash = |change: &dyn Fn(&mut Value)| from("n1", change);
        let as_it_was = hash(&|_| {});
        let busy = |pod: &mut Value| {
            pod["metadata"]["resourceVersion"] = json!("8");
            pod["metadata"]["managedFields"] = json!([2]);
            pod["status"]["conditions"] = json!([{"type": "Ready"}]);
        };
        assert_eq!(hash(&busy), as_it_was);
        // Its own node sees when it is Ready, and no other condition.
        let conditions = |types: &'static [&str]| {
            move |pod: &mut Value| {
                let all = types
                    .iter()
                    .map(|name| json!({"type": name, "status": "True"}));
                pod["status"]["conditions"] = all.collect();
            }
        };
        let own = |types| from("n2", &conditions(types));
        assert_eq!(own(&["Ready", "Initialized"]), own(&["Ready"]));
        assert_ne!(own(&["Ready"]), own(&[]));
        assert_ne!(
            hash(&|pod| pod["spec"]["nodeName"] = json!("n3")),
            as_it_was
        );
    }

    proptest! {
        #[test]
        fn no_json_is_too_odd(
            metadata in prop_oneof![
                Just(json!(null)), Just(json!([])), Just(json!({"name": ""})), Just(json!({"name": 3})),
                Just(json!({"name": "a", "annotations": null})), Just(json!({"name": "a", "annotations": []})),
                Just(json!({"name": "a", "namespace": {}, "labels": 7})),
            ],
            spec in prop_oneof![Just(json!(null)), Just(json!("x")), Just(json!({"nodeName": []})), Just(json!([{}]))],
            status in prop_oneof![Just(json!(1)), Just(json!({"podIPs": "x"})), Just(json!({"podIPs": [1, {"ip": 2}]}))],
        ) {
            for whole in [json!({"metadata": metadata, "spec": spec, "status": status}), spec, status] {
                for resource in &super::super::resource::RESOURCES {
                    let source = Source::all(resource);
                    let raw = RawValue::from_string(whole.to_string()).unwrap();
                    if let Ok(item) = Item::read(resource, &raw) {
                        set(&source, item, None, "n1");
                    }
                }
            }
        }
    }
}
