//! What is between the nodes: a link with a smaller MTU, and two ways of equal cost.

use crate::racks::{LIMIT, Member, Mode, Racks, Stack, When};
use anyhow::{Context, Result, ensure};
use integration::lab::link::End;
use integration::lab::wait;
use integration::lab::wire::Wrapping;
use integration::prober::{Fragments, Outcome};
use integration::vm::kernel_has_ipip;
use model::names;
use std::net::IpAddr;

/// MTU of the link between the router and the far rack.
const NARROW: usize = 1350;

#[test]
fn pods_learn_the_mtu_of_a_narrow_link_natively_and_through_vxlan() -> Result<()> {
    narrow(&[Mode::Native, Mode::Wrapped(Wrapping::Vxlan, When::Always)])
}

/// In the guest where this kernel has no such device.
#[test]
fn pods_learn_the_mtu_of_a_narrow_link_through_ipip() -> Result<()> {
    if !kernel_has_ipip()? {
        return Ok(());
    }
    narrow(&[Mode::Wrapped(Wrapping::IpInIp, When::Always)])
}

/// A datagram that fits the pod's interface and not the path arrives: whoever drops it says so, the
/// sender learns, and the next one is split.
fn narrow(modes: &[Mode]) -> Result<()> {
    let racks = Racks::start(Stack::Dual, modes[0])?;
    let narrow = format!("link set rack2 mtu {NARROW}");
    for mode in modes {
        racks.set_mode(*mode)?;
        let pods = racks.pods()?;
        racks.wait_routed(&pods, *mode)?;
        racks.router.ip([&narrow])?;
        for v6 in [false, true] {
            let mtu = pods[0].mtu()?;
            let octets = mtu - if v6 { 48 } else { 28 };
            let to = pods[2].address(v6)?;
            let sent = pods[0]
                .probe
                .datagram(to, octets, Fragments::AsKnown, LIMIT / 3);
            let sent = sent.with_context(|| format!("{mode}, IPv6 {v6}"))?;
            ensure!(
                matches!(sent, Outcome::Arrived(n) if n == octets),
                "{mode}: {sent:?}"
            );
            let arrived = pods[0].probe.bulk(to, 1 << 20, LIMIT / 3);
            let arrived = arrived.with_context(|| format!("{mode}, IPv6 {v6}, TCP"))?;
            ensure!(arrived == 1 << 20, "{mode}: {arrived} octets of a transfer");
        }
        racks.router.ip(["link set rack2 mtu 1500"])?;
    }
    Ok(())
}

#[test]
fn with_a_clamped_mss_a_transfer_passes_where_nobody_hears_of_the_mtu() -> Result<()> {
    const SMALLER: &str = "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\n\
                           metadata: {name: default}\nspec: {vxlanMTU: 1300, vxlanMTUV6: 1300}\n";
    let mode = Mode::Wrapped(Wrapping::Vxlan, When::Always);
    let mut racks = Racks::prepared(Stack::Dual, Stack::Dual, mode)?;
    for agent in &mut racks.agents {
        agent.set_flags(&["--clamp-mss", "on"]);
    }
    racks.start_agents()?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, mode)?;
    for pod in [&pods[0], &pods[2]] {
        pod.pod.netns().run(&[
            "nft",
            "add table inet deaf; add chain inet deaf in { type filter hook input priority 0; }; \
             add rule inet deaf in icmp type destination-unreachable drop; \
             add rule inet deaf in icmpv6 type packet-too-big drop",
        ])?;
    }
    // Pods keep the MTU of their start.
    racks.store.write("felix.yaml", SMALLER)?;
    for (node, name) in [0, 2]
        .into_iter()
        .flat_map(|node| [names::VXLAN_DEVICE, names::VXLAN6_DEVICE].map(|name| (node, name)))
    {
        wait::until(LIMIT, "the smaller MTU", || {
            let link = racks.nodes[node].run(&["ip", "link", "show", name]);
            match link.map_err(|error| format!("{error:#}"))? {
                link if link.contains("mtu 1300") => Ok(()),
                link => Err(link),
            }
        })?;
    }
    for v6 in [false, true] {
        ensure!(pods[0].mtu()? > 1300);
        let to = pods[2].address(v6)?;
        let arrived = pods[0].probe.bulk(to, 1 << 20, LIMIT / 3);
        let arrived = arrived.with_context(|| format!("IPv6 {v6}"))?;
        ensure!(arrived == 1 << 20, "{arrived} octets of a transfer");
    }
    Ok(())
}

#[test]
fn both_ways_of_equal_cost_are_used_natively_and_under_vxlan() -> Result<()> {
    two_ways(&[Mode::Native, Mode::Wrapped(Wrapping::Vxlan, When::Always)])
}

/// In the guest where this kernel has no such device.
#[test]
fn both_ways_of_equal_cost_are_used_under_ipip() -> Result<()> {
    if !kernel_has_ipip()? {
        return Ok(());
    }
    two_ways(&[Mode::Wrapped(Wrapping::IpInIp, When::Always)])
}

