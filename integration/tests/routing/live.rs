//! What changes under load, other than modes.

use crate::racks::{LIMIT, Mode, Racks, Stack, When};
use anyhow::{Context, Result, ensure};
use integration::lab::wire::Wrapping;
use integration::lab::{Probe, wait};
use integration::vm::kernel_has_ipip;
use model::names;
use rustix::process::Signal;

/// Datagrams a second.
pub(crate) const RATE: u32 = 1000;

pub(crate) const VXLAN: Mode = Mode::Wrapped(Wrapping::Vxlan, When::Always);

/// A device that no pool wants stays for a while, and a node that is slow may still have its own
/// when another node's is gone. Wanted again, it is not used before the others have had the time.
#[test]
fn a_tunnel_that_is_wanted_again_waits_for_the_nodes_that_have_removed_theirs() -> Result<()> {
    let racks = Racks::start(Stack::V4, VXLAN)?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, VXLAN)?;
    racks.set_mode(Mode::Native)?;
    racks.wait_routed(&pods, Mode::Native)?;
    let has_device = |node: usize| {
        let name = names::VXLAN_DEVICE;
        racks.nodes[node].run(&["ip", "link", "show", name]).is_ok()
    };
    racks.agents[0].signal(Signal::STOP)?;
    ensure!(has_device(0), "n1 has removed its device already");
    wait::until(LIMIT, "n3 to remove its device", || match has_device(2) {
        true => Err("it is there".to_owned()),
        false => Ok(()),
    })?;
    racks.agents[2].signal(Signal::STOP)?;
    racks.set_mode(VXLAN)?;
    let to = pods[2].address(false)?;
    pods[0].probe.bulk(to, 1000, LIMIT)?;
    let flow = pods[0].probe.flow(&pods[2].probe, to, RATE)?;
    racks.agents[0].signal(Signal::CONT)?;
    let line = "ocicat_tunnel_up{device=\"vxlan.ocicat\"} 1";
    wait::until(LIMIT, "n1 to know of the mode", || {
        match racks.agents[0].health("/metrics") {
            Ok((200, text)) if text.contains(line) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    racks.agents[2].signal(Signal::CONT)?;
    racks.wait_routed(&pods, VXLAN)?;
    let report = flow.stop()?;
    ensure!(report.sent.count > 0 && report.lost() == 0, "{report}");
    Ok(())
}

#[test]
fn what_others_change_of_a_vxlan_is_put_right_at_once() -> Result<()> {
    let racks = Racks::start(Stack::Dual, VXLAN)?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, VXLAN)?;
    let node = &racks.nodes[0];
    for device in [names::VXLAN_DEVICE, names::VXLAN6_DEVICE] {
        let entries = || -> Result<String> {
            let forwarding = node.run(&["bridge", "fdb", "show", "dev", device])?;
            let neighbours =
                node.run(&["ip", "neigh", "show", "dev", device, "nud", "permanent"])?;
            let neighbours_v6 = node.run(&[
                "ip",
                "-6",
                "neigh",
                "show",
                "dev",
                device,
                "nud",
                "permanent",
            ])?;
            let all = forwarding + &neighbours + &neighbours_v6;
            let mut lines: Vec<&str> = all.lines().collect();
            lines.sort_unstable();
            lines.dedup();
            Ok(lines.join("\n"))
        };
        let right = entries()?;
        let end = right.lines().find(|line| line.contains(" dst "));
        let words: Vec<&str> = end.unwrap_or_default().split_whitespace().collect();
        ensure!(words.len() >= 3, "{right}");
        let (mac, end) = (words[0], words[2]);
        let neighbour = right.lines().find(|line| line.contains(" lladdr "));
        let neighbour = neighbour.and_then(|line| line.split(' ').next());
        let neighbour = neighbour.context("a neighbour")?;
        let elsewhere = if end.contains(':') {
            "fd00:99::1"
        } else {
            "192.0.2.99"
        };
        for wrong in [
            format!("bridge fdb del {mac} dst {end} dev {device}"),
            format!("bridge fdb replace {mac} dst {elsewhere} dev {device}"),
            format!("bridge fdb replace {mac} dst {end} dev {device} port 9999"),
            format!("bridge fdb append 00:00:00:00:00:00 dst {elsewhere} dev {device}"),
            format!("bridge fdb append 02:00:00:00:00:99 dst {elsewhere} dev {device} static"),
            format!("ip neigh add {elsewhere} lladdr 02:00:00:00:00:99 dev {device}"),
            format!("ip neigh del {neighbour} dev {device}"),
        ] {
            node.run(&wrong.split(' ').collect::<Vec<_>>())?;
            wait::until(
                LIMIT / 4,
                &format!("`{wrong}` to be undone"),
                || match entries() {
                    Ok(now) if now == right => Ok(()),
                    Ok(now) => Err(format!(
                        "{now}\nand not\n{right}\n{}",
                        racks.agents[0].log_of(device)
                    )),
                    Err(error) => Err(format!("{error:#}")),
                },
            )?;
        }
    }
    Ok(())
}

#[test]
fn a_name_that_somebody_else_has_is_told_and_other_pools_work() -> Result<()> {
    let mut racks = Racks::prepared(Stack::Dual, Stack::Dual, VXLAN)?;
    racks.nodes[0].ip(["link add vxlan.ocicat type bridge"])?;
    for agent in &mut racks.agents {
        agent.start()?;
    }
    racks.agents[1].wait_ready(LIMIT)?;
    racks.agents[2].wait_ready(LIMIT)?;
    let words = "vxlan.ocicat: it is a bridge, not a vxlan";
    wait::until(LIMIT, words, || match racks.agents[0].health("/readyz") {
        Ok((503, body)) if body.contains(words) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let pods = racks.pods()?;
    let to = pods[2].address(true)?;
    wait::until(LIMIT, "IPv6 to work", || {
        let said = pods[0].probe.bulk(to, 1000, LIMIT);
        said.map_err(|error| format!("{error:#}"))
    })?;
    // Given back, it is ours.
    racks.nodes[0].ip(["link del vxlan.ocicat"])?;
    racks.agents[0].wait_ready(LIMIT)?;
    racks.wait_routed(&pods, VXLAN)
}

#[test]
fn a_deleted_device_is_back_with_its_ends_and_routes() -> Result<()> {
    let racks = Racks::start(Stack::V4, VXLAN)?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, VXLAN)?;
    let to = pods[2].address(false)?;
    let flow = pods[0].probe.flow(&pods[2].probe, to, RATE)?;
    racks.nodes[0].ip(["link del vxlan.ocicat"])?;
    racks.wait_routed(&pods, VXLAN)?;
    let arrived = pods[0].probe.bulk(to, 1 << 16, LIMIT)?;
    ensure!(arrived == 1 << 16, "{arrived} octets of a transfer");
    let report = flow.stop()?;
    println!("device deleted under load: {report}");
    // A second's worth: on an idle machine it is a tenth of that.
    ensure!(report.lost() <= u64::from(RATE), "{report}");
    Ok(())
}

#[test]
fn an_uplink_that_becomes_narrow_narrows_the_tunnel_and_pods_to_come_and_loses_nothing()
-> Result<()> {
    let racks = Racks::start(Stack::V4, VXLAN)?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, VXLAN)?;
    let to = pods[1].address(false)?;
    pods[0].probe.bulk(to, 1000, LIMIT)?;
    let flow = pods[0].probe.flow(&pods[1].probe, to, RATE)?;
    racks.nodes[0].ip(["link set eth0 mtu 1400"])?;
    wait::until(LIMIT, "the tunnel to be narrow", || {
        let shown = racks.nodes[0].run(&["ip", "link", "show", names::VXLAN_DEVICE]);
        match shown.map_err(|error| format!("{error:#}"))? {
            shown if shown.contains("mtu 1350") => Ok(()),
            shown => Err(shown),
        }
    })?;
    let narrow = racks.pods_on(1)?;
    ensure!(narrow[0].mtu()? == 1350, "{}", narrow[0].mtu()?);
    for from in [&pods[0], &narrow[0]] {
        let arrived = from.probe.bulk(to, 1 << 18, LIMIT)?;
        ensure!(arrived == 1 << 18, "{arrived} octets of a transfer");
    }
    let report = flow.stop()?;
    ensure!(report.lost() == 0, "{report}");
    racks.nodes[0].ip(["link set eth0 mtu 1500"])?;
    wait::until(LIMIT, "a pod to have the MTU of before", || {
        let wide = racks.pods_on(1).and_then(|pods| pods[0].mtu());
        match wide {
            Ok(1450) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}

/// A pool besides those that are there.
fn another_pool(mode: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: another}}\n\
         spec: {{cidr: 10.245.0.0/16, {mode}}}\n"
    )
}

#[test]
fn a_pool_comes_and_goes_and_the_others_lose_nothing() -> Result<()> {
    let racks = Racks::start(Stack::V4, Mode::Native)?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, Mode::Native)?;
    let to = pods[2].address(false)?;
    pods[0].probe.bulk(to, 1000, LIMIT)?;
    let flow = pods[0].probe.flow(&pods[2].probe, to, RATE)?;
    let pool = another_pool("vxlanMode: Always");
    racks.store.write("pool-another.yaml", &pool)?;
    let members = racks.pods_of("another")?;
    racks.wait_routed(&members, VXLAN)?;
    let arrived = members[0]
        .probe
        .bulk(members[2].address(false)?, 1 << 16, LIMIT)?;
    ensure!(arrived == 1 << 16, "{arrived} octets of a transfer");
    for member in members {
        member.pod.delete()?;
    }
    racks.store.remove("pool-another.yaml")?;
    for node in &racks.nodes {
        wait::until(LIMIT, "no tunnel device", || {
            let links = node.run(&["ip", "-br", "link"]);
            match links.map_err(|error| format!("{error:#}"))? {
                links if links.contains(names::VXLAN_DEVICE) => Err(links),
                _ => Ok(()),
            }
        })?;
    }
    let report = flow.stop()?;
    ensure!(report.lost() == 0, "{report}");
    Ok(())
}

