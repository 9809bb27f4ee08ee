//! Every mode, family and distance: what gets through, and what it looks like on the wire.

use crate::racks::{LIMIT, Member, Mode, Racks, Stack, When, overhead};
use anyhow::{Context, Result, ensure};
use integration::lab::wire::{Packet, Wrapping};
use integration::lab::{Capture, wait};
use integration::prober::{Fragments, Outcome};
use integration::vm::kernel_has_ipip;
use std::net::IpAddr;

/// MTU of the nodes' uplinks.
const UPLINK: usize = 1500;
/// DSCP AF11 and no ECN: what the echo requests carry.
const TOS: u8 = 0x28;
/// Octets of a transfer.
const BULK: usize = 1 << 20;

const WHEN: [When; 2] = [When::Always, When::CrossSubnet];

#[test]
fn native_and_vxlan_carry_everything_and_look_as_they_should() -> Result<()> {
    let wrapped = WHEN.map(|when| Mode::Wrapped(Wrapping::Vxlan, when));
    every_stack(&[Mode::Native, wrapped[0], wrapped[1]])
}

/// In the guest where this kernel has no such device.
#[test]
fn ipip_carries_everything_and_looks_as_it_should() -> Result<()> {
    if !kernel_has_ipip()? {
        return Ok(());
    }
    every_stack(&WHEN.map(|when| Mode::Wrapped(Wrapping::IpInIp, when)))
}

#[test]
fn native_and_vxlan_carry_pods_of_a_family_that_the_nodes_lack() -> Result<()> {
    let [always, cross] = WHEN.map(|when| Mode::Wrapped(Wrapping::Vxlan, when));
    // No IPv6 route has an IPv4 gateway: IPv6 over IPv4 is always wrapped.
    let cases = [
        (Stack::V6, Stack::V4, vec![always, cross, Mode::Native]),
        (Stack::V4, Stack::V6, vec![always]),
    ];
    for (nodes, pods, modes) in cases {
        let mut racks = Racks::prepared(nodes, pods, modes[0])?;
        racks.start_agents()?;
        for mode in modes {
            racks.set_mode(mode)?;
            every_cell(&racks, mode).with_context(|| format!("{pods:?} over {nodes:?}, {mode}"))?;
        }
    }
    Ok(())
}

/// Who has which block is known from the objects.
#[test]
fn without_bgp_the_owners_of_blocks_are_the_next_hops() -> Result<()> {
    const NO_MESH: &str = "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\n\
                           metadata: {name: default}\nspec: {nodeToNodeMeshEnabled: false}\n";
    let mut racks = Racks::prepared(Stack::Dual, Stack::Dual, Mode::Native)?;
    racks.store.write("bgp.yaml", NO_MESH)?;
    racks.start_agents()?;
    let [always, cross] = WHEN.map(|when| Mode::Wrapped(Wrapping::Vxlan, when));
    for mode in [Mode::Native, always, cross] {
        racks.set_mode(mode)?;
        every_cell(&racks, mode).with_context(|| mode.to_string())?;
    }
    let (_, metrics) = racks.agents[0].health("/metrics")?;
    ensure!(!metrics.contains("ocicat_bgp_peer_up{"), "{metrics}");
    Ok(())
}

/// In the guest where this kernel has no such device.
#[test]
fn ipip_carries_ipv4_over_ipv6_and_refuses_ipv6_over_ipv4_in_words() -> Result<()> {
    if !kernel_has_ipip()? {
        return Ok(());
    }
    let mode = Mode::Wrapped(Wrapping::IpInIp, When::Always);
    let mut racks = Racks::prepared(Stack::V6, Stack::V4, mode)?;
    racks.start_agents()?;
    every_cell(&racks, mode)?;
    drop(racks);
    let mut racks = Racks::prepared(Stack::V4, Stack::V6, mode)?;
    racks.agents[0].start()?;
    let words =
        "IP in IP carries IPv6 over IPv6 only, and Node/n1 has no IPv6 address; use vxlanMode";
    wait::until(LIMIT, "the refusal", || {
        let status = racks.agents[0].ctl(&["status", "-o", "json"]);
        match status.map_err(|error| format!("{error:#}"))? {
            status if status.contains(words) => Ok(()),
            status => Err(status),
        }
    })
}

fn every_stack(modes: &[Mode]) -> Result<()> {
    for stack in Stack::ALL {
        let racks = Racks::start(stack, modes[0])?;
        for mode in modes {
            racks.set_mode(*mode)?;
            every_cell(&racks, *mode).with_context(|| format!("{stack:?}, {mode}"))?;
        }
    }
    Ok(())
}

