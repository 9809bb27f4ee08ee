//! What the tests share: the cluster, the image, pods with probers in them.

use crate::kube::Cluster;
use crate::kube::cache::AGNHOST;
use crate::kube::shape::{self, CONTROL_PLANE, NODES, OUTSIDE};
use crate::lab::probe::{Probe, Protocol, Target};
use crate::lab::process;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The namespace of the agents.
pub(in crate::kube) const SYSTEM: &str = "ocicat-system";
/// The DaemonSet, its service account and its container.
pub(in crate::kube) const AGENT: &str = "ocicat-node";
/// How long anything may take that this busy machine does as soon as it can.
pub(in crate::kube) const PATIENCE: Duration = Duration::from_secs(120);
/// How long one attempt to reach somebody may take who is there.
pub(in crate::kube) const REACH: Duration = Duration::from_secs(5);
/// How long one attempt may take that nobody is to answer.
pub(in crate::kube) const DENIED: Duration = Duration::from_millis(700);
/// Port of the servers in the pods' containers.
pub(in crate::kube) const SERVER: u16 = 9376;

/// The cluster, and what the tests know of it.
pub(in crate::kube) struct World {
    pub(in crate::kube) cluster: Cluster,
    image: PathBuf,
    outside: Option<Probe>,
    base: Vec<Member>,
}

/// A running pod with a prober in its network namespace.
#[derive(Debug)]
pub(in crate::kube) struct Member {
    pub(in crate::kube) name: String,
    pub(in crate::kube) node: String,
    pub(in crate::kube) addresses: Vec<IpAddr>,
    pub(in crate::kube) probe: Probe,
}

impl Member {
    pub(in crate::kube) fn target(&self) -> Target<'_> {
        Target {
            probe: &self.probe,
            addresses: self.addresses.clone(),
        }
    }

    /// Reaches the prober of another pod at its first address.
    pub(in crate::kube) fn reach(&self, other: &Self) -> Result<()> {
        for address in &other.addresses {
            let who = self
                .probe
                .reach(Protocol::Tcp, *address, crate::prober::PORTS[0], REACH)?;
            ensure!(
                who == other.name,
                "{address} of {} was answered by {who}",
                other.name
            );
        }
        Ok(())
    }
}

impl World {
    pub(in crate::kube) fn new(cluster: &Cluster, image: PathBuf) -> Self {
        Self {
            cluster: cluster.clone(),
            image,
            outside: None,
            base: Vec::new(),
        }
    }

    /// Six pods, two on each node, that stay from test to test: made if they are not there.
    pub(in crate::kube) fn base(&mut self) -> Result<&[Member]> {
        if self.base.is_empty() {
            self.base = self.pods("base", &node_names(), 6)?;
        }
        Ok(&self.base)
    }

    /// The pods of [`World::base`], which has been called.
    pub(in crate::kube) fn made_base(&self) -> Result<&[Member]> {
        ensure!(
            !self.base.is_empty(),
            "invariant: the base pods are made first"
        );
        Ok(&self.base)
    }

    /// The first base pod of a node.
    pub(in crate::kube) fn base_on(&self, node: &str) -> Result<&Member> {
        let found = self.base.iter().find(|member| member.node == node);
        found.with_context(|| format!("no base pod on {node}"))
    }

    /// Starts probers anew in the base pods, of which some have another namespace now.
    pub(in crate::kube) fn renew_base(&mut self) -> Result<()> {
        self.base.clear();
        let limit = PATIENCE * 2;
        let cluster = self.cluster.clone();
        self.base = cluster.wait_until("the base pods to run", limit, || {
            self.ready("base", 6)?;
            let members = self.members("base")?;
            ensure!(members.len() == 6, "{} run", members.len());
            Ok(members)
        })?;
        Ok(())
    }

    /// Every base pod reaches every other.
    pub(in crate::kube) fn base_is_connected(&self) -> Result<()> {
        for from in &self.base {
            for to in &self.base {
                self.until(&format!("{} to reach {}", from.name, to.name), || {
                    from.reach(to)
                })?;
            }
        }
        Ok(())
    }

    /// The base pods and the host outside, both of which have been asked for.
    pub(in crate::kube) fn base_and_outside(&self) -> Result<(&[Member], &Probe)> {
        let outside = self
            .outside
            .as_ref()
            .context("invariant: the host outside is asked for first")?;
        Ok((self.made_base()?, outside))
    }

