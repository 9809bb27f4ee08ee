//! Who may put packets into the tunnels.

use crate::racks::{LIMIT, Mode, Racks, Stack, When};
use anyhow::{Result, ensure};
use integration::lab::wire::Wrapping;
use integration::lab::{Probe, wait};

const VXLAN: Mode = Mode::Wrapped(Wrapping::Vxlan, When::Always);
/// Datagrams a second.
const RATE: u32 = 1000;

/// What is inside says that it comes from a pod of another node: only the outer source can tell.
#[test]
fn packets_in_a_tunnel_come_from_nodes_alone() -> Result<()> {
    let racks = Racks::start(Stack::V4, VXLAN)?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, VXLAN)?;
    let (to, pretended) = (pods[0].address(false)?, pods[2].address(false)?);
    let stranger = &racks.router;
    stranger.ip([
        "link add vx0 type vxlan id 4096 dstport 4789 local 10.1.0.1 nolearning".to_owned(),
        "link set vx0 mtu 1450 up".to_owned(),
        "neigh add 10.1.0.11 lladdr 02:4f:0a:01:00:0b dev vx0 nud permanent".to_owned(),
        format!("addr add {pretended}/32 dev lo"),
        format!("route replace {to} via 10.1.0.11 dev vx0 onlink src {pretended}"),
    ])?;
    let entry = "bridge fdb append 02:4f:0a:01:00:0b dev vx0 dst 10.1.0.11 permanent";
    stranger.run(&entry.split(' ').collect::<Vec<_>>())?;
    let probe = Probe::start(stranger, "stranger")?;

    let flow = probe.flow(&pods[0].probe, to, RATE)?;
    pods[1].probe.bulk(to, 1 << 20, LIMIT)?;
    let report = flow.stop()?;
    ensure!(report.sent.count > 0, "{report}");
    ensure!(report.received.count == 0, "a stranger's packets: {report}");

    // The same packets, once their sender is a node.
    let node = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n4}\n\
                spec: {bgp: {ipv4Address: 10.1.0.1/24}}\n";
    racks.store.write("n4.yaml", node)?;
    wait::until(LIMIT, "the packets of a node", || {
        let flow = probe.flow(&pods[0].probe, to, RATE);
        let exchanged = pods[1].probe.bulk(to, 1 << 16, LIMIT);
        let report = flow.and_then(|flow| exchanged.and_then(|_| flow.stop()));
        match report {
            Ok(report) if report.received.count > 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}
