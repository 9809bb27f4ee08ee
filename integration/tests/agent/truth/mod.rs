//! Truth tables: nine pods in three namespaces on two nodes, the nodes themselves and a host
//! outside, everybody to everybody, by TCP, UDP, SCTP, ICMP and through a Service, in both families.
//! What the evaluator says is what the kernel does, and what the table that the kernel has in force
//! does in the interpreter.

mod program;
mod steps;

use crate::cluster;
use crate::node::{LIMIT, Node};
use anyhow::{Context, Result, bail};
use integration::lab::pod::{Plugin, PodSpec};
use integration::lab::{Agent, Netns, Pod, Probe};
use integration::prober::{Operation, Outcome, PORTS};
use model::{NamedPort, Object, Parsed, Protocol};
use policy::{Direction, Endpoint, EndpointId, Evaluator, Flow, HostPath, NodePeer, Party, Policy};
use program::Tables;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// How long an attempt that has to fail is waited for.
const PATIENCE: Duration = Duration::from_millis(600);
const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PODS: [&str; 3] = ["a", "b", "c"];
/// The host endpoint of the first node, in the rows that have one.
const HOST_ENDPOINT: &str = "n1-eth0";
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Somebody who tries and is tried.
struct Peer {
    probe: Probe,
    /// IPv4 and IPv6.
    addresses: [IpAddr; 2],
    /// Number of the node that it is, or runs on; none is outside.
    node: Option<usize>,
    pod: Option<OfPod>,
}

struct OfPod {
    id: EndpointId,
    endpoint: Endpoint,
    service: Ipv4Addr,
    host_interface: String,
    /// Keeps the pod there.
    _pod: Pod,
}

/// Fields are dropped in this order: the lab goes last.
struct Stage {
    peers: Vec<Peer>,
    second: Agent,
    node: Node,
}

/// One attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    from: usize,
    to: usize,
    way: Way,
    ipv6: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Tcp(u16),
    Udp(u16),
    Sctp(u16),
    Icmp,
    /// TCP to the address of a Service.
    Service(u16),
}

impl Stage {
    fn new() -> Result<Self> {
        let mut node = Node::prepared()?;
        let mut second = cluster::second(&node)?;
        for namespace in NAMESPACES {
            let document = json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": namespace, "labels": {"team": namespace}}});
            node.store
                .write(&format!("ns-{namespace}.yaml"), &document.to_string())?;
        }
        node.start()?;
        second.start()?;
        second.wait_ready(LIMIT)?;
        let plugins = [node.plugin.clone(), Plugin::ocicat(&second)?];
        let mut peers = Vec::new();
        for (row, namespace) in NAMESPACES.iter().enumerate() {
            for (column, name) in PODS.iter().enumerate() {
                let place = (row + column) % 2;
                let number = (row * 3 + column) as u8;
                let peer = pod(&node, &plugins[place], namespace, name, number)?;
                peers.push(Peer {
                    node: Some(place),
                    ..peer
                });
            }
        }
        // The host bridges the nodes; each pod is reached by its own node.
        for peer in &peers {
            let last = if peer.node == Some(0) { 11 } else { 12 };
            let [v4, v6] = peer.addresses;
            node.host.ip([
                format!("route add {v4} via 10.1.0.{last}"),
                format!("route add {v6} via fd00:1::{last}"),
            ])?;
        }
        let others = [
            ("n1", &node.netns, "10.1.0.11", "fd00:1::11", Some(0)),
            ("n2", second.netns(), "10.1.0.12", "fd00:1::12", Some(1)),
            ("host", &node.host, "10.1.0.1", "fd00:1::1", None),
        ];
        for (name, netns, v4, v6, node) in others {
            peers.push(Peer {
                probe: Probe::start(netns, name)?,
                addresses: [v4.parse()?, v6.parse()?],
                node,
                pod: None,
            });
        }
        for netns in [&node.netns, second.netns()] {
            services(netns, &peers)?;
        }
        Ok(Self {
            peers,
            second,
            node,
        })
    }

