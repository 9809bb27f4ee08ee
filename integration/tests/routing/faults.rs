//! Operations on the kernel fail in turn while a node starts with tunnels, makes them, and changes
//! its mode: afterwards all is as it should be, and nothing of others has changed. Without strace
//! there is nothing to test.

use crate::racks::{LIMIT, Mode, Racks, Stack, When};
use anyhow::{Context, Result, ensure};
use integration::lab::fault::{FAULTS, Injection, faulty_binary, has_strace, was_injected};
use integration::lab::wire::Wrapping;
use integration::lab::{agent, wait};
use model::names;

const VXLAN: Mode = Mode::Wrapped(Wrapping::Vxlan, When::Always);

/// More operations than the making of two tunnels and their routes has; those that the agent does
/// every second come besides.
const MAKING: usize = 40;

/// What somebody else has on a node, of every kind that we write ourselves.
const OF_OTHERS: [&str; 8] = [
    "ip link add other0 type vxlan id 77 dstport 4790 local 10.1.0.11 nolearning",
    "ip link set other0 up",
    "ip addr add 192.0.2.1/24 dev other0",
    "bridge fdb append 02:00:00:00:00:77 dev other0 dst 10.1.0.12",
    "ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:77 dev other0 nud permanent",
    "ip route add 198.51.100.0/24 via 192.0.2.2 dev other0",
    "ip route add blackhole 203.0.113.0/24 proto 4",
    "nft add table inet other",
];

fn of_others(racks: &Racks) -> Result<String> {
    let mut text = String::new();
    for command in [
        "ip -d -o link show other0",
        "ip -o addr show dev other0 scope global",
        "bridge fdb show dev other0",
        "ip neigh show dev other0 nud permanent",
        "ip route show proto boot",
        "ip route show proto static",
        "nft list table inet other",
    ] {
        text += &racks.nodes[0].run(&command.split(' ').collect::<Vec<_>>())?;
    }
    Ok(text)
}

fn prepared(mode: Mode) -> Result<(Racks, String)> {
    let racks = Racks::prepared(Stack::Dual, Stack::Dual, mode)?;
    for command in OF_OTHERS {
        racks.nodes[0].run(&command.split(' ').collect::<Vec<_>>())?;
    }
    let before = of_others(&racks)?;
    ensure!(before.contains("198.51.100.0/24"), "{before}");
    Ok((racks, before))
}

/// Nothing is left to do, by a reading of everything.
fn wait_converged(racks: &Racks) -> Result<()> {
    wait::until(LIMIT, "nothing to be left to do", || {
        match racks.agents[0].ctl(&["plan"]) {
            Ok(plan) if plan.trim() == "nothing to do" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}

fn delete_devices(racks: &Racks) -> Result<()> {
    for device in [names::VXLAN_DEVICE, names::VXLAN6_DEVICE] {
        racks.nodes[0].ip([format!("link del {device}")])?;
    }
    Ok(())
}

/// Every seventh operation: those that make tunnels are all walked through below.
#[test]
fn whichever_operation_of_a_start_fails_tunnels_and_routes_come_to_be() -> Result<()> {
    if !has_strace() {
        return Ok(());
    }
    let (mut racks, others) = prepared(VXLAN)?;
    racks.start_agents()?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, VXLAN)?;
    let binary = agent::binary("OCICAT_NODE_BIN", "ocicat-node")?;
    let fault = FAULTS[0];
    for nth in (1..60).step_by(7) {
        let at = || format!("{} number {nth}", fault.call);
        racks.agents[0].kill()?;
        delete_devices(&racks)?;
        let (faulty, log) = faulty_binary(&racks.lab, &binary, fault, nth)?;
        racks.agents[0].set_binary(faulty);
        racks.agents[0].start()?;
        racks.agents[0].set_binary(binary.clone());
        // One that gives up says so and ends, and is started again as by its supervisor.
        if racks.agents[0].wait_ready(LIMIT).is_err() {
            ensure!(!racks.agents[0].is_running(), "{}: not ready", at());
            racks.agents[0].start()?;
            racks.agents[0].wait_ready(LIMIT).with_context(at)?;
        }
        racks.wait_routed(&pods, VXLAN).with_context(at)?;
        wait_converged(&racks).with_context(at)?;
        for v6 in [false, true] {
            let to = pods[2].address(v6)?;
            pods[0].probe.bulk(to, 1000, LIMIT).with_context(at)?;
        }
        ensure!(of_others(&racks)? == others, "{}", at());
        if !was_injected(&log)? {
            ensure!(nth > 4, "{}: nothing failed", at());
            break;
        }
    }
    Ok(())
}

#[test]
fn whichever_operation_of_the_making_of_tunnels_fails_they_are_made() -> Result<()> {
    if !has_strace() {
        return Ok(());
    }
    let (mut racks, others) = prepared(VXLAN)?;
    racks.start_agents()?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, VXLAN)?;
    let fault = FAULTS[0];
    for nth in 1..=MAKING {
        let at = || format!("{} number {nth}", fault.call);
        let injection = Injection::attach(&racks.lab, &racks.agents[0], fault, nth)?;
        delete_devices(&racks)?;
        racks.wait_routed(&pods, VXLAN).with_context(at)?;
        let injected = injection.detach()?;
        wait_converged(&racks).with_context(at)?;
        for v6 in [false, true] {
            let to = pods[2].address(v6)?;
            pods[0].probe.bulk(to, 1000, LIMIT).with_context(at)?;
        }
        ensure!(of_others(&racks)? == others, "{}", at());
        if !injected {
            ensure!(nth > 4, "{}: nothing failed", at());
            break;
        }
    }
    Ok(())
}

/// Some of the operations; what is left to do, there and back, includes removing the devices.
#[test]
fn whichever_operation_of_a_change_of_mode_fails_the_change_is_made() -> Result<()> {
    if !has_strace() {
        return Ok(());
    }
    let (mut racks, others) = prepared(Mode::Native)?;
    racks.start_agents()?;
    let pods = racks.pods()?;
    racks.wait_routed(&pods, Mode::Native)?;
    let fault = FAULTS[0];
    for nth in [1, 5, 11] {
        let at = || format!("{} number {nth}", fault.call);
        for mode in [VXLAN, Mode::Native] {
            let injection = Injection::attach(&racks.lab, &racks.agents[0], fault, nth)?;
            racks.set_mode(mode)?;
            racks.wait_routed(&pods, mode).with_context(at)?;
            injection.detach()?;
            wait_converged(&racks).with_context(at)?;
            let to = pods[2].address(true)?;
            let arrived = pods[0].probe.bulk(to, 1 << 16, LIMIT).with_context(at)?;
            ensure!(arrived == 1 << 16, "{}: {arrived} octets", at());
            ensure!(of_others(&racks)? == others, "{}", at());
        }
    }
    Ok(())
}
