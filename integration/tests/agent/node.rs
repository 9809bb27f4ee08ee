//! One node with its agent, one host on its wire, and pods: what most tests begin with.

use anyhow::{Context, Result, bail};
use integration::lab::link::End;
use integration::lab::pod::{Plugin, PodSpec};
use integration::lab::probe::Protocol;
use integration::lab::router::{Neighbor, RouterConfig};
use integration::lab::{Agent, Frr, Lab, Netns, Pod, Probe, Store, wait};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long anything may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// How long an attempt that has to fail is waited for.
pub(crate) const SHORT: Duration = Duration::from_millis(400);
/// The Kubernetes namespace of all pods.
pub(crate) const NAMESPACE: &str = "shop";

pub(crate) const NODE: &str = "apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1}
spec: {bgp: {ipv4Address: 10.1.0.11/24, ipv6Address: 'fd00:1::11/64'}}
";
pub(crate) const POOL_V4: &str = "apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: v4}
spec: {cidr: 10.244.0.0/16, ipipMode: Never}
";
pub(crate) const POOL_V6: &str = "apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: v6}
spec: {cidr: 'fd00:10:244::/56'}
";
/// The session with [`Node::router`].
pub(crate) const ROUTER: &str = "apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: rack1}
spec: {peerIP: 10.1.0.1, asNumber: 65001}
";
pub(crate) const NAMESPACES: &str = "apiVersion: v1
kind: Namespace
metadata: {name: shop}
";

/// A node. Fields are dropped in this order: the lab goes last.
pub(crate) struct Node {
    pub(crate) agent: Agent,
    pub(crate) plugin: Plugin,
    pub(crate) store: Store,
    /// The node's network namespace.
    pub(crate) netns: Netns,
    /// A host on the node's wire that knows the way to its pods.
    pub(crate) host: Netns,
    pub(crate) lab: Lab,
}

impl Node {
    /// Everything but a running agent.
    pub(crate) fn prepared() -> Result<Self> {
        let lab = Lab::new()?;
        let (netns, host) = (lab.netns("n1")?, lab.netns("host")?);
        lab.wire(
            &End {
                netns: &netns,
                interface: "eth0",
                addresses: &["10.1.0.11/24", "fd00:1::11/64"],
            },
            &End {
                netns: &host,
                interface: "eth0",
                addresses: &["10.1.0.1/24", "fd00:1::1/64"],
            },
        )?;
        host.ip([
            "route add 10.244.0.0/16 via 10.1.0.11",
            "route add fd00:10:244::/56 via fd00:1::11",
        ])?;
        let store = Store::new(lab.dir().join("datastore"))?;
        store.write("node.yaml", NODE)?;
        store.write("pool-v4.yaml", POOL_V4)?;
        store.write("pool-v6.yaml", POOL_V6)?;
        store.write("namespace.yaml", NAMESPACES)?;
        let agent = Agent::new(&lab, &netns, "n1", &store)?;
        let plugin = Plugin::ocicat(&agent)?;
        Ok(Self {
            agent,
            plugin,
            store,
            netns,
            host,
            lab,
        })
    }

