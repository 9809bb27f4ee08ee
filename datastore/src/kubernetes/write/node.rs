//! What a node says about itself on its Node object.

use super::{ATTEMPTS, ClusterWriter, MERGE, STRATEGIC, is_conflict, path, time};
use crate::WriteError;
use model::{Kind, ObjectKey, names};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const CONDITION: &str = "NetworkUnavailable";

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node.
    pub node: String,
    /// Pods that come here have a network.
    pub ready: bool,
    /// Why not, or what is not as it should be although they have.
    pub message: String,
    /// Annotations that are ours alone, such as `projectcalico.org/IPv4VXLANTunnelAddr`; none is
    /// one that is to be removed.
    pub annotations: BTreeMap<String, Option<String>>,
}

impl ClusterWriter {
    /// Makes the Node object say so: the condition `NetworkUnavailable`, the annotations, and, once
    /// the node is ready, no startup taint. Writes what differs.
    pub async fn put_node_status(&self, status: &NodeStatus) -> Result<(), WriteError> {
        let path = format!("/api/v1/nodes/{}", status.node);
        for attempt in 1.. {
            let Some(node) = self.get(&path).await? else {
                break;
            };
            if let Some(patch) = metadata_and_taints(status, &node) {
                match self.patch(&path, MERGE, &patch).await {
                    Err(error) if is_conflict(&error) && attempt < ATTEMPTS => continue,
                    result => result?,
                };
            }
            if let Some(condition) = condition(status, &node) {
                let patch = json!({ "status": { "conditions": [condition] } });
                self.patch(&format!("{path}/status"), STRATEGIC, &patch)
                    .await?;
            }
            break;
        }
        Ok(())
    }

    /// Answers a `CalicoNodeStatus`, if it is there; `status` is all of the answer but its time.
    pub async fn put_node_report(&self, name: &str, status: &Value) -> Result<(), WriteError> {
        let key = ObjectKey::global(Kind::CalicoNodeStatus, name);
        let mut status = status.clone();
        status["lastUpdated"] = time::now().into();
        let place = format!("{}/status", path::object(&key));
        match self
            .patch(&place, MERGE, &json!({ "status": status }))
            .await
        {
            Err(error) if error.code() != Some(404) => Err(WriteError::Api(error)),
            _ => Ok(()),
        }
    }
}

/// The merge patch under the node's `resourceVersion`, since lists are replaced whole.
fn metadata_and_taints(status: &NodeStatus, node: &Value) -> Option<Value> {
    let metadata = &node["metadata"];
    let differs = |(key, value): &(&String, &Option<String>)| {
        metadata["annotations"][key.as_str()].as_str() != value.as_deref()
    };
    let annotations: Map<String, Value> = status
        .annotations
        .iter()
        .filter(differs)
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect();
    let taints = node["spec"]["taints"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let is_startup = |taint: &&Value| taint["key"] == names::STARTUP_TAINT;
    let tainted = status.ready && taints.iter().any(|taint| is_startup(&taint));
    if annotations.is_empty() && !tainted {
        return None;
    }
    let mut patch = json!({ "metadata": {
        "resourceVersion": metadata["resourceVersion"],
        "annotations": annotations,
    } });
    if tainted {
        let kept: Vec<&Value> = taints.iter().filter(|taint| !is_startup(taint)).collect();
        patch["spec"]["taints"] = if kept.is_empty() {
            Value::Null
        } else {
            json!(kept)
        };
    }
    Some(patch)
}

/// The condition, where the node does not have it like that.
fn condition(status: &NodeStatus, node: &Value) -> Option<Value> {
    let (value, reason) = if status.ready {
        ("False", "OcicatIsUp")
    } else {
        ("True", "OcicatIsNotReady")
    };
    let message = if status.message.is_empty() {
        "Ocicat gives this node's pods their network"
    } else {
        &status.message
    };
    let conditions = node["status"]["conditions"].as_array();
    let found = conditions
        .into_iter()
        .flatten()
        .find(|found| found["type"] == CONDITION);
    let same = |field: &str, value: &str| found.is_some_and(|found| found[field] == value);
    if same("status", value) && same("reason", reason) && same("message", message) {
        return None;
    }
    let now = time::now();
    let since = found
        .filter(|_| same("status", value))
        .map(|found| &found["lastTransitionTime"]);
    Some(json!({
        "type": CONDITION,
        "status": value,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": since.cloned().unwrap_or_else(|| now.clone().into()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ready: bool) -> NodeStatus {
        let annotations = [
            ("a".to_owned(), Some("1".to_owned())),
            ("b".to_owned(), None),
        ];
        NodeStatus {
            node: "n1".into(),
            ready,
            message: String::new(),
            annotations: annotations.into(),
        }
    }

    #[test]
    fn the_startup_taint_goes_once_the_node_is_ready_and_others_stay() {
        let other = json!({ "key": "other", "effect": "NoSchedule" });
        let ours = json!({ "key": names::STARTUP_TAINT, "effect": "NoSchedule" });
        let node = |taints: Value| {
            json!({
                "metadata": { "resourceVersion": "7", "annotations": { "a": "1" } },
                "spec": { "taints": taints },
            })
        };
        let patch = |ready, taints| metadata_and_taints(&status(ready), &node(taints));
        assert_eq!(patch(false, json!([ours])), None);
        assert_eq!(patch(true, json!([other])), None);
        assert_eq!(patch(true, Value::Null), None);
        let both = patch(true, json!([other, ours])).unwrap();
        assert_eq!(both["spec"]["taints"], json!([other]));
        assert_eq!(both["metadata"]["resourceVersion"], "7");
        assert_eq!(
            patch(true, json!([ours])).unwrap()["spec"],
            json!({ "taints": null })
        );
    }

    #[test]
    fn annotations_are_written_where_they_differ_and_removed_where_they_are_not_wanted() {
        let node = |annotations: Value| json!({ "metadata": { "annotations": annotations } });
        let patch = |annotations| {
            let patch = metadata_and_taints(&status(false), &node(annotations));
            patch.map(|patch| patch["metadata"]["annotations"].clone())
        };
        assert_eq!(patch(json!({ "a": "1", "c": "user" })), None);
        assert_eq!(
            patch(json!({ "b": "2" })),
            Some(json!({ "a": "1", "b": null }))
        );
        assert_eq!(patch(Value::Null), Some(json!({ "a": "1" })));
    }

    #[test]
    fn a_condition_is_written_when_it_changes_and_remembers_since_when() {
        let fresh = condition(&status(true), &json!({})).unwrap();
        assert_eq!(
            (&fresh["status"], &fresh["reason"]),
            (&json!("False"), &json!("OcicatIsUp"))
        );
        let mut seen = fresh.clone();
        seen["lastTransitionTime"] = "2020-01-01T00:00:00Z".into();
        let node = json!({ "status": { "conditions": [{ "type": "Ready" }, seen] } });
        assert_eq!(condition(&status(true), &node), None);
        let mut noted = status(true);
        noted.message = "a note".into();
        let noted = condition(&noted, &node).unwrap();
        assert_eq!(noted["lastTransitionTime"], "2020-01-01T00:00:00Z");
        let down = condition(&status(false), &node).unwrap();
        assert_eq!(down["status"], "True");
        assert_ne!(down["lastTransitionTime"], "2020-01-01T00:00:00Z");
    }
}
