//! Uplinks that are more than a port: a bond, a VLAN on it, a team, a bridge.

use crate::racks::{LIMIT, Member, Mode, Racks, Stack, When, address, addresses, device, overhead};
use anyhow::{Context, Result, ensure};
use integration::lab::link::End;
use integration::lab::wire::Wrapping;
use integration::lab::{Netns, Watch, wait};
use integration::prober::{Fragments, Outcome};
use integration::vm::kernel_has_ipip;
use serde_json::Value;

/// MTU of the uplinks, and what one of them is narrowed to.
const UPLINK: usize = 1400;
const NARROW: usize = 1360;
/// Octets of a transfer.
const BULK: usize = 1 << 18;

/// What the nodes of the first rack reach others by.
#[derive(Debug)]
struct Uplink {
    /// Commands that make it of `eth0`, whose address stands for `{eth0}`, and `eth1`, both down.
    made_by: &'static [&'static str],
    /// What has an MTU, the lowest first. The last one has the addresses.
    devices: &'static [&'static str],
    /// On whose VLAN the router is.
    tagged: bool,
    wrappings: &'static [Wrapping],
}

const BOTH: [Wrapping; 2] = [Wrapping::IpInIp, Wrapping::Vxlan];

const BOND: Uplink = Uplink {
    made_by: &[
        "ip link add bond0 type bond mode active-backup miimon 20",
        "ip link set eth0 master bond0",
        "ip link set eth1 master bond0",
        "ip link set bond0 up",
    ],
    devices: &["bond0"],
    tagged: false,
    wrappings: &BOTH,
};

const VLAN_ON_A_BOND: Uplink = Uplink {
    made_by: &[
        "ip link add bond0 type bond mode active-backup miimon 20",
        "ip link set eth0 master bond0",
        "ip link set eth1 master bond0",
        "ip link add link bond0 name bond0.7 type vlan id 7",
        "ip link set bond0 up",
        "ip link set bond0.7 up",
    ],
    devices: &["bond0", "bond0.7"],
    tagged: true,
    wrappings: &BOTH,
};

/// All ports receive, and without a hash the first one sends. The ports have the team's address,
/// which `teamd` would give them.
const TEAM: Uplink = Uplink {
    made_by: &[
        "ip link add team0 address {eth0} type team",
        "ip link set eth1 address {eth0}",
        "teamnl team0 setoption mode loadbalance",
        "ip link set eth0 master team0",
        "ip link set eth1 master team0",
        "ip link set team0 up",
    ],
    devices: &["team0"],
    tagged: false,
    wrappings: &BOTH,
};

const BRIDGE: Uplink = Uplink {
    made_by: &[
        "ip link add br0 type bridge",
        "ip link set eth0 master br0",
        "ip link set eth0 up",
        "ip link set br0 up",
    ],
    devices: &["br0"],
    tagged: false,
    wrappings: &[Wrapping::Vxlan],
};

impl Uplink {
    /// The device with the addresses.
    fn name(&self) -> &'static str {
        self.devices[self.devices.len() - 1]
    }

    fn make(&self, node: &Netns) -> Result<()> {
        let address = link(node, "eth0")?["address"].clone();
        let address = address.as_str().context("an address")?;
        for command in self.made_by {
            let command = command.replace("{eth0}", address);
            node.run(&command.split(' ').collect::<Vec<_>>())?;
        }
        self.widen(node)
    }

    /// Its lowest device has another MTU; what stands on that follows by itself.
    fn narrow(&self, node: &Netns) -> Result<()> {
        node.ip([format!("link set {} mtu {NARROW}", self.devices[0])])
    }

    fn widen(&self, node: &Netns) -> Result<()> {
        let lines = self.devices.iter();
        node.ip(lines.map(|device| format!("link set {device} mtu {UPLINK}")))
    }
}

/// What `ip` says of an interface.
fn link(node: &Netns, name: &str) -> Result<Value> {
    let text = node.run(&["ip", "-d", "-j", "link", "show", name])?;
    let links: Value = serde_json::from_str(&text)?;
    Ok(links[0].clone())
}

/// Those with IPIP, in the guest where this kernel has no such devices.
#[test]
fn ipip_and_vxlan_over_a_bond_also_when_a_slave_fails() -> Result<()> {
    if !kernel_has_ipip()? {
        return Ok(());
    }
    let (racks, pods) = over(&BOND)?;
    survives(&racks, &pods)
}

#[test]
fn ipip_and_vxlan_over_a_vlan_on_a_bond() -> Result<()> {
    match kernel_has_ipip()? {
        true => over(&VLAN_ON_A_BOND).map(drop),
        false => Ok(()),
    }
}

#[test]
fn ipip_and_vxlan_over_a_team() -> Result<()> {
    match kernel_has_ipip()? {
        true => over(&TEAM).map(drop),
        false => Ok(()),
    }
}

#[test]
fn vxlan_over_a_bridge() -> Result<()> {
    over(&BRIDGE).map(drop)
}

