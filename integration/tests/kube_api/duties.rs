//! An agent in a cluster: what it makes, says and gives out.

use crate::{Api, PATIENCE};
use anyhow::Result;
use integration::lab::{Agent, wait};
use serde_json::{Value, json};

pub(crate) const NODE: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: ocicat-system}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
spec:
  podCIDRs: [10.244.3.0/24]
  taints:
  - {key: node.ocicat.io/agent-not-ready, effect: NoSchedule}
  - {key: other, effect: NoSchedule}
"#;

const SERVICES: &str = r#"
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: services}
spec: {cidr: 192.0.2.0/29, blockSize: 30, allowedUses: [LoadBalancer]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: LoadBalancer, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata:
  name: fixed
  namespace: default
  annotations: {projectcalico.org/loadBalancerIPs: '["192.0.2.5"]'}
spec: {type: LoadBalancer, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: foreign, namespace: default}
spec: {type: LoadBalancer, loadBalancerClass: example.com/other, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata:
  name: wrong
  namespace: default
  annotations: {projectcalico.org/ipv4pools: '["nothing"]'}
spec: {type: LoadBalancer, ports: [{port: 80}]}
"#;

const BOTH_FAMILIES: &str = r#"
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: four}
spec: {cidr: 192.0.2.0/29, blockSize: 29, allowedUses: [LoadBalancer]}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: six}
spec: {cidr: "2001:db8:5::/124", blockSize: 124, allowedUses: [LoadBalancer]}
---
apiVersion: v1
kind: Service
metadata: {name: asked, namespace: default}
spec: {type: LoadBalancer, loadBalancerIP: 192.0.2.6, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: both, namespace: default}
spec: {type: LoadBalancer, ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: six, namespace: default}
spec: {type: LoadBalancer, loadBalancerClass: calico, ipFamilies: [IPv6], ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: taken, namespace: default}
spec: {type: LoadBalancer, loadBalancerIP: 192.0.2.6, ports: [{port: 80}]}
"#;

