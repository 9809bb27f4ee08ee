//! What policies cost a new connection: packets that no connection is tracked for, so that each
//! of them asks all policies, through 1 to 1,000 policies on a pod with 100,000 pods in their
//! peers. The policies differ in selector and port, and the packets match only the last.

use super::report::{Row, Series, Target};
use super::steal::Steal;
use crate::lab::Lab;
use crate::lab::Netns;
use crate::lab::link::End;
use anyhow::{Context, Result};
use kernel::Kernel;
use model::{
    Labels, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol, Selector,
};
use policy::{Compiler, Endpoint, EndpointId, Options, Policy};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

const COUNTS: [u32; 4] = [1, 10, 100, 1000];
const PODS: u32 = 100_000;
/// Packets of one measurement.
const PACKETS: u32 = 50_000;
const ROUNDS: usize = 3;
const NAMESPACE: &str = "bench";
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 245, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 245, 0, 2);
const FIRST: u32 = u32::from_be_bytes([10, 246, 0, 0]);
/// The n-th policy allows the n-th selector this port and n more.
const FIRST_PORT: u16 = 20_000;

/// A pod that sends, the node between, and a pod that receives.
struct Stage {
    client: UdpSocket,
    kernel: Kernel,
    server: Netns,
    node: Netns,
    links: [u32; 2],
    lab: Lab,
}

pub(super) fn run() -> Result<Vec<Row>> {
    let mut stage = Stage::new()?;
    let none = self::compiled(0, stage.links).ruleset().clone();
    let steal = Steal::now();
    let mut rows = Vec::new();
    for count in COUNTS {
        let port = FIRST_PORT + count as u16 - 1;
        let compiled = compiled(count, stage.links).ruleset().clone();
        let mut beside_none = Series::default();
        let mut beside_linear = Series::default();
        for _ in 0..ROUNDS {
            stage.kernel.nft_replace(&none)?;
            let floor = stage.nanoseconds(port)?;
            stage.kernel.nft_replace(&compiled)?;
            let ours = stage.nanoseconds(port)?;
            stage.kernel.nft_replace(&none)?;
            stage.load_linear(count)?;
            let linear = stage.nanoseconds(port)?;
            stage.node.run(&["nft", "delete table ip linear"])?;
            // The cost of the policies alone; what a measurement can't tell from nothing is 1 ns.
            beside_linear.push((ours - floor).max(1.0), (linear - floor).max(1.0));
            beside_none.push(ours, floor);
        }
        let share = steal.share_since();
        let what = format!("new_conn_{count}_policies_ns");
        rows.push(beside_linear.row(&what, "ns", "chain per policy", share, Target::Ours(500.0)));
        let what = format!("packet_{count}_policies_ns");
        rows.push(beside_none.row(&what, "ns", "no policy", share, Target::Ratio(1.0 / 0.95)));
    }
    Ok(rows)
}

