//! Mistakes in a cluster's own objects: an Event or a condition names the object and the field, and
//! what worked goes on.

use crate::duties::{NODE, agent};
use crate::{Api, PATIENCE, View};
use anyhow::{Context, Result, ensure};
use datastore::kubernetes::{Cluster, ClusterOptions};
use integration::lab::{Agent, Lab, Process, process, wait};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

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

#[test]
fn a_node_without_an_address_is_named_until_one_is_found_and_written() -> Result<()> {
    let api = Api::installed(&[])?;
    api.api.apply(NODE)?;
    let mut agent = agent(&api)?;
    api.netns.ip(["addr del 10.1.0.11/24 dev up0"])?;
    agent.start()?;
    let condition = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array();
        let mut all = conditions.into_iter().flatten();
        let ours = all.find(|condition| condition["type"] == "NetworkUnavailable");
        let said = ours.and_then(|condition| condition["message"].as_str());
        said.is_some_and(|said| said.contains("spec.bgp.ipv4Address: missing"))
            .into()
    };
    api.until_is(&["node", "n1"], condition, &true.into())?;
    ensure!(agent.health("/readyz")?.0 == 503, "ready all the same");
    api.netns.ip(["addr add 10.1.0.11/24 dev up0"])?;
    agent.wait_ready(PATIENCE)?;
    let annotated = |node: &Value| {
        let all = &node["metadata"]["annotations"];
        all["projectcalico.org/IPv4Address"].clone()
    };
    api.until_is(&["node", "n1"], annotated, &"10.1.0.11/24".into())?;
    api.until_is(&["node", "n1"], condition, &false.into())
}

#[test]
fn another_address_than_the_nodes_that_is_detected_is_an_event_and_changes_nothing() -> Result<()> {
    let api = Api::installed(&[])?;
    api.api.apply(NODE)?;
    address_of(&api, "n1", "10.1.0.11")?;
    let mut agent = agent(&api)?;
    api.netns.ip(["addr add 192.0.2.7/24 dev up0"])?;
    let kubeconfig = api.api.kubeconfig("admin").display().to_string();
    let method = ["--ip-autodetection-method", "cidr=192.0.2.0/24"];
    agent.set_flags(&[&["--kubeconfig", &kubeconfig][..], &method].concat());
    agent.start()?;
    wait_event(&api, "Node", "n1", &["10.1.0.11", "192.0.2.7/24"])?;
    is_ready(&agent)?;
    let annotated = |node: &Value| {
        let all = &node["metadata"]["annotations"];
        all["projectcalico.org/IPv4Address"].clone()
    };
    api.until_is(&["node", "n1"], annotated, &Value::Null)
}

/// `openssl ca` is what takes two times.
const AUTHORITY: &str = "
[ca]
default_ca = lab
[lab]
database = index
new_certs_dir = .
serial = serial
default_md = sha256
policy = any
x509_extensions = server
[any]
commonName = supplied
[server]
subjectAltName = IP:127.0.0.1
";

/// A server's certificate that begins and ends so many hours from now, and a kubeconfig that trusts
/// its authority.
fn certificate(dir: &Path, begin: i32, end: i32, port: u16) -> Result<PathBuf> {
    let hours = |hours: i32| -> Result<String> {
        let when = format!("{hours} hours");
        let said = process::run(Command::new("date").args(["-u", "-d", &when, "+%y%m%d%H%M%SZ"]))?;
        Ok(said.trim().to_owned())
    };
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        let words = arguments.split_whitespace();
        process::run(command.current_dir(dir).args(words)).map(drop)
    };
    std::fs::write(dir.join("ca.cnf"), AUTHORITY)?;
    std::fs::write(dir.join("index"), "")?;
    std::fs::write(dir.join("serial"), "01\n")?;
    for name in ["ca", "server"] {
        openssl(&format!(
            "ecparam -name prime256v1 -genkey -noout -out {name}.key"
        ))?;
    }
    openssl("req -x509 -new -key ca.key -subj /CN=ca -days 2 -sha256 -out ca.crt")?;
    openssl("req -new -key server.key -subj /CN=server -out request")?;
    openssl(&format!(
        "ca -batch -config ca.cnf -cert ca.crt -keyfile ca.key -startdate {} -enddate {} \
         -in request -out server.crt -notext",
        hours(begin)?,
        hours(end)?
    ))?;
    let kubeconfig = dir.join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
         clusters: [{{name: lab, cluster: {{server: \"https://127.0.0.1:{port}\", \
         certificate-authority: {}}}}}]\nusers: [{{name: lab, user: {{token: word}}}}]\n\
         contexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]\n",
        dir.join("ca.crt").display()
    );
    std::fs::write(&kubeconfig, text)?;
    Ok(kubeconfig)
}

/// A clock that is off sees certificates of another time: here the clock is right and they are not.
#[test]
fn a_certificate_of_another_hour_is_named_and_so_is_the_clock() -> Result<()> {
    let lab = Lab::new()?;
    let netns = lab.netns("api")?;
    let cases = [
        ("slow", 1, 2, 7443, "certificate not valid yet"),
        ("fast", -2, -1, 7444, "certificate expired"),
    ];
    for (name, begin, end, port, words) in cases {
        let dir = lab.subdir(name)?;
        let kubeconfig = certificate(&dir, begin, end, port)?;
        let mut server = Command::new("openssl");
        server
            .current_dir(&dir)
            .args(["s_server", "-cert", "server.crt", "-key", "server.key"])
            .args(["-quiet", "-accept", &format!("127.0.0.1:{port}")]);
        let _server = Process::start(&netns, &dir, "s_server", &mut server)?;
        let options = ClusterOptions {
            kubeconfig: vec![kubeconfig],
            servers: Vec::new(),
            namespace: "net".to_owned(),
        };
        let cluster = netns.within(|| Cluster::connect(&options))?;
        let mut view = View::new(cluster.context("kubeconfig")?.watch("n1"));
        view.until(words, |view| {
            let lost = view.lost.as_deref().unwrap_or_default();
            lost.contains(words) && lost.contains("the clock of this node")
        })?;
    }
    Ok(())
}