    /// The prober of the host outside.
    pub(in crate::kube) fn outside(&mut self) -> Result<&Probe> {
        if self.outside.is_none() {
            let netns = self.cluster.netns(OUTSIDE.name);
            self.outside = Some(Probe::start(&netns, OUTSIDE.name)?);
        }
        self.outside.as_ref().context("invariant: just started")
    }

    pub(in crate::kube) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(arguments)
    }

    /// Makes a namespace with `count` pods in it on the nodes in turn, waits until they are Ready
    /// and starts a prober in each. What was in a namespace of this name is removed first.
    pub(in crate::kube) fn pods(
        &self,
        namespace: &str,
        nodes: &[&str],
        count: usize,
    ) -> Result<Vec<Member>> {
        self.namespace(namespace)?;
        let mut manifest = String::new();
        for index in 0..count {
            let node = nodes[index % nodes.len()];
            manifest.push_str(&pod(
                namespace,
                &format!("{namespace}-{index}"),
                node,
                "web",
            ));
        }
        self.cluster.apply(&manifest)?;
        self.ready(namespace, count)?;
        self.members(namespace)
    }

    /// Makes a namespace, in which pods can be made; one of this name is removed first.
    pub(in crate::kube) fn namespace(&self, name: &str) -> Result<()> {
        self.remove(name)?;
        self.cluster.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{team: {name}}}}}\n"
        ))?;
        self.until(&format!("the service account of {name}"), || {
            self.kubectl(&["-n", name, "get", "serviceaccount", "default"])
                .map(drop)
        })
    }

    /// Waits until so many pods of a namespace are Ready.
    pub(in crate::kube) fn ready(&self, namespace: &str, count: usize) -> Result<()> {
        self.cluster.wait_until(
            &format!("{count} pods of {namespace} to be Ready"),
            PATIENCE * 2,
            || {
                let pods = self
                    .cluster
                    .kubectl_json(&["-n", namespace, "get", "pods"])?;
                let ready = items(&pods).filter(|pod| is_ready(pod)).count();
                if ready != count {
                    bail!("{ready} are; {}", self.latest_warning(namespace));
                }
                Ok(())
            },
        )
    }

    fn latest_warning(&self, namespace: &str) -> String {
        let events = self.kubectl(&[
            "-n",
            namespace,
            "get",
            "events",
            "--field-selector=type=Warning",
            "--sort-by=.lastTimestamp",
            "-o",
            "jsonpath={.items[-1:].message}",
        ]);
        events.unwrap_or_default()
    }

    /// The running pods of a namespace, each with a prober.
    pub(in crate::kube) fn members(&self, namespace: &str) -> Result<Vec<Member>> {
        let pods = self
            .cluster
            .kubectl_json(&["-n", namespace, "get", "pods"])?;
        let mut members = Vec::new();
        for pod in items(&pods).filter(|pod| is_ready(pod)) {
            let (name, node) = (text(pod, "/metadata/name"), text(pod, "/spec/nodeName"));
            let addresses = addresses(pod)?;
            let id = self.sandbox(node, namespace, name)?;
            // After an absence kubelet may have made another sandbox, and not said so yet.
            let status: Value = serde_json::from_str(&self.cri(node, &["inspect", &id])?)?;
            let real = text(&status, "/status/network/ip");
            ensure!(
                addresses
                    .first()
                    .is_some_and(|address| address.to_string() == real),
                "{name} has {real} and its status says {addresses:?}"
            );
            let netns = self.sandbox_netns(node, &id)?;
            members.push(Member {
                name: name.to_owned(),
                node: node.to_owned(),
                addresses,
                probe: Probe::start_at(&netns, name)?,
            });
        }
        Ok(members)
    }

    /// The ready sandbox of a pod.
    pub(in crate::kube) fn sandbox(
        &self,
        node: &str,
        namespace: &str,
        name: &str,
    ) -> Result<String> {
        let sandboxes: Value =
            serde_json::from_str(&self.cri(node, &["list"])?).context("sandboxes")?;
        sandboxes
            .as_array()
            .into_iter()
            .flatten()
            .find(|sandbox| {
                text(sandbox, "/metadata/name") == name
                    && text(sandbox, "/metadata/namespace") == namespace
            })
            .map(|sandbox| text(sandbox, "/id").to_owned())
            .with_context(|| format!("no sandbox of {namespace}/{name} on {node}"))
    }

    /// A sandbox's network namespace, as this process reaches it.
    pub(in crate::kube) fn sandbox_netns(&self, node: &str, id: &str) -> Result<PathBuf> {
        let status: Value = serde_json::from_str(&self.cri(node, &["inspect", id])?)?;
        let info: Value = serde_json::from_str(text(&status, "/info/info"))
            .with_context(|| format!("sandbox {id} on {node}: {status}"))?;
        let path = info
            .pointer("/runtimeSpec/linux/namespaces")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|namespace| text(namespace, "/type") == "network")
            .map(|namespace| text(namespace, "/path").to_owned())
            .with_context(|| format!("sandbox {id} has no network namespace"))?;
        // The path as seen by the node, whose /var/run is a link that this side would resolve itself.
        self.cluster
            .inside(node, &path.replace("/var/run/", "/run/"))
    }

    /// Asks a node's container runtime.
    pub(in crate::kube) fn cri(&self, node: &str, arguments: &[&str]) -> Result<String> {
        let binary = self.cluster.cache().binary("cri")?.display().to_string();
        self.cluster
            .exec(node, &[&[binary.as_str()], arguments].concat())
    }

    /// Removes a namespace with everything in it, and waits.
    pub(in crate::kube) fn remove(&self, namespace: &str) -> Result<()> {
        self.kubectl(&[
            "delete",
            "namespace",
            namespace,
            "--ignore-not-found",
            "--timeout=180s",
        ])
        .map(drop)
    }

    /// Waits until a condition of the cluster holds.
    pub(in crate::kube) fn until<T>(
        &self,
        what: &str,
        look: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        self.cluster.wait_until(what, PATIENCE, look)
    }

    /// Waits until every agent is Ready and so is every node.
    pub(in crate::kube) fn agents_ready(&self) -> Result<()> {
        let set = format!("daemonset/{AGENT}");
        self.kubectl(&["-n", SYSTEM, "rollout", "status", &set, "--timeout=180s"])?;
        self.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "nodes",
            "--all",
            "--timeout=120s",
        ])
        .map(drop)
    }

    /// How many interfaces of pods a node has.
    pub(in crate::kube) fn pod_links(&self, node: &str) -> Result<usize> {
        let links = self.cluster.netns(node).run(&["ip", "-o", "link"])?;
        Ok(links
            .lines()
            .filter(|line| {
                line.split(": ")
                    .nth(1)
                    .is_some_and(|name| name.starts_with(model::names::INTERFACE_PREFIX))
            })
            .count())
    }

    /// Waits until a node has as many interfaces of pods as it has pods with a network of their own.
    pub(in crate::kube) fn nothing_is_left(&self, node: &str) -> Result<usize> {
        self.until(
            &format!("the links of {node} to be those of its pods"),
            || {
                let selector =
                    format!("--field-selector=spec.nodeName={node},status.phase=Running");
                let pods = self
                    .cluster
                    .kubectl_json(&["get", "pods", "-A", &selector])?;
                let pods = items(&pods)
                    .filter(|pod| pod.pointer("/spec/hostNetwork") != Some(&Value::Bool(true)))
                    .count();
                let links = self.pod_links(node)?;
                ensure!(pods == links, "{links} links, {pods} pods");
                Ok(links)
            },
        )
    }

    pub(in crate::kube) fn print_agent_logs(&self) {
        for arguments in [
            &["get", "pods", "-A", "-o", "wide"][..],
            &["-n", SYSTEM, "describe", "pods"],
            &[
                "-n",
                SYSTEM,
                "logs",
                "-l",
                "app.kubernetes.io/name=ocicat",
                "--tail=40",
                "--prefix",
            ],
        ] {
            match self.kubectl(arguments) {
                Ok(said) => println!("$ kubectl {}\n{said}", arguments.join(" ")),
                Err(error) => println!("$ kubectl {}\n{error:#}", arguments.join(" ")),
            }
        }
    }
}

