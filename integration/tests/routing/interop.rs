//! One of our nodes and a Linux machine that somebody set up by hand, as any administrator would:
//! `ip` commands for the tunnel, BIRD with a static route for BGP.

use crate::racks::{LIMIT, Mode, Racks, Stack, When};
use anyhow::Result;
use integration::lab::wire::Wrapping;
use integration::lab::{Bird, Capture, Probe, wait};
use integration::vm::kernel_has_ipip;

/// What BIRD announces: a network behind the machine.
const NETWORK: &str = "10.244.200.0/26";
/// A host in it.
const HOST: &str = "10.244.200.1";

#[test]
fn a_machine_set_up_by_hand_exchanges_packets_with_a_node_through_vxlan() -> Result<()> {
    let up = |mac: &str, far: &str| {
        vec![
            "link add vx0 address 02:4f:0a:02:00:0d type vxlan id 4096 dstport 4789 \
             local 10.2.0.13 nolearning"
                .to_owned(),
            "link set vx0 mtu 1450 up".to_owned(),
            format!("neigh add {far} lladdr {mac} dev vx0 nud permanent"),
        ]
    };
    by_hand(
        Wrapping::Vxlan,
        "vx0",
        &up("02:4f:0a:01:00:0b", "10.1.0.11"),
    )
}

/// In the guest where this kernel has no such device.
#[test]
fn a_machine_set_up_by_hand_exchanges_packets_with_a_node_through_ipip() -> Result<()> {
    if !kernel_has_ipip()? {
        return Ok(());
    }
    let up = [
        "link add ip0 type ipip local 10.2.0.13",
        "link set ip0 mtu 1480 up",
    ];
    by_hand(Wrapping::IpInIp, "ip0", &up.map(str::to_owned))
}

fn by_hand(wrapping: Wrapping, device: &str, up: &[String]) -> Result<()> {
    let mode = Mode::Wrapped(wrapping, When::Always);
    let mut racks = Racks::prepared(Stack::V4, Stack::V4, mode)?;
    let machine = racks.nodes[2].clone();
    machine.ip(up)?;
    machine.ip([
        format!("addr add {HOST}/32 dev lo"),
        format!("route add 10.244.0.0/16 via 10.1.0.11 dev {device} onlink src {HOST}"),
    ])?;
    if wrapping == Wrapping::Vxlan {
        let entry = "bridge fdb append 02:4f:0a:01:00:0b dev vx0 dst 10.1.0.11 permanent";
        machine.run(&entry.split(' ').collect::<Vec<_>>())?;
    }
    let bird = Bird::start_with(
        &racks.lab,
        &machine,
        &format!(
            "log stderr all;\nrouter id 10.2.0.13;\nprotocol device {{}}\n\
             protocol static {{ ipv4; route {NETWORK} blackhole; }}\n\
             protocol bgp n1 {{ local 10.2.0.13 as 64512; neighbor 10.1.0.11 as 64512; multihop;\n\
             connect delay time 1; connect retry time 2; error wait time 1, 4;\n\
             ipv4 {{ import none; export all; next hop self; }}; }}\n"
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
    let host = HOST.parse()?;
    let arrived = wait::until(LIMIT, "packets both ways", || {
        let sent = pods[0].probe.bulk(host, 1 << 18, LIMIT / 6);
        sent.map_err(|error| format!("{error:#}"))
    })?;
    anyhow::ensure!(arrived == 1 << 18, "{arrived} octets of a transfer");
    let back = far.bulk(pods[0].address(false)?, 1 << 18, LIMIT)?;
    anyhow::ensure!(back == 1 << 18, "{back} octets of a transfer back");
    let pod = pods[0].address(false)?;
    for packet in capture.stop()?.wire()? {
        let between = packet.inner.source == pod || packet.inner.destination == pod;
        let found = packet.outer.as_ref().map(|(wrapping, _)| *wrapping);
        anyhow::ensure!(!between || found == Some(wrapping), "{packet:?}");
    }
    Ok(())
}
