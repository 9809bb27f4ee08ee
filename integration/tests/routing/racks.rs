//! Three nodes in two racks behind a router that knows the way to every pod.
//!
//! ```text
//!  n1 .11, n2 .12 --- 10.1.0.0/24, fd00:1::/64 --- router --- 10.2.0.0/24, fd00:2::/64 --- n3 .13
//! ```

use anyhow::{Context, Result};
use integration::lab::link::{End, Switch};
use integration::lab::pod::{Plugin, PodSpec};
use integration::lab::wire::Wrapping;
use integration::lab::{Agent, Lab, Netns, Pod, Probe, Store, wait};
use model::dataplane::vtep_mac;
use model::names;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// How long anything may take on a busy machine, or in a slow guest.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

const NODES: [(&str, u8, u8); 3] = [("n1", 1, 11), ("n2", 1, 12), ("n3", 2, 13)];

/// The families that nodes and pods have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    V4,
    V6,
    Dual,
}

impl Stack {
    pub(crate) const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Dual];

    pub(crate) fn has(self, v6: bool) -> bool {
        match self {
            Self::V4 => !v6,
            Self::V6 => v6,
            Self::Dual => true,
        }
    }
}

/// When packets are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    CrossSubnet,
}

/// What the pools ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Native,
    Wrapped(Wrapping, When),
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("native"),
            Self::Wrapped(wrapping, when) => write!(f, "{wrapping:?} {when:?}"),
        }
    }
}

impl Mode {
    /// What is around packets to a node of the same or another subnet.
    pub(crate) fn wrapping(self, same_subnet: bool) -> Option<Wrapping> {
        match self {
            Self::Wrapped(wrapping, When::Always) => Some(wrapping),
            Self::Wrapped(wrapping, When::CrossSubnet) if !same_subnet => Some(wrapping),
            _ => None,
        }
    }

    fn fields(self) -> String {
        match self {
            Self::Native => "ipipMode: Never".to_owned(),
            Self::Wrapped(Wrapping::IpInIp, when) => format!("ipipMode: {when:?}"),
            Self::Wrapped(Wrapping::Vxlan, when) => format!("vxlanMode: {when:?}"),
        }
    }
}

/// Octets around a packet in an outer header of this family.
pub(crate) fn overhead(wrapping: Wrapping, v6: bool) -> usize {
    let (v4, v6_more) = match wrapping {
        Wrapping::IpInIp => (20, 20),
        Wrapping::Vxlan => (50, 20),
    };
    if v6 { v4 + v6_more } else { v4 }
}

/// A pod and its prober.
pub(crate) struct Member {
    pub(crate) probe: Probe,
    pub(crate) pod: Pod,
}

impl Member {
    pub(crate) fn address(&self, v6: bool) -> Result<IpAddr> {
        if v6 { self.pod.ipv6() } else { self.pod.ipv4() }
    }

    /// MTU of its interface.
    pub(crate) fn mtu(&self) -> Result<usize> {
        let text = self
            .pod
            .netns()
            .run(&["ip", "-j", "link", "show", "eth0"])?;
        let links: Value = serde_json::from_str(&text)?;
        let mtu = links[0]["mtu"].as_u64().context("an MTU")?;
        Ok(usize::try_from(mtu)?)
    }
}

/// Nodes, agents and the router. Fields are dropped in this order: the lab goes last.
pub(crate) struct Racks {
    pub(crate) agents: Vec<Agent>,
    plugins: Vec<Plugin>,
    pub(crate) store: Store,
    /// Of the nodes.
    pub(crate) stack: Stack,
    /// Of the pools.
    pub(crate) pods: Stack,
    pub(crate) nodes: Vec<Netns>,
    pub(crate) router: Netns,
    /// Of the first rack.
    pub(crate) switch: Switch,
    /// Name of the interface by which the nodes of the first rack reach others.
    pub(crate) uplink: Cell<&'static str>,
    serial: Cell<u32>,
    pub(crate) lab: Lab,
}

impl Racks {
    /// Three agents that are ready, their pools in this mode.
    pub(crate) fn start(stack: Stack, mode: Mode) -> Result<Self> {
        let mut racks = Self::prepared(stack, stack, mode)?;
        racks.start_agents()?;
        Ok(racks)
    }

    /// Starts the agents and waits until they are ready.
    pub(crate) fn start_agents(&mut self) -> Result<()> {
        for agent in &mut self.agents {
            agent.start()?;
        }
        for agent in &mut self.agents {
            agent.wait_ready(LIMIT)?;
        }
        Ok(())
    }

