//! A long life of one agent: policies of every kind, labels, namespaces, network sets, tiers and
//! pods come, change and go in an order of chance, addresses are used again, and after each step
//! the kernel's dump of our table is what a process that has just read everything would compile.

use crate::node::{LIMIT, Node, spec};
use crate::policy::{last_addresses, previous};
use anyhow::{Context, Result};
use integration::lab::pod::Pod;
use integration::lab::{agent, wait};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

/// What happens to one thing, in this order, between whatever happens to others.
struct Story {
    name: String,
    turns: Vec<Turn>,
}

enum Turn {
    Write(Value),
    Remove,
    /// A pod of this name and application, at the addresses of the story.
    Add(&'static str, &'static str),
    Del(&'static str),
}

fn object(kind: &str, namespace: Option<&str>, name: &str, spec: Value) -> Value {
    let version = match kind {
        "NetworkPolicy.k8s" => "networking.k8s.io/v1",
        "ClusterNetworkPolicy" => "policy.networking.k8s.io/v1alpha2",
        _ => "projectcalico.org/v3",
    };
    let mut metadata = json!({ "name": name });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    let kind = kind.trim_end_matches(".k8s");
    json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
}

fn labelled(mut object: Value, labels: Value) -> Value {
    object["metadata"]["labels"] = labels;
    object
}

fn core(kind: &str, namespace: Option<&str>, name: &str, labels: Value) -> Value {
    let mut whole = labelled(object(kind, namespace, name, json!({})), labels);
    whole["apiVersion"] = json!("v1");
    whole
}

/// A pod of another node, with its labels in its endpoint.
fn remote(name: &str, address: u8, labels: Value) -> Value {
    let spec = json!({"orchestrator": "k8s", "node": "n2", "pod": name, "containerID": name,
        "endpoint": "eth0", "interfaceName": format!("oci{name}"), "mac": "02:00:00:00:00:01",
        "ipNetworks": [format!("10.99.0.{address}/32"), format!("fd00:99::{address}/128")],
        "ports": [{"name": "web", "protocol": "TCP", "port": 8000 + u16::from(address)}]});
    let name = format!("n2-k8s-{name}-eth0");
    labelled(
        object("WorkloadEndpoint", Some("shop"), &name, spec),
        labels,
    )
}

fn story(name: &str, turns: impl IntoIterator<Item = Turn>) -> Story {
    Story {
        name: name.to_owned(),
        turns: turns.into_iter().collect(),
    }
}

/// Each version in its turn, then nothing.
fn object_story<const N: usize>(name: &str, versions: [Value; N]) -> Story {
    let writes = versions.into_iter().map(Turn::Write);
    story(name, writes.chain([Turn::Remove]))
}

fn stories() -> Vec<Story> {
    let mut all = vec![
        object_story(
            "ns-bank",
            [
                core("Namespace", None, "bank", json!({"team": "money"})),
                core("Namespace", None, "bank", json!({"team": "other"})),
            ],
        ),
        story(
            "ns-shop",
            [
                Turn::Write(core("Namespace", None, "shop", json!({"team": "shop"}))),
                Turn::Write(core("Namespace", None, "shop", json!({}))),
            ],
        ),
        object_story(
            "account",
            [core(
                "ServiceAccount",
                Some("shop"),
                "default",
                json!({"trusted": "yes"}),
            )],
        ),
    ];
    all.extend(pods());
    all.extend(kubernetes());
    all.extend(calico());
    all
}

fn pods() -> Vec<Story> {
    let mut all = vec![];
    // An address is one pod's, then another's, then again the first one's.
    for (name, app, other) in [
        ("p0", "web", "q0"),
        ("p1", "web", "q1"),
        ("p2", "front", "q2"),
        ("p3", "db", "q3"),
    ] {
        let turns = [
            Turn::Add(name, app),
            Turn::Del(name),
            Turn::Add(other, "front"),
            Turn::Del(other),
            Turn::Add(name, app),
        ];
        all.push(story(name, turns));
        let labels = |app: &str| core("Pod", Some("shop"), name, json!({"app": app}));
        let pod = |app: &str, port: u16| {
            let mut pod = labels(app);
            pod["spec"] = json!({"nodeName": "n1", "containers": [
                {"name": "c", "ports": [{"name": "web", "containerPort": port}]}]});
            pod
        };
        all.push(object_story(
            &format!("pod-{name}"),
            [pod(app, 8080), pod("moved", 8081)],
        ));
    }
    // Two names for each address, alive at the same time or one after the other.
    for number in 0..6_u8 {
        let name = format!("r{number}");
        let app = ["front", "web", "db"][usize::from(number % 3)];
        let (first, second) = (json!({"app": app}), json!({"app": "front", "tier": "edge"}));
        let at = number / 2 + 1;
        all.push(object_story(
            &name,
            [remote(&name, at, first), remote(&name, at, second)],
        ));
    }
    all
}

fn kubernetes() -> Vec<Story> {
    let np = |name: &str, spec: Value| object("NetworkPolicy.k8s", Some("shop"), name, spec);
    let app = |app: &str| json!({"matchLabels": {"app": app}});
    let cluster = |name: &str, tier: &str, priority: u16, rules: Value| {
        let mut spec = json!({"tier": tier, "priority": priority, "subject": {"namespaces": {}}});
        if let (Some(spec), Some(rules)) = (spec.as_object_mut(), rules.as_object()) {
            spec.extend(rules.clone());
        }
        object("ClusterNetworkPolicy", None, name, spec)
    };
    vec![
        object_story(
            "np-deny",
            [np(
                "deny",
                json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
            )],
        ),
        object_story(
            "np-web",
            [
                np(
                    "web",
                    json!({"podSelector": app("web"), "ingress": [{"from": [{"podSelector": app("front")}], "ports": [{"port": 8080}]}]}),
                ),
                np(
                    "web",
                    json!({"podSelector": app("web"), "ingress": [{"from": [{"podSelector": app("front")}, {"podSelector": app("db")}], "ports": [{"port": 8000, "endPort": 9000}]}]}),
                ),
            ],
        ),
        object_story(
            "np-named",
            [
                np(
                    "named",
                    json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": "web"}]}]}),
                ),
                np(
                    "named",
                    json!({"podSelector": app("moved"), "ingress": [{"ports": [{"port": "web"}]}]}),
                ),
            ],
        ),
        object_story(
            "np-blocks",
            [
                np(
                    "blocks",
                    json!({"podSelector": app("db"), "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.99.0.0/30", "10.128.0.0/9"]}}]}]}),
                ),
                np(
                    "blocks",
                    json!({"podSelector": app("db"), "ingress": [{"from": [{"ipBlock": {"cidr": "::/0", "except": ["fd00:99::/64"]}}], "ports": [{"protocol": "SCTP"}]}]}),
                ),
            ],
        ),
        object_story(
            "np-spaces",
            [np(
                "spaces",
                json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "money"}}}, {"namespaceSelector": {"matchLabels": {"team": "shop"}}, "podSelector": app("front")}]}]}),
            )],
        ),
        object_story(
            "cnp-admin",
            [
                cluster(
                    "admin",
                    "Admin",
                    5,
                    json!({"ingress": [{"action": "Pass", "from": [{"namespaces": {}}]}, {"action": "Deny", "from": [{"namespaces": {}}]}]}),
                ),
                cluster(
                    "admin",
                    "Admin",
                    7,
                    json!({"ingress": [{"action": "Deny", "from": [{"pods": {"namespaceSelector": {}, "podSelector": app("db")}}]}],
                    "egress": [{"action": "Accept", "to": [{"nodes": {}}]}, {"action": "Deny", "to": [{"networks": ["192.0.2.0/24"]}]}]}),
                ),
            ],
        ),
        object_story(
            "cnp-early",
            [cluster(
                "early",
                "Admin",
                1,
                json!({"egress": [{"action": "Accept", "to": [{"namespaces": {}}], "protocols": [{"destinationNamedPort": "web"}]}]}),
            )],
        ),
        object_story(
            "cnp-base",
            [cluster(
                "base",
                "Baseline",
                5,
                json!({"ingress": [{"action": "Deny", "from": [{"namespaces": {}}], "protocols": [{"udp": {"destinationPort": {"range": {"start": 5, "end": 500}}}}]}]}),
            )],
        ),
    ]
}

