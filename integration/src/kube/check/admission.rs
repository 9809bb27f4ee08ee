//! Objects that are wrong.

use super::world::{World, items, text};
use anyhow::{Result, bail, ensure};
use serde_json::Value;

/// What is wrong, with the kind, the name and the spec of the object.
type Wrong = (&'static str, &'static str, &'static str, &'static str);

/// The API server refuses these.
const REFUSED: &[Wrong] = &[
    (
        "a prefix that is none",
        "IPPool",
        "wrong",
        "{cidr: 10.0.0.0/33}",
    ),
    (
        "host bits in a pool",
        "IPPool",
        "wrong",
        "{cidr: 10.0.0.1/16}",
    ),
    (
        "blocks larger than the pool",
        "IPPool",
        "wrong",
        "{cidr: 10.9.0.0/24, blockSize: 20}",
    ),
    (
        "two encapsulations",
        "IPPool",
        "wrong",
        "{cidr: 10.9.0.0/16, ipipMode: Always, vxlanMode: Always}",
    ),
    (
        "an encapsulation that is none",
        "IPPool",
        "wrong",
        "{cidr: 10.9.0.0/16, ipipMode: Sometimes}",
    ),
    (
        "an AS number out of range",
        "BGPPeer",
        "wrong",
        "{peerIP: 10.0.0.1, asNumber: 4294967296}",
    ),
    (
        "two ways to name a peer",
        "BGPPeer",
        "wrong",
        "{peerIP: 10.0.0.1, asNumber: 65000, peerSelector: all()}",
    ),
    (
        "an address that is none",
        "BGPPeer",
        "wrong",
        "{peerIP: 10.0.0.256, asNumber: 65000}",
    ),
    (
        "a number where a list is due",
        "GlobalNetworkSet",
        "wrong",
        "{nets: 7}",
    ),
    (
        "a port out of range",
        "GlobalNetworkPolicy",
        "default.wrong",
        "{ingress: [{action: Allow, protocol: TCP, destination: {ports: [70000]}}]}",
    ),
    (
        "an action that is none",
        "GlobalNetworkPolicy",
        "default.wrong",
        "{ingress: [{action: Perhaps}]}",
    ),
    (
        "ports without a protocol",
        "GlobalNetworkPolicy",
        "default.wrong",
        "{ingress: [{action: Allow, destination: {ports: [80]}}]}",
    ),
    (
        "a reservation of nothing",
        "IPReservation",
        "wrong",
        "{reservedCIDRs: [nothing]}",
    ),
    (
        "a filter with an unknown action",
        "BGPFilter",
        "wrong",
        "{importV4: [{action: Maybe}]}",
    ),
];

/// These are accepted, and their status says what is wrong: a schema can't parse a selector.
const REPORTED: &[(&str, &str, &str)] = &[
    (
        "globalnetworkpolicies.projectcalico.org/default.wrong",
        "selector",
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: default.wrong}\n\
         spec: {selector: 'app = = web', ingress: [{action: Allow}]}\n",
    ),
    (
        "clusternetworkpolicies.policy.networking.k8s.io/wrong",
        "key",
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: wrong}\n\
         spec:\n  tier: Admin\n  priority: 999\n  \
         subject: {namespaces: {matchLabels: {no such key: here}}}\n  \
         ingress: [{name: nobody, action: Deny, from: [{namespaces: {}}]}]\n",
    ),
];

/// What has no conditions for it has an Event. Services are read while a pool is for them.
const TOLD: &str = r#"apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: told}
spec: {cidr: 203.0.113.0/29, blockSize: 30, allowedUses: [LoadBalancer]}
---
apiVersion: v1
kind: Service
metadata:
  name: wrong
  namespace: default
  annotations: {projectcalico.org/ipv4pools: '["nothing"]'}
spec: {type: LoadBalancer, ports: [{port: 80}]}
"#;

fn is_told(world: &World) -> Result<()> {
    world.cluster.apply(TOLD)?;
    world.until("an Event about a Service", || {
        let arguments = ["-n", "default", "get", "events.events.k8s.io"];
        let events = world.cluster.kubectl_json(&arguments)?;
        let said = items(&events)
            .filter(|event| text(event, "/regarding/name") == "wrong")
            .any(|event| text(event, "/note").contains(r#"no IPPool "nothing""#));
        ensure!(said, "{events}");
        Ok(())
    })?;
    let delete = ["delete", "-f", "-"];
    world.cluster.kubectl_stdin(&delete, TOLD).map(drop)
}

pub(super) fn refused(world: &mut World) -> Result<String> {
    for (what, kind, name, spec) in REFUSED {
        let manifest = manifest(kind, name, spec);
        match world
            .cluster
            .kubectl_stdin(&["create", "--dry-run=server", "-f", "-"], &manifest)
        {
            Ok(said) => bail!("{what} was accepted: {said}"),
            Err(error) => {
                let words = format!("{error:#}");
                ensure!(
                    words.contains("is invalid") || words.contains("strict decoding"),
                    "{what}: {words}"
                );
            }
        }
    }
    for (object, word, manifest) in REPORTED {
        world.cluster.apply(manifest)?;
        world.until(&format!("the status of {object}"), || {
            let object = world.cluster.kubectl_json(&["get", object])?;
            let conditions = object
                .pointer("/status/conditions")
                .and_then(Value::as_array);
            let reason = conditions
                .into_iter()
                .flatten()
                .find(|condition| text(condition, "/status") == "False")
                .map(|condition| text(condition, "/message").to_owned());
            ensure!(
                reason.as_ref().is_some_and(|words| words.contains(word)),
                "{reason:?}"
            );
            Ok(())
        })?;
        world
            .cluster
            .kubectl_stdin(&["delete", "-f", "-"], manifest)?;
    }
    is_told(world)?;
    Ok(format!(
        "{} refused, {} reported",
        REFUSED.len(),
        REPORTED.len() + 1
    ))
}

fn manifest(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}
