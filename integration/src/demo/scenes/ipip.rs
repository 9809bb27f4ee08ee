//! What is on the wire between nodes.

use crate::demo::cluster::{Cluster, Member};
use crate::demo::objects::NODES;
use crate::demo::scene::{saw, say};
use crate::lab::capture::Recording;
use crate::lab::probe::Protocol;
use crate::lab::{Capture, wait};
use crate::prober::PORTS;
use anyhow::{Result, ensure};
use model::names::IPIP_DEVICE;
use std::time::Duration;

/// Datagrams a second of the flow under which the mode is switched.
const RATE: u32 = 200;

pub(super) fn play(cluster: &mut Cluster) -> Result<String> {
    cluster.ensure_pods()?;
    until_tunnelled(cluster, "c1", true)?;
    let (a1, b1, c1) = (
        cluster.member("a1")?,
        cluster.member("b1")?,
        cluster.member("c1")?,
    );
    let across = record(cluster, a1, c1)?;
    let within = record(cluster, a1, b1)?;
    let outer = format!(
        "ip proto 4 and src {} and dst {}",
        NODES[0].ipv4(),
        NODES[2].ipv4()
    );
    let tunnelled = across.packets(&outer)?;
    saw(&format!("tcpdump '{outer}'   (n1)"), &first(&tunnelled));
    ensure!(
        !tunnelled.is_empty(),
        "no packet of protocol 4 between the racks"
    );
    ensure!(
        across.count(&bare(a1, c1)?)? == 0,
        "pod packets without a tunnel between the racks"
    );
    let native = within.packets(&bare(a1, b1)?)?;
    saw(
        &format!("tcpdump '{}'   (n1)", bare(a1, b1)?),
        &first(&native),
    );
    ensure!(!native.is_empty(), "no native packets within the rack");
    ensure!(
        within.count("ip proto 4")? == 0,
        "protocol 4 within the rack"
    );

    say("the pool is switched to Always and back while a flow runs from a1 to b1");
    let flow = a1.probe.flow(&b1.probe, b1.pod.ipv4()?, RATE)?;
    cluster.set_ipip_mode("Always")?;
    until_tunnelled(cluster, "b1", true)?;
    let always = record(cluster, a1, b1)?.count("ip proto 4")?;
    ensure!(
        always > 0,
        "no protocol 4 within the rack although the mode is Always"
    );
    cluster.set_ipip_mode("CrossSubnet")?;
    until_tunnelled(cluster, "b1", false)?;
    let report = flow.stop()?;
    say(&format!("the flow: {report}"));
    ensure!(
        report.lost() == 0,
        "packets were lost while the mode was switched: {report}"
    );
    Ok(format!(
        "protocol 4: {} across, 0 within, {always} with Always; flow: {report}",
        tunnelled.len()
    ))
}

/// The packets of n1 while `from` connects to `to`.
fn record(cluster: &Cluster, from: &Member, to: &Member) -> Result<Recording> {
    let capture = Capture::start(&cluster.lab, cluster.agents[0].netns(), "eth0")?;
    from.probe.reach(
        Protocol::Tcp,
        to.pod.ipv4()?,
        PORTS[0],
        Duration::from_secs(30),
    )?;
    capture.stop()
}

/// Packets between two pods that are in no tunnel.
fn bare(from: &Member, to: &Member) -> Result<String> {
    Ok(format!(
        "host {} and host {}",
        from.pod.ipv4()?,
        to.pod.ipv4()?
    ))
}

fn first(packets: &[String]) -> String {
    packets
        .iter()
        .take(4)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n")
}

/// Waits until both ends route to each other as wanted.
fn until_tunnelled(cluster: &Cluster, pod: &str, wanted: bool) -> Result<()> {
    let (near, far) = (cluster.member("a1")?, cluster.member(pod)?);
    for (from, to) in [(near, far), (far, near)] {
        let address = to.pod.ipv4()?.to_string();
        let what = format!(
            "{} to route {address} {} the tunnel",
            from.pod.node().name(),
            if wanted { "into" } else { "past" }
        );
        wait::until(cluster.patience, &what, || {
            let route = from.pod.node().run(&["ip", "route", "get", &address]);
            let route = route.map_err(|error| format!("{error:#}"))?;
            if route.contains(IPIP_DEVICE) == wanted {
                Ok(())
            } else {
                Err(route)
            }
        })?;
    }
    Ok(())
}