    fn evaluator(&self, documents: &[Value]) -> Result<Evaluator> {
        let mut evaluator = Evaluator::default();
        for namespace in NAMESPACES {
            let labels = [("team".to_owned(), namespace.to_owned())];
            evaluator.set_namespace(namespace, Some(labels.into()));
        }
        for peer in &self.peers {
            match &peer.pod {
                Some(pod) => evaluator.set_endpoint(&pod.id, Some(pod.endpoint.clone())),
                None if peer.node.is_some() => {
                    let node = NodePeer {
                        labels: BTreeMap::new().into(),
                        addresses: peer.addresses.into(),
                    };
                    evaluator.set_node(peer.probe.name(), Some(node));
                }
                None => {}
            }
        }
        for document in documents {
            match model::manifest::parse(document)? {
                Parsed::Valid { object, .. } => tell(&mut evaluator, object)?,
                Parsed::Invalid { fallback, .. } => {
                    let fallback = fallback.with_context(|| format!("not valid: {document}"))?;
                    tell(&mut evaluator, fallback)?;
                }
                Parsed::Ignored { reason, .. } => bail!("{document}: {reason}"),
            }
        }
        Ok(evaluator)
    }

    fn cells(&self) -> Vec<Cell> {
        let [first, second] = PORTS;
        let between_pods = [
            Way::Tcp(first),
            Way::Tcp(second),
            Way::Udp(first),
            Way::Sctp(first),
            Way::Icmp,
            Way::Service(first),
        ];
        let with_hosts = [
            Way::Tcp(first),
            Way::Udp(first),
            Way::Sctp(first),
            Way::Icmp,
        ];
        let mut cells = Vec::new();
        for (from, source) in self.peers.iter().enumerate() {
            for (to, destination) in self.peers.iter().enumerate() {
                let ways = match (&source.pod, &destination.pod) {
                    (Some(_), Some(_)) => &between_pods[..],
                    _ => &with_hosts[..],
                };
                for &way in ways {
                    for ipv6 in [false, true] {
                        // What one sends to its own address never leaves it; Services are IPv4.
                        let service = matches!(way, Way::Service(_));
                        if (service && !ipv6) || (!service && from != to) {
                            cells.push(Cell {
                                from,
                                to,
                                way,
                                ipv6,
                            });
                        }
                    }
                }
            }
        }
        cells
    }

    fn address(&self, peer: usize, ipv6: bool) -> IpAddr {
        self.peers[peer].addresses[usize::from(ipv6)]
    }

    /// The connection of a cell, after translation.
    fn flow(&self, cell: Cell) -> Flow {
        let (from, to) = (&self.peers[cell.from], &self.peers[cell.to]);
        let party = |peer: &Peer, other: &Peer| {
            let address = peer.addresses[usize::from(cell.ipv6)];
            match &peer.pod {
                Some(pod) => Party::Pod(pod.id.clone(), address),
                None if other.pod.is_some() && peer.node.is_some() && peer.node == other.node => {
                    Party::OwnNode(address)
                }
                None => Party::Address(address),
            }
        };
        let (protocol, destination_port) = match cell.way {
            Way::Tcp(port) | Way::Service(port) => (Protocol::Tcp.number(), Some(port)),
            Way::Udp(port) => (Protocol::Udp.number(), Some(port)),
            Way::Sctp(port) => (Protocol::Sctp.number(), Some(port)),
            Way::Icmp => (if cell.ipv6 { ICMPV6 } else { ICMP }, None),
        };
        let echo = if cell.ipv6 { (128, 0) } else { (8, 0) };
        let (source, destination) = (party(from, to), party(to, from));
        Flow {
            icmp: (cell.way == Way::Icmp).then_some(echo),
            source_port: destination_port.map(|_| program::SOURCE_PORT),
            ..Flow::new(source, destination, protocol, destination_port)
        }
    }

    fn expected(&self, evaluator: &Evaluator, cell: Cell) -> bool {
        let flow = self.flow(cell);
        let (from, to) = (&self.peers[cell.from], &self.peers[cell.to]);
        // Through the first node's link, what it forwards for its pods.
        let forwarded = match (from.node, to.node) {
            (Some(0), Some(0)) => None,
            (Some(0), _) if from.pod.is_some() => Some(Direction::Egress),
            (_, Some(0)) if to.pod.is_some() => Some(Direction::Ingress),
            _ => None,
        };
        let passes = forwarded.is_none_or(|direction| {
            evaluator
                .host_judgement(HOST_ENDPOINT, direction, HostPath::Forward, &flow)
                .allows()
        });
        passes && evaluator.verdict(&flow).allowed
    }

