//! What becomes of the objects of an existing Calico: `crd.projectcalico.org/v1`, in which Calico
//! stores them by default, or `projectcalico.org/v3`.
//!
//! The stored form differs in few things: what users put into `metadata` stands in an annotation,
//! and a policy of the default tier has the tier before its name.

use model::manifest::{Parsed, parse};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

const STORED: &str = "crd.projectcalico.org/v1";
const PUBLISHED: &str = "projectcalico.org/v3";
/// Where Calico keeps the labels and annotations of a user.
const METADATA: &str = "projectcalico.org/metadata";
/// Kinds whose stored names begin with their tier.
const TIERED: [&str; 4] = [
    "NetworkPolicy",
    "GlobalNetworkPolicy",
    "StagedNetworkPolicy",
    "StagedGlobalNetworkPolicy",
];

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Outcome {
    /// It can't be used: it has to be changed first.
    Refused,
    /// It is used, and not all that it says.
    Changed,
    /// It is not needed.
    Left,
    /// It is used as it is.
    Taken,
}

/// An object, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What.
    pub outcome: Outcome,
    /// The object: kind, namespace and name.
    pub object: String,
    /// Why, in sentences.
    pub reasons: Vec<String>,
}

/// An address that Calico has given out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Allocation {
    /// The node that holds the block; empty where none does.
    pub node: String,
    /// The block.
    pub block: String,
    /// The address.
    pub address: String,
    /// What it was given out for, such as `k8s-pod-network.` and a container.
    pub handle: String,
    /// Namespace and name of the pod, or the kind of tunnel.
    pub used_by: String,
}

/// All that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One for each object, what needs attention first.
    pub findings: Vec<Finding>,
    /// Addresses in use.
    pub allocations: Vec<Allocation>,
}

/// Looks at documents, or lists of them. Those of other groups are not mentioned.
pub fn examine(documents: &[Value]) -> Report {
    let mut report = Report::default();
    for document in documents {
        add(document, &mut report);
    }
    report.findings.sort();
    report.allocations.sort();
    report
}

fn add(document: &Value, report: &mut Report) {
    if let Some(items) = document["items"].as_array() {
        items.iter().for_each(|item| add(item, report));
        return;
    }
    let version = document["apiVersion"].as_str().unwrap_or_default();
    if ![STORED, PUBLISHED].contains(&version) {
        return;
    }
    let document = published(document);
    let kind = document["kind"].as_str().unwrap_or_default();
    let metadata = &document["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let object = match metadata["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    };
    let (outcome, reasons) = match kind {
        "IPAMBlock" => block(&document["spec"], report),
        "IPAMConfiguration" => address_configuration(&document["spec"]),
        "KubeControllersConfiguration" => controllers(&document["spec"]),
        "BlockAffinity" => left("follows from the blocks"),
        "IPAMHandle" => left("the blocks say what addresses are used for"),
        "ClusterInformation" => left("nothing here depends on it"),
        _ => read(kind, &document),
    };
    report.findings.push(Finding {
        outcome,
        object,
        reasons,
    });
}

/// As users write it.
fn published(document: &Value) -> Value {
    let mut document = document.clone();
    if document["apiVersion"] != STORED {
        return document;
    }
    document["apiVersion"] = PUBLISHED.into();
    if document["kind"] == "IPAMConfig" {
        document["kind"] = "IPAMConfiguration".into();
    }
    let kept = document["metadata"]["annotations"][METADATA].as_str();
    let kept: Value = kept
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(Value::Null);
    let name = document["metadata"]["name"].as_str().unwrap_or_default();
    let mut metadata = json!({ "name": name });
    if let Some(namespace) = document["metadata"]["namespace"].as_str() {
        metadata["namespace"] = namespace.into();
    }
    for field in ["labels", "annotations"] {
        if kept[field].is_object() {
            metadata[field] = kept[field].clone();
        }
    }
    let tiered = document["kind"]
        .as_str()
        .is_some_and(|kind| TIERED.contains(&kind));
    if let Some(own) = kept["name"].as_str() {
        metadata["name"] = own.into();
    } else if let (true, Some(own)) = (tiered, name.strip_prefix("default.")) {
        metadata["name"] = own.into();
    }
    document["metadata"] = metadata;
    document
}

fn left(reason: &str) -> (Outcome, Vec<String>) {
    (Outcome::Left, vec![reason.to_owned()])
}

/// What the reader of the kind says.
fn read(kind: &str, document: &Value) -> (Outcome, Vec<String>) {
    match parse(document) {
        Ok(Parsed::Valid { mut warnings, .. }) => {
            if kind == "FelixConfiguration" {
                warnings.extend(felix(&document["spec"]));
            }
            match warnings.is_empty() {
                true => (Outcome::Taken, warnings),
                false => (Outcome::Changed, warnings),
            }
        }
        Ok(Parsed::Invalid { invalid, .. }) => (
            Outcome::Refused,
            vec![format!("{}: {}", invalid.field, invalid.reason)],
        ),
        Ok(Parsed::Ignored { reason, .. }) => (Outcome::Left, vec![reason]),
        Err(error) => (Outcome::Refused, vec![error.to_string()]),
    }
}