impl Stage {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let node = lab.netns("node")?;
        let mut links = [0; 2];
        let mut pods = Vec::new();
        for (name, address) in [("client", CLIENT), ("server", SERVER)] {
            let pod = lab.netns(name)?;
            let host_end = format!("oci{name}");
            lab.wire(
                &End {
                    netns: &pod,
                    interface: "eth0",
                    addresses: &[&format!("{address}/32")],
                },
                &End {
                    netns: &node,
                    interface: &host_end,
                    addresses: &[],
                },
            )?;
            pod.ip([
                "route add 169.254.1.1 dev eth0",
                "route add default via 169.254.1.1 dev eth0",
            ])?;
            node.ip([
                format!("address add 169.254.1.1/32 dev {host_end}"),
                format!("route add {address}/32 dev {host_end}"),
            ])?;
            pods.push(pod);
        }
        node.set_sysctl("net.ipv4.ip_forward", "1")?;
        // Without tracking, no packet belongs to a connection that is established.
        node.run(&["nft", "add table ip raw; add chain ip raw pre { type filter hook prerouting priority -350; }; \
             add rule ip raw pre notrack"])?;
        let (Some(server), Some(client)) = (pods.pop(), pods.pop()) else {
            anyhow::bail!("two pods");
        };
        let client = client.within(|| UdpSocket::bind((CLIENT, 0)))??;
        let mut kernel = node.within(Kernel::open)?.context("netlink")?;
        for link in kernel.links()? {
            match link.name.as_str() {
                "ociclient" => links[0] = link.ifindex,
                "ociserver" => links[1] = link.ifindex,
                _ => {}
            }
        }
        Ok(Self {
            client,
            kernel,
            server,
            node,
            links,
            lab,
        })
    }

    /// Time for one packet from the client's system call to the server's queue, the best of a few
    /// runs. All of it happens inside the call.
    fn nanoseconds(&self, port: u16) -> Result<f64> {
        let server = self.server.within(|| UdpSocket::bind((SERVER, port)))??;
        server.set_read_timeout(Some(Duration::from_secs(1)))?;
        self.client.send_to(b"x", (SERVER, port))?;
        let arrived = server.recv_from(&mut [0; 8]);
        arrived.context("the probed packet is not allowed")?;
        let mut best = f64::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            for _ in 0..PACKETS {
                // The server does not read: what its queue has no room for was decided all the same.
                self.client.send_to(b"x", (SERVER, port))?;
            }
            best = best.min(start.elapsed().as_nanos() as f64 / f64::from(PACKETS));
        }
        Ok(best)
    }

    /// The layout of a chain for each policy, asked one after the other.
    fn load_linear(&self, count: u32) -> Result<()> {
        let mut text = String::from("add table ip linear\n");
        for number in 0..count {
            let members = (0..MEMBERS).map(|pod| address(number * MEMBERS + pod).to_string());
            let members = members.chain((number + 1 == count).then(|| CLIENT.to_string()));
            let members = members.collect::<Vec<_>>().join(", ");
            let port = FIRST_PORT + number as u16;
            text.push_str(&format!(
                "add set ip linear s{number} {{ type ipv4_addr; size 1024; elements = {{ {members} }}; }}\n\
                 add chain ip linear p{number}\n\
                 add rule ip linear p{number} udp dport {port} ip saddr @s{number} accept\n"
            ));
        }
        text.push_str("add chain ip linear forward { type filter hook forward priority 1; }\nadd chain ip linear pod\n");
        for number in 0..count {
            text.push_str(&format!("add rule ip linear pod jump p{number}\n"));
        }
        text.push_str("add rule ip linear pod drop\nadd rule ip linear forward oifname \"ociserver\" jump pod\n");
        let file = self.lab.dir().join("linear.nft");
        std::fs::write(&file, text)?;
        let path = file.to_str().context("a path")?;
        self.node.run(&["nft", "-f", path]).map(drop)
    }
}

/// Members of the peer of one policy.
const MEMBERS: u32 = 100;

fn address(pod: u32) -> Ipv4Addr {
    Ipv4Addr::from(FIRST + pod % PODS)
}

/// The server behind `count` policies; the last admits the client too.
fn compiled(count: u32, links: [u32; 2]) -> Compiler {
    let mut compiler = Compiler::new(Options {
        drop_log: None,
        ..Options::default()
    });
    compiler.set_namespace(NAMESPACE, Some(Labels::default()));
    for number in 0..count {
        let peer = PolicyPeer::Pods {
            namespaces: None,
            pods: Selector::Eq("group".to_owned(), number.to_string()),
        };
        let port = FIRST_PORT + number as u16;
        let policy = Policy::Kubernetes(NetworkPolicy {
            namespace: NAMESPACE.to_owned(),
            name: format!("p{number}"),
            pod_selector: Selector::Eq("role".to_owned(), "server".to_owned()),
            ingress: Some(vec![PolicyRule {
                peers: Some(vec![peer]),
                ports: Some(vec![PolicyPort {
                    protocol: Protocol::Udp,
                    port: PortMatch::Range(port, port),
                }]),
            }]),
            egress: None,
        });
        compiler.set_policy(&policy.key(), Some(policy));
    }
    let last = count.saturating_sub(1).to_string();
    let own = [
        ("server", SERVER, "role", "server".to_owned(), links[1]),
        ("client", CLIENT, "group", last, links[0]),
    ];
    for (name, address, key, value, link) in own {
        let pod = endpoint(name, (key, value), address, Some(link));
        compiler.set_endpoint(&EndpointId(name.to_owned()), Some(pod));
    }
    for pod in 0..PODS {
        let name = format!("pod{pod}");
        let group = (pod / MEMBERS).to_string();
        let endpoint = endpoint(&name, ("group", group), address(pod), None);
        compiler.set_endpoint(&EndpointId(name), Some(endpoint));
    }
    compiler.resolve();
    compiler
}

fn endpoint(
    name: &str,
    (key, value): (&str, String),
    address: Ipv4Addr,
    local: Option<u32>,
) -> Endpoint {
    Endpoint {
        namespace: NAMESPACE.to_owned(),
        pod: name.to_owned(),
        labels: [(key.to_owned(), value)].into_iter().collect(),
        ports: Vec::new(),
        ips: vec![IpAddr::V4(address)],
        local,
        labels_known: true,
        service_account: None,
        profiles: vec![],
    }
}
