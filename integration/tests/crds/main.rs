//! A real API server takes the definitions and the manifests, and refuses what they say is wrong.

mod bad;

use anyhow::{Context, Result, ensure};
use integration::lab::{KubeApi, Lab};
use model::schema::{cluster_network_policy, definitions};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Kinds of a directory that a cluster has no collection of: its Nodes and Pods say the same.
const DIRECTORY_ONLY: [&str; 2] = ["Node", "WorkloadEndpoint"];

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn read(path: &str) -> Result<String> {
    let path = deploy().join(path);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn documents(text: &str) -> Result<Vec<Value>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(all
        .into_iter()
        .filter(|document| !document.is_null())
        .collect())
}

/// An API server that knows the definitions, and the namespaces of the examples.
fn server(lab: &Lab) -> Result<KubeApi> {
    let netns = lab.netns("api")?;
    let api = KubeApi::start(lab, &netns, &[])?;
    api.apply(&read("crds.yaml")?)?;
    api.apply(&read("cluster-network-policy.yaml")?)?;
    api.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=120s",
        "crd",
        "--all",
    ])?;
    for name in ["shop", "ocicat-system"] {
        api.kubectl(&["create", "namespace", name])?;
    }
    Ok(api)
}

fn json_lines(documents: &[Value]) -> String {
    documents
        .iter()
        .map(|document| format!("{document}\n"))
        .collect()
}

#[test]
fn a_cluster_takes_the_examples_and_refuses_what_each_rule_names() -> Result<()> {
    let lab = Lab::new()?;
    let api = server(&lab)?;
    takes_every_example(&api)?;
    takes_the_manifests(&api)?;
    shows_columns(&api)?;
    refuses_what_rules_name(&api)?;
    refuses_every_value_of_another_type(&api)?;
    keeps_what_a_reader_must_see(&api)
}

fn takes_every_example(api: &KubeApi) -> Result<()> {
    let mut paths = vec![deploy().join("every-field.yaml")];
    for folder in ["objects", "examples"] {
        for entry in std::fs::read_dir(deploy().join(folder))? {
            paths.push(entry?.path());
        }
    }
    let mut count = 0;
    for path in paths {
        let mut all = documents(&std::fs::read_to_string(&path)?)?;
        all.retain(|document| {
            let kind = document["kind"].as_str().unwrap_or_default();
            document["apiVersion"] != "projectcalico.org/v3" || !DIRECTORY_ONLY.contains(&kind)
        });
        // Objects name namespaces that a directory need not have.
        for document in &all {
            if let Some(namespace) = document["metadata"]["namespace"].as_str() {
                let made = api.kubectl(&["create", "namespace", namespace]);
                let text = made
                    .err()
                    .map(|error| format!("{error:#}"))
                    .unwrap_or_default();
                ensure!(text.is_empty() || text.contains("AlreadyExists"), "{text}");
            }
        }
        if all.is_empty() {
            continue;
        }
        count += all.len();
        api.apply(&json_lines(&all))
            .with_context(|| path.display().to_string())?;
    }
    ensure!(count > 40, "{count} examples");
    Ok(())
}

fn takes_the_manifests(api: &KubeApi) -> Result<()> {
    let plain = deploy().join("ocicat.yaml").display().to_string();
    let mut said = api.kubectl(&["apply", "--server-side", "--dry-run=server", "-f", &plain])?;
    let overlays = deploy().join("kustomize/overlays");
    for entry in std::fs::read_dir(&overlays)? {
        let folder = entry?.path().display().to_string();
        said += &api.kubectl(&["apply", "--server-side", "--dry-run=server", "-k", &folder])?;
    }
    let agents = said.matches("daemonset.apps/ocicat-node").count();
    ensure!(agents == 5, "the plain manifest and four overlays: {said}");
    Ok(())
}

/// Every kind has its columns, and goes by each of its names.
fn shows_columns(api: &KubeApi) -> Result<()> {
    for definition in definitions().iter().chain([&cluster_network_policy()]) {
        let mut headings = vec!["NAME".to_owned()];
        headings.extend(
            definition
                .columns
                .iter()
                .map(|column| column.0.to_uppercase()),
        );
        if definition.columns.is_empty() {
            headings.push("AGE".to_owned());
        }
        let full = definition.name();
        let names = definition.short_names.iter().copied();
        for name in names.chain([full.as_str()]) {
            let table = api.kubectl(&["get", name, "--all-namespaces"])?;
            let first = table.lines().next().unwrap_or_default();
            let found: Vec<&str> = first.split_whitespace().collect();
            let found: Vec<&str> = found
                .into_iter()
                .filter(|head| *head != "NAMESPACE")
                .collect();
            ensure!(found.join(" ") == headings.join(" "), "{name}: {table}");
            ensure!(table.lines().count() > 1, "{name}: no example");
        }
    }
    Ok(())
}