/// Nodes that have this uplink in the first rack, and pods that have been through all of it.
fn over(uplink: &Uplink) -> Result<(Racks, Vec<Member>)> {
    let stack = Stack::Dual;
    let first = Mode::Wrapped(uplink.wrappings[0], When::Always);
    let mut racks = Racks::prepared(stack, stack, first)?;
    with_second_ports(&racks)?;
    without_lengths(&racks)?;
    for agent in &mut racks.agents[..2] {
        agent.set_flags(&["--ip-autodetection-method", "cidr=192.0.2.0/24"]);
    }
    router_side(&racks, uplink)?;
    take(&racks, uplink)?;
    racks.start_agents()?;
    let mut pods = Vec::new();
    for wrapping in uplink.wrappings {
        pods = carries(&racks, uplink, *wrapping).with_context(|| format!("{wrapping:?}"))?;
    }
    let words = "10.1.0.11/32 is its address, and 192.0.2.7/24 is what";
    wait::until(LIMIT, words, || match racks.agents[0].health("/readyz") {
        Ok((200, body)) if body.contains(words) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    Ok((racks, pods))
}

/// `eth1` of the nodes of the first rack, which is down.
fn with_second_ports(racks: &Racks) -> Result<()> {
    for node in &racks.nodes[..2] {
        let end = End {
            netns: node,
            interface: "eth1",
            addresses: &[],
        };
        let port = second_port(node);
        racks.lab.plug_into(&racks.switch, &port, &end)?;
        node.ip([
            "addr flush dev eth0",
            "link set eth0 down",
            "link set eth1 down",
        ])?;
    }
    Ok(())
}

fn second_port(node: &Netns) -> String {
    format!("{}-b", node.name())
}

/// The Node objects of the first rack say addresses alone, as a kubelet does: which other nodes are
/// in the same subnet follows from the uplink.
fn without_lengths(racks: &Racks) -> Result<()> {
    for name in ["n1.yaml", "n2.yaml"] {
        let node = racks.store.read(name)?;
        let alone = node.replace("/24", "").replace("/64", "");
        racks.store.write(name, &alone)?;
    }
    Ok(())
}

/// Moves the addresses and routes of the first rack's nodes to another uplink, and gives the first
/// node one more address to be found there.
fn take(racks: &Racks, uplink: &Uplink) -> Result<()> {
    let name = uplink.name();
    for (node, host) in racks.nodes[..2].iter().zip([11, 12]) {
        uplink.make(node)?;
        wait::until(LIMIT, "a carrier", || {
            let shown = node.run(&["ip", "link", "show", name]);
            match shown.map_err(|error| format!("{error:#}"))? {
                shown if shown.contains("LOWER_UP") => Ok(()),
                shown => Err(shown),
            }
        })?;
        let own = addresses(racks.stack, 1, host).into_iter();
        node.ip(own.map(|own| format!("addr add {own} dev {name} nodad")))?;
        node.ip([
            format!("route add 0.0.0.0/0 via {}", address(false, 1, 1)),
            format!("route add ::/0 via {}", address(true, 1, 1)),
        ])?;
    }
    racks.nodes[0].ip([format!("addr add 192.0.2.7/24 dev {name}")])?;
    racks.uplink.set(name);
    Ok(())
}

/// The router's addresses in the first rack are on its interface, or on a VLAN of it.
fn router_side(racks: &Racks, uplink: &Uplink) -> Result<()> {
    let mut lines = vec![format!("link set rack1 mtu {UPLINK}")];
    if uplink.tagged {
        lines.extend(
            [
                "addr flush dev rack1",
                "link add link rack1 name rack1.7 type vlan id 7",
                "link set rack1.7 up",
            ]
            .map(str::to_owned),
        );
        let own = addresses(racks.stack, 1, 1).into_iter();
        lines.extend(own.map(|own| format!("addr add {own} dev rack1.7 nodad")));
    }
    racks.router.ip(lines)
}

/// Tunnels and pods have the MTU that the uplink leaves them, also when it changes; full packets
/// get through; and the subnet is that of the uplink.
fn carries(racks: &Racks, uplink: &Uplink, wrapping: Wrapping) -> Result<Vec<Member>> {
    let mode = Mode::Wrapped(wrapping, When::Always);
    racks.set_mode(mode)?;
    for node in &racks.nodes[..2] {
        wait_tunnels(node, wrapping, UPLINK)?;
    }
    let pods = racks.pods()?;
    racks.wait_routed(&pods, mode)?;
    let mtu = UPLINK - overhead(wrapping, true);
    for pod in &pods[..2] {
        ensure!(
            pod.mtu()? == mtu,
            "MTU of a pod: {} and not {mtu}",
            pod.mtu()?
        );
    }
    full_packets(&pods, mtu)?;
    follows(racks, uplink, wrapping, &pods)?;
    let mode = Mode::Wrapped(wrapping, When::CrossSubnet);
    racks.set_mode(mode)?;
    racks.wait_routed(&pods, mode)?;
    Ok(pods)
}

/// Waits until the tunnel devices of both families have what an uplink of this MTU leaves.
fn wait_tunnels(node: &Netns, wrapping: Wrapping, uplink: usize) -> Result<()> {
    for v6 in [false, true] {
        let name = device(wrapping, v6);
        let mtu = format!("mtu {} ", uplink - overhead(wrapping, v6));
        wait::until(LIMIT, &format!("{mtu}of {name}"), || {
            let shown = node.run(&["ip", "link", "show", name]);
            match shown.map_err(|error| format!("{error:#}"))? {
                shown if shown.contains(&mtu) => Ok(()),
                shown => Err(shown),
            }
        })?;
    }
    Ok(())
}

fn full_packets(pods: &[Member], mtu: usize) -> Result<()> {
    for (v6, headers) in [(false, 28), (true, 48)] {
        for far in &pods[1..] {
            transfer(&pods[0], far, v6)?;
        }
        let to = pods[1].address(v6)?;
        let datagram = |octets| pods[0].probe.datagram(to, octets, Fragments::Never, LIMIT);
        match datagram(mtu - headers)? {
            Outcome::Arrived(octets) if octets == mtu - headers => {}
            other => anyhow::bail!("a datagram of the full MTU: {other:?}"),
        }
        match datagram(mtu - headers + 1)? {
            Outcome::TooLong { mtu: told } if usize::try_from(told)? == mtu => {}
            other => anyhow::bail!("a datagram longer than the MTU: {other:?}"),
        }
    }
    Ok(())
}

fn transfer(from: &Member, to: &Member, v6: bool) -> Result<()> {
    let arrived = from.probe.bulk(to.address(v6)?, BULK, LIMIT);
    let arrived = arrived.with_context(|| format!("a transfer to {}, IPv6 {v6}", to.pod.name()))?;
    ensure!(arrived == BULK, "{arrived} of {BULK} octets arrived");
    Ok(())
}

/// The first node's uplink becomes narrow and wide again under pods that keep their MTU.
fn follows(racks: &Racks, uplink: &Uplink, wrapping: Wrapping, pods: &[Member]) -> Result<()> {
    let node = &racks.nodes[0];
    uplink.narrow(node)?;
    wait_tunnels(node, wrapping, NARROW)?;
    let narrow = racks.pods_on(1)?;
    let (found, wanted) = (narrow[0].mtu()?, NARROW - overhead(wrapping, true));
    ensure!(
        found == wanted,
        "MTU of a pod that comes: {found} and not {wanted}"
    );
    for v6 in [false, true] {
        transfer(&pods[0], &pods[1], v6).context("through a narrow uplink")?;
    }
    uplink.widen(node)?;
    wait_tunnels(node, wrapping, UPLINK)
}

/// The slave that carries the packets of the first node loses its carrier: the other one takes
/// over, and neither connections of pods nor sessions nor routes notice.
fn survives(racks: &Racks, pods: &[Member]) -> Result<()> {
    let node = &racks.nodes[0];
    let sessions = sessions(racks)?;
    let watch = Watch::routes(&racks.lab, node)?;
    let stream = pods[0].probe.stream(pods[2].address(false)?, LIMIT)?;
    let failed = active_slave(node)?;
    let port = match failed.as_str() {
        "eth0" => node.name().to_owned(),
        _ => second_port(node),
    };
    racks.switch.set_port(&port, false)?;
    wait::until(LIMIT, "another slave", || match active_slave(node) {
        Ok(active) if active != failed => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    for v6 in [false, true] {
        transfer(&pods[0], &pods[1], v6)?;
        transfer(&pods[1], &pods[0], v6)?;
    }
    racks.switch.set_port(&port, true)?;
    let poured = stream.stop().context("a connection")?;
    ensure!(
        poured.sent > 0 && poured.arrived == poured.sent,
        "{poured:?}"
    );
    let ours = |line: &str| line.contains("proto 122");
    let changed = watch.events().into_iter().find(|event| ours(&event.line));
    ensure!(changed.is_none(), "a route changed: {changed:?}");
    let after = self::sessions(racks)?;
    ensure!(
        after == sessions,
        "sessions:\n{after}\nand before\n{sessions}"
    );
    Ok(())
}

/// Which of a bond's slaves carries its packets.
fn active_slave(node: &Netns) -> Result<String> {
    let bond = link(node, "bond0")?;
    let active = &bond["linkinfo"]["info_data"]["active_slave"];
    Ok(active.as_str().context("an active slave")?.to_owned())
}

/// What the first node's metrics say of its sessions, and how often each came up.
fn sessions(racks: &Racks) -> Result<String> {
    let (_, metrics) = racks.agents[0].health("/metrics")?;
    let of_sessions = |line: &&str| {
        let names = ["ocicat_bgp_peer_up{", "ocicat_bgp_peer_established_total{"];
        names.iter().any(|name| line.starts_with(name))
    };
    let lines: Vec<&str> = metrics.lines().filter(of_sessions).collect();
    ensure!(!lines.is_empty(), "no sessions in {metrics}");
    Ok(lines.join("\n"))
}
