//! A kind with its names, columns and schema.

use super::build::{Schema, object, text};
use super::status;
use serde_json::{Value, json};

/// Where objects of a kind live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Once in the cluster.
    Cluster,
    /// In a namespace.
    Namespaced,
}

/// A column of `kubectl get`: heading, type of the value, JSONPath to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column(pub &'static str, pub &'static str, pub &'static str);

/// What a cluster must know to store a kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The API group.
    pub group: &'static str,
    /// The version in which objects are stored and served.
    pub version: &'static str,
    /// As in manifests.
    pub kind: &'static str,
    /// As in URLs and roles.
    pub plural: &'static str,
    /// What `kubectl` takes besides.
    pub short_names: &'static [&'static str],
    /// Where its objects live.
    pub scope: Scope,
    /// What `kubectl get` shows besides the name.
    pub columns: &'static [Column],
    /// What the kind is for.
    pub about: &'static str,
    /// The schema of `spec`.
    pub spec: Schema,
    /// The schema of `status`, a sub-resource of its own; none where agents say nothing.
    pub status: Option<Schema>,
    /// CEL rules about the whole object, each with what is said if it is false.
    pub rules: &'static [(&'static str, &'static str)],
    /// False for a kind of which an object may have no `spec` at all.
    pub needs_spec: bool,
}

impl Definition {
    /// A kind of `projectcalico.org/v3` whose objects have conditions.
    pub(super) fn calico(
        kind: &'static str,
        plural: &'static str,
        about: &'static str,
        spec: Schema,
    ) -> Self {
        Self {
            group: "projectcalico.org",
            version: "v3",
            kind,
            plural,
            short_names: &[],
            scope: Scope::Cluster,
            columns: &[],
            about,
            spec,
            status: Some(status::conditions()),
            rules: &[],
            needs_spec: true,
        }
    }

    /// The name of the definition itself.
    pub fn name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    /// The schema of a whole object.
    pub fn schema(&self) -> Schema {
        let metadata = object([]);
        let head = (
            text().about("The version of the schema, such as projectcalico.org/v3."),
            text().about("The kind of the object."),
        );
        let mut schema = match self.status.clone() {
            Some(status) => object([
                ("apiVersion", head.0),
                ("kind", head.1),
                ("metadata", metadata),
                ("spec", self.spec.clone()),
                ("status", status),
            ]),
            None => object([
                ("apiVersion", head.0),
                ("kind", head.1),
                ("metadata", metadata),
                ("spec", self.spec.clone()),
            ]),
        };
        if self.needs_spec {
            schema = schema.required(&["spec"]);
        }
        for (expression, message) in self.rules {
            schema = schema.rule(expression, message);
        }
        schema.about(self.about)
    }

    /// The manifest of the definition.
    pub fn to_manifest(&self) -> Value {
        let columns: Vec<Value> = self
            .columns
            .iter()
            .map(|Column(name, kind, path)| json!({ "name": name, "type": kind, "jsonPath": path }))
            .collect();
        let mut names = json!({
            "kind": self.kind,
            "listKind": format!("{}List", self.kind),
            "plural": self.plural,
            "singular": self.kind.to_lowercase(),
            "categories": ["ocicat"],
        });
        if !self.short_names.is_empty() {
            names["shortNames"] = json!(self.short_names);
        }
        let mut version = json!({
            "name": self.version,
            "served": true,
            "storage": true,
            "schema": { "openAPIV3Schema": self.schema().into_value() },
        });
        if self.status.is_some() {
            version["subresources"] = json!({ "status": {} });
        }
        if !columns.is_empty() {
            version["additionalPrinterColumns"] = json!(columns);
        }
        let mut metadata = json!({ "name": self.name() });
        if self.group.ends_with(".k8s.io") {
            // The API server keeps these groups for Kubernetes, and asks who has approved.
            metadata["annotations"] = json!({
                "api-approved.kubernetes.io": "unapproved, a schema of the published API",
            });
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": metadata,
            "spec": {
                "group": self.group,
                "names": names,
                "scope": match self.scope {
                    Scope::Cluster => "Cluster",
                    Scope::Namespaced => "Namespaced",
                },
                "versions": [version],
            },
        })
    }
}
