//! Operations on the kernel fail in turn while a node starts with tunnels, makes them, and changes
//! its mode: afterwards all is as it should be, and nothing of others has changed. Without strace
//! there is nothing to test.

use crate::racks::{LIMIT, Member, Mode, Racks, Stack, When};
use anyhow::{Context, Result, ensure};
use integration::lab::fault::{FAULTS, Fault, Injection, faulty_binary, has_strace, was_injected};
use integration::lab::wire::Wrapping;
use integration::lab::{agent, wait};
use model::names;

const VXLAN: Mode = Mode::Wrapped(Wrapping::Vxlan, When::Always);

/// More operations than the making of two tunnels and their routes has; those that the agent does
/// every second come besides.
const MAKING: usize = 40;

/// What fails.
const FAULT: Fault = FAULTS[0];

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

/// Nodes with pods, of which the first is made to fail, and what others have on it.
struct Stage {
    racks: Racks,
    pods: Vec<Member>,
    others: String,
}

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

impl Stage {
    fn started(mode: Mode) -> Result<Self> {
        let mut racks = Racks::prepared(Stack::Dual, Stack::Dual, mode)?;
        for command in OF_OTHERS {
            racks.nodes[0].run(&command.split(' ').collect::<Vec<_>>())?;
        }
        let others = of_others(&racks)?;
        ensure!(others.contains("198.51.100.0/24"), "{others}");
        racks.start_agents()?;
        let pods = racks.pods()?;
        racks.wait_routed(&pods, mode)?;
        Ok(Self {
            racks,
            pods,
            others,
        })
    }

    /// All is as this mode asks for, and nothing is left to do.
    fn check(&self, mode: Mode) -> Result<()> {
        self.racks.wait_routed(&self.pods, mode)?;
        wait_converged(&self.racks)?;
        for v6 in [false, true] {
            let to = self.pods[2].address(v6)?;
            let arrived = self.pods[0].probe.bulk(to, 1 << 16, LIMIT)?;
            ensure!(arrived == 1 << 16, "{arrived} octets to {to}");
        }
        let others = of_others(&self.racks)?;
        ensure!(others == self.others, "others have now: {others}");
        Ok(())
    }

    /// The `nth` operation of what follows from `change` fails, and all comes to be as `mode` asks
    /// for. Answers whether there were as many.
    fn survives(
        &self,
        nth: usize,
        mode: Mode,
        change: impl FnOnce(&Racks) -> Result<()>,
    ) -> Result<bool> {
        let injection = Injection::attach(&self.racks.lab, &self.racks.agents[0], FAULT, nth)?;
        change(&self.racks)?;
        self.racks.wait_routed(&self.pods, mode)?;
        let injected = injection.detach()?;
        self.check(mode)?;
        Ok(injected)
    }
}

fn at(nth: usize) -> String {
    format!("{} number {nth}", FAULT.call)
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
    let mut stage = Stage::started(VXLAN)?;
    let binary = agent::binary("OCICAT_NODE_BIN", "ocicat-node")?;
    for nth in (1..60).step_by(7) {
        let racks = &mut stage.racks;
        racks.agents[0].kill()?;
        delete_devices(racks)?;
        let (faulty, log) = faulty_binary(&racks.lab, &binary, FAULT, nth)?;
        racks.agents[0].set_binary(faulty);
        racks.agents[0].start()?;
        racks.agents[0].set_binary(binary.clone());
        // One that gives up says so and ends, and is started again as by its supervisor.
        if racks.agents[0].wait_ready(LIMIT).is_err() {
            ensure!(!racks.agents[0].is_running(), "{}: not ready", at(nth));
            racks.agents[0].start()?;
            racks.agents[0].wait_ready(LIMIT).with_context(|| at(nth))?;
        }
        stage.check(VXLAN).with_context(|| at(nth))?;
        if !was_injected(&log)? {
            ensure!(nth > 4, "{}: nothing failed", at(nth));
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
    let stage = Stage::started(VXLAN)?;
    for nth in 1..=MAKING {
        let injected = stage.survives(nth, VXLAN, delete_devices);
        if !injected.with_context(|| at(nth))? {
            ensure!(nth > 4, "{}: nothing failed", at(nth));
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
    let stage = Stage::started(Mode::Native)?;
    for nth in [1, 5, 11] {
        for mode in [VXLAN, Mode::Native] {
            let change = |racks: &Racks| racks.set_mode(mode);
            stage.survives(nth, mode, change).with_context(|| at(nth))?;
        }
    }
    Ok(())
}
