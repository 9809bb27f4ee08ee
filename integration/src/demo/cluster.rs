//! The demo's two racks.
//!
//! ```text
//!  outside 192.0.2.10 --- tor1 (FRR, AS 65001) ==10.10.0.0/30== tor2 (BIRD, AS 65002)
//!                           | 10.10.1.0/24, fd00:10:1::/64        | 10.10.2.0/24, fd00:10:2::/64
//!                        n1 .11   n2 .12  (AS 64512)            n3 .13  (AS 64512)
//! ```

use super::objects::{self, NODES, NodeSpec, rack_as};
use crate::lab::link::{End, Switch};
use crate::lab::pod::{Plugin, PodSpec};
use crate::lab::probe::{Cell, Protocol, Target, matrix};
use crate::lab::router::{Neighbor, RouterConfig};
use crate::lab::{Agent, Bird, Frr, Lab, Netns, Pod, Probe, Store};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A pod and its prober.
#[derive(Debug)]
pub struct Member {
    /// The pod.
    pub pod: Pod,
    /// What runs inside it.
    pub probe: Probe,
}

/// Routers, nodes, agents, pods and an outside host.
#[derive(Debug)]
pub struct Cluster {
    /// The pods, two a node: a1 and a2 on n1, b1 and b2 on n2, c1 and c2 on n3.
    pub members: Vec<Member>,
    /// The host outside, behind FRR.
    pub outside: Probe,
    /// The agents of n1, n2 and n3.
    pub agents: Vec<Agent>,
    /// What calls the CNI plugin on each node.
    pub plugins: Vec<Plugin>,
    /// The router of rack 1.
    pub frr: Frr,
    /// Its namespace.
    pub tor1: Netns,
    /// The router of rack 2.
    pub bird: Bird,
    /// The directory that the agents share.
    pub store: Store,
    /// Files that [`Cluster::write`] passes over: a sabotage.
    pub withheld: BTreeSet<String>,
    /// How long a scene waits for what it wants to see.
    pub patience: Duration,
    /// `CrossSubnet`, or `Never` where the kernel has no IPIP.
    pub ipip_mode: &'static str,
    /// Numbers the pods of scenes that make their own.
    pub serial: u32,
    /// Last, so that everything else ends before its namespaces.
    pub lab: Lab,
}

impl Cluster {
    /// Builds the racks, starts the routers, writes the manifests and starts the agents. Waits
    /// for nothing that a scene wants to see.
    ///
    /// # Errors
    /// Something can't be built or started.
    pub fn start(ipip_mode: &'static str, patience: Duration) -> Result<Self> {
        let lab = Lab::new()?;
        let store = Store::new(lab.dir().join("datastore"))?;
        let (tor1, tor2, outside) = (
            lab.netns("tor1")?,
            lab.netns("tor2")?,
            lab.netns("outside")?,
        );
        let nodes = wire_racks(&lab, [&tor1, &tor2], &outside)?;
        let frr = Frr::start(&lab, &tor1, &router(1))?;
        let bird = Bird::start(&lab, &tor2, &router(2))?;
        write_manifests(&store, ipip_mode)?;
        let mut agents = Vec::new();
        for (spec, netns) in NODES.iter().zip(&nodes) {
            let mut agent = Agent::new(&lab, netns, spec.name, &store)?;
            agent.start()?;
            agents.push(agent);
        }
        let plugins = agents.iter().map(Plugin::ocicat).collect::<Result<_>>()?;
        let outside = Probe::start(&outside, "outside")?;
        Ok(Self {
            members: Vec::new(),
            outside,
            agents,
            plugins,
            frr,
            tor1,
            bird,
            store,
            withheld: BTreeSet::new(),
            patience,
            ipip_mode,
            serial: 0,
            lab,
        })
    }

    /// Waits until all agents are ready.
    ///
    /// # Errors
    /// One is not: its reasons.
    pub fn wait_ready(&mut self) -> Result<()> {
        let patience = self.patience;
        self.agents
            .iter_mut()
            .try_for_each(|agent| agent.wait_ready(patience))
    }

    /// Makes the six pods by CNI ADD unless they are there.
    ///
    /// # Errors
    /// What the plugin said.
    pub fn ensure_pods(&mut self) -> Result<()> {
        if !self.members.is_empty() {
            return Ok(());
        }
        self.wait_ready()?;
        for (plugin, letter) in self.plugins.iter().zip(["a", "b", "c"]) {
            for number in 1..=2 {
                let name = format!("{letter}{number}");
                let app = match name.as_str() {
                    "a1" => "web",
                    "b1" => "client",
                    _ => "other",
                };
                let pod = Pod::add(&self.lab, plugin, pod_spec(&name, app))?;
                let probe = Probe::start(pod.netns(), &name)?;
                self.members.push(Member { pod, probe });
            }
        }
        Ok(())
    }

    /// A pod by its name.
    ///
    /// # Errors
    /// There is none.
    pub fn member(&self, name: &str) -> Result<&Member> {
        let found = self.members.iter().find(|member| member.pod.name() == name);
        found.with_context(|| format!("no pod {name}"))
    }