/// The image as `deploy/image` builds it.
pub(in crate::kube) fn build_image() -> Result<PathBuf> {
    let script = repository().join("deploy/image");
    let said = process::run(&mut Command::new(&script))?;
    let path = said.lines().next().map(str::trim).unwrap_or_default();
    ensure!(
        Path::new(path).is_file(),
        "{} named no archive: {said}",
        script.display()
    );
    Ok(PathBuf::from(path))
}

/// The root of the repository.
pub(in crate::kube) fn repository() -> &'static Path {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_root.parent().unwrap_or(crate_root)
}

/// The image on every node, the two manifests applied, and every node Ready.
pub(in crate::kube) fn install(world: &mut World) -> Result<String> {
    for node in &NODES {
        world
            .cluster
            .import(node.name, std::slice::from_ref(&world.image))?;
        let forwards = world
            .cluster
            .netns(node.name)
            .sysctl("net.ipv4.ip_forward")?;
        let proxied = world.cluster.log(node.name, "proxy").contains("ip_forward");
        ensure!(
            forwards == "0" || proxied,
            "{} forwards before anybody asked for it",
            node.name
        );
    }
    for file in ["crds.yaml", "ocicat.yaml"] {
        let path = repository().join("deploy").join(file).display().to_string();
        // Some definitions are longer than the annotation that a client-side apply keeps.
        world.kubectl(&["apply", "--server-side", "-f", &path])?;
    }
    world.agents_ready()?;
    for node in &NODES {
        let forwards = world
            .cluster
            .netns(node.name)
            .sysctl("net.ipv4.ip_forward")?;
        ensure!(forwards == "1", "{} does not forward", node.name);
        let unavailable = world.kubectl(&[
            "get",
            "node",
            node.name,
            "-o",
            "jsonpath={.status.conditions[?(@.type=='NetworkUnavailable')].status}",
        ])?;
        ensure!(
            unavailable == "False",
            "NetworkUnavailable of {} is {unavailable:?}",
            node.name
        );
    }
    peer_with_routers(world)?;
    Ok(format!("{} nodes", NODES.len()))
}

