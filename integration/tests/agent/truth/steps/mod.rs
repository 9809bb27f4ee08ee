//! The cases: what policies say, and a name for the row of the specification that they are about.
//! `@xa4` stands for the IPv4 address of pod `x/xa`.

mod calico;
mod cluster;
mod hosts;
mod kubernetes;

pub(super) use calico::calico;
pub(super) use cluster::cluster;
pub(super) use hosts::hosts;
pub(super) use kubernetes::kubernetes;

use serde_json::{Value, json};

/// A name, and the objects that there are besides pods and namespaces.
pub(super) type Step = (&'static str, Vec<Value>);

/// A NetworkPolicy of Kubernetes.
fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

/// One of namespace `x`.
fn one(spec: Value) -> Vec<Value> {
    vec![policy("x", "p", spec)]
}

/// Pods by the label `pod`.
fn pod(name: &str) -> Value {
    json!({"matchLabels": {"pod": name}})
}

fn team(name: &str) -> Value {
    json!({"matchLabels": {"team": name}})
}

fn port(number: u16) -> Value {
    json!({"port": number})
}

/// An object of Calico's.
fn calico_object(kind: &str, namespace: Option<&str>, name: &str, spec: Value) -> Value {
    let mut metadata = json!({ "name": name });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})
}

fn labelled(mut object: Value, labels: Value) -> Value {
    object["metadata"]["labels"] = labels;
    object
}

fn tier(name: &str, order: u32, action: &str) -> Value {
    let spec = json!({"order": order, "defaultAction": action});
    calico_object("Tier", None, name, spec)
}