fn calico() -> Vec<Story> {
    let global = |name: &str, spec: Value| object("GlobalNetworkPolicy", None, name, spec);
    let set = |nets: Value| {
        labelled(
            object("GlobalNetworkSet", None, "far", json!({"nets": nets})),
            json!({"set": "far"}),
        )
    };
    vec![
        object_story(
            "tier",
            [
                object(
                    "Tier",
                    None,
                    "first",
                    json!({"order": 5, "defaultAction": "Pass"}),
                ),
                object(
                    "Tier",
                    None,
                    "first",
                    json!({"order": 5_000_000, "defaultAction": "Deny"}),
                ),
            ],
        ),
        object_story(
            "gnp-tier",
            [
                global(
                    "first.a",
                    json!({"tier": "first", "selector": "app in {'web', 'db'}", "types": ["Ingress", "Egress"],
                    "ingress": [{"action": "Pass", "source": {"selector": "app == 'front'"}}, {"action": "Deny", "protocol": "UDP"}],
                    "egress": [{"action": "Allow", "protocol": "TCP", "destination": {"notPorts": ["web", 443]}}]}),
                ),
                global(
                    "first.a",
                    json!({"tier": "first", "order": 3, "selector": "has(app)", "types": ["Ingress"], "ingress": [{"action": "Log"}, {"action": "Pass"}]}),
                ),
            ],
        ),
        object_story(
            "gnp-sets",
            [global(
                "sets",
                json!({"order": 10, "selector": "all()", "types": ["Egress"], "egress": [
                {"action": "Deny", "destination": {"selector": "set == 'far'"}}, {"action": "Allow", "destination": {"notSelector": "tier == 'edge'"}}]}),
            )],
        ),
        object_story(
            "set",
            [
                set(json!(["198.51.100.0/24", "10.99.0.2"])),
                set(json!(["198.51.0.0/16", "fd00:99::/112"])),
            ],
        ),
        object_story(
            "np-calico",
            [
                object(
                    "NetworkPolicy",
                    Some("shop"),
                    "accounts",
                    json!({"selector": "app != 'db'", "types": ["Ingress"], "ingress": [
                    {"action": "Allow", "source": {"serviceAccounts": {"selector": "trusted == 'yes'"}}},
                    {"action": "Allow", "protocol": "ICMP", "icmp": {"type": 8}}]}),
                ),
                object(
                    "NetworkPolicy",
                    Some("shop"),
                    "accounts",
                    json!({"order": 2000, "selector": "app != 'db'", "types": ["Ingress"], "ingress": [
                    {"action": "Deny", "source": {"services": {"name": "s", "namespace": "shop"}}}, {"action": "Allow"}]}),
                ),
            ],
        ),
        object_story(
            "slice",
            [
                slice(json!(["10.99.0.1"]), 80),
                slice(json!(["10.99.0.1", "10.99.0.3"]), 81),
            ],
        ),
        object_story(
            "staged",
            [object(
                "StagedNetworkPolicy",
                Some("shop"),
                "trial",
                json!({"stagedAction": "Set", "selector": "app == 'web'", "types": ["Ingress"], "ingress": [
                {"action": "Allow", "source": {"selector": "app == 'front'"}}]}),
            )],
        ),
        object_story(
            "host",
            [
                labelled(
                    object(
                        "HostEndpoint",
                        None,
                        "h",
                        json!({"node": "n1", "interfaceName": "eth0", "expectedIPs": ["10.1.0.11"], "profiles": ["projectcalico-default-allow"]}),
                    ),
                    json!({"role": "host"}),
                ),
                labelled(
                    object(
                        "HostEndpoint",
                        None,
                        "h",
                        json!({"node": "n1", "interfaceName": "eth0", "expectedIPs": ["10.1.0.11"]}),
                    ),
                    json!({"role": "other"}),
                ),
            ],
        ),
        object_story(
            "gnp-host",
            [
                global(
                    "host",
                    json!({"selector": "role == 'host'", "applyOnForward": true, "types": ["Ingress", "Egress"], "ingress": [{"action": "Allow", "protocol": "TCP"}], "egress": [{"action": "Allow"}]}),
                ),
                global(
                    "host",
                    json!({"selector": "has(role)", "applyOnForward": true, "preDNAT": true, "types": ["Ingress"], "ingress": [{"action": "Deny", "protocol": "UDP", "destination": {"ports": [99]}}]}),
                ),
            ],
        ),
    ]
}