/// Settings of which it matters that they mean nothing here.
fn felix(spec: &Value) -> Vec<String> {
    let set = |field: &str| spec[field] == true || spec[field] == "Enabled";
    let mut reasons = Vec::new();
    if set("bpfEnabled") {
        reasons.push(
            "spec.bpfEnabled: policy is enforced by nftables; kube-proxy has to serve Services"
                .to_owned(),
        );
    }
    if set("floatingIPs") {
        reasons.push("spec.floatingIPs: pods with floating addresses are refused".to_owned());
    }
    for field in ["iptablesMarkMask", "nftablesMarkMask"] {
        if !spec[field].is_null() {
            reasons.push(format!(
                "spec.{field}: connection marks 0x10000000 and 0x20000000 are used here, packet marks are not"
            ));
        }
    }
    reasons
}

fn address_configuration(spec: &Value) -> (Outcome, Vec<String>) {
    let mut reasons = Vec::new();
    if spec["strictAffinity"] != true {
        reasons.push(
            "spec.strictAffinity: nodes take addresses only from their own blocks".to_owned(),
        );
    }
    if spec["maxBlocksPerHost"]
        .as_u64()
        .is_some_and(|most| most > 0)
    {
        reasons.push("spec.maxBlocksPerHost: the blocks of a node are not limited".to_owned());
    }
    if spec["autoAllocateBlocks"] == false {
        reasons.push("spec.autoAllocateBlocks: nodes take blocks by themselves".to_owned());
    }
    match reasons.is_empty() {
        true => (Outcome::Taken, reasons),
        false => (Outcome::Changed, reasons),
    }
}

fn controllers(spec: &Value) -> (Outcome, Vec<String>) {
    if spec["controllers"]["node"]["hostEndpoint"]["autoCreate"] == "Enabled" {
        let reason = "spec.controllers.node.hostEndpoint.autoCreate: host endpoints are not made by \
                      themselves: write those that policies need";
        return (Outcome::Changed, vec![reason.to_owned()]);
    }
    left("agents do the work of the controllers")
}

/// Addresses that pods have now. Two programs that give out addresses of one range would give one
/// out twice.
fn block(spec: &Value, report: &mut Report) -> (Outcome, Vec<String>) {
    let Some(range) = spec["cidr"]
        .as_str()
        .and_then(|text| text.parse::<ipnet::IpNet>().ok())
    else {
        return (Outcome::Refused, vec!["spec.cidr: not a CIDR".to_owned()]);
    };
    let affinity = spec["affinity"].as_str().unwrap_or_default();
    let node = affinity.strip_prefix("host:").unwrap_or_default();
    let mut used: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (ordinal, index) in spec["allocations"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let Some(index) = index.as_u64().and_then(|index| usize::try_from(index).ok()) else {
            continue;
        };
        let attribute = &spec["attributes"][index];
        let (what, used_by) = user(attribute);
        *used.entry(what).or_default() += 1;
        report.allocations.push(Allocation {
            node: node.to_owned(),
            block: range.to_string(),
            address: nth(range, ordinal).to_string(),
            handle: attribute["handle_id"].as_str().unwrap_or("none").to_owned(),
            used_by,
        });
    }
    if used.is_empty() {
        return left("no address of it is in use");
    }
    let used: Vec<String> = used
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    let reason = format!(
        "{} of {}: give Ocicat a pool that does not overlap until these are gone",
        used.join(", "),
        if node.is_empty() { "no node" } else { node },
    );
    (Outcome::Changed, vec![reason])
}

/// What has an address, in a word and by name.
fn user(attribute: &Value) -> (&'static str, String) {
    let secondary = |key: &str| attribute["secondary"][key].as_str();
    match (secondary("pod"), secondary("type")) {
        (Some(pod), _) => (
            "addresses of pods",
            format!("{}/{pod}", secondary("namespace").unwrap_or_default()),
        ),
        (None, Some(kind)) => ("addresses of tunnels and Services", kind.to_owned()),
        (None, None) => ("other addresses", String::new()),
    }
}

