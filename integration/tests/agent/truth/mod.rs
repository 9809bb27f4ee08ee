//! Truth tables: nine pods in three namespaces on two nodes, everybody to everybody, by TCP, UDP,
//! ICMP and through a Service, in both families. What the evaluator says is what the kernel does.

mod steps;

use crate::cluster;
use crate::node::{LIMIT, Node};
use anyhow::{Context, Result, bail};
use integration::lab::pod::{Plugin, PodSpec};
use integration::lab::{Agent, Netns, Pod, Probe};
use integration::prober::{Operation, Outcome, PORTS};
use model::{NamedPort, Object, Parsed, Protocol};
use policy::{Endpoint, EndpointId, Evaluator, Flow, Party, Policy};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// How long an attempt that has to fail is waited for.
const PATIENCE: Duration = Duration::from_millis(600);
const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PODS: [&str; 3] = ["a", "b", "c"];
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

struct Peer {
    pod: Pod,
    probe: Probe,
    id: EndpointId,
    endpoint: Endpoint,
    service: Ipv4Addr,
}

/// Fields are dropped in this order: the lab goes last.
struct Stage {
    peers: Vec<Peer>,
    _second: Agent,
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
                let plugin = &plugins[usize::from((row + column) % 2 == 1)];
                peers.push(peer(
                    &node,
                    plugin,
                    namespace,
                    name,
                    (row * 3 + column) as u8,
                )?);
            }
        }
        for netns in [&node.netns, second.netns()] {
            services(netns, &peers)?;
        }
        Ok(Self {
            peers,
            _second: second,
            node,
        })
    }

    fn evaluator(&self, documents: &[Value]) -> Result<Evaluator> {
        let mut evaluator = Evaluator::default();
        for namespace in NAMESPACES {
            let labels = [
                ("team".to_owned(), namespace.to_owned()),
                (
                    "kubernetes.io/metadata.name".to_owned(),
                    namespace.to_owned(),
                ),
            ];
            evaluator.set_namespace(namespace, Some(labels.into()));
        }
        for peer in &self.peers {
            evaluator.set_endpoint(&peer.id, Some(peer.endpoint.clone()));
        }
        for document in documents {
            let Parsed::Valid { object, .. } = model::manifest::parse(document)? else {
                bail!("not valid: {document}");
            };
            tell(&mut evaluator, object);
        }
        Ok(evaluator)
    }

    fn cells(&self) -> Vec<Cell> {
        let ways = [
            Way::Tcp(PORTS[0]),
            Way::Tcp(PORTS[1]),
            Way::Udp(PORTS[0]),
            Way::Icmp,
            Way::Service(PORTS[0]),
        ];
        let mut cells = Vec::new();
        for from in 0..self.peers.len() {
            for to in 0..self.peers.len() {
                for way in ways {
                    for ipv6 in [false, true] {
                        // A pod and its own address never leave the pod; Services are IPv4.
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

    fn address(&self, peer: usize, ipv6: bool) -> Result<IpAddr> {
        let pod = &self.peers[peer].pod;
        if ipv6 { pod.ipv6() } else { pod.ipv4() }
    }

    fn expected(&self, evaluator: &Evaluator, cell: Cell) -> Result<bool> {
        let party = |peer: usize| -> Result<Party> {
            let address = self.address(peer, cell.ipv6)?;
            Ok(Party::Pod(self.peers[peer].id.clone(), address))
        };
        let (protocol, destination_port) = match cell.way {
            Way::Tcp(port) | Way::Service(port) => (Protocol::Tcp.number(), Some(port)),
            Way::Udp(port) => (Protocol::Udp.number(), Some(port)),
            Way::Icmp => (if cell.ipv6 { ICMPV6 } else { ICMP }, None),
        };
        let echo = if cell.ipv6 { (128, 0) } else { (8, 0) };
        let flow = Flow {
            icmp: (cell.way == Way::Icmp).then_some(echo),
            ..Flow::new(
                party(cell.from)?,
                party(cell.to)?,
                protocol,
                destination_port,
            )
        };
        Ok(evaluator.verdict(&flow).allowed)
    }

    /// Which of these are possible now, all tried at once.
    fn try_all(&self, cells: &[Cell]) -> Result<BTreeMap<Cell, bool>> {
        let limit_ms = PATIENCE.as_millis() as u64;
        let mut asked = Vec::new();
        for &cell in cells {
            let address = self.address(cell.to, cell.ipv6)?;
            let operation = match cell.way {
                Way::Tcp(port) => Operation::Tcp {
                    to: SocketAddr::new(address, port),
                    limit_ms,
                },
                Way::Udp(port) => Operation::Udp {
                    to: SocketAddr::new(address, port),
                    limit_ms,
                },
                Way::Icmp => Operation::Ping {
                    to: address,
                    limit_ms,
                },
                Way::Service(port) => Operation::Tcp {
                    to: SocketAddr::new(self.peers[cell.to].service.into(), port),
                    limit_ms,
                },
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
    fn check(&self, step: &str, documents: &[Value]) -> Result<()> {
        let evaluator = self.evaluator(documents)?;
        let mut expected = BTreeMap::new();
        for cell in self.cells() {
            expected.insert(cell, self.expected(&evaluator, cell)?);
        }
        let mut left: Vec<Cell> = expected.keys().copied().collect();
        let begin = Instant::now();
        loop {
            let seen = self.try_all(&left)?;
            left.retain(|cell| seen[cell] != expected[cell]);
            if left.is_empty() {
                if expected.len() == seen.len() {
                    return Ok(());
                }
                left = expected.keys().copied().collect();
            }
            if begin.elapsed() > LIMIT {
                break;
            }
        }
        let name = |peer: usize| &self.peers[peer].id;
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
        bail!("{step}: {} cells differ:\n{}", left.len(), lines.join("\n"))
    }

    fn run(&self, steps: Vec<(&str, Vec<Value>)>) -> Result<()> {
        for (name, documents) in steps {
            let text: Vec<String> = documents.iter().map(ToString::to_string).collect();
            self.node.store.write("step.yaml", &text.join("\n---\n"))?;
            self.check(name, &documents)?;
        }
        Ok(())
    }
}

fn peer(node: &Node, plugin: &Plugin, namespace: &str, name: &str, number: u8) -> Result<Peer> {
    let labels: BTreeMap<String, String> = [
        ("pod".to_owned(), name.to_owned()),
        ("ns".to_owned(), namespace.to_owned()),
    ]
    .into();
    let spec = PodSpec {
        namespace: namespace.to_owned(),
        name: format!("{namespace}{name}"),
        labels: labels.clone(),
    };
    // One name, two numbers.
    let web = if name == "c" { PORTS[1] } else { PORTS[0] };
    let ports = vec![NamedPort {
        name: "web".to_owned(),
        protocol: Protocol::Tcp,
        port: web,
    }];
    let args = json!({"cni": {"labels": labels, "ports": [{"name": "web", "protocol": "TCP", "port": web}]}});
    let pod = Pod::add_with(&node.lab, plugin, spec, &json!({ "args": args }))?;
    let probe = Probe::start(pod.netns(), pod.name())?;
    let endpoint = Endpoint {
        namespace: namespace.to_owned(),
        pod: pod.name().to_owned(),
        labels,
        ports,
        ips: pod.addresses(),
        local: None,
        labels_known: true,
        service_account: None,
        profiles: vec![],
    };
    Ok(Peer {
        id: EndpointId(format!("{namespace}/{}", pod.name())),
        endpoint,
        probe,
        pod,
        service: Ipv4Addr::new(10, 96, 0, 10 + number),
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
        let (service, pod) = (peer.service, peer.pod.ipv4()?);
        text.push_str(&format!(
            "add rule ip svc pre ip daddr {service} dnat to {pod};\
             add rule ip svc post ip saddr {pod} ip daddr {pod} masquerade;"
        ));
    }
    netns.run(&["nft", &text]).map(drop)
}

fn tell(evaluator: &mut Evaluator, object: Object) {
    let policy = match object {
        Object::NetworkPolicy(policy) => Policy::Kubernetes(policy),
        Object::ClusterNetworkPolicy(policy) => Policy::Cluster(policy),
        Object::CalicoPolicy(policy) => Policy::Calico(policy),
        Object::Tier(tier) => return evaluator.set_tier(&tier.name.clone(), Some(tier)),
        Object::NetworkSet(set) => {
            let (namespace, name) = (set.namespace.clone(), set.name.clone());
            return evaluator.set_network_set(namespace.as_deref(), &name, Some(set));
        }
        _ => return,
    };
    evaluator.set_policy(&policy.key(), Some(policy));
}

#[test]
fn kubernetes_policies_do_what_the_specification_says() -> Result<()> {
    Stage::new()?.run(steps::kubernetes())
}

#[test]
fn cluster_wide_policies_and_calicos_do_what_their_specifications_say() -> Result<()> {
    Stage::new()?.run(steps::others())
}
