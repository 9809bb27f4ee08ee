//! What is in the API is what is said.

use crate::Api;
use anyhow::Result;
use model::Object;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Namespace
metadata: {name: net}
---
apiVersion: v1
kind: Node
metadata:
  name: n1
  annotations: {projectcalico.org/ASNumber: "64513"}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: n2
  containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16, natOutgoing: true}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: bad}
spec: {cidr: 10.244.0.0/99}
"#;

#[test]
fn objects_are_said_as_they_are_and_a_bad_one_rejects_itself_only() -> Result<()> {
    let api = Api::start(&[])?;
    api.api.apply(OBJECTS)?;
    let mut view = api.watch("admin")?;
    view.until_in_sync()?;
    let expected = [
        "IPPool/pods",
        "Namespace/net",
        "Namespace/shop",
        "NetworkPolicy/shop/api",
        "Node/n1",
        "Pod/shop/web",
    ];
    assert_eq!(view.names().into_iter().collect::<Vec<_>>(), expected);
    assert!(view.unreadable["IPPool/bad"].contains("spec.cidr"));
    let Object::Pod(pod) = view.object("Pod/shop/web")? else {
        panic!("a pod");
    };
    assert_eq!((&*pod.labels["app"], pod.ports[0].port), ("web", 8080));
    let Object::Node(node) = view.object("Node/n1")? else {
        panic!("a node");
    };
    assert_eq!(node.as_number, Some(64513));
    Ok(())
}

#[test]
fn a_pod_has_an_endpoint_from_when_its_status_says_an_address() -> Result<()> {
    let api = Api::start(&[])?;
    api.api.apply(OBJECTS)?;
    let mut view = api.watch("admin")?;
    view.until_in_sync()?;
    let endpoint = "WorkloadEndpoint/shop/n2-k8s-web-eth0";
    let status = r#"{"status": {"phase": "Running", "podIP": "10.244.1.5",
        "podIPs": [{"ip": "10.244.1.5"}, {"ip": "fd00::5"}]}}"#;
    let patch = ["patch", "pod", "web", "-n", "shop", "--subresource=status"];
    let say = |status: &str| api.api.kubectl(&[&patch[..], &["-p", status]].concat());
    say(status)?;
    view.until("an endpoint", |view| view.object(endpoint).is_ok())?;
    let Object::WorkloadEndpoint(said) = view.object(endpoint)? else {
        panic!("an endpoint");
    };
    let ips: Vec<_> = said.ip_networks.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.244.1.5/32", "fd00::5/128"]);
    // A pod that has ended holds no address.
    say(r#"{"status": {"phase": "Succeeded"}}"#)?;
    view.until("no endpoint", |view| {
        view.object(endpoint).is_err() && view.object("Pod/shop/web").is_err()
    })
}

#[test]
fn changes_and_deletions_follow_and_a_kind_may_be_installed_later() -> Result<()> {
    let api = Api::start(&[])?;
    api.api.apply(OBJECTS)?;
    let mut view = api.watch("admin")?;
    view.until_in_sync()?;
    api.api
        .kubectl(&["label", "namespace", "shop", "team=b", "--overwrite"])?;
    view.until("the label", |view| {
        matches!(view.object("Namespace/shop"), Ok(Object::Namespace(n)) if n.labels["team"] == "b")
    })?;
    api.api
        .kubectl(&["delete", "networkpolicy", "-n", "shop", "api"])?;
    view.until("the end of the policy", |view| {
        view.object("NetworkPolicy/shop/api").is_err()
    })?;
    api.api.apply(&crate::crd("Tier", "tiers"))?;
    let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
    api.api
        .kubectl(&[&wait[..], &["crd/tiers.projectcalico.org"]].concat())?;
    api.api.apply(
        "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: ops}, spec: {order: 5}}",
    )?;
    view.until("the tier", |view| view.object("Tier/ops").is_ok())
}

#[test]
fn a_secret_is_read_when_a_peer_names_it_and_no_other_is() -> Result<()> {
    let api = Api::start(&["agent"])?;
    api.api.apply(OBJECTS)?;
    let secrets = "apiVersion: v1\nkind: Secret\nmetadata: {name: rack, namespace: net}\nstringData: {key: hunter2}\n\
        ---\napiVersion: v1\nkind: Secret\nmetadata: {name: other, namespace: net}\nstringData: {key: x}\n";
    api.api.apply(secrets)?;
    api.allow("agent", "list, watch", &crate::READ)?;
    api.api.apply(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: agent, namespace: net}\n\
         rules: [{apiGroups: [\"\"], resources: [secrets], resourceNames: [rack], verbs: [list, watch]}]\n\
         ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: agent, namespace: net}\n\
         roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: agent}\n\
         subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: agent}]\n",
    )?;
    let mut view = api.watch("agent")?;
    view.until_in_sync()?;
    api.api.apply(
        "{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: tor}, spec: {peerIP: 10.0.0.1, \
         asNumber: 64513, password: {secretKeyRef: {name: rack, key: key}}}}",
    )?;
    view.until("the secret", |view| view.object("Secret/net/rack").is_ok())?;
    let Object::Secret(secret) = view.object("Secret/net/rack")? else {
        panic!("a secret");
    };
    assert_eq!(secret.data["key"].expose(), b"hunter2");
    assert!(view.object("Secret/net/other").is_err());

    // One that may not be read is named, and takes nothing else away.
    api.api.apply(
        "{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: other}, spec: {peerIP: 10.0.0.2, \
         asNumber: 64513, password: {secretKeyRef: {name: other, key: key}}}}",
    )?;
    let source = "kubernetes: secrets net/other";
    view.until("the refusal", |view| view.unreadable.contains_key(source))?;
    assert!(
        view.unreadable[source].contains("403"),
        "{:?}",
        view.unreadable
    );
    assert!(view.in_sync && view.lost.is_none(), "{:?}", view.lost);
    assert!(view.object("Secret/net/rack").is_ok());
    let words = ["patch", "role", "agent", "-n", "net", "--type=json", "-p"];
    let more = r#"[{"op": "add", "path": "/rules/0/resourceNames/-", "value": "other"}]"#;
    api.api.kubectl(&[&words[..], &[more]].concat())?;
    view.until("the other secret", |view| {
        view.object("Secret/net/other").is_ok() && !view.unreadable.contains_key(source)
    })
}