fn every_cell(racks: &Racks, mode: Mode) -> Result<()> {
    let pods = racks.pods()?;
    racks.wait_routed(&pods, mode)?;
    let widest = racks.stack != Stack::V4;
    let mtu = match mode.wrapping(false) {
        Some(wrapping) => UPLINK - overhead(wrapping, widest),
        None => UPLINK,
    };
    let capture = Capture::start(&racks.lab, &racks.nodes[0], "eth0")?;
    let families = [false, true].into_iter().filter(|v6| racks.pods.has(*v6));
    let cells: Vec<(bool, usize)> = families.flat_map(|v6| [(v6, 1), (v6, 2)]).collect();
    for (v6, to) in &cells {
        let (near, far) = (&pods[0], &pods[*to]);
        ensure!(
            near.mtu()? == mtu,
            "MTU of a pod: {} and not {mtu}",
            near.mtu()?
        );
        exchange(near, far, *v6, mtu).with_context(|| format!("IPv6 {v6}, to n{}", to + 1))?;
    }
    let packets = capture.stop()?.wire()?;
    for (v6, to) in cells {
        let ends = [pods[0].address(v6)?, pods[to].address(v6)?];
        let cell = Cell {
            mode,
            ends,
            nodes: [0, to],
            mtu,
        };
        cell.check(&packets)
            .with_context(|| format!("IPv6 {v6}, n1 to n{}", to + 1))?;
        println!(
            "{:?} {mode}, IPv6 {v6}, n1 to n{}: as it should be",
            racks.stack,
            to + 1
        );
    }
    Ok(())
}

/// Echo, a transfer, and datagrams of one octet, as long as fits, and one octet longer.
fn exchange(from: &Member, to: &Member, v6: bool, mtu: usize) -> Result<()> {
    let address = to.address(v6)?;
    from.pod.netns().run(&[
        "ping",
        "-n",
        "-c",
        "1",
        "-W",
        "10",
        "-Q",
        &TOS.to_string(),
        &address.to_string(),
    ])?;
    let arrived = from.probe.bulk(address, BULK, LIMIT)?;
    ensure!(arrived == BULK, "{arrived} of {BULK} octets arrived");
    let headers = if v6 { 48 } else { 28 };
    for octets in [1, mtu - headers, mtu - headers + 1] {
        match from
            .probe
            .datagram(address, octets, Fragments::AsKnown, LIMIT)?
        {
            Outcome::Arrived(arrived) if arrived == octets => {}
            other => anyhow::bail!("a datagram of {octets} octets: {other:?}"),
        }
    }
    match from
        .probe
        .datagram(address, mtu - headers + 1, Fragments::Never, LIMIT)?
    {
        Outcome::TooLong { mtu: told } if usize::try_from(told)? == mtu => Ok(()),
        other => anyhow::bail!("a datagram longer than the MTU: {other:?}"),
    }
}

/// What the packets between two pods have to look like on n1's uplink.
struct Cell {
    mode: Mode,
    ends: [IpAddr; 2],
    nodes: [usize; 2],
    mtu: usize,
}

impl Cell {
    fn check(&self, all: &[Packet]) -> Result<()> {
        let [near, far] = self.ends;
        let sent =
            |packet: &&Packet| packet.inner.source == near && packet.inner.destination == far;
        let received =
            |packet: &&Packet| packet.inner.source == far && packet.inner.destination == near;
        for packet in all.iter().filter(sent) {
            self.check_wrapping(packet, self.nodes)?;
            self.check_copied(packet)?;
        }
        let back = [self.nodes[1], self.nodes[0]];
        for packet in all.iter().filter(received) {
            self.check_wrapping(packet, back)?;
        }
        let some = |what: &str, matches: &dyn Fn(&Packet) -> bool| {
            ensure!(all.iter().filter(sent).any(matches), "no {what} was seen");
            Ok(())
        };
        let icmp = if near.is_ipv6() { 58 } else { 1 };
        some("echo request with its TOS", &|p| {
            p.inner.protocol == icmp && p.inner.tos == TOS
        })?;
        some("TCP", &|p| p.inner.protocol == 6)?;
        some("datagram of the full MTU", &|p| {
            p.inner.protocol == 17 && p.inner.length == self.mtu
        })?;
        some("fragment", &|p| p.inner.fragment)?;
        ensure!(
            all.iter().any(|packet| received(&packet)),
            "nothing came back"
        );
        Ok(())
    }

    /// The outer header, if there has to be one, is between the two nodes.
    fn check_wrapping(&self, packet: &Packet, nodes: [usize; 2]) -> Result<()> {
        let wanted = self.mode.wrapping(self.nodes[1] == 1);
        let found = packet.outer.as_ref().map(|(wrapping, _)| *wrapping);
        ensure!(found == wanted, "{wanted:?} is not around {packet:?}");
        if let Some((_, outer)) = &packet.outer {
            let between = nodes.map(|node| Racks::node_address(node, outer.source.is_ipv6()));
            ensure!(
                [outer.source, outer.destination] == between,
                "not between nodes: {packet:?}"
            );
            ensure!(
                !outer.fragment,
                "the outer packet is a fragment: {packet:?}"
            );
        }
        Ok(())
    }

    /// TTL, TOS and DF of the outer header are those of the inner one; IPIP always has DF.
    fn check_copied(&self, packet: &Packet) -> Result<()> {
        let Some((wrapping, outer)) = &packet.outer else {
            return Ok(());
        };
        let inner = &packet.inner;
        let df = outer.df == (inner.df || *wrapping == Wrapping::IpInIp || outer.source.is_ipv6());
        let longer = overhead(*wrapping, outer.source.is_ipv6());
        // IPv6 routes say the traffic class of lightweight tunnels; it can't be inherited.
        let tos =
            outer.tos == inner.tos || (*wrapping == Wrapping::IpInIp && outer.source.is_ipv6());
        ensure!(
            df && tos && outer.ttl == inner.ttl,
            "not copied: {packet:?}"
        );
        ensure!(outer.length == inner.length + longer, "lengths: {packet:?}");
        Ok(())
    }
}
