//! What a node thinks of an object.

use super::atomic::file_name;
use crate::STATUS;
use model::{Kind, ObjectKey};
use serde_json::json;
use std::path::PathBuf;

/// The conditions of an object, or of the node itself, as one node sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The node that says it.
    pub node: String,
    /// What it is about; none is the node itself.
    pub object: Option<ObjectKey>,
    /// What is the case. With none there is nothing to say, and the status is removed.
    pub conditions: Vec<Condition>,
}

/// One condition, after Kubernetes' `metav1.Condition`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What it is about, such as `Accepted` or `Programmed`.
    pub type_: String,
    /// Whether it is the case.
    pub status: bool,
    /// Why, in one CamelCase word.
    pub reason: String,
    /// Why, in a sentence for the user.
    pub message: String,
}

impl Status {
    /// The file below `state/`.
    pub(super) fn path(&self) -> PathBuf {
        let object = self.key();
        let kind = object.kind.to_string();
        let parts = [kind.as_str()].into_iter();
        let parts = parts
            .chain(object.namespace.as_deref())
            .chain([object.name.as_str()]);
        let folder = file_name([self.node.as_str()].into_iter());
        let folder = folder.strip_suffix(".yaml").unwrap_or(&folder);
        PathBuf::from(STATUS).join(folder).join(file_name(parts))
    }

    /// The file's text; none if there is nothing to say.
    pub(super) fn text(&self) -> Option<String> {
        let object = self.key();
        let conditions = self.conditions.iter().map(|condition| {
            json!({
                "type": condition.type_,
                "status": if condition.status { "True" } else { "False" },
                "reason": condition.reason,
                "message": condition.message,
            })
        });
        let document = json!({
            "node": self.node,
            "object": {
                "kind": object.kind.to_string(),
                "namespace": object.namespace,
                "name": object.name,
            },
            "conditions": conditions.collect::<Vec<_>>(),
        });
        let text = serde_saphyr::to_string(&document)
            .expect("invariant: strings, lists and mappings with string keys are YAML");
        (!self.conditions.is_empty()).then_some(text)
    }

    fn key(&self) -> ObjectKey {
        let node = || ObjectKey::global(Kind::Node, &self.node);
        self.object.clone().unwrap_or_else(node)
    }
}