fn nth(range: ipnet::IpNet, ordinal: usize) -> IpAddr {
    match range.network() {
        IpAddr::V4(first) => {
            let offset = u32::try_from(ordinal).unwrap_or(u32::MAX);
            IpAddr::V4(u32::from(first).wrapping_add(offset).into())
        }
        IpAddr::V6(first) => {
            let offset = u128::try_from(ordinal).unwrap_or(u128::MAX);
            IpAddr::V6(u128::from(first).wrapping_add(offset).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(kind: &str, name: &str, spec: Value) -> Value {
        json!({ "apiVersion": STORED, "kind": kind,
            "metadata": { "name": name, "uid": "u", "resourceVersion": "7" }, "spec": spec })
    }

    fn only(document: Value) -> Finding {
        let report = examine(&[document]);
        assert_eq!(report.findings.len(), 1);
        report.findings[0].clone()
    }

    #[test]
    fn a_policy_loses_its_tier_and_gets_the_users_labels_back() {
        let mut policy = stored(
            "GlobalNetworkPolicy",
            "default.front",
            json!({ "selector": "all()", "ingress": [{ "action": "Allow" }] }),
        );
        policy["metadata"]["annotations"][METADATA] = r#"{"labels":{"team":"shop"}}"#.into();
        assert_eq!(
            published(&policy)["metadata"],
            json!({ "name": "front", "labels": { "team": "shop" } })
        );
        let finding = only(policy);
        assert_eq!(finding.outcome, Outcome::Taken);
        assert_eq!(finding.object, "GlobalNetworkPolicy front");
    }

    #[test]
    fn what_is_refused_or_changed_says_why_and_comes_first() {
        let report = examine(&[json!({ "kind": "List", "items": [
            stored("IPPool", "pods", json!({ "cidr": "10.244.0.0/16", "natOutgoing": true })),
            stored("FelixConfiguration", "default",
                json!({ "wireguardEnabled": true })),
            stored("FelixConfiguration", "node.n1",
                json!({ "bpfEnabled": true, "floatingIPs": "Enabled", "iptablesMarkMask": 0xff00 })),
            stored("IPAMConfig", "default", json!({ "strictAffinity": false, "maxBlocksPerHost": 20 })),
            stored("KubeControllersConfiguration", "default",
                json!({ "controllers": { "node": { "hostEndpoint": { "autoCreate": "Enabled" } } } })),
            stored("BlockAffinity", "n1", json!({ "cidr": "10.244.0.0/26" })),
            { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "calico-config" } },
        ] })]);
        let told: Vec<_> = report
            .findings
            .iter()
            .map(|finding| {
                (
                    finding.outcome,
                    &*finding.object,
                    !finding.reasons.is_empty(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (Outcome::Refused, "FelixConfiguration default", true),
                (Outcome::Changed, "FelixConfiguration node.n1", true),
                (Outcome::Changed, "IPAMConfiguration default", true),
                (
                    Outcome::Changed,
                    "KubeControllersConfiguration default",
                    true
                ),
                (Outcome::Left, "BlockAffinity n1", true),
                (Outcome::Taken, "IPPool pods", false),
            ]
        );
        let reasons = report.findings[1].reasons.join("; ");
        for expected in [
            "bpfEnabled: policy",
            "floatingIPs: pods",
            "iptablesMarkMask: connection",
        ] {
            assert!(reasons.contains(expected), "{reasons}");
        }
    }

    #[test]
    fn addresses_of_a_block_are_told_with_whom_they_belong_to() {
        let report = examine(&[stored(
            "IPAMBlock",
            "10-244-0-0-30",
            json!({
                "cidr": "10.244.0.0/30", "affinity": "host:n1",
                "allocations": [0, 1, null, 1],
                "attributes": [
                    { "handle_id": "ipip-tunnel-addr-n1", "secondary": { "node": "n1", "type": "ipipTunnelAddress" } },
                    { "handle_id": "k8s-pod-network.c1", "secondary": { "namespace": "shop", "pod": "front", "node": "n1" } },
                ],
            }),
        )]);
        let told: Vec<_> = report
            .allocations
            .iter()
            .map(|a| (&*a.address, &*a.handle, &*a.used_by, &*a.node))
            .collect();
        assert_eq!(
            told,
            [
                (
                    "10.244.0.0",
                    "ipip-tunnel-addr-n1",
                    "ipipTunnelAddress",
                    "n1"
                ),
                ("10.244.0.1", "k8s-pod-network.c1", "shop/front", "n1"),
                ("10.244.0.3", "k8s-pod-network.c1", "shop/front", "n1"),
            ]
        );
        assert_eq!(report.findings[0].outcome, Outcome::Changed);
        let reason = &report.findings[0].reasons[0];
        assert!(reason.contains("2 addresses of pods"), "{reason}");
    }

    #[test]
    fn a_broken_object_is_refused_and_never_a_crash() {
        for document in [
            json!({ "apiVersion": STORED }),
            json!({ "apiVersion": STORED, "kind": "IPPool" }),
            json!({ "apiVersion": STORED, "kind": "IPAMBlock", "metadata": 7, "spec": [] }),
            stored("IPPool", "x", json!({ "cidr": "here" })),
        ] {
            assert_eq!(
                only(document.clone()).outcome,
                Outcome::Refused,
                "{document}"
            );
        }
    }
}