impl Api {
    pub(crate) fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self
            .api
            .kubectl(&[&["get", "-o", "json"], arguments].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// What `pick` makes of the object, once it is this.
    pub(crate) fn until_is(
        &self,
        arguments: &[&str],
        pick: impl Fn(&Value) -> Value,
        expected: &Value,
    ) -> Result<()> {
        wait::until(PATIENCE, &arguments.join(" "), || {
            let found = self.get(arguments).map(|object| pick(&object));
            match found {
                Ok(found) if found == *expected => Ok(()),
                Ok(found) => Err(found.to_string()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
    }
}

fn addresses(service: &Value) -> Value {
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
    ingress
        .into_iter()
        .flatten()
        .map(|entry| entry["ip"].clone())
        .collect()
}

fn named(list: &Value) -> Value {
    let items = list["items"].as_array().into_iter().flatten();
    items.map(|item| item["metadata"]["name"].clone()).collect()
}

pub(crate) fn agent(api: &Api) -> Result<Agent> {
    for command in [
        "ip link add up0 type veth peer name up1",
        "ip link set up1 up",
        "ip link set up0 up",
        "ip address add 10.1.0.11/24 dev up0",
    ] {
        api.netns.run(&command.split(' ').collect::<Vec<_>>())?;
    }
    let mut agent = Agent::in_cluster(&api.lab, &api.netns, "n1")?;
    let kubeconfig = api.api.kubeconfig("admin").display().to_string();
    agent.set_flags(&["--kubeconfig", &kubeconfig, "--ipam-interval", "1"]);
    Ok(agent)
}

#[test]
fn a_node_says_how_it_is_and_a_new_cluster_gets_what_it_needs() -> Result<()> {
    let api = Api::installed(&[])?;
    api.api.apply(NODE)?;
    let status = r#"{"status": {"addresses": [{"type": "InternalIP", "address": "10.1.0.11"}]}}"#;
    api.api
        .kubectl(&["patch", "node", "n1", "--subresource=status", "-p", status])?;
    let mut agent = agent(&api)?;
    agent.start()?;
    agent.wait_ready(PATIENCE)?;

    api.until_is(
        &["ippool", "default-ipv4-ippool"],
        |pool| pool["spec"]["cidr"].clone(),
        &json!("10.244.0.0/16"),
    )?;
    api.until_is(
        &["tiers"],
        named,
        &json!(["default", "kube-admin", "kube-baseline"]),
    )?;
    api.until_is(&["bgpconfigurations"], named, &json!(["default"]))?;
    let holder = |lease: &Value| lease["spec"]["holderIdentity"].clone();
    api.until_is(
        &["lease", "-n", "ocicat-system", "controller"],
        holder,
        &json!("n1"),
    )?;

    let condition = |node: &Value| {
        let all = node["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten();
        let ours = all.filter(|found| found["type"] == "NetworkUnavailable");
        ours.map(|found| json!([found["status"], found["reason"]]))
            .collect()
    };
    api.until_is(
        &["node", "n1"],
        condition,
        &json!([["False", "OcicatIsUp"]]),
    )?;
    let tainted = |node: &Value| {
        let mut all = node["spec"]["taints"].as_array().into_iter().flatten();
        json!(all.any(|taint| taint["key"] == "node.ocicat.io/agent-not-ready"))
    };
    api.until_is(&["node", "n1"], tainted, &json!(false))?;
    let others = api.get(&["node", "n1"])?["spec"]["taints"].to_string();
    assert!(others.contains(r#""key":"other""#), "{others}");

    let question = "{apiVersion: projectcalico.org/v3, kind: CalicoNodeStatus, metadata: {name: n1}, \
                    spec: {node: n1, classes: [Agent, BGP, Routes], updatePeriodSeconds: 10}}";
    api.api.apply(question)?;
    let state = |answer: &Value| answer["status"]["agent"]["birdV4"]["state"].clone();
    api.until_is(&["caliconodestatus", "n1"], state, &json!("Ready"))?;
    api.api.apply(
        "{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: rack}, \
         spec: {peerIP: 10.1.0.99, asNumber: 65001}}",
    )?;
    let sessions = |answer: &Value| {
        let bgp = &answer["status"]["bgp"];
        let peer = &bgp["peersV4"][0];
        json!([
            bgp["numberEstablishedV4"],
            bgp["numberNotEstablishedV4"],
            peer["peerIP"],
            peer["type"],
        ])
    };
    let expected = json!([0, 1, "10.1.0.99", "GlobalPeer"]);
    api.until_is(&["caliconodestatus", "n1"], sessions, &expected)?;
    let words = ["patch", "bgppeer", "rack", "--type=merge", "-p"];
    let selected = r#"{"spec": {"nodeSelector": "!has(rack)"}}"#;
    api.api.kubectl(&[&words[..], &[selected]].concat())?;
    let expected = json!([0, 1, "10.1.0.99", "NodePeer"]);
    api.until_is(&["caliconodestatus", "n1"], sessions, &expected)?;

    // What no schema sees is told, and no longer once it is cured.
    let pool = |selector: &str| {
        api.api.apply(&format!(
            "{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: odd}}, \
             spec: {{cidr: 10.99.0.0/24, nodeSelector: {selector:?}}}}}"
        ))
    };
    let told = |pool: &Value| {
        let all = pool["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten();
        all.map(|condition| json!([condition["type"], condition["status"], condition["reason"]]))
            .collect()
    };
    pool("has(")?;
    api.until_is(
        &["ippool", "odd"],
        told,
        &json!([["Valid", "False", "InvalidField"]]),
    )?;
    pool("has(rack)")?;
    api.until_is(&["ippool", "odd"], told, &json!([]))?;

    // Whoever goes in good order keeps nobody waiting for the end of its lease.
    agent.stop(PATIENCE)?;
    let left = api.get(&["lease", "-n", "ocicat-system", "controller"])?;
    assert_eq!(holder(&left), json!(""), "{left}");
    Ok(())
}

#[test]
fn services_get_addresses_of_their_pools_which_come_back_when_they_go() -> Result<()> {
    let api = Api::installed(&[])?;
    api.api.apply(NODE)?;
    api.api.apply(SERVICES)?;
    let mut agent = agent(&api)?;
    agent.start()?;
    let service = |name: &'static str, expected: Value| {
        api.until_is(&["service", name], addresses, &expected)
    };
    // The first free one of the block that was begun for the other.
    service("web", json!(["192.0.2.4"]))?;
    service("fixed", json!(["192.0.2.5"]))?;
    service("foreign", json!([]))?;
    let notes = |events: &Value| {
        let items = events["items"].as_array().into_iter().flatten();
        let ours = items.filter(|event| event["regarding"]["name"] == "wrong");
        ours.map(|event| event["note"].clone()).collect()
    };
    let said = r#"there is no IPPool "nothing" of IPv4 with LoadBalancer among its allowedUses"#;
    api.until_is(&["events.events.k8s.io"], notes, &json!([said]))?;
    let affinities = |blocks: &Value| {
        let items = blocks["items"].as_array().into_iter().flatten();
        items
            .map(|block| block["spec"]["affinity"].clone())
            .collect()
    };
    let ours = "virtual:load-balancer";
    api.until_is(&["ipamblocks"], affinities, &json!([ours]))?;

    // The agent dies, and the address that it gave is wanted by another Service afterwards.
    agent.kill()?;
    api.api.kubectl(&["delete", "service", "web"])?;
    api.api.kubectl(&[
        "annotate",
        "service",
        "wrong",
        "projectcalico.org/ipv4pools-",
    ])?;
    api.api.kubectl(&[
        "annotate",
        "service",
        "wrong",
        r#"projectcalico.org/loadBalancerIPs=["192.0.2.4"]"#,
    ])?;
    agent.start()?;
    service("wrong", json!(["192.0.2.4"]))?;
    service("fixed", json!(["192.0.2.5"]))?;
    api.api.kubectl(&["delete", "service", "wrong", "fixed"])?;
    api.until_is(&["ipamblocks"], affinities, &json!([]))
}

#[test]
fn a_service_gets_an_address_of_each_of_its_families_or_the_one_that_it_asks_for() -> Result<()> {
    let api = Api::installed(&[])?;
    api.api.apply(NODE)?;
    api.api.apply(BOTH_FAMILIES)?;
    let mut agent = agent(&api)?;
    agent.start()?;
    let service = |name: &'static str, expected: Value| {
        api.until_is(&["service", name], addresses, &expected)
    };
    service("asked", json!(["192.0.2.6"]))?;
    service("both", json!(["192.0.2.0", "2001:db8:5::"]))?;
    service("six", json!(["2001:db8:5::1"]))?;
    service("taken", json!([]))?;
    let told = |events: &Value| {
        let items = events["items"].as_array().into_iter().flatten();
        let mut ours = items.filter(|event| event["regarding"]["name"] == "taken");
        let note = |event: &Value| event["note"].as_str().unwrap_or_default().to_owned();
        let named = |note: String| note.contains("192.0.2.6") && note.contains("asked");
        json!(ours.any(|event| named(note(event))))
    };
    api.until_is(&["events.events.k8s.io"], told, &json!(true))?;
    api.api.kubectl(&["delete", "service", "asked"])?;
    service("taken", json!(["192.0.2.6"]))?;
    // A cluster that has pools is given no other. It is asked for them first.
    api.until_is(&["bgpconfigurations"], named, &json!(["default"]))?;
    assert_eq!(named(&api.get(&["ippools"])?), json!(["four", "six"]));
    service("both", json!(["192.0.2.0", "2001:db8:5::"]))
}