fn slice(addresses: Value, port: u16) -> Value {
    let endpoints: Vec<Value> = addresses
        .as_array()
        .into_iter()
        .flatten()
        .map(|address| json!({"addresses": [address]}))
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": port, "protocol": "TCP"}]})
}

/// Numbers of chance from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

/// The table's part of what a process that starts now would do.
pub(crate) fn table_plan(node: &Node) -> Result<Vec<String>> {
    let binary = agent::binary("OCICAT_NODE_BIN", "ocicat-node")?;
    let paths = [
        node.store.path().to_owned(),
        node.agent.run_dir(),
        node.agent.state_dir(),
    ];
    let [store, run, state] = paths.map(|path| path.display().to_string());
    let plan = node.netns.run(&[
        &binary.display().to_string(),
        "--node-name",
        "n1",
        "--plan",
        "--datastore",
        &store,
        "--run-dir",
        &run,
        "--state-dir",
        &state,
    ])?;
    let of_table = plan.lines().filter(|line| line.starts_with("nft "));
    Ok(of_table.map(str::to_owned).collect())
}

struct Play {
    node: Node,
    pods: BTreeMap<&'static str, Pod>,
    /// One of each family for each story with pods.
    addresses: BTreeMap<String, [IpAddr; 2]>,
    /// Steps after which the table was another.
    changes: usize,
    rules: String,
}

