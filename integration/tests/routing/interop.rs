//! One of our nodes and a Linux machine that somebody set up by hand, as any administrator would:
//! `ip` commands for the tunnel, BIRD with a static route for BGP. In both families.

use crate::racks::{LIMIT, Mode, Racks, Stack, When, tunnel_by_hand};
use anyhow::Result;
use integration::lab::wire::Wrapping;
use integration::lab::{Bird, Capture, Probe, wait};
use integration::vm::kernel_has_ipip;

/// What the machine and the node are to each other, in one family.
struct Family {
    stack: Stack,
    /// All pods.
    pool: &'static str,
    /// What BIRD announces: a network behind the machine.
    network: &'static str,
    /// A host in it.
    host: &'static str,
    /// BIRD's name of the family.
    channel: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        stack: Stack::V4,
        pool: "10.244.0.0/16",
        network: "10.244.200.0/26",
        host: "10.244.200.1",
        channel: "ipv4",
    },
    Family {
        stack: Stack::V6,
        pool: "fd00:10:244::/56",
        network: "fd00:10:244:c8::/122",
        host: "fd00:10:244:c8::1",
        channel: "ipv6",
    },
];

#[test]
fn a_machine_set_up_by_hand_exchanges_packets_with_a_node_through_vxlan() -> Result<()> {
    FAMILIES
        .iter()
        .try_for_each(|family| by_hand(Wrapping::Vxlan, family))
}

/// In the guest where this kernel has no such device.
#[test]
fn a_machine_set_up_by_hand_exchanges_packets_with_a_node_through_ipip() -> Result<()> {
    if !kernel_has_ipip()? {
        return Ok(());
    }
    FAMILIES
        .iter()
        .try_for_each(|family| by_hand(Wrapping::IpInIp, family))
}

fn by_hand(wrapping: Wrapping, family: &Family) -> Result<()> {
    let mode = Mode::Wrapped(wrapping, When::Always);
    let mut racks = Racks::prepared(family.stack, family.stack, mode)?;
    let machine = racks.nodes[2].clone();
    let v6 = family.stack == Stack::V6;
    let (own, node) = (Racks::node_address(2, v6), Racks::node_address(0, v6));
    let (network, host, pool) = (family.network, family.host, family.pool);
    machine.ip([format!("addr add {host} dev lo nodad")])?;
    tunnel_by_hand(&machine, wrapping, (own, node), pool, host)?;
    let channel = family.channel;
    let bird = Bird::start_with(
        &racks.lab,
        &machine,
        &format!(
            "log stderr all;\nrouter id 10.2.0.13;\nprotocol device {{}}\n\
             protocol static {{ {channel}; route {network} blackhole; }}\n\
             protocol bgp n1 {{ local {own} as 64512; neighbor {node} as 64512; multihop;\n\
             connect delay time 1; connect retry time 2; error wait time 1, 4;\n\
             {channel} {{ import none; export all; next hop self; }}; }}\n"
        ),
    )?;
    racks.agents[0].start()?;
    racks.agents[0].wait_ready(LIMIT)?;
    wait::until(LIMIT, "the session with BIRD", || {
        match bird.session("n1") {
            Ok(state) if state == "Established" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    let pods = racks.pods_on(1)?;
    let far = Probe::start(&machine, "by-hand")?;
    let capture = Capture::start(&racks.lab, &racks.nodes[0], "eth0")?;
    let host = host.parse()?;
    let arrived = wait::until(LIMIT, "packets both ways", || {
        let sent = pods[0].probe.bulk(host, 1 << 18, LIMIT / 6);
        sent.map_err(|error| format!("{error:#}"))
    })?;
    anyhow::ensure!(arrived == 1 << 18, "{arrived} octets of a transfer");
    let back = far.bulk(pods[0].address(v6)?, 1 << 18, LIMIT)?;
    anyhow::ensure!(back == 1 << 18, "{back} octets of a transfer back");
    let pod = pods[0].address(v6)?;
    for packet in capture.stop()?.wire()? {
        let between = packet.inner.source == pod || packet.inner.destination == pod;
        let found = packet.outer.as_ref().map(|(wrapping, _)| *wrapping);
        anyhow::ensure!(!between || found == Some(wrapping), "{packet:?}");
    }
    Ok(())
}