    /// Everything but running agents, with nodes and pools of different families.
    pub(crate) fn prepared(stack: Stack, pods: Stack, mode: Mode) -> Result<Self> {
        let lab = Lab::new()?;
        let store = Store::new(lab.dir().join("datastore"))?;
        let router = lab.netns("router")?;
        let switch = lab.switch("sw1")?;
        let nodes: Vec<Netns> = NODES
            .iter()
            .map(|(name, ..)| lab.netns(name))
            .collect::<Result<_>>()?;
        for rack in [1, 2] {
            let gateway = addresses(stack, rack, 1);
            let gateway: Vec<&str> = gateway.iter().map(String::as_str).collect();
            let name = format!("rack{rack}");
            let router = End {
                netns: &router,
                interface: &name,
                addresses: &gateway,
            };
            if rack == 1 {
                lab.plug(&switch, &router)?;
            }
            for (node, (_, _, host)) in nodes.iter().zip(NODES).filter(|(_, n)| n.1 == rack) {
                let own = addresses(stack, rack, host);
                let own: Vec<&str> = own.iter().map(String::as_str).collect();
                let end = End {
                    netns: node,
                    interface: "eth0",
                    addresses: &own,
                };
                match rack {
                    1 => lab.plug(&switch, &end)?,
                    _ => lab.wire(&end, &router)?,
                }
                let default = |v6: bool| {
                    let gateway = address(v6, rack, 1);
                    let family = if v6 { "::/0" } else { "0.0.0.0/0" };
                    format!("route add {family} via {gateway}")
                };
                node.ip([false, true]
                    .into_iter()
                    .filter(|v6| stack.has(*v6))
                    .map(default))?;
            }
        }
        for sysctl in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            router.set_sysctl(sysctl, "1")?;
        }
        for (name, rack, host) in NODES {
            store.write(
                &format!("{name}.yaml"),
                &node_object(stack, name, rack, host),
            )?;
        }
        let agents = NODES.iter().zip(&nodes);
        let agents = agents.map(|((name, ..), netns)| Agent::new(&lab, netns, name, &store));
        let agents: Vec<Agent> = agents.collect::<Result<_>>()?;
        let plugins = agents.iter().map(Plugin::ocicat).collect::<Result<_>>()?;
        let racks = Self {
            agents,
            plugins,
            store,
            stack,
            pods,
            nodes,
            router,
            switch,
            uplink: Cell::new("eth0"),
            serial: Cell::new(0),
            lab,
        };
        racks.set_mode(mode)?;
        Ok(racks)
    }

    /// Changes the mode of all pools.
    pub(crate) fn set_mode(&self, mode: Mode) -> Result<()> {
        let pools = [("v4", "10.244.0.0/16"), ("v6", "fd00:10:244::/56")];
        for (name, cidr) in pools
            .into_iter()
            .filter(|(name, _)| self.pods.has(*name == "v6"))
        {
            let pool = format!(
                "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\n\
                 spec: {{cidr: '{cidr}', {}}}\n",
                mode.fields()
            );
            self.store.write(&format!("pool-{name}.yaml"), &pool)?;
        }
        Ok(())
    }

    /// One more pod on each node; the router is told the way to it.
    pub(crate) fn pods(&self) -> Result<Vec<Member>> {
        self.pods_on(NODES.len())
    }

    /// Likewise, on the first nodes only.
    pub(crate) fn pods_on(&self, nodes: usize) -> Result<Vec<Member>> {
        self.add_pods(nodes, &json!({}))
    }

    /// One more pod on each node with an address of this IPv4 pool.
    pub(crate) fn pods_of(&self, pool: &str) -> Result<Vec<Member>> {
        self.add_pods(NODES.len(), &json!({ "ipam": { "ipv4_pools": [pool] } }))
    }

    fn add_pods(&self, nodes: usize, extra: &Value) -> Result<Vec<Member>> {
        let serial = self.serial.get() + 1;
        self.serial.set(serial);
        let mut members = Vec::new();
        for (plugin, (node, rack, host)) in self.plugins.iter().zip(NODES).take(nodes) {
            let spec = PodSpec {
                namespace: "default".to_owned(),
                name: format!("p{serial}-{node}"),
                labels: BTreeMap::new(),
            };
            let pod = Pod::add_with(&self.lab, plugin, spec, extra)?;
            let way = |ip: &IpAddr| {
                let via = self.underlay_v6(*ip);
                let family = if via { "inet6" } else { "inet" };
                format!("route add {ip} via {family} {}", address(via, rack, host))
            };
            let routed = |ip: &&IpAddr| ip.is_ipv4() || self.underlay_v6(**ip);
            self.router
                .ip(pod.addresses().iter().filter(routed).map(way))?;
            let probe = Probe::start(pod.netns(), pod.name())?;
            members.push(Member { probe, pod });
        }
        Ok(members)
    }

    /// Waits until every node routes to the pods of the others as the mode says.
    pub(crate) fn wait_routed(&self, members: &[Member], mode: Mode) -> Result<()> {
        for (from, near) in NODES.iter().enumerate() {
            for (to, far) in NODES.iter().enumerate().filter(|(to, _)| *to != from) {
                for address in members[to].pod.addresses() {
                    let uplink = if near.1 == 1 {
                        self.uplink.get()
                    } else {
                        "eth0"
                    };
                    let wrapping = mode.wrapping(near.1 == far.1);
                    let device =
                        wrapping.map(|wrapping| device(wrapping, self.underlay_v6(address)));
                    self.wait_device(from, address, device.unwrap_or(uplink))?;
                }
            }
        }
        Ok(())
    }

    /// Waits until n1 routes to n3's pod as the mode says, by whichever uplink if natively.
    pub(crate) fn wait_routed_far(&self, members: &[Member], mode: Mode) -> Result<()> {
        for address in members[2].pod.addresses() {
            let wrapping = mode.wrapping(false);
            let device = wrapping.map(|wrapping| device(wrapping, self.underlay_v6(address)));
            self.wait_device(0, address, device.unwrap_or("eth"))?;
        }
        Ok(())
    }

    fn wait_device(&self, node: usize, to: IpAddr, device: &str) -> Result<()> {
        let what = format!("{} to reach {to} by {device}", NODES[node].0);
        wait::until(LIMIT, &what, || {
            // The route itself, so that the default one does not pass for ours.
            let text = self.nodes[node].run(&["ip", "route", "get", "fibmatch", &to.to_string()]);
            let text = text.map_err(|error| format!("{error:#}"))?;
            match text.contains(&format!("dev {device}")) && text.contains("proto 122") {
                true => Ok(()),
                false => Err(text),
            }
        })
    }

    /// The family of the way between nodes for packets to a pod's address.
    pub(crate) fn underlay_v6(&self, pod: IpAddr) -> bool {
        match self.stack {
            Stack::V4 => false,
            Stack::V6 => true,
            Stack::Dual => pod.is_ipv6(),
        }
    }

    /// The address of a node's interface.
    pub(crate) fn node_address(node: usize, v6: bool) -> IpAddr {
        let (_, rack, host) = NODES[node];
        address(v6, rack, host)
    }
}

