//! What the world sees of pods whose pool has `natOutgoing`.

use crate::racks::{LIMIT, Mode, Racks, Stack};
use anyhow::{Context, Result, ensure};
use integration::lab::{Capture, wait};
use integration::prober::Fragments;
use std::net::IpAddr;

const CONFIGURATION: &str = "apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {natOutgoingAddress: 192.0.2.77, natPortRange: '40000:40099'}
";

#[test]
fn the_source_address_and_ports_of_outgoing_connections_are_those_that_are_configured() -> Result<()>
{
    let racks = Racks::start(Stack::V4, Mode::Native)?;
    let pool = racks.store.read("pool-v4.yaml")?;
    let pool = pool.replace("ipipMode: Never", "ipipMode: Never, natOutgoing: true");
    racks.store.write("pool-v4.yaml", &pool)?;
    racks.store.write("felix.yaml", CONFIGURATION)?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, Mode::Native)?;
    // A server outside of all pools, that knows the way back.
    racks.router.ip(["route add 192.0.2.77/32 via 10.1.0.11"])?;
    let server = integration::lab::Probe::start(&racks.router, "outside")?;
    let to: IpAddr = [10, 1, 0, 1].into();
    let chosen = || {
        wait::until(LIMIT, "the rules", || {
            let rules = racks.nodes[0].run(&["nft", "list", "table", "inet", "ocicat"]);
            match rules {
                Ok(rules) if rules.contains("192.0.2.77:40000-40099") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
    };
    chosen()?;
    let capture = Capture::start(&racks.lab, &racks.router, "rack1")?;
    let arrived = pods[0].probe.bulk(to, 1000, LIMIT)?;
    ensure!(arrived == 1000, "{arrived} octets");
    pods[0].probe.datagram(to, 100, Fragments::AsKnown, LIMIT)?;
    let recording = capture.stop()?;
    for protocol in ["tcp", "udp"] {
        let port = format!("{protocol} and dst port 8090 and src host 192.0.2.77");
        let inside = format!("{port} and src portrange 40000-40099");
        let (all, inside) = (recording.count(&port)?, recording.count(&inside)?);
        ensure!(all > 0 && all == inside, "{protocol}: {inside} of {all}");
    }
    drop(server);

    // Nodes may be left out: then they see the pod itself.
    let excluded = CONFIGURATION.replace(
        "natOutgoingAddress: 192.0.2.77, natPortRange: '40000:40099'",
        "natOutgoingExclusions: IPPoolsAndHostIPs",
    );
    racks.store.write("felix.yaml", &excluded)?;
    let node: IpAddr = [10, 1, 0, 12].into();
    let pod = pods[0].address(false)?;
    wait::until(LIMIT, "the pod's own address at another node", || {
        let look = || -> Result<usize> {
            let capture = Capture::start(&racks.lab, &racks.nodes[1], "eth0")?;
            let ping = ["ping", "-n", "-c", "1", "-W", "1", &node.to_string()];
            // Answered or not: the request is looked at.
            let _ = pods[0].pod.netns().run(&ping);
            let recording = capture.stop().context("tcpdump")?;
            recording.count(&format!("icmp and src host {pod}"))
        };
        match look() {
            Ok(1..) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}