/// Every rule of every definition has an object that breaks it and nothing else.
fn refuses_what_rules_name(api: &KubeApi) -> Result<()> {
    let examples = documents(&read("every-field.yaml")?)?;
    let cases = bad::cases(&examples)?;
    let manifests: Vec<Value> = cases.iter().map(|case| case.document.clone()).collect();
    let said = match api.apply(&json_lines(&manifests)) {
        Ok(()) => String::new(),
        Err(error) => format!("{error:#}"),
    };
    let refusals: Vec<&str> = said.split("Error from server").collect();
    for case in &cases {
        let subject = format!(
            "\"{}\"",
            case.document["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
        );
        let kind = case.document["kind"].as_str().unwrap_or_default();
        let refused = refusals.iter().any(|refusal| {
            refusal.contains(&subject) && refusal.contains(kind) && refusal.contains(case.message)
        });
        ensure!(
            refused,
            "not refused with {:?}: {}\n{said}",
            case.message,
            case.document
        );
    }
    let mut messages = BTreeSet::new();
    for definition in definitions().iter().chain([&cluster_network_policy()]) {
        rule_messages(&definition.schema().into_value(), &mut messages);
    }
    let tried: BTreeSet<String> = cases.iter().map(|case| case.message.to_owned()).collect();
    let untried: Vec<_> = messages.difference(&tried).collect();
    ensure!(
        untried.is_empty(),
        "rules that no object breaks: {untried:#?}"
    );
    Ok(())
}

fn rule_messages(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for rule in map
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                found.extend(rule["message"].as_str().map(str::to_owned));
            }
            map.values().for_each(|value| rule_messages(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| rule_messages(item, found)),
        _ => {}
    }
}

/// What the schema gives a type is refused with another one, and named.
fn refuses_every_value_of_another_type(api: &KubeApi) -> Result<()> {
    let examples = documents(&read("every-field.yaml")?)?;
    let (mut wrong, mut expected) = (Vec::new(), Vec::new());
    for definition in definitions() {
        let schema = definition.schema().into_value();
        let of_kind = |document: &&Value| document["kind"] == definition.kind;
        for document in examples.iter().filter(of_kind) {
            let spec = &schema["properties"]["spec"];
            typed(
                spec,
                &document["spec"],
                "spec",
                "/spec",
                &mut |path, pointer| {
                    let mut document = document.clone();
                    if let Some(value) = document.pointer_mut(pointer) {
                        *value = match value.is_object() {
                            true => Value::from(7),
                            false => serde_json::json!({}),
                        };
                        expected.push((definition.kind, path.to_owned()));
                        wrong.push(document);
                    }
                },
            );
        }
    }
    ensure!(wrong.len() > 400, "{}", wrong.len());
    let mut silent = Vec::new();
    // As many as a command takes.
    for (wrong, expected) in wrong.chunks(100).zip(expected.chunks(100)) {
        let refused = api.try_create(&json_lines(wrong)).err();
        let said = refused.map_or_else(String::new, |error| format!("{error:#}"));
        let refusals: Vec<&str> = said.split("Error from server").collect();
        silent.extend(expected.iter().filter(|(kind, path)| {
            let named = format!("{path}:");
            let mut about = refusals.iter().filter(|text| text.contains(kind));
            !about.any(|text| text.contains(&named))
        }));
    }
    ensure!(silent.is_empty(), "taken: {silent:#?}");
    Ok(())
}

/// Calls `each` with the path and the pointer of every value to which the schema gives a type.
fn typed(
    schema: &Value,
    value: &Value,
    path: &str,
    pointer: &str,
    each: &mut dyn FnMut(&str, &str),
) {
    if !schema["type"].is_null() {
        each(path, pointer);
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let field = match &schema["properties"][name] {
            Value::Null => &schema["additionalProperties"],
            field => field,
        };
        let token = name.replace('~', "~0").replace('/', "~1");
        let (path, pointer) = (format!("{path}.{name}"), format!("{pointer}/{token}"));
        typed(field, value, &path, &pointer, each);
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        let (path, pointer) = (format!("{path}[{index}]"), format!("{pointer}/{index}"));
        typed(&schema["items"], value, &path, &pointer, each);
    }
}

/// A rule with a field that nobody knows must not become one without it.
fn keeps_what_a_reader_must_see(api: &KubeApi) -> Result<()> {
    api.apply(
        &serde_json::json!({
            "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
            "metadata": { "name": "unknown", "namespace": "shop" },
            "spec": { "selector": "all()", "egress": [
                { "action": "Allow", "destination": { "domains": ["www.example.org"] } },
            ] },
        })
        .to_string(),
    )?;
    let read = ["get", "cnp", "-n", "shop", "unknown", "-o", "json"];
    let kept: Value = serde_json::from_str(&api.kubectl(&read)?)?;
    ensure!(
        kept["spec"]["egress"][0]["destination"]["domains"][0] == "www.example.org",
        "{kept}"
    );
    Ok(())
}
