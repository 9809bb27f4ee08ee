//! `ocicat why`, `diff` and `lint` on manifests, without an agent.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use serde_json::Value;
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// As `kubectl get namespaces,pods,networkpolicies -o yaml` has them, in short.
const CLUSTER: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
- apiVersion: v1
  kind: Pod
  metadata: {name: front, namespace: shop, labels: {app: front}}
  spec: {containers: [{name: c, image: c}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: api, namespace: shop, labels: {app: api}}
  spec: {containers: [{name: c, image: c, ports: [{name: web, containerPort: 8080}]}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: exporter, namespace: shop}
  spec: {hostNetwork: true, containers: [{name: c, image: c}]}
";

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: front}}}]
    ports: [{port: PORT}]
";

fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("cluster.yaml"), CLUSTER).unwrap();
    fs::write(
        directory.path().join("policy.yaml"),
        POLICY.replace("PORT", "web"),
    )
    .unwrap();
    directory
}

fn ocicat(directory: &TempDir, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ocicat-node"))
        .arg("ctl")
        .args(arguments)
        .arg("--dir")
        .arg(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn why_says_what_decides_at_both_ends() {
    let directory = directory();
    let allowed = ocicat(
        &directory,
        &["why", "shop/front", "shop/api", "tcp/8080"],
        "",
    );
    assert!(allowed.status.success());
    assert_eq!(
        text(&allowed),
        "shop/front -> shop/api tcp/8080\n\
         allowed    (no address yet) -> (no address yet)\n  \
         egress   no policy decides: allowed\n  \
         ingress  allowed by rule 0 of NetworkPolicy/shop/api (tier default)\n"
    );
    let denied = ocicat(
        &directory,
        &["why", "192.0.2.1", "shop/api", "tcp/8080", "-o", "json"],
        "",
    );
    let verdicts: Value = serde_json::from_slice(&denied.stdout).unwrap();
    assert_eq!(verdicts[0]["allowed"], false);
    assert_eq!(
        verdicts[0]["ingress"]["policies"][0],
        "NetworkPolicy/shop/api"
    );
    let host = ocicat(
        &directory,
        &["why", "shop/exporter", "shop/api", "tcp/8080"],
        "",
    );
    assert_eq!(host.status.code(), Some(1));
    let error = String::from_utf8(host.stderr).unwrap();
    assert!(
        error.contains("shop/exporter is in the host's network"),
        "{error}"
    );
}

#[test]
fn diff_names_what_opens_and_what_closes_and_ends_with_1() {
    let directory = directory();
    let same = ocicat(
        &directory,
        &["diff", "-f", "-"],
        &POLICY.replace("PORT", "web"),
    );
    assert_eq!(text(&same), "no connection changes its verdict\n");
    assert_eq!(same.status.code(), Some(0));
    let other = ocicat(
        &directory,
        &["diff", "-f", "-"],
        &POLICY.replace("PORT", "9090"),
    );
    assert_eq!(other.status.code(), Some(1));
    let lines = text(&other);
    assert!(
        lines.contains("CLOSES  shop/front -> shop/api  tcp/8080\n"),
        "{lines}"
    );
    assert!(
        lines.contains("OPENS   shop/front -> shop/api  tcp/9090\n"),
        "{lines}"
    );
    assert!(
        lines.contains("then  ingress: allowed by rule 0 of NetworkPolicy/shop/api"),
        "{lines}"
    );
    let missing = ocicat(&directory, &["diff", "-f", "/nonexistent"], "");
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn lint_ends_with_1_where_it_finds_something() {
    let directory = directory();
    let clean = ocicat(&directory, &["lint"], "");
    assert_eq!(
        (text(&clean).as_str(), clean.status.code()),
        ("nothing found\n", Some(0))
    );
    let wrong = POLICY
        .replace("PORT", "wbe")
        .replace("app: front", "app: nobody");
    let found = ocicat(&directory, &["lint", "-f", "-", "-o", "json"], &wrong);
    assert_eq!(found.status.code(), Some(1));
    let findings: Value = serde_json::from_slice(&found.stdout).unwrap();
    let checks: Vec<&str> = findings
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["check"].as_str())
        .collect();
    assert_eq!(
        checks,
        ["selector-matches-nothing", "named-port-nobody-has"]
    );
    assert_eq!(findings[0]["field"], "spec.ingress[0].from[0]");
    let invalid = ocicat(
        &directory,
        &["lint", "-f", "-"],
        &POLICY.replace("PORT", "65536"),
    );
    assert_eq!(invalid.status.code(), Some(1));
    let lines = text(&invalid);
    assert!(
        lines.contains("invalid") && lines.contains("spec.ingress[0].ports[0].port"),
        "{lines}"
    );
}