/// The pool that it came from no longer has a tunnel, another pool has.
#[test]
fn the_tunnels_own_address_changes_in_place() -> Result<()> {
    let racks = Racks::start(Stack::V4, VXLAN)?;
    let another = another_pool("vxlanMode: Always");
    racks.store.write("pool-another.yaml", &another)?;
    let members = racks.pods_of("another")?;
    racks.wait_routed(&members, VXLAN)?;
    let to = members[2].address(false)?;
    members[0].probe.bulk(to, 1000, LIMIT)?;
    // Index of the device, and its address once it is of this network.
    let device = |network: &str| {
        wait::until(LIMIT, &format!("an address of {network}"), || {
            let show = ["ip", "-o", "-4", "addr", "show", names::VXLAN_DEVICE];
            let text = racks.nodes[0].run(&show);
            let text = text.map_err(|error| format!("{error:#}"))?;
            match (text.lines().count(), text.split_once(':')) {
                (1, Some((index, address))) if address.contains(network) => Ok(index.to_owned()),
                _ => Err(text),
            }
        })
    };
    let index = device("inet 10.244.")?;
    let flow = members[0].probe.flow(&members[2].probe, to, RATE)?;
    racks.set_mode(Mode::Native)?;
    ensure!(device("inet 10.245.")? == index, "the device was made anew");
    // The node itself speaks through the tunnel by that address.
    let node = Probe::start(&racks.nodes[0], "n1")?;
    let arrived = node.bulk(to, 1 << 16, LIMIT)?;
    ensure!(arrived == 1 << 16, "{arrived} octets of a transfer");
    let report = flow.stop()?;
    ensure!(report.sent.count > 0 && report.lost() == 0, "{report}");
    Ok(())
}