    /// Which of these are possible now, all tried at once.
    fn try_all(&self, cells: &[Cell]) -> Result<BTreeMap<Cell, bool>> {
        let limit_ms = PATIENCE.as_millis() as u64;
        let mut asked = Vec::new();
        for &cell in cells {
            let address = self.address(cell.to, cell.ipv6);
            let at = |port| SocketAddr::new(address, port);
            let operation = match cell.way {
                Way::Tcp(port) => Operation::Tcp {
                    to: at(port),
                    limit_ms,
                },
                Way::Udp(port) => Operation::Udp {
                    to: at(port),
                    limit_ms,
                },
                Way::Sctp(port) => Operation::Sctp {
                    to: at(port),
                    limit_ms,
                },
                Way::Icmp => Operation::Ping {
                    to: address,
                    limit_ms,
                },
                Way::Service(port) => {
                    let pod = self.peers[cell.to].pod.as_ref().context("a pod")?;
                    Operation::Tcp {
                        to: SocketAddr::new(pod.service.into(), port),
                        limit_ms,
                    }
                }
            };
            asked.push((cell, self.peers[cell.from].probe.ask(operation)?));
        }
        let mut reached = BTreeMap::new();
        for (cell, answer) in asked {
            let outcome = answer
                .recv_timeout(Duration::from_secs(30))
                .context("a prober")?;
            let by = &self.peers[cell.to];
            reached.insert(
                cell,
                match outcome {
                    Ok(Outcome::Answered { name, .. })
                        if name.is_empty() || name == by.probe.name() =>
                    {
                        true
                    }
                    Ok(other) => bail!("{cell:?} was answered by {other:?}"),
                    Err(_) => false,
                },
            );
        }
        Ok(reached)
    }

    /// Tries until the kernel agrees; what still differs at the end is the failure. When every cell
    /// has agreed once, all are tried again: one that agreed may have been judged by older rules.
    /// Then the tables are read, and asked too.
    fn check(&self, step: &str, documents: &[Value]) -> Result<()> {
        let evaluator = self.evaluator(documents)?;
        let mut expected = BTreeMap::new();
        for cell in self.cells() {
            expected.insert(cell, self.expected(&evaluator, cell));
        }
        let mut left: Vec<Cell> = expected.keys().copied().collect();
        let begin = Instant::now();
        let mut by = "kernel";
        while !left.is_empty() {
            if begin.elapsed() > LIMIT {
                return self.differ(step, by, &left, &expected);
            }
            let tried = left.len();
            let seen = self.try_all(&left)?;
            left.retain(|cell| seen[cell] != expected[cell]);
            if left.is_empty() && tried < expected.len() {
                left = expected.keys().copied().collect();
            } else if left.is_empty() {
                let tables = Tables::read(self)?;
                for (&cell, &allowed) in &expected {
                    if tables.allow(self, cell)? != allowed {
                        left.push(cell);
                        by = "table";
                    }
                }
            }
        }
        Ok(())
    }

    fn differ(
        &self,
        step: &str,
        by: &str,
        left: &[Cell],
        expected: &BTreeMap<Cell, bool>,
    ) -> Result<()> {
        let name = |peer: usize| self.peers[peer].probe.name();
        let lines = left.iter().take(10).map(|cell| {
            let verdict = if expected[cell] { "allowed" } else { "denied" };
            format!(
                "{} -> {} {:?} ipv6 {}: should be {verdict}",
                name(cell.from),
                name(cell.to),
                cell.way,
                cell.ipv6
            )
        });
        let lines: Vec<String> = lines.collect();
        let count = left.len();
        bail!(
            "{step}: {count} cells differ by the {by}:\n{}",
            lines.join("\n")
        )
    }

    fn run(&self, steps: Vec<(&str, Vec<Value>)>) -> Result<()> {
        for (name, documents) in steps {
            let text: Vec<String> = documents.iter().map(|one| self.filled_in(one)).collect();
            let documents = text.iter().map(|text| serde_json::from_str(text));
            let documents = documents.collect::<Result<Vec<Value>, _>>()?;
            self.node.store.write("step.yaml", &text.join("\n---\n"))?;
            self.check(name, &documents)?;
        }
        Ok(())
    }

    /// `@xa4` is the IPv4 address of pod `x/xa`.
    fn filled_in(&self, document: &Value) -> String {
        let mut text = document.to_string();
        for peer in &self.peers {
            for (digit, address) in ["4", "6"].iter().zip(peer.addresses) {
                let name = format!("@{}{digit}", peer.probe.name());
                text = text.replace(&name, &address.to_string());
            }
        }
        text
    }
}