    /// With an agent that is ready and has a block of each pool.
    pub(crate) fn started() -> Result<Self> {
        let mut node = Self::prepared()?;
        node.start()?;
        wait::until(LIMIT, "two blocks", || match node.routes() {
            Ok(routes) if routes.matches("blackhole").count() == 2 => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        Ok(node)
    }

    /// Starts the agent and waits until it is ready.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.agent.start()?;
        self.agent.wait_ready(LIMIT)
    }

    /// A pod labelled `app: <app>`.
    pub(crate) fn pod(&self, name: &str, app: &str) -> Result<Pod> {
        Pod::add(&self.lab, &self.plugin, spec(name, app))
    }

    /// A pod with a prober.
    pub(crate) fn member(&self, name: &str, app: &str) -> Result<Member> {
        let pod = self.pod(name, app)?;
        let probe = Probe::start(pod.netns(), name)?;
        Ok(Member { pod, probe })
    }

    /// A call of the plugin under a container id of the test's own choice.
    pub(crate) fn call_as(
        &self,
        container: &str,
        command: &str,
        spec: &PodSpec,
        netns: &Netns,
    ) -> Result<Value> {
        let mut config = self.plugin.config.clone();
        config["args"] = json!({ "cni": { "labels": spec.labels } });
        let file = self.lab.dir().join(format!("{container}.json"));
        std::fs::write(&file, config.to_string())?;
        let args = format!(
            "K8S_POD_NAMESPACE={};K8S_POD_NAME={}",
            spec.namespace, spec.name
        );
        let mut plugin = Command::new("sh");
        plugin
            .args(["-c", "exec \"$0\" < \"$1\""])
            .arg(&self.plugin.binary)
            .arg(&file)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", args);
        let output = self.netns.output(&mut plugin)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{command} of {container}: {said}");
        }
        if said.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&said).context("the plugin's result")
    }

    /// A call of the plugin as a kubelet's runtime makes it: with the pod's UID, and no labels.
    pub(crate) fn call_of_kubelet(
        &self,
        command: &str,
        name: &str,
        uid: &str,
        netns: &Netns,
    ) -> Result<Value> {
        let container = format!("{name}-{uid}");
        let file = self.lab.dir().join(format!("{container}.json"));
        std::fs::write(&file, self.plugin.config.to_string())?;
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={name};K8S_POD_UID={uid}"
        );
        let mut plugin = Command::new("sh");
        plugin
            .args(["-c", "exec \"$0\" < \"$1\""])
            .arg(&self.plugin.binary)
            .arg(&file)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", args);
        let output = self.netns.output(&mut plugin)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{command} of {name}: {said}");
        }
        if said.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&said).context("the plugin's result")
    }

    /// The command line's answer as JSON.
    pub(crate) fn ctl(&self, words: &[&str]) -> Result<Value> {
        let words: Vec<&str> = words.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.agent.ctl(&words)?).context("JSON of the command line")
    }

    /// Waits until readiness says this, in a reason or a note.
    pub(crate) fn wait_said(&self, words: &str) -> Result<String> {
        wait::until(LIMIT, words, || match self.agent.health("/readyz") {
            Ok((_, body)) if body.contains(words) => Ok(body),
            other => Err(format!("{other:?}")),
        })
    }

    /// Waits until readiness does not say this any more.
    pub(crate) fn wait_unsaid(&self, words: &str) -> Result<()> {
        wait::until(LIMIT, words, || match self.agent.health("/readyz") {
            Ok((_, body)) if !body.contains(words) => Ok(()),
            other => Err(format!("{other:?}")),
        })
    }

    /// Waits until the log has this line, and returns it.
    pub(crate) fn wait_logged(&self, words: &str) -> Result<String> {
        wait::until(LIMIT, words, || {
            let log = self.agent.log();
            let found = log.lines().find(|line| line.contains(words));
            found.map(str::to_owned).ok_or_else(|| tail(&log))
        })
    }

    /// Waits until the status of an object on this node says this.
    pub(crate) fn wait_status(&self, file: &str, words: &str) -> Result<String> {
        let path = format!("state/status/n1/{file}.yaml");
        wait::until(LIMIT, words, || match self.store.read(&path) {
            Ok(text) if unfolded(&text).contains(words) => Ok(text),
            other => Err(format!("{other:?}")),
        })
    }

    /// Takes the datastore away, as an unmounted directory is.
    pub(crate) fn hide_store(&self) -> Result<()> {
        std::fs::rename(self.store.path(), self.hidden()).context("hide the datastore")
    }

    /// Puts it back.
    pub(crate) fn show_store(&self) -> Result<()> {
        std::fs::rename(self.hidden(), self.store.path()).context("show the datastore")
    }

    fn hidden(&self) -> PathBuf {
        self.store.path().with_extension("away")
    }

    /// Waits until the snapshot on disk has these words.
    pub(crate) fn wait_snapshot(&self, words: &str) -> Result<()> {
        let path = self.agent.state_dir().join("snapshot.json");
        wait::until(LIMIT, "the snapshot", || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if text.contains(words) {
                Ok(())
            } else {
                Err(text)
            }
        })
    }

    /// Files of workload endpoints in the datastore.
    pub(crate) fn endpoints_written(&self) -> Vec<String> {
        let folder = self.store.path().join("state/workloadendpoints");
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Vec::new();
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .filter(|name| name.ends_with(".yaml") && !name.starts_with('.'))
            .collect()
    }

    /// Waits until the datastore has this many workload endpoints.
    pub(crate) fn wait_written(&self, count: usize) -> Result<()> {
        wait::until(LIMIT, "the endpoints in the datastore", || {
            let written = self.endpoints_written();
            if written.len() == count {
                Ok(())
            } else {
                Err(format!("{written:?}"))
            }
        })
    }

    /// The host as a router that announces a network of each family; [`ROUTER`] is the session's
    /// other end. The way to the pods is no longer static.
    pub(crate) fn router(&self) -> Result<Frr> {
        self.host.ip([
            "route del 10.244.0.0/16 via 10.1.0.11",
            "route del fd00:10:244::/56 via fd00:1::11",
            "link add lan0 type veth peer name lan1",
            "link set lan0 up",
            "link set lan1 up",
            "address add 198.51.100.1/24 dev lan0",
            "address add fd00:51::1/64 dev lan0 nodad",
        ])?;
        let n1 = Neighbor {
            name: "n1".to_owned(),
            address: [10, 1, 0, 11].into(),
            asn: model::names::DEFAULT_AS,
            local_address: [10, 1, 0, 1].into(),
            local_ipv6: "fd00:1::1".parse()?,
        };
        let config = RouterConfig {
            asn: 65001,
            router_id: [10, 1, 0, 1].into(),
            neighbors: vec![n1],
        };
        Frr::start(&self.lab, &self.host, &config)
    }

    /// Our rules, in nft's words, without counters and without the table's owner, sets and chains
    /// in the order of their names; empty where there is no table.
    pub(crate) fn rules(&self) -> String {
        let list = self
            .netns
            .run(&["nft", "-s", "list", "table", "inet", "ocicat"]);
        let lines = list.unwrap_or_default();
        let lines = lines.lines().skip(1);
        let lines = lines.filter(|line| !line.contains("flags") && *line != "}");
        let text = lines.collect::<Vec<_>>().join("\n");
        let mut parts: Vec<&str> = text
            .split("\n\n")
            .map(|part| part.trim_matches('\n'))
            .collect();
        parts.sort_unstable();
        parts.join("\n\n")
    }

    /// Routes of both families with our protocol.
    pub(crate) fn routes(&self) -> Result<String> {
        let v4 = self.netns.run(&["ip", "route", "show", "proto", "122"])?;
        let v6 = self
            .netns
            .run(&["ip", "-6", "route", "show", "proto", "122"])?;
        Ok(v4 + &v6)
    }

    /// Our links, by name.
    pub(crate) fn links(&self) -> Result<Vec<String>> {
        let text = self.netns.run(&["ip", "-j", "link", "show"])?;
        let links: Vec<Value> = serde_json::from_str(&text)?;
        let names = links.iter().filter_map(|link| link["ifname"].as_str());
        Ok(names
            .filter(|name| name.starts_with("oci"))
            .map(str::to_owned)
            .collect())
    }

    /// Waits until a route of ours to `ip` is (or is not) there.
    pub(crate) fn wait_route(&self, ip: IpAddr, there: bool) -> Result<()> {
        wait::until(LIMIT, &format!("route to {ip}: {there}"), || {
            let routes = self.routes().map_err(|error| error.to_string())?;
            let found = routes
                .lines()
                .any(|line| line.starts_with(&format!("{ip} ")));
            if found == there { Ok(()) } else { Err(routes) }
        })
    }

    /// What a crash together with the loss of everything in the kernel leaves: the disk.
    pub(crate) fn power_cycle(&mut self) -> Result<()> {
        self.agent.kill()?;
        // An owned table goes with its owner; one that persists does not.
        let _ = self
            .netns
            .run(&["nft", "delete", "table", "inet", "ocicat"]);
        for link in self.links()? {
            self.netns.ip([format!("link del {link}")])?;
        }
        for family in ["-4", "-6"] {
            self.netns
                .run(&["ip", family, "route", "flush", "proto", "122"])?;
        }
        std::fs::remove_dir_all(self.agent.run_dir()).context("the sockets' tmpfs")
    }

    /// Sends SIGKILL and starts again.
    pub(crate) fn crash_and_start(&mut self) -> Result<()> {
        self.agent.kill()?;
        self.start()
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.agent.stop(LIMIT)
    }
}