/// Every node peers with the router of its rack, as `deploy/kustomize` has it for racks.
fn peer_with_routers(world: &World) -> Result<()> {
    let mut manifest = String::new();
    for router in &shape::ROUTERS {
        let gateway = NODES.iter().find(|node| node.router == router.name);
        let gateway = gateway
            .context("invariant: every rack has a node")?
            .gateway4;
        let _ = write!(
            manifest,
            "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: {0}}}\n\
             spec: {{peerIP: {gateway}, asNumber: {1}, nodeSelector: rack == '{0}'}}\n",
            router.name, router.asn
        );
    }
    world.cluster.apply(&manifest)?;
    for node in &NODES {
        world.until(
            &format!("the session of {} with {}", node.name, node.router),
            || {
                let said = world
                    .cluster
                    .vtysh(node.router, "show bgp neighbors json")?;
                let said: Value = serde_json::from_str(&said).context("vtysh")?;
                let state = text(&said[node.ipv4], "/bgpState");
                ensure!(state == "Established", "{state:?}");
                Ok(())
            },
        )?;
    }
    Ok(())
}

/// A pod whose container answers every connection with the pod's name.
pub(in crate::kube) fn pod(namespace: &str, name: &str, node: &str, app: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}, name: {name}}}}}\n\
         spec:\n  nodeName: {node}\n  terminationGracePeriodSeconds: 0\n  automountServiceAccountToken: false\n  containers:\n\
         \x20 - {{name: server, image: '{AGNHOST}', imagePullPolicy: Never, args: [serve-hostname, --http=false, --tcp, --udp]}}\n"
    )
}

/// The string at a JSON pointer, or nothing.
pub(in crate::kube) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// The items of a list.
pub(in crate::kube) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// Both addresses of a pod.
pub(in crate::kube) fn addresses(pod: &Value) -> Result<Vec<IpAddr>> {
    let all = pod.pointer("/status/podIPs").and_then(Value::as_array);
    let addresses: Result<Vec<IpAddr>, _> = all
        .into_iter()
        .flatten()
        .map(|address| text(address, "/ip").parse())
        .collect();
    addresses.with_context(|| format!("addresses of {}", text(pod, "/metadata/name")))
}

/// Whether a pod's condition Ready is True and nobody is deleting it.
pub(in crate::kube) fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    pod.pointer("/metadata/deletionTimestamp").is_none()
        && conditions
            .into_iter()
            .flatten()
            .any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True")
}

/// The names of the nodes.
pub(in crate::kube) fn node_names() -> [&'static str; 3] {
    NODES.map(|node| node.name)
}

/// The control plane's name, whose services tests stop.
pub(in crate::kube) const CONTROL: &str = CONTROL_PLANE.name;
