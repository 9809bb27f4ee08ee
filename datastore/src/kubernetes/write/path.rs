//! Where objects are in the API.

use super::super::resource::RESOURCES;
use model::{Kind, ObjectKey};

/// `apiVersion` and plural of a kind.
pub(super) fn resource(kind: Kind) -> (&'static str, &'static str) {
    let found = RESOURCES.iter().find(|resource| resource.kind == kind);
    match found {
        Some(resource) => (resource.api_version, resource.plural),
        // Its objects are Pods here.
        None => ("projectcalico.org/v3", "workloadendpoints"),
    }
}

/// The path of all objects of a kind, in a namespace where it has any.
pub(super) fn collection(kind: Kind, namespace: Option<&str>) -> String {
    let (version, plural) = resource(kind);
    under(version, plural, namespace)
}

/// The path of an object.
pub(super) fn object(key: &ObjectKey) -> String {
    let collection = collection(key.kind, key.namespace.as_deref());
    format!("{collection}/{}", key.name)
}

/// The path of the objects of an `apiVersion` with this plural.
pub(super) fn under(version: &str, plural: &str, namespace: Option<&str>) -> String {
    let root = if version.contains('/') { "apis" } else { "api" };
    match namespace {
        Some(namespace) => format!("/{root}/{version}/namespaces/{namespace}/{plural}"),
        None => format!("/{root}/{version}/{plural}"),
    }
}