/// Where the kernel has the kind there is nothing to miss.
#[test]
fn a_kind_that_the_kernel_lacks_is_named_and_other_pools_work() -> Result<()> {
    if kernel_has_ipip()? {
        return Ok(());
    }
    let racks = Racks::start(Stack::Dual, VXLAN)?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, VXLAN)?;
    let pool = another_pool("ipipMode: Always");
    racks.store.write("pool-another.yaml", &pool)?;
    let members = racks.pods_of("another")?;
    let far = members[2].address(false)?;
    let said = [
        "IPPool/another: spec.ipipMode: Always: this kernel has no ipip",
        "IPPool/another wants IPIP towards",
    ];
    wait::until(LIMIT, said[0], || match racks.agents[0].health("/readyz") {
        Ok((503, body)) if said.iter().all(|words| body.contains(words)) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let (_, metrics) = racks.agents[0].health("/metrics")?;
    for line in [
        "ocicat_pool_tunnel_missing{pool=\"another\",kind=\"ipip\"} 1",
        "ocicat_tunnel_up{device=\"vxlan.ocicat\"} 1",
    ] {
        ensure!(metrics.contains(line), "no {line} in {metrics}");
    }
    // Nothing of it takes a way that nobody asked for.
    let blackholed = racks.nodes[0].run(&["ip", "route", "show", "match", &far.to_string()])?;
    ensure!(!blackholed.contains("proto 122"), "{blackholed}");
    for v6 in [false, true] {
        let arrived = pods[0].probe.bulk(pods[2].address(v6)?, 1 << 16, LIMIT)?;
        ensure!(arrived == 1 << 16, "{arrived} octets of a transfer");
    }
    // As another mode, it is served.
    let pool = another_pool("vxlanMode: Always");
    racks.store.write("pool-another.yaml", &pool)?;
    racks.wait_routed(&members, VXLAN)?;
    wait::until(LIMIT, "n1 to be ready", || {
        match racks.agents[0].health("/readyz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}

#[test]
fn the_address_of_a_node_changes_in_place() -> Result<()> {
    let racks = Racks::start(Stack::V4, VXLAN)?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, VXLAN)?;
    let index = || -> Result<String> {
        let text = racks.nodes[2].run(&["ip", "-o", "link", "show", names::VXLAN_DEVICE])?;
        Ok(text.split(':').next().unwrap_or_default().to_owned())
    };
    let before = index()?;
    racks.nodes[2].ip(["addr add 10.2.0.99/24 dev eth0"])?;
    let node = racks.store.read("n3.yaml")?;
    let node = node.replace("10.2.0.13", "10.2.0.99");
    racks.store.write("n3.yaml", &node)?;
    wait::until(LIMIT, "n1 to know the address", || {
        let text = racks.nodes[0].run(&["bridge", "fdb", "show", "dev", names::VXLAN_DEVICE]);
        match text {
            Ok(text) if text.contains("10.2.0.99") && !text.contains("10.2.0.13") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    let to = pods[2].address(false)?;
    wait::until(LIMIT, "packets to go there", || {
        let said = pods[0].probe.bulk(to, 1000, LIMIT);
        said.map_err(|error| format!("{error:#}"))
    })?;
    ensure!(index()? == before, "the device was made anew");
    Ok(())
}