/// Name of the tunnel device that packets leave by.
pub(crate) fn device(wrapping: Wrapping, underlay_v6: bool) -> &'static str {
    match (wrapping, underlay_v6) {
        (Wrapping::IpInIp, false) => names::IPIP_DEVICE,
        (Wrapping::IpInIp, true) => names::IP6_DEVICE,
        (Wrapping::Vxlan, false) => names::VXLAN_DEVICE,
        (Wrapping::Vxlan, true) => names::VXLAN6_DEVICE,
    }
}

/// A tunnel from a machine with this address to a node, as an administrator makes it, which leads to
/// these pods, and by which the machine speaks with this source.
pub(crate) fn tunnel_by_hand(
    machine: &Netns,
    wrapping: Wrapping,
    (own, node): (IpAddr, IpAddr),
    pods: &str,
    source: &str,
) -> Result<()> {
    let v6 = node.is_ipv6();
    let name = if v6 { "hand6" } else { "hand4" };
    let mtu = 1500 - overhead(wrapping, v6);
    match wrapping {
        Wrapping::Vxlan => {
            let [mac, far] =
                [own, node].map(|of| vtep_mac(of).map(|octet| format!("{octet:02x}")).join(":"));
            // An IPv6 gateway that another interface leads to can't be said to be on this one.
            let gateway = if v6 { "fe80::11".parse()? } else { node };
            machine.ip([
                format!(
                    "link add {name} address {mac} type vxlan id 4096 dstport 4789 local {own} \
                     nolearning"
                ),
                format!("link set {name} mtu {mtu} up"),
                format!("neigh add {gateway} lladdr {far} dev {name} nud permanent"),
                format!("route replace {pods} via {gateway} dev {name} onlink src {source}"),
            ])?;
            let entry = format!("bridge fdb append {far} dev {name} dst {node} permanent");
            machine.run(&entry.split(' ').collect::<Vec<_>>()).map(drop)
        }
        Wrapping::IpInIp => {
            let kind = match v6 {
                false => "ipip",
                true => "ip6tnl mode ip6ip6 encaplimit none",
            };
            machine.ip([
                format!("link add {name} type {kind} local {own} remote {node}"),
                format!("link set {name} mtu {mtu} up"),
                format!("route replace {pods} dev {name} src {source}"),
            ])
        }
    }
}

/// The router is host 1 of each rack.
pub(crate) fn address(v6: bool, rack: u8, host: u8) -> IpAddr {
    let text = match v6 {
        false => format!("10.{rack}.0.{host}"),
        true => format!("fd00:{rack}::{host}"),
    };
    text.parse().expect("an address")
}

/// With the length of the rack's subnet.
pub(crate) fn addresses(stack: Stack, rack: u8, host: u8) -> Vec<String> {
    let families = [(false, 24), (true, 64)].into_iter();
    let families = families.filter(|(v6, _)| stack.has(*v6));
    families
        .map(|(v6, length)| format!("{}/{length}", address(v6, rack, host)))
        .collect()
}

fn node_object(stack: Stack, name: &str, rack: u8, host: u8) -> String {
    let fields = ["ipv4Address", "ipv6Address"]
        .into_iter()
        .zip([false, true]);
    let fields = fields.filter(|(_, v6)| stack.has(*v6));
    let fields = fields.zip(addresses(stack, rack, host));
    let fields: Vec<String> = fields
        .map(|((field, _), address)| format!("{field}: '{address}'"))
        .collect();
    format!(
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: {name}}}\n\
         spec: {{bgp: {{{}}}}}\n",
        fields.join(", ")
    )
}
