use super::template::{Target, render};
use super::{differing, folder};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

#[test]
fn the_files_in_the_repository_are_what_would_be_written() {
    let differing = differing(&folder()).unwrap();
    let paths: Vec<_> = differing.keys().collect();
    assert!(paths.is_empty(), "run `cargo lab manifests`: {paths:?}");
}

#[test]
fn lines_about_an_empty_value_are_left_out_of_the_plain_manifest_only() {
    let source = "a\n  #if vxlan\n  - b: ${vxlan}\n  #end\n- ${log}\n";
    assert_eq!(render(source, Target::Plain).unwrap(), "a\n- info\n");
    assert_eq!(
        render(source, Target::Chart).unwrap(),
        "a\n  {{- if .Values.vxlan }}\n  - b: {{ .Values.vxlan | quote }}\n  {{- end }}\n- {{ .Values.log | quote }}\n"
    );
}

#[test]
fn a_template_with_a_mistake_is_refused_with_its_line() {
    for (source, message) in [
        ("a\n${nothing}\n", "line 2"),
        ("#if vxlan\n", "#if vxlan without #end"),
        ("#end\n", "line 1"),
        ("${log\n", "line 1"),
    ] {
        let error = format!("{:#}", render(source, Target::Plain).unwrap_err());
        assert!(error.contains(message), "{error}");
    }
}

fn read(path: &str) -> String {
    let path = folder().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Documents by kind and name.
fn documents(text: &str) -> BTreeMap<String, Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let all = all.into_iter().filter(|document| !document.is_null());
    all.map(|document| {
        let (kind, name) = (&document["kind"], &document["metadata"]["name"]);
        (format!("{kind} {name}"), document)
    })
    .collect()
}

/// What Helm makes of the chart with these values, of which `changed` are not the defaults. Of
/// Helm's language the chart uses `if` of a value and `quote`.
fn chart(changed: &[(&str, &str)]) -> BTreeMap<String, Value> {
    let mut values: BTreeMap<String, String> =
        serde_saphyr::from_str(&read("helm/ocicat/values.yaml")).unwrap();
    for (name, value) in changed {
        assert!(
            values
                .insert((*name).to_owned(), (*value).to_owned())
                .is_some(),
            "{name}"
        );
    }
    let value = |expression: &str| match expression.trim().strip_prefix(".Values.") {
        Some(name) => values[name].clone(),
        None if expression.trim() == ".Release.Namespace" => "ocicat-system".to_owned(),
        None => panic!("{expression}"),
    };
    let mut text = String::new();
    for template in ["rbac", "daemonset"] {
        let mut left_out = false;
        for line in read(&format!("helm/ocicat/templates/{template}.yaml")).lines() {
            let directive = line
                .trim()
                .strip_prefix("{{- ")
                .and_then(|rest| rest.strip_suffix(" }}"));
            match directive {
                Some("end") => left_out = false,
                Some(other) => left_out = value(other.strip_prefix("if ").unwrap()).is_empty(),
                None if left_out => {}
                None => {
                    let mut rest = line;
                    while let Some((before, after)) = rest.split_once("{{ ") {
                        let (expression, after) = after.split_once(" | quote }}").unwrap();
                        text += &format!("{before}{}", json!(value(expression)));
                        rest = after;
                    }
                    text += &format!("{rest}\n");
                }
            }
        }
        text += "---\n";
    }
    documents(&text)
}

fn environment(all: &BTreeMap<String, Value>) -> Vec<Value> {
    let agent = &all["\"DaemonSet\" \"ocicat-node\""];
    let env = &agent["spec"]["template"]["spec"]["containers"][0]["env"];
    env.as_array().unwrap().clone()
}

#[test]
fn the_chart_and_the_base_of_kustomize_are_the_plain_manifest_which_is_short() {
    let text = read("ocicat.yaml");
    assert!(text.lines().count() <= 600);
    let mut plain = documents(&text);
    let base: String = ["namespace", "rbac", "daemonset"]
        .map(|name| read(&format!("kustomize/base/{name}.yaml")) + "---\n")
        .concat();
    assert_eq!(documents(&base), plain);
    // `helm install --create-namespace` makes it.
    plain.remove("\"Namespace\" \"ocicat-system\"").unwrap();
    assert_eq!(chart(&[]), plain);
}

#[test]
fn an_overlay_says_what_the_charts_value_of_its_name_says() {
    for (overlay, values) in [
        ("ipip", &[("ipip", "CrossSubnet")][..]),
        ("vxlan", &[("vxlan", "CrossSubnet")]),
        (
            "dual-stack",
            &[
                ("ipv4Pool", "10.244.0.0/16"),
                ("ipv6Pool", "fd00:10:244::/56"),
            ],
        ),
    ] {
        let text = read(&format!("kustomize/overlays/{overlay}/kustomization.yaml"));
        let overlay: Value = serde_saphyr::from_str(&text).unwrap();
        let patch = overlay["patches"][0]["patch"].as_str().unwrap();
        let steps: Vec<Value> = serde_saphyr::from_str(patch).unwrap();
        let mut patched = environment(&documents(&read("ocicat.yaml")));
        for step in steps {
            assert_eq!(step["path"], "/spec/template/spec/containers/0/env/-");
            patched.push(step["value"].clone());
        }
        assert_eq!(environment(&chart(values)), patched, "{text}");
    }
}
