//! The specifications row by row: manifests as users write them, and which connections they allow.
//!
//! Namespaces `x`, `y`, `z`, each labelled `ns: <name>`, hold pods `a`, `b`, `c`, each labelled
//! `pod: <name>`, with service accounts `sa-<pod>`. Pod `y/b` is 10.0.1.2 and fd00:0:0:1::2. Named
//! ports: `web` is TCP 80 (at pods `c`: TCP 81), `dns` is UDP 53, `diameter` is SCTP 3868.
//! Node `n1` (192.0.2.11) is that of every pod, `n2` (192.0.2.12) is another.

mod calico;
mod changes;
mod cluster;
mod kubernetes;
mod traffic;

use model::{Labels, NamedPort, Object, Protocol, manifest};
use policy::{Endpoint, EndpointId, Evaluator, Flow, NodePeer, Party, Policy};
use serde_json::{Value, json};
use std::net::IpAddr;

/// What a manifest puts in force; one that is rejected, its fallback.
fn object(document: &Value) -> Option<Object> {
    match manifest::parse(document).unwrap() {
        manifest::Parsed::Valid { object, .. } => Some(object),
        manifest::Parsed::Invalid { fallback, .. } => fallback,
        manifest::Parsed::Ignored { reason, .. } => panic!("{reason}"),
    }
}

fn network_policy(spec: Value) -> Value {
    named_network_policy("p", spec)
}

fn named_network_policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": name, "namespace": "x" }, "spec": spec,
    })
}

fn cluster_policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": { "name": name }, "spec": spec,
    })
}

/// An object of Calico's, in namespace `x` if its kind has one.
fn calico(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": kind,
        "metadata": { "name": name, "namespace": "x" }, "spec": spec,
    })
}

fn labelled(mut document: Value, labels: Value) -> Value {
    document["metadata"]["labels"] = labels;
    document
}

fn pod_address(namespace: usize, pod: usize) -> [IpAddr; 2] {
    let (namespace, pod) = (namespace as u8, pod as u8 + 1);
    let v6 = [0xfd00, 0, 0, namespace.into(), 0, 0, 0, pod.into()];
    [IpAddr::from([10, 0, namespace, pod]), IpAddr::from(v6)]
}

fn pod(namespace: usize, pod: usize) -> (EndpointId, Endpoint) {
    let (namespace_name, name) = (["x", "y", "z"][namespace], ["a", "b", "c"][pod]);
    let port = |name: &str, protocol, port| NamedPort {
        name: name.to_owned(),
        protocol,
        port,
    };
    let web = if name == "c" { 81 } else { 80 };
    let endpoint = Endpoint {
        namespace: namespace_name.to_owned().into(),
        pod: name.to_owned().into(),
        labels: Labels::from([("pod".to_owned(), name.to_owned())]),
        ports: vec![
            port("web", Protocol::Tcp, web),
            port("dns", Protocol::Udp, 53),
            port("diameter", Protocol::Sctp, 3868),
        ]
        .into(),
        ips: pod_address(namespace, pod).into(),
        local: None,
        labels_known: true,
        service_account: Some(format!("sa-{name}").into()),
        profiles: vec![].into(),
    };
    (
        EndpointId(format!("{namespace_name}/{name}").into()),
        endpoint,
    )
}

fn cluster(manifests: &[Value]) -> Evaluator {
    let mut evaluator = Evaluator::default();
    for (number, name) in ["x", "y", "z"].into_iter().enumerate() {
        let labels = Labels::from([("ns".to_owned(), name.to_owned())]);
        evaluator.set_namespace(name, Some(labels));
        for (id, endpoint) in (0..3).map(|at| pod(number, at)) {
            evaluator.set_endpoint(&id, Some(endpoint));
        }
    }
    for (name, address) in [("n1", "192.0.2.11"), ("n2", "192.0.2.12")] {
        let node = NodePeer {
            labels: Labels::from([("node".to_owned(), name.to_owned())]),
            addresses: [address.parse().unwrap()].into(),
        };
        evaluator.set_node(name, Some(node));
    }
    for object in manifests.iter().filter_map(object) {
        tell(&mut evaluator, object);
    }
    evaluator
}

fn tell(evaluator: &mut Evaluator, object: Object) {
    let object = match Policy::try_from(object) {
        Ok(policy) => return evaluator.set_policy(&policy.key(), Some(policy)),
        Err(object) => object,
    };
    let name = object.key().name;
    match object {
        Object::Tier(tier) => evaluator.set_tier(&name, Some(tier)),
        Object::NetworkSet(set) => {
            let namespace = set.namespace.clone();
            evaluator.set_network_set(namespace.as_deref(), &name, Some(set));
        }
        Object::HostEndpoint(host) => evaluator.set_host_endpoint(&name, Some(*host)),
        Object::Profile(profile) => evaluator.set_profile(&name, Some(profile)),
        Object::ServiceAccount(account) => {
            let namespace = account.namespace.clone();
            evaluator.set_service_account(&namespace, &name, Some(account));
        }
        Object::EndpointSlice(slice) => {
            let namespace = slice.namespace.clone();
            evaluator.set_endpoint_slice(&namespace, &name, Some(*slice));
        }
        other => panic!("{:?}", other.key()),
    }
}

/// `x/a y/b tcp/80`: from, to, protocol and port. Ends are pods, addresses, or `own-node`; a pod
/// has its address of IPv6 where the line ends in `v6`. ICMP is `icmp/TYPE`.
fn flow(line: &str) -> Flow {
    let words: Vec<&str> = line.split(' ').collect();
    let v6 = words.get(3) == Some(&"v6");
    let party = |text: &str| {
        if text == "own-node" {
            return Party::OwnNode("192.0.2.11".parse().unwrap());
        }
        match text.split_once('/') {
            Some((namespace, pod)) => {
                let at =
                    |names: [&str; 3], name| names.iter().position(|one| *one == name).unwrap();
                let place = (at(["x", "y", "z"], namespace), at(["a", "b", "c"], pod));
                let address = pod_address(place.0, place.1)[usize::from(v6)];
                Party::Pod(EndpointId(text.to_owned().into()), address)
            }
            None => Party::Address(text.parse().unwrap()),
        }
    };
    let (protocol, number) = words[2].split_once('/').unwrap_or((words[2], ""));
    let number = number.parse::<u16>().ok();
    let icmp = number.map(|kind| (kind as u8, 0));
    let (protocol, port, icmp) = match protocol {
        "tcp" => (6, number, None),
        "udp" => (17, number, None),
        "sctp" => (132, number, None),
        "icmp" if v6 => (58, None, icmp),
        "icmp" => (1, None, icmp),
        other => (other.parse().unwrap(), None, None),
    };
    let flow = Flow::new(party(words[0]), party(words[1]), protocol, port);
    let source_port = port.map(|_| 40_000);
    Flow {
        source_port,
        icmp,
        ..flow
    }
}

/// Every connection of `allowed` is, and none of `denied`.
fn row(name: &str, manifests: &[Value], allowed: &[&str], denied: &[&str]) {
    let evaluator = cluster(manifests);
    let expected = allowed.iter().map(|line| (line, true));
    for (line, expected) in expected.chain(denied.iter().map(|line| (line, false))) {
        let decision = evaluator.verdict(&flow(line));
        let (egress, ingress) = (&decision.egress.reason, &decision.ingress.reason);
        assert_eq!(
            decision.allowed, expected,
            "{name}: {line}: {egress} / {ingress}"
        );
    }
}