    /// All six try to reach all six.
    ///
    /// # Errors
    /// A prober has ended.
    pub fn matrix(&self, protocols: &[Protocol], limit: Duration) -> Result<Vec<Cell>> {
        let targets: Vec<Target<'_>> = self
            .members
            .iter()
            .map(|member| Target {
                probe: &member.probe,
                addresses: member.pod.addresses(),
            })
            .collect();
        matrix(&targets, protocols, limit)
    }

    /// Writes a manifest; returns the time just before.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, name: &str, yaml: &str) -> Result<Instant> {
        if self.withheld.contains(name) {
            return Ok(Instant::now());
        }
        self.store.write(name, yaml)
    }

    /// Switches the IPv4 pool's `ipipMode`.
    ///
    /// # Errors
    /// The manifest can't be written.
    pub fn set_ipip_mode(&self, mode: &str) -> Result<Instant> {
        self.write("pool-v4.yaml", &objects::pool_v4(mode))
    }
}

pub(super) fn pod_spec(name: &str, app: &str) -> PodSpec {
    PodSpec {
        namespace: objects::NAMESPACE.to_owned(),
        name: name.to_owned(),
        labels: [("app".to_owned(), app.to_owned())].into(),
    }
}

fn write_manifests(store: &Store, ipip_mode: &str) -> Result<()> {
    store.write("nodes.yaml", &objects::nodes())?;
    store.write("namespace.yaml", &objects::namespace())?;
    store.write("bgp.yaml", objects::bgp_configuration())?;
    for rack in [1, 2] {
        store.write(
            &format!("peer-rack{rack}.yaml"),
            &objects::bgp_peer(rack, rack_as(rack)),
        )?;
    }
    store.write("pool-v4.yaml", &objects::pool_v4(ipip_mode))?;
    store.write("pool-v6.yaml", objects::pool_v6()).map(drop)
}

/// Everything that is not ours: cables, addresses, default routes.
fn wire_racks(lab: &Lab, tors: [&Netns; 2], outside: &Netns) -> Result<Vec<Netns>> {
    let [tor1, tor2] = tors;
    lab.wire(
        &End {
            netns: tor1,
            interface: "core",
            addresses: &["10.10.0.1/30", "fd00:10::1/64"],
        },
        &End {
            netns: tor2,
            interface: "core",
            addresses: &["10.10.0.2/30", "fd00:10::2/64"],
        },
    )?;
    lab.wire(
        &End {
            netns: tor1,
            interface: "out",
            addresses: &["192.0.2.1/24", "fd00:192::1/64"],
        },
        &End {
            netns: outside,
            interface: "eth0",
            addresses: &["192.0.2.10/24", "fd00:192::10/64"],
        },
    )?;
    outside.ip([
        "route add default via 192.0.2.1",
        "route add ::/0 via fd00:192::1",
    ])?;
    let mut switches: Vec<Switch> = Vec::new();
    for (tor, rack) in tors.into_iter().zip(1..) {
        let switch = lab.switch(&format!("sw{rack}"))?;
        let (v4, v6) = (
            format!("10.10.{rack}.1/24"),
            format!("fd00:10:{rack}::1/64"),
        );
        lab.plug(
            &switch,
            &End {
                netns: tor,
                interface: "rack",
                addresses: &[&v4, &v6],
            },
        )?;
        for sysctl in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            tor.set_sysctl(sysctl, "1")?;
        }
        switches.push(switch);
    }
    let mut nodes = Vec::new();
    for spec in NODES {
        let netns = lab.netns(spec.name)?;
        let (v4, v6) = (format!("{}/24", spec.ipv4()), format!("{}/64", spec.ipv6()));
        let end = End {
            netns: &netns,
            interface: "eth0",
            addresses: &[&v4, &v6],
        };
        lab.plug(&switches[usize::from(spec.rack) - 1], &end)?;
        netns.ip([
            format!("route add default via 10.10.{}.1", spec.rack),
            format!("route add ::/0 via fd00:10:{}::1", spec.rack),
        ])?;
        nodes.push(netns);
    }
    Ok(nodes)
}

fn router(rack: u8) -> RouterConfig {
    let other = 3 - rack;
    let core = Neighbor {
        name: format!("tor{other}"),
        address: [10, 10, 0, other].into(),
        asn: rack_as(other),
        local_address: [10, 10, 0, rack].into(),
        local_ipv6: [0xfd00, 0x10, 0, 0, 0, 0, 0, rack.into()].into(),
    };
    let node = |spec: &NodeSpec| Neighbor {
        name: spec.name.to_owned(),
        address: [10, 10, rack, spec.host].into(),
        asn: model::names::DEFAULT_AS,
        local_address: [10, 10, rack, 1].into(),
        local_ipv6: [0xfd00, 0x10, rack.into(), 0, 0, 0, 0, 1].into(),
    };
    let mut neighbors = vec![core];
    neighbors.extend(NODES.iter().filter(|spec| spec.rack == rack).map(node));
    RouterConfig {
        asn: rack_as(rack),
        router_id: [10, 10, rack, 1].into(),
        neighbors,
    }
}
