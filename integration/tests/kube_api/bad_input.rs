//! Mistakes in a cluster's own objects: an Event or a condition names the object and the field, and
//! what worked goes on.

use crate::duties::{NODE, agent};
use crate::{Api, PATIENCE};
use anyhow::{Result, ensure};
use integration::lab::{Agent, wait};
use serde_json::Value;

const PEER: &str = "
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: rack}
spec:
  peerIP: 10.1.0.1
  asNumber: 65001
  password: {secretKeyRef: {name: absent, key: word}}
";
const SECOND: &str = "
apiVersion: v1
kind: Node
metadata: {name: n2}
";

/// Waits until an Event about an object says these words.
fn wait_event(api: &Api, kind: &str, name: &str, words: &[&str]) -> Result<()> {
    wait::until(PATIENCE, &format!("an Event about {kind}/{name}"), || {
        let list = api.get(&["events.events.k8s.io", "-A"]);
        let list = list.map_err(|error| format!("{error:#}"))?;
        let all = list["items"].as_array().into_iter().flatten();
        let about = |event: &&Value| {
            let object = &event["regarding"];
            object["kind"] == kind && object["name"] == name
        };
        let notes: Vec<_> = all
            .filter(about)
            .filter_map(|e| e["note"].as_str())
            .collect();
        match notes
            .iter()
            .any(|note| words.iter().all(|word| note.contains(word)))
        {
            true => Ok(()),
            false => Err(format!("{notes:?}")),
        }
    })
}

fn address_of(api: &Api, node: &str, address: &str) -> Result<()> {
    let status = format!(
        r#"{{"status": {{"addresses": [{{"type": "InternalIP", "address": "{address}"}}]}}}}"#
    );
    let arguments = ["patch", "node", node, "--subresource=status", "-p", &status];
    api.api.kubectl(&arguments).map(drop)
}

fn is_ready(agent: &Agent) -> Result<()> {
    let (status, body) = agent.health("/readyz")?;
    ensure!(status == 200, "{status} {body}");
    Ok(())
}

#[test]
fn a_wrong_annotation_a_doubled_address_and_a_missing_secret_are_named_and_cured() -> Result<()> {
    let api = Api::installed(&[])?;
    api.api.apply(NODE)?;
    address_of(&api, "n1", "10.1.0.11")?;
    let mut agent = agent(&api)?;
    agent.start()?;
    agent.wait_ready(PATIENCE)?;

    let annotation = "projectcalico.org/IPv4Address";
    let wrong = format!("{annotation}=nonsense");
    api.api.kubectl(&["annotate", "node", "n1", &wrong])?;
    // Of its own node an agent speaks in the node's condition.
    let named = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array();
        let all = conditions.into_iter().flatten();
        all.filter(|condition| condition["type"] == "NetworkUnavailable")
            .filter_map(|condition| condition["message"].as_str())
            .any(|message| message.contains(annotation) && message.contains("nonsense"))
            .into()
    };
    api.until_is(&["node", "n1"], named, &true.into())?;
    ensure!(agent.health("/readyz")?.0 == 503, "ready all the same");
    api.api
        .kubectl(&["annotate", "node", "n1", &format!("{annotation}-")])?;
    agent.wait_ready(PATIENCE)?;

    api.api.apply(SECOND)?;
    address_of(&api, "n2", "10.1.0.11")?;
    wait_event(&api, "Node", "n2", &["10.1.0.11", "n1"])?;
    is_ready(&agent)?;
    address_of(&api, "n2", "10.1.0.12")?;

    api.api.apply(PEER)?;
    let said = |peer: &Value| {
        let conditions = peer["status"]["conditions"].as_array();
        let all = conditions.into_iter().flatten();
        all.filter_map(|condition| condition["message"].as_str())
            .any(|message| {
                message.contains("Secret/ocicat-system/absent") && message.contains("password")
            })
            .into()
    };
    api.until_is(&["bgppeer", "rack"], said, &true.into())?;
    is_ready(&agent)?;
    let secret = [
        "create",
        "secret",
        "generic",
        "absent",
        "--from-literal=word=x",
    ];
    let namespace = ["-n", model::names::NAMESPACE];
    api.api.kubectl(&[&namespace[..], &secret].concat())?;
    api.until_is(&["bgppeer", "rack"], said, &false.into())
}
