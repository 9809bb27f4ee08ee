//! The purity wall: what the pure crates must not depend on, directly or through others.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// The crates that hold decisions and nothing else.
pub const PURE: [&str; 5] = ["model", "policy", "bgp-core", "ipam", "felix-core"];

/// Runtimes, clients, system calls, randomness, clocks. A name that ends in `*` is a prefix.
const FORBIDDEN: [&str; 31] = [
    "tokio*",
    "async-std",
    "smol",
    "futures*",
    "mio",
    "kube*",
    "k8s-openapi",
    "hyper*",
    "reqwest",
    "netlink*",
    "rtnetlink",
    "nftables",
    "socket2",
    "rustix",
    "nix",
    "linux-raw-sys",
    "libc",
    "inotify",
    "signal-hook*",
    "tempfile",
    "tracing-subscriber",
    "rand",
    "rand_core",
    "getrandom",
    "fastrand",
    "chrono",
    "time",
    "uuid",
    "crossbeam*",
    "rayon*",
    "parking_lot*",
];

/// A pure crate that reaches a forbidden one, and by which way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// From the pure crate to the forbidden one.
    pub path: Vec<String>,
}

/// Asks cargo for the workspace's dependencies and looks for violations.
///
/// # Errors
/// cargo fails, or a pure crate is not in the workspace.
pub fn check() -> Result<Vec<Violation>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--locked"]);
    let text = crate::lab::process::run(&mut command)?;
    violations(&serde_json::from_str(&text).context("cargo metadata")?)
}

/// Looks for violations in the output of `cargo metadata`.
///
/// # Errors
/// It is not that, or a pure crate is missing.
pub fn violations(metadata: &Value) -> Result<Vec<Violation>> {
    let graph = Graph::read(metadata)?;
    let members: BTreeSet<&str> = strings(&metadata["workspace_members"]).collect();
    let mut found = Vec::new();
    for name in PURE {
        let is_member = |id: &&str| members.contains(id) && graph.names[*id] == name;
        let id = graph.names.keys().copied().find(is_member);
        let id = id.with_context(|| format!("{name} is not in the workspace"))?;
        found.extend(graph.forbidden_from(id));
    }
    Ok(found)
}

/// Packages by id, and what they need when built for use (not for tests or by build scripts).
struct Graph<'a> {
    names: BTreeMap<&'a str, &'a str>,
    needs: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Graph<'a> {
    fn read(metadata: &'a Value) -> Result<Self> {
        let mut names = BTreeMap::new();
        for package in metadata["packages"].as_array().context("no packages")? {
            let id = package["id"].as_str().context("a package without an id")?;
            names.insert(
                id,
                package["name"]
                    .as_str()
                    .context("a package without a name")?,
            );
        }
        let mut needs = BTreeMap::new();
        for node in metadata["resolve"]["nodes"]
            .as_array()
            .context("no dependencies")?
        {
            let id = node["id"].as_str().context("a node without an id")?;
            let all = node["deps"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let normal = all
                .iter()
                .filter(|dep| is_normal(dep))
                .filter_map(|dep| dep["pkg"].as_str());
            needs.insert(id, normal.filter(|id| names.contains_key(id)).collect());
        }
        Ok(Self { names, needs })
    }

    /// The first forbidden packages on every way from `start`, with that way.
    fn forbidden_from(&self, start: &'a str) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::from([start]);
        let mut ways = vec![vec![start]];
        while let Some(way) = ways.pop() {
            let last = way[way.len() - 1];
            for &next in self.needs.get(last).map(Vec::as_slice).unwrap_or_default() {
                if !seen.insert(next) {
                    continue;
                }
                let mut longer = way.clone();
                longer.push(next);
                if is_forbidden(self.names[next]) {
                    let path = longer.iter().map(|id| self.names[id].to_owned()).collect();
                    found.push(Violation { path });
                } else {
                    ways.push(longer);
                }
            }
        }
        found
    }
}

fn is_normal(dependency: &Value) -> bool {
    let kinds = dependency["dep_kinds"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    kinds.iter().any(|kind| kind["kind"].is_null())
}

fn is_forbidden(name: &str) -> bool {
    FORBIDDEN
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *pattern,
        })
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path.join(" -> "))
    }
}