/// A pod and its prober.
pub(crate) struct Member {
    pub(crate) probe: Probe,
    pub(crate) pod: Pod,
}

impl Member {
    /// `to` answers on TCP 8080, both families.
    pub(crate) fn reaches(&self, to: &Member) -> Result<()> {
        reaches(&self.probe, to)
    }

    /// Waits until `to` answers on both families.
    pub(crate) fn wait_reaches(&self, to: &Member) -> Result<()> {
        wait_reaches(&self.probe, to)
    }

    /// Waits until `to` answers on none of its addresses.
    pub(crate) fn wait_denied(&self, to: &Member) -> Result<()> {
        wait_denied(&self.probe, to)
    }
}

/// `to` answers `from` on TCP 8080, both families, at the first attempt.
pub(crate) fn reaches(from: &Probe, to: &Member) -> Result<()> {
    attempt(from, to, LIMIT)
}

/// Waits until `to` answers `from` on both families.
pub(crate) fn wait_reaches(from: &Probe, to: &Member) -> Result<()> {
    wait::until(LIMIT, "to be reached", || {
        attempt(from, to, SHORT).map_err(|error| format!("{error:#}"))
    })
}

fn attempt(from: &Probe, to: &Member, limit: Duration) -> Result<()> {
    for address in to.pod.addresses() {
        let name = from.reach(Protocol::Tcp, address, 8080, limit)?;
        if name != to.pod.name() {
            bail!("{address} is answered by {name}");
        }
    }
    Ok(())
}