/// A pod with its Pod object.
fn pod(node: &Node, plugin: &Plugin, namespace: &str, name: &str, number: u8) -> Result<Peer> {
    let pod_name = format!("{namespace}{name}");
    let labels: BTreeMap<String, String> = [
        ("pod".to_owned(), name.to_owned()),
        ("ns".to_owned(), namespace.to_owned()),
    ]
    .into();
    let account = format!("sa-{name}");
    // One name, two numbers.
    let web = if name == "c" { PORTS[1] } else { PORTS[0] };
    let ports = [
        ("web", Protocol::Tcp, web),
        ("diameter", Protocol::Sctp, PORTS[0]),
    ];
    let ports = ports.map(|(name, protocol, port)| NamedPort {
        name: name.to_owned(),
        protocol,
        port,
    });
    let container = json!({"name": "c", "ports": [
        {"name": "web", "containerPort": web},
        {"name": "diameter", "containerPort": PORTS[0], "protocol": "SCTP"}]});
    let object = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": pod_name, "labels": labels},
        "spec": {"serviceAccountName": account, "containers": [container]}});
    node.store
        .write(&format!("pod-{pod_name}.yaml"), &object.to_string())?;
    let spec = PodSpec {
        namespace: namespace.to_owned(),
        name: pod_name,
        labels: labels.clone(),
    };
    let pod = Pod::add(&node.lab, plugin, spec)?;
    let probe = Probe::start(pod.netns(), pod.name())?;
    let endpoint = Endpoint {
        namespace: namespace.to_owned().into(),
        pod: pod.name().to_owned().into(),
        labels: labels.into(),
        ports: ports.into(),
        ips: pod.addresses(),
        local: None,
        labels_known: true,
        service_account: Some(account.into()),
        profiles: vec![].into(),
    };
    Ok(Peer {
        probe,
        addresses: [pod.ipv4()?, pod.ipv6()?],
        node: None,
        pod: Some(OfPod {
            id: EndpointId(format!("{namespace}/{}", pod.name()).into()),
            endpoint,
            service: Ipv4Addr::new(10, 96, 0, 10 + number),
            host_interface: pod.host_interface()?,
            _pod: pod,
        }),
    })
}

/// Addresses of Services, as kube-proxy makes them: DNAT before routing, and a pod that reaches
/// itself is masqueraded.
fn services(netns: &Netns, peers: &[Peer]) -> Result<()> {
    let mut text = String::from(
        "add table ip svc; add chain ip svc pre { type nat hook prerouting priority -100; }; \
         add chain ip svc post { type nat hook postrouting priority 100; };",
    );
    for peer in peers {
        let Some(of_pod) = &peer.pod else { continue };
        let (service, pod) = (of_pod.service, peer.addresses[0]);
        text.push_str(&format!(
            "add rule ip svc pre ip daddr {service} dnat to {pod};\
             add rule ip svc post ip saddr {pod} ip daddr {pod} masquerade;"
        ));
    }
    netns.run(&["nft", &text]).map(drop)
}

fn tell(evaluator: &mut Evaluator, object: Object) -> Result<()> {
    let object = match Policy::try_from(object) {
        Ok(policy) => {
            evaluator.set_policy(&policy.key(), Some(policy));
            return Ok(());
        }
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
        Object::ServiceAccount(account) => {
            let namespace = account.namespace.clone();
            evaluator.set_service_account(&namespace, &name, Some(account));
        }
        Object::EndpointSlice(slice) => {
            let namespace = slice.namespace.clone();
            evaluator.set_endpoint_slice(&namespace, &name, Some(*slice));
        }
        Object::Pod(pod) if pod.host_network => {}
        other => bail!("not judged: {:?}", other.key()),
    }
    Ok(())
}

#[test]
fn kubernetes_policies_do_what_the_specification_says() -> Result<()> {
    Stage::new()?.run(steps::kubernetes())
}

#[test]
fn cluster_wide_policies_do_what_the_specification_says() -> Result<()> {
    Stage::new()?.run(steps::cluster())
}

#[test]
fn calico_policies_do_what_the_specification_says() -> Result<()> {
    Stage::new()?.run(steps::calico())
}

#[test]
fn policies_of_hosts_do_what_the_specification_says() -> Result<()> {
    Stage::new()?.run(steps::hosts())
}
