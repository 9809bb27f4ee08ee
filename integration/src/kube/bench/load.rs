//! A load tool: objects of nodes that nobody runs, written through the API as fast as it takes them.

use crate::kube::check::world::{CONTROL, World};
use anyhow::{Context, Result, bail};
use datastore::kubernetes::{ApiError, Cluster, ClusterOptions, Method};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::PathBuf;
use tokio::task::JoinSet;

/// Requests on their way at a time.
const AT_ONCE: usize = 64;
pub(super) const NAMESPACES: usize = 500;
pub(super) const PODS_OF_A_NODE: usize = 100;
/// Pods of one Deployment, which have the same labels.
const REPLICAS: usize = 20;
/// One of so many policies is about pods that run.
const ABOUT_RUNNING: usize = 200;

/// The administrator, who is not throttled.
pub(super) struct Load {
    cluster: Cluster,
}

impl Load {
    /// Stops the controllers: they would take pods away whose nodes don't live.
    pub(super) fn new(world: &World) -> Result<Self> {
        world.cluster.stop(CONTROL, "controller-manager", "TERM")?;
        let cluster = connect(world, world.cluster.kubeconfig())?;
        Ok(Self { cluster })
    }

    /// Namespaces with what pods need in them, and the nodes of so many pods.
    pub(super) fn prepare(&self, pods: usize) -> Result<()> {
        self.post("/api/v1/namespaces", 0..NAMESPACES, namespace)?;
        self.post_in("serviceaccounts", 0..NAMESPACES, service_account)?;
        self.post("/api/v1/nodes", 0..pods.div_ceil(PODS_OF_A_NODE), node)
    }

    pub(super) fn pods(&self, numbers: Range<usize>) -> Result<()> {
        self.post_in("pods", numbers, pod)
    }

    pub(super) fn policies(&self, count: usize) -> Result<()> {
        let path = |policy: &Value| {
            let namespace = policy["metadata"]["namespace"].as_str().unwrap_or_default();
            format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies")
        };
        self.create(0..count, |number| {
            let policy = network_policy(number);
            (path(&policy), policy)
        })
    }

    fn post(&self, path: &str, numbers: Range<usize>, object: fn(usize) -> Value) -> Result<()> {
        self.create(numbers, |number| (path.to_owned(), object(number)))
    }

    fn post_in(
        &self,
        plural: &str,
        numbers: Range<usize>,
        object: fn(usize) -> Value,
    ) -> Result<()> {
        self.create(numbers, |number| {
            let object = object(number);
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            (format!("/api/v1/namespaces/{namespace}/{plural}"), object)
        })
    }

    fn create(
        &self,
        numbers: Range<usize>,
        object: impl Fn(usize) -> (String, Value),
    ) -> Result<()> {
        let cluster = &self.cluster;
        cluster.runtime().clone().block_on(async {
            let mut tasks = JoinSet::new();
            for number in numbers {
                if tasks.len() >= AT_ONCE {
                    done(tasks.join_next().await)?;
                }
                let (cluster, (path, object)) = (cluster.clone(), object(number));
                tasks.spawn(
                    async move { cluster.call(Method::POST, &path, None, Some(&object)).await },
                );
            }
            while !tasks.is_empty() {
                done(tasks.join_next().await)?;
            }
            Ok(())
        })
    }
}

/// A connection to the API server from where it runs.
pub(in crate::kube) fn connect(world: &World, kubeconfig: PathBuf) -> Result<Cluster> {
    let options = ClusterOptions {
        kubeconfig: vec![kubeconfig],
        servers: Vec::new(),
        namespace: model::names::NAMESPACE.to_owned(),
    };
    let netns = world.cluster.netns(CONTROL);
    let connected = netns.within(|| Cluster::connect(&options))?;
    connected.context("the API server's kubeconfig")
}

/// What is there already is as good.
fn done(outcome: Option<Result<Result<Value, ApiError>, tokio::task::JoinError>>) -> Result<()> {
    match outcome.transpose().context("a request")? {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(ApiError::Refused { code: 409, .. })) => Ok(()),
        Some(Err(error)) => bail!("{error}"),
    }
}

fn namespace_of(number: usize) -> String {
    format!("load-{}", number % NAMESPACES)
}

fn namespace(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": namespace_of(number), "labels": {"team": format!("team-{}", number % 50)},
    }})
}

fn service_account(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {
        "name": "default", "namespace": namespace_of(number),
    }})
}

fn node(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {
        "name": format!("load-{number}"),
        "labels": {"topology.kubernetes.io/zone": format!("zone-{}", number % 3)},
    }})
}

/// As a Deployment makes it and its agent annotates it. Its addresses are of no pool here.
fn pod(number: usize) -> Value {
    let group = number / REPLICAS;
    let app = format!("app-{}", group / NAMESPACES);
    let [_, high, middle, low] = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    let address = format!("10.{}.{middle}.{low}/32", 128 + u16::from(high));
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{app}-{group:010x}-{number:05x}"),
            "namespace": namespace_of(group),
            "labels": {
                "app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "shop",
                "app.kubernetes.io/managed-by": "Helm", "version": "v1",
                "pod-template-hash": format!("{group:010x}"),
            },
            "annotations": {
                "cni.projectcalico.org/containerID": format!("{number:064x}"),
                "cni.projectcalico.org/podIP": address,
                "cni.projectcalico.org/podIPs": address,
            },
        },
        "spec": {
            "nodeName": format!("load-{}", number / PODS_OF_A_NODE),
            "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": "registry.example/app:v1", "ports": [
                {"name": "http", "containerPort": 8080, "protocol": "TCP"},
            ]}],
        },
    })
}

/// Pods of one app admit another app of a team's namespaces on one port. Some of these policies
/// stand in the namespace of the pods that run.
fn network_policy(number: usize) -> Value {
    let app = |number: usize| format!("app-{}", number % 10);
    let (namespace, subject) = match number % ABOUT_RUNNING {
        0 => ("base".to_owned(), json!({"app": "web"})),
        _ => (
            namespace_of(number),
            json!({"app.kubernetes.io/name": app(number / NAMESPACES)}),
        ),
    };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("policy-{number}"), "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": subject},
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{
                    "namespaceSelector": {"matchLabels": {"team": format!("team-{}", number / ABOUT_RUNNING % 50)}},
                    "podSelector": {"matchLabels": {"app.kubernetes.io/name": app(number / ABOUT_RUNNING)}},
                }],
                "ports": [{"protocol": "TCP", "port": 1000 + number % 5000}],
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_pod_has_a_name_and_an_address_of_its_own() {
        let of = |pointer: &str| -> BTreeSet<String> {
            (0..2000)
                .step_by(7)
                .chain(99_990..100_000)
                .map(|number| pod(number).pointer(pointer).unwrap().to_string())
                .collect()
        };
        assert_eq!(of("/metadata/name").len(), 296);
        assert_eq!(
            of("/metadata/annotations/cni.projectcalico.org~1podIP").len(),
            296
        );
    }

    #[test]
    fn some_policies_are_about_pods_that_run() {
        let here =
            (0..10_000).filter(|number| network_policy(*number)["metadata"]["namespace"] == "base");
        assert_eq!(here.count(), 50);
    }
}