/// Waits until `to` answers `from` on none of its addresses.
pub(crate) fn wait_denied(from: &Probe, to: &Member) -> Result<()> {
    wait::until(LIMIT, "not to be reached", || {
        for address in to.pod.addresses() {
            if let Ok(name) = from.reach(Protocol::Tcp, address, 8080, SHORT) {
                return Err(format!("{address} is answered by {name}"));
            }
        }
        Ok(())
    })
}

pub(crate) fn spec(name: &str, app: &str) -> PodSpec {
    PodSpec {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
    }
}

/// A policy for the pods labelled `app: <app>`; `ingress` is its list of rules in YAML flow style.
pub(crate) fn policy(name: &str, app: &str, ingress: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec: {{podSelector: {{matchLabels: {{app: {app}}}}}, policyTypes: [Ingress], ingress: {ingress}}}
"
    )
}

/// Code and message of the plugin's error.
pub(crate) fn cni_error<T>(result: Result<T>) -> Result<(u64, String)> {
    let Err(error) = result else {
        bail!("the plugin did not fail")
    };
    let text = format!("{error:#}");
    let start = text.find('{').with_context(|| text.clone())?;
    let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
    let value = values.next().with_context(|| text.clone())??;
    let code = value["code"].as_u64().with_context(|| text.clone())?;
    Ok((code, value["msg"].as_str().unwrap_or_default().to_owned()))
}

/// The network configuration that a call without extras gets.
pub(crate) fn nothing() -> Value {
    json!({})
}

/// Text without the line breaks that YAML folds long sentences at.
fn unfolded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().rev().take(8).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Names of the files in a folder.
pub(crate) fn entries(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let files = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}
