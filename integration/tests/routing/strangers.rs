//! Who may put packets into the tunnels.

use crate::racks::{LIMIT, Mode, Racks, Stack, When, address, tunnel_by_hand};
use anyhow::{Result, ensure};
use integration::lab::wire::Wrapping;
use integration::lab::{Probe, wait};
use integration::vm::kernel_has_ipip;
use std::net::IpAddr;

/// Datagrams a second.
const RATE: u32 = 1000;

#[test]
fn packets_in_vxlan_come_from_nodes_alone() -> Result<()> {
    from_nodes_alone(Wrapping::Vxlan)
}

/// In the guest where this kernel has no such device.
#[test]
fn packets_in_ipip_come_from_nodes_alone() -> Result<()> {
    match kernel_has_ipip()? {
        true => from_nodes_alone(Wrapping::IpInIp),
        false => Ok(()),
    }
}

/// What is inside says that it comes from a pod of another node: only the outer source can tell.
fn from_nodes_alone(wrapping: Wrapping) -> Result<()> {
    let mode = Mode::Wrapped(wrapping, When::Always);
    let racks = Racks::start(Stack::Dual, mode)?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, mode)?;
    for v6 in [false, true] {
        pretend(&racks, wrapping, pods[0].address(v6)?, pods[2].address(v6)?)?;
    }
    let probe = Probe::start(&racks.router, "stranger")?;
    for v6 in [false, true] {
        let to = pods[0].address(v6)?;
        let flow = probe.flow(&pods[0].probe, to, RATE)?;
        pods[1].probe.bulk(to, 1 << 20, LIMIT)?;
        let report = flow.stop()?;
        ensure!(report.sent.count > 0, "{report}");
        ensure!(report.received.count == 0, "a stranger's packets: {report}");
    }
    // The same packets, once their sender is a node.
    let node = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n4}\n\
                spec: {bgp: {ipv4Address: 10.1.0.1/24, ipv6Address: 'fd00:1::1/64'}}\n";
    racks.store.write("n4.yaml", node)?;
    for v6 in [false, true] {
        let to = pods[0].address(v6)?;
        wait::until(LIMIT, "the packets of a node", || {
            let flow = probe.flow(&pods[0].probe, to, RATE);
            let exchanged = pods[1].probe.bulk(to, 1 << 16, LIMIT);
            let report = flow.and_then(|flow| exchanged.and_then(|_| flow.stop()));
            match report {
                Ok(report) if report.received.count > 0 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
    }
    Ok(())
}

/// The router wraps what it sends to this pod of n1, in the name of another pod.
fn pretend(racks: &Racks, wrapping: Wrapping, to: IpAddr, pretended: IpAddr) -> Result<()> {
    let (stranger, v6) = (&racks.router, to.is_ipv6());
    let (own, far) = (address(v6, 1, 1), Racks::node_address(0, v6));
    stranger.ip([format!("addr add {pretended} dev lo nodad")])?;
    let (to, pretended) = (to.to_string(), pretended.to_string());
    tunnel_by_hand(stranger, wrapping, (own, far), &to, &pretended)
}
