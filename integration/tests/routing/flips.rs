//! Every mode becomes every other one on all nodes, under load.

use crate::live::{RATE, VXLAN};
use crate::racks::{LIMIT, Mode, Racks, Stack, When};
use anyhow::{Context, Result, ensure};
use integration::lab::wire::Wrapping;
use integration::vm::kernel_has_ipip;

const VXLAN_CROSS: Mode = Mode::Wrapped(Wrapping::Vxlan, When::CrossSubnet);
const IPIP: Mode = Mode::Wrapped(Wrapping::IpInIp, When::Always);
const IPIP_CROSS: Mode = Mode::Wrapped(Wrapping::IpInIp, When::CrossSubnet);

#[test]
fn native_and_vxlan_change_into_each_other_without_loss() -> Result<()> {
    flips(&[
        Mode::Native,
        VXLAN,
        VXLAN_CROSS,
        VXLAN,
        Mode::Native,
        VXLAN_CROSS,
        Mode::Native,
    ])
}

/// In the guest where this kernel has no such device.
#[test]
fn every_mode_changes_into_every_other_without_loss_with_ipip() -> Result<()> {
    if !kernel_has_ipip()? {
        return Ok(());
    }
    flips(&[
        Mode::Native,
        IPIP,
        VXLAN,
        IPIP_CROSS,
        Mode::Native,
        IPIP_CROSS,
        VXLAN_CROSS,
        IPIP,
        IPIP_CROSS,
        VXLAN,
        Mode::Native,
    ])
}

/// The mode of all pools is changed on all nodes while datagrams and a transfer are under way.
fn flips(modes: &[Mode]) -> Result<()> {
    let racks = Racks::start(Stack::Dual, modes[0])?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, modes[0])?;
    let starved = dropped_between_interfaces()?;
    let mut flows = Vec::new();
    for v6 in [false, true] {
        for to in [1, 2] {
            // Neighbours of the underlay are found before anything is counted.
            pods[0].probe.bulk(pods[to].address(v6)?, 1000, LIMIT)?;
            let flow = pods[0]
                .probe
                .flow(&pods[to].probe, pods[to].address(v6)?, RATE)?;
            flows.push((v6, to, flow));
        }
    }
    // From another pod: a kernel that learns of an MTU replaces the IPv6 route that it sends by, and
    // a datagram of the sender itself is lost in between (`rt6_remove_exception`, net/ipv6/route.c).
    let mut streams = Vec::new();
    for v6 in [false, true] {
        let to = pods[2].address(v6)?;
        streams.push((v6, pods[1].probe.stream(to, LIMIT)?));
    }
    for mode in &modes[1..] {
        racks.set_mode(*mode)?;
        racks.wait_routed(&pods, *mode)?;
        let arrived = pods[0]
            .probe
            .bulk(pods[2].address(false)?, 1 << 20, LIMIT)?;
        ensure!(arrived == 1 << 20, "{arrived} octets of a transfer, {mode}");
    }
    for (v6, stream) in streams {
        let poured = stream.stop().with_context(|| format!("IPv6 {v6}"))?;
        println!("IPv6 {v6}, one connection: {poured:?}");
        ensure!(
            poured.sent > 0 && poured.arrived == poured.sent,
            "{poured:?}"
        );
    }
    for (v6, to, flow) in flows {
        let report = flow.stop()?;
        println!("IPv6 {v6}, n1 to n{}: {report}", to + 1);
        ensure!(
            report.lost() == 0,
            "IPv6 {v6}, n1 to n{}: {report}; this machine dropped {} packets for want of a processor",
            to + 1,
            dropped_between_interfaces()? - starved,
        );
    }
    Ok(())
}

/// Packets that all processors of this machine have dropped because too many waited for them
/// (second column of `softnet_stat`, `net/core/net-procfs.c`).
fn dropped_between_interfaces() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/net/softnet_stat")?;
    let dropped = |line: &str| u64::from_str_radix(line.split(' ').nth(1).unwrap_or(""), 16);
    let all: Result<Vec<u64>, _> = text.lines().map(dropped).collect();
    Ok(all.context("softnet_stat")?.iter().sum())
}
