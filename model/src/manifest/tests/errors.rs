use super::{clean, invalid};
use crate::manifest::{Parsed, VERSIONS, known, parse};
use crate::object::Kind;
use serde_json::{Value, json};

fn refused(document: &Value) -> String {
    parse(document).expect_err("no object").to_string()
}

#[test]
fn a_document_without_identity_is_an_error_that_names_the_field() {
    let namespaced = |name: Value, namespace: Value| json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace } });
    for (document, expected) in [
        (json!(null), "the document is null, not a mapping"),
        (json!([1]), "the document is a list, not a mapping"),
        (json!({}), "apiVersion: is required"),
        (json!({ "apiVersion": "v1" }), "kind: is required"),
        (
            json!({ "apiVersion": 1, "kind": "Pod" }),
            "apiVersion: 1 is not a string; write it in quotes",
        ),
        (
            json!({ "apiVersion": "v1", "kind": "Pod" }),
            "Pod metadata: is required",
        ),
        (
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": {} }),
            "Pod metadata.name: is required",
        ),
        (
            namespaced(json!(""), json!("a")),
            r#"Pod metadata.name: "" is not a name of at most 253 printable characters"#,
        ),
        (
            namespaced(json!("a\nb"), json!("a")),
            r#"Pod metadata.name: "a\nb" is not a name of at most 253 printable characters"#,
        ),
        (
            namespaced(json!("web"), json!("a.b")),
            r#"Pod metadata.namespace: "a.b" is not an RFC 1123 label (at most 63 of a-z, 0-9 and -)"#,
        ),
    ] {
        assert_eq!(refused(&document), expected);
    }
}

#[test]
fn an_object_with_a_bad_name_is_invalid_and_a_policy_still_fails_closed() {
    for (version, kind) in [("v1", "Pod"), ("networking.k8s.io/v1", "NetworkPolicy")] {
        let document = json!({ "apiVersion": version, "kind": kind, "spec": {},
            "metadata": { "name": "Web_1", "namespace": "a" } });
        let (message, fallback) = invalid(&document);
        let expected = "is not an RFC 1123 subdomain (at most 253 of a-z, 0-9, - and .)";
        assert_eq!(
            message,
            format!("{kind}/a/Web_1: metadata.name: \"Web_1\" {expected}")
        );
        assert_eq!(fallback.is_some(), kind == "NetworkPolicy");
    }
}

#[test]
fn other_kinds_and_other_versions_of_ours_are_ignored_with_a_reason() {
    for (version, kind, expected) in [
        (
            "apps/v1",
            "Deployment",
            "Deployment is not a kind that Ocicat uses",
        ),
        (
            "policy.networking.k8s.io/v1alpha1",
            "ClusterNetworkPolicy",
            "ClusterNetworkPolicy is read in apiVersion policy.networking.k8s.io/v1alpha2, not in policy.networking.k8s.io/v1alpha1",
        ),
    ] {
        let document = json!({ "apiVersion": version, "kind": kind });
        let Ok(Parsed::Ignored {
            kind: found,
            reason,
        }) = parse(&document)
        else {
            panic!("{document}");
        };
        assert_eq!(
            (found, reason.as_str()),
            (format!("{version} {kind}"), expected)
        );
    }
}

#[test]
fn every_kind_is_read_in_some_version() {
    for kind in Kind::ALL {
        let reads =
            |version: &str| known(version, kind.as_str()).is_some_and(|(found, _)| found == kind);
        assert!(VERSIONS.into_iter().any(reads), "{kind}");
    }
}

#[test]
fn fields_that_kubernetes_fills_in_cause_no_warning() {
    clean(&json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": "shop", "uid": "1", "resourceVersion": "7", "managedFields": [],
            "creationTimestamp": null, "annotations": { "a": "b" } },
        "spec": { "finalizers": ["kubernetes"] }, "status": { "phase": "Active" },
    }));
}
