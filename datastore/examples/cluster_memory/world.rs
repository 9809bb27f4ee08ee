//! A large cluster as an API server without a store tells it, and an agent's core that is told.

use datastore::kubernetes::{Cluster, ClusterOptions};
use felix_core::checks::TunnelKinds;
use felix_core::{Calc, Phase};
use model::Update;
use serde_json::{Value, json};
use std::error::Error;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::net::{TcpListener, TcpStream};

const NAMESPACES: usize = 500;
const PODS_OF_A_NODE: usize = 100;
/// Pods of one Deployment: they have the same labels.
const REPLICAS: usize = 20;
/// The node whose agent is told.
const NODE: &str = "n0";

#[derive(Clone, Copy)]
pub(super) struct World {
    pub(super) pods: usize,
    pub(super) policies: usize,
}

/// A core that knows nothing yet.
pub(super) fn core() -> Calc {
    let kinds = TunnelKinds {
        ip6: false,
        ipip: true,
        vxlan: true,
    };
    Calc::new(NODE, kinds, policy::Options::default())
}

/// The connections of an agent to such a server.
pub(super) fn connect(url: &str) -> Result<Cluster, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&kubeconfig, config.to_string())?;
    Ok(Cluster::connect(&ClusterOptions {
        kubeconfig: vec![kubeconfig],
        servers: vec![],
        namespace: "kube-system".to_owned(),
    })?)
}

/// Reads the cluster until all is said. What is returned keeps the connections.
pub(super) fn tell(
    cluster: &Cluster,
    calc: &mut Calc,
) -> Result<impl Sized + use<>, Box<dyn Error>> {
    let mut updates = cluster.watch(NODE);
    loop {
        let update = updates.blocking_recv().ok_or("the datastore ended")?;
        let is_all = matches!(update, Update::InSync);
        calc.on_update(update);
        if is_all && calc.phase() == Phase::InSync {
            return Ok(updates);
        }
    }
}

pub(super) fn serve(listener: &TcpListener, world: World) {
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            // Whoever is gone has all that it wanted.
            let _ = answer(stream, world);
        });
    }
}

/// One request of a connection: the whole collection as a stream that does not end.
fn answer(stream: TcpStream, world: World) -> std::io::Result<()> {
    let mut request = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    request.read_line(&mut first)?;
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let plural = path.split('?').next().unwrap_or_default();
    let plural = plural.rsplit('/').next().unwrap_or_default();
    let mut out = BufWriter::new(stream);
    if !first.starts_with("GET ") || !path.contains("watch=1") {
        return out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    }
    out.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    if path.contains("sendInitialEvents") {
        match plural {
            "namespaces" => all(&mut out, 0..NAMESPACES, namespace)?,
            "nodes" => all(&mut out, 0..world.pods.div_ceil(PODS_OF_A_NODE), node)?,
            "pods" => all(&mut out, 0..world.pods, pod)?,
            "networkpolicies" if path.contains("networking.k8s.io") => {
                all(&mut out, 0..world.policies, network_policy)?;
            }
            _ => {}
        }
        event(
            &mut out,
            "BOOKMARK",
            &json!({"metadata": {
                "resourceVersion": "1000000",
                "annotations": {"k8s.io/initial-events-end": "true"},
            }}),
        )?;
    }
    out.flush()?;
    request.read_line(&mut line).map(drop)
}

fn all(
    out: &mut impl Write,
    numbers: std::ops::Range<usize>,
    object: fn(usize) -> Value,
) -> std::io::Result<()> {
    for number in numbers {
        event(out, "ADDED", &object(number))?;
    }
    Ok(())
}

fn event(out: &mut impl Write, kind: &str, object: &Value) -> std::io::Result<()> {
    let line = json!({"type": kind, "object": object}).to_string();
    write!(out, "{:x}\r\n{line}\n\r\n", line.len() + 1)
}

fn namespace(number: usize) -> Value {
    let name = format!("namespace-{number}");
    json!({"metadata": {"name": name, "resourceVersion": "1", "labels": {
        "kubernetes.io/metadata.name": name, "team": format!("team-{}", number % 50),
    }}})
}

fn node(number: usize) -> Value {
    let address = format!("192.{}.{}.1", 168 + number / 256, number % 256);
    json!({
        "metadata": {"name": format!("n{number}"), "resourceVersion": "1", "labels": {
            "kubernetes.io/hostname": format!("n{number}"), "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
        }},
        "spec": {},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

/// As a Deployment makes them and a kubelet reports them.
fn pod(number: usize) -> Value {
    let group = number / REPLICAS;
    let app = format!("app-{}", group / NAMESPACES);
    let address = format!(
        "10.{}.{}.{}",
        number >> 16,
        (number >> 8) & 255,
        number & 255
    );
    let node = format!("n{}", number / PODS_OF_A_NODE);
    json!({
        "metadata": {
            "name": format!("{app}-{group:010x}-{:05x}", number),
            "namespace": format!("namespace-{}", group % NAMESPACES),
            "uid": format!("{number:08x}-0000-4000-8000-{number:012x}"),
            "resourceVersion": number.to_string(),
            "labels": {
                "app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "shop",
                "app.kubernetes.io/managed-by": "Helm", "version": "v1",
                "pod-template-hash": format!("{group:010x}"),
            },
            "annotations": {
                "cni.projectcalico.org/containerID": format!("{number:064x}"),
                "cni.projectcalico.org/podIP": format!("{address}/32"),
                "cni.projectcalico.org/podIPs": format!("{address}/32"),
            },
        },
        "spec": {
            "nodeName": node, "serviceAccountName": "default",
            "containers": [{"name": "main", "image": "registry.example/app:v1", "ports": [
                {"name": "http", "containerPort": 8080, "protocol": "TCP"},
            ]}],
        },
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    })
}

/// Pods of one app of a namespace admit another app of a team's namespaces on one port.
fn network_policy(number: usize) -> Value {
    let app = |number: usize| format!("app-{}", number % 10);
    json!({
        "metadata": {
            "name": format!("policy-{number}"), "resourceVersion": "1",
            "namespace": format!("namespace-{}", number % NAMESPACES),
        },
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": app(number / NAMESPACES)}},
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{
                    "namespaceSelector": {"matchLabels": {"team": format!("team-{}", number % 50)}},
                    "podSelector": {"matchLabels": {"app.kubernetes.io/name": app(number)}},
                }],
                "ports": [{"protocol": "TCP", "port": 1000 + number % 5000}],
            }],
        },
    })
}