/// Of 64 flows from n1 to n3 each of two ways takes 30 to 70 %, and all take the one that is left.
fn two_ways(modes: &[Mode]) -> Result<()> {
    let racks = Racks::start(Stack::Dual, modes[0])?;
    second_way(&racks)?;
    for mode in modes {
        racks.set_mode(*mode)?;
        let pods = racks.pods()?;
        racks.wait_routed_far(&pods, *mode)?;
        if *mode == Mode::Native {
            wait_both(&racks, &pods[2].pod.addresses())?;
        }
        // Of IP in IPv6 the kernel looks the way up without the packet inside.
        let spreads = |v6: &bool| !v6 || !matches!(mode, Mode::Wrapped(Wrapping::IpInIp, _));
        for v6 in [false, true].into_iter().filter(spreads) {
            let to = pods[2].address(v6)?;
            let before = sent_octets(&racks)?;
            for _ in 0..64 {
                pods[0].probe.bulk(to, 20_000, LIMIT)?;
            }
            let after = sent_octets(&racks)?;
            let by = [after[0] - before[0], after[1] - before[1]];
            let share = by[0] * 100 / (by[0] + by[1]).max(1);
            println!("{mode}, IPv6 {v6}: {share} % by eth0, the rest by eth1");
            let rules =
                racks.nodes[0].run(&["nft", "list", "chain", "inet", "ocicat", "forward"])?;
            ensure!(
                (30..=70).contains(&share),
                "{mode}, IPv6 {v6}: {by:?} octets\n{rules}"
            );
        }
        one_way_fails(&racks, &pods).with_context(|| mode.to_string())?;
    }
    Ok(())
}

/// Connections that run, and others that come, take the way that is left; then both are there again.
fn one_way_fails(racks: &Racks, pods: &[Member]) -> Result<()> {
    let families = [false, true].map(|v6| pods[2].address(v6));
    let streams: Vec<_> = families
        .into_iter()
        .map(|to| pods[0].probe.stream(to?, LIMIT))
        .collect::<Result<_>>()?;
    racks.nodes[0].ip(["link set eth1 down"])?;
    for v6 in [false, true] {
        for _ in 0..16 {
            pods[0]
                .probe
                .bulk(pods[2].address(v6)?, 20_000, LIMIT)
                .context("with one way")?;
        }
    }
    for stream in streams {
        let poured = stream.stop()?;
        ensure!(
            poured.sent > 0 && poured.arrived == poured.sent,
            "{poured:?}"
        );
    }
    racks.nodes[0].ip([
        "link set eth1 up",
        "addr replace fd00:3::11/64 dev eth1 nodad",
    ])?;
    racks.nodes[0].ip(DEFAULT_ROUTES)?;
    wait_answers(racks)
}

/// Of n1, over both its uplinks.
const DEFAULT_ROUTES: [&str; 3] = [
    "route replace 0.0.0.0/0 nexthop via 10.1.0.1 dev eth0 nexthop via 10.3.0.1 dev eth1",
    "route del ::/0",
    "route add ::/0 nexthop via fd00:1::1 dev eth0 nexthop via fd00:3::1 dev eth1",
];

/// A second wire from n1 to the router, and a default route over both in each family. The node's own
/// IPv4 address is on loopback, as where a node stands below two switches: of several ways, a kernel
/// prefers the one whose interface has the source address.
fn second_way(racks: &Racks) -> Result<()> {
    racks.lab.wire(
        &End {
            netns: &racks.nodes[0],
            interface: "eth1",
            addresses: &["10.3.0.11/24", "fd00:3::11/64"],
        },
        &End {
            netns: &racks.router,
            interface: "second",
            addresses: &["10.3.0.1/24", "fd00:3::1/64"],
        },
    )?;
    racks.nodes[0].ip([
        "addr add 10.1.0.11/32 dev lo",
        "addr del 10.1.0.11/24 dev eth0",
        "addr add 10.1.0.111/24 dev eth0",
    ])?;
    racks.nodes[0].ip(DEFAULT_ROUTES)?;
    racks.router.ip(["route add 10.1.0.11/32 dev rack1"])?;
    wait_answers(racks)
}

/// Waits until the router answers on the second wire: of several ways the kernel takes none whose
/// neighbour it does not know.
fn wait_answers(racks: &Racks) -> Result<()> {
    for router in ["10.3.0.1", "fd00:3::1"] {
        wait::until(LIMIT, "an answer on the second wire", || {
            let asked = racks.nodes[0].run(&["ping", "-c", "1", "-W", "1", "-I", "eth1", router]);
            asked.map(drop).map_err(|error| format!("{error:#}"))
        })?;
    }
    Ok(())
}

/// Waits until n1's routes to these addresses lead by both uplinks.
fn wait_both(racks: &Racks, addresses: &[IpAddr]) -> Result<()> {
    for address in addresses.iter().map(ToString::to_string) {
        wait::until(LIMIT, "both uplinks", || {
            let route = racks.nodes[0].run(&["ip", "route", "get", "fibmatch", &address]);
            match route {
                Ok(route) if route.contains("eth0") && route.contains("eth1") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
    }
    Ok(())
}

/// What n1 has sent by each of its uplinks.
fn sent_octets(racks: &Racks) -> Result<[u64; 2]> {
    let of = |name: &str| -> Result<u64> {
        let text = racks.nodes[0].run(&["ip", "-j", "-s", "link", "show", name])?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        links[0]["stats64"]["tx"]["bytes"]
            .as_u64()
            .context("octets sent")
    };
    Ok([of("eth0")?, of("eth1")?])
}
