//! Uplinks that are more than a port: a bond, a bridge.

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Uplink {
    /// `active-backup`, of two slaves.
    Bond,
    /// A bridge of which a NIC is a port.
    Bridge,
}

impl Uplink {
    fn name(self) -> &'static str {
        match self {
            Self::Bond => "bond0",
            Self::Bridge => "br0",
        }
    }

    /// What makes it of `eth0` and `eth1`.
    fn lines(self) -> Vec<&'static str> {
        match self {
            Self::Bond => vec![
                "link add bond0 type bond mode active-backup miimon 20",
                "link set eth0 down",
                "link set eth1 down",
                "link set eth0 master bond0",
                "link set eth1 master bond0",
                "link set bond0 up",
            ],
            Self::Bridge => vec![
                "link add br0 type bridge",
                "link set eth1 down",
                "link set eth0 master br0",
                "link set eth0 up",
                "link set br0 up",
            ],
        }
    }
}

/// In the guest where this kernel has no such devices.
#[test]
fn ipip_over_a_bond_also_when_a_slave_fails() -> Result<()> {
    if !kernel_has_ipip()? {
        return Ok(());
    }
    let (racks, pods) = over(Uplink::Bond, Wrapping::IpInIp)?;
    survives(&racks, &pods)
}

#[test]
fn vxlan_over_a_bridge() -> Result<()> {
    over(Uplink::Bridge, Wrapping::Vxlan).map(drop)
}

fn over(uplink: Uplink, wrapping: Wrapping) -> Result<(Racks, Vec<Member>)> {
    let stack = Stack::Dual;
    let mut racks = Racks::prepared(stack, stack, Mode::Wrapped(wrapping, When::Always))?;
    with_second_ports(&racks)?;
    without_lengths(&racks)?;
    for agent in &mut racks.agents[..2] {
        agent.set_flags(&["--ip-autodetection-method", "cidr=192.0.2.0/24"]);
    }
    take(&racks, uplink)?;
    racks.start_agents()?;
    let pods = carries(&racks, uplink, wrapping)?;
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
fn take(racks: &Racks, uplink: Uplink) -> Result<()> {
    let name = uplink.name();
    racks.router.ip([format!("link set rack1 mtu {UPLINK}")])?;
    for (node, host) in racks.nodes[..2].iter().zip([11, 12]) {
        node.ip(uplink.lines())?;
        node.ip([format!("link set {name} mtu {UPLINK}")])?;
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

/// Tunnels and pods have the MTU that the uplink leaves them, also when it changes; full packets
/// get through; and the subnet is that of the uplink.
fn carries(racks: &Racks, uplink: Uplink, wrapping: Wrapping) -> Result<Vec<Member>> {
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
fn follows(racks: &Racks, uplink: Uplink, wrapping: Wrapping, pods: &[Member]) -> Result<()> {
    let (node, name) = (&racks.nodes[0], uplink.name());
    node.ip([format!("link set {name} mtu {NARROW}")])?;
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
    node.ip([format!("link set {name} mtu {UPLINK}")])?;
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
    let text = node.run(&["ip", "-d", "-j", "link", "show", "bond0"])?;
    let links: Value = serde_json::from_str(&text)?;
    let active = &links[0]["linkinfo"]["info_data"]["active_slave"];
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
