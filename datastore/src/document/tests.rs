use super::*;
use model::Kind;
use proptest::prelude::*;

fn keys(text: &str) -> Vec<String> {
    let contents = parse(text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(contents.problems, [""; 0]);
    contents
        .entries
        .iter()
        .map(|entry| entry.key.to_string())
        .collect()
}

#[test]
fn a_file_holds_many_documents_and_empty_ones_are_skipped() {
    let text = "---\n# nothing\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n\
                apiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n---\n";
    assert_eq!(keys(text), ["Namespace/a", "Namespace/b"]);
    for nothing in ["", "\n", "# only a comment\n", "---\n---\n"] {
        assert_eq!(keys(nothing), [""; 0], "{nothing:?}");
    }
}

#[test]
fn json_is_read_as_yaml_is() {
    let text = "{\"apiVersion\":\"v1\",\n\t\"kind\":\"Namespace\",\"metadata\":{\"name\":\"a\"}}";
    assert_eq!(keys(text), ["Namespace/a"]);
}

#[test]
fn lists_are_taken_apart() {
    let text = "apiVersion: v1\nkind: List\nitems:\n\
                - {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n\
                - {apiVersion: v1, kind: NamespaceList, items: [{apiVersion: v1, kind: Namespace, metadata: {name: b}}]}\n";
    assert_eq!(keys(text), ["Namespace/a", "Namespace/b"]);
}

#[test]
fn kinds_of_others_are_ignored() {
    assert_eq!(
        keys("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n"),
        [""; 0]
    );
}

#[test]
fn duplicate_keys_and_broken_syntax_are_errors_with_a_line() {
    for text in ["a: 1\nb: 2\na: 3\n", "a:\n  b: [1\nc: 2\n"] {
        let error = parse(text).expect_err("not YAML");
        assert!(
            error.contains("line 3") || error.contains("line 2"),
            "{error}"
        );
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_document_that_names_no_object_does_not_take_the_others_down() {
    let contents = parse(
        "kind: Namespace\n---\napiVersion: v1\nkind: List\nitems: [3]\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n",
    )
    .expect("YAML");
    assert_eq!(contents.entries.len(), 1);
    assert_eq!(
        contents.problems,
        [
            "document 1: apiVersion: is required",
            "document 2: items[0]: the document is 3, not a mapping"
        ]
    );
}

#[test]
fn an_unquoted_as_number_with_a_dot_is_told_apart_from_a_string() {
    let peer = |number: &str| {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: p}}\n\
             spec: {{peerIP: 10.0.0.1, asNumber: {number}}}\n"
        );
        Arc::clone(&parse(&text).expect("YAML").entries[0].said)
    };
    assert!(
        matches!(&*peer("\"1.10\""), Said::Apply { object: Object::BgpPeer(p), .. } if p.as_number == Some(65546))
    );
    assert!(
        matches!(&*peer("1.10"), Said::Reject { invalid, .. } if invalid.field == "spec.asNumber")
    );
}

#[test]
fn a_number_that_json_does_not_have_is_a_mistake_and_not_an_absent_field() {
    for number in [".nan", ".inf", "-.inf"] {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {{name: t}}\n\
             spec: {{order: {number}}}\n"
        );
        let said = Arc::clone(&parse(&text).expect("YAML").entries[0].said);
        let Said::Reject { invalid, .. } = &*said else {
            panic!("{number}: {said:?}");
        };
        assert_eq!(invalid.field, "spec.order", "{}", invalid.reason);
    }
}

#[test]
fn every_example_that_is_shipped_is_valid_and_understood_in_full() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let mut kinds = std::collections::BTreeSet::new();
    for folder in ["objects", "examples"] {
        for entry in fs::read_dir(deploy.join(folder)).expect("the folder") {
            let path = entry.expect("an entry").path();
            let Reading::Contents(contents) = read(&path) else {
                panic!("{} is not YAML", path.display());
            };
            assert!(contents.problems.is_empty(), "{:?}", contents.problems);
            for entry in contents.entries {
                let Said::Apply { warnings, .. } = &*entry.said else {
                    panic!("{}: {:?}", path.display(), entry.said);
                };
                assert!(warnings.is_empty(), "{}: {warnings:?}", entry.key);
                kinds.insert(entry.key.kind);
            }
        }
    }
    // Kinds that Kubernetes or agents write, and those without anything to show.
    let others = [
        Kind::Pod,
        Kind::WorkloadEndpoint,
        Kind::IpamBlock,
        Kind::IpReservation,
        Kind::ServiceAccount,
        Kind::EndpointSlice,
        Kind::Service,
        Kind::Profile,
    ];
    let shown = |kind: &Kind| kinds.contains(kind) || others.contains(kind);
    let missing: Vec<_> = Kind::ALL.into_iter().filter(|kind| !shown(kind)).collect();
    assert!(missing.is_empty(), "no example of {missing:?}");
}

#[test]
fn what_is_no_regular_file_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(read(directory.path()), Reading::Missing));
    assert!(matches!(
        read(&directory.path().join("a.yaml")),
        Reading::Missing
    ));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn a_truncated_file_never_panics(end in 0_usize..400) {
        let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: api\n  \
            namespace: shop\nspec:\n  podSelector:\n    matchLabels: {\"a\": 'b'}\n  policyTypes: \
            [Ingress]\n  ingress:\n  - from:\n    - ipBlock: {cidr: 10.0.0.0/8}\n    ports:\n    \
            - port: 80\n---\napiVersion: v1\nkind: Namespace\nmetadata: &m\n  name: a\n";
        let _ = parse(&text[..end.min(text.len())]);
    }
}