impl Play {
    fn turn(&mut self, name: &str, turn: Turn) -> Result<()> {
        let file = format!("{name}.yaml");
        match turn {
            Turn::Write(object) => self
                .node
                .store
                .write(&file, &object.to_string())
                .map(drop)?,
            Turn::Remove => self.node.store.remove(&file).map(drop)?,
            Turn::Add(pod, app) => {
                let ips = self.addresses.get(name).context("addresses")?;
                let extra = json!({"runtimeConfig": {"ips": ips}, "capabilities": {"ips": true}});
                let lab = &self.node.lab;
                let added = Pod::add_with(lab, &self.node.plugin, spec(pod, app), &extra)?;
                self.pods.insert(pod, added);
            }
            Turn::Del(pod) => self.pods.remove(pod).context("a pod")?.delete()?,
        }
        wait::until(LIMIT, "the table of a start from scratch", || {
            let plan = table_plan(&self.node).map_err(|error| format!("{error:#}"))?;
            if plan.is_empty() {
                Ok(())
            } else {
                Err(plan.join("\n"))
            }
        })?;
        let rules = self.node.rules();
        if rules != self.rules {
            self.changes += 1;
            self.rules = rules;
        }
        Ok(())
    }
}

#[test]
fn after_every_step_of_a_long_life_the_table_is_that_of_a_start_from_scratch() -> Result<()> {
    let asked = std::env::var("SCENARIO_SEED").ok();
    let seed = asked.and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
    let mut dice = Dice(seed);
    let mut stories = stories();
    let node = Node::started()?;
    let last = last_addresses(&node)?;
    let before = |back: usize| -> Result<[IpAddr; 2]> {
        let ips = last
            .iter()
            .map(|ip| (0..back).fold(*ip, |ip, _| previous(ip)));
        ips.collect::<Vec<_>>()
            .try_into()
            .ok()
            .context("two families")
    };
    let names = ["p0", "p1", "p2", "p3"].into_iter().enumerate();
    let addresses = names.map(|(number, name)| Ok((name.to_owned(), before(number)?)));
    let addresses = addresses.collect::<Result<BTreeMap<_, _>>>()?;
    let mut play = Play {
        rules: node.rules(),
        node,
        pods: BTreeMap::new(),
        addresses,
        changes: 0,
    };
    let mut steps = 0;
    while !stories.is_empty() {
        let chosen = dice.below(stories.len());
        let story = &mut stories[chosen];
        let turn = story.turns.remove(0);
        let name = story.name.clone();
        if story.turns.is_empty() {
            stories.remove(chosen);
        }
        steps += 1;
        let at = || format!("SCENARIO_SEED={seed} makes this again: step {steps}, {name}");
        play.turn(&name, turn).with_context(at)?;
    }
    println!("{steps} steps, {} changes of the table", play.changes);
    assert!(
        steps >= 60 && play.changes > steps / 3,
        "SCENARIO_SEED={seed}"
    );
    Ok(())
}
