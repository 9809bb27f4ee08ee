//! Routes into the kernel: a feeder, an agent, and the table of its node.

use super::cell::Stage;
use super::daemon;
use super::session::{End, Session};
use super::usage::Usage;
use super::wire::Announcer;
use crate::lab::agent::binary;
use crate::lab::{Netns, Process, Store, wait};
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

/// Routes of a measurement.
pub(super) const ROUTES: u32 = 100_000;
const FEEDER_ASN: u32 = 65001;
const FEEDER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the kernel's table; a look takes milliseconds.
const LOOK: Duration = Duration::from_millis(20);

const MANIFESTS: &str = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata:\n  name: n1\n\
    spec:\n  bgp:\n    ipv4Address: 10.99.0.1/16\n    asNumber: 65000\n\
    ---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata:\n  name: feeder\n\
    spec:\n  peerIP: 10.99.0.2\n  asNumber: 65001\n";

/// Seconds from the first octet until the kernel has all routes, and the agent's processor time.
pub(super) fn measure(stage: &Stage, round: usize) -> Result<(f64, f64)> {
    let lab = stage.lab();
    let dir = lab.subdir(&format!("agent-{round}"))?;
    let store = Store::new(dir.join("datastore"))?;
    store.write("bgp.yaml", MANIFESTS)?;
    let mut command = Command::new(binary("OCICAT_NODE_BIN", "ocicat-node")?);
    command.args(["--node-name", "n1", "--log", "warn"]);
    command.arg("--datastore").arg(store.path());
    command.arg("--run-dir").arg(dir.join("run"));
    command.arg("--state-dir").arg(dir.join("state"));
    let mut agent = Process::start(&stage.daemon, &dir, "ocicat-node", &mut command)?;
    let pids = [agent.pid()];
    let end = End {
        address: FEEDER,
        asn: FEEDER_ASN,
        hold_time: daemon::HOLD_TIME,
        buffer: 1 << 16,
    };
    let session = stage
        .tester
        .within(|| Session::establish(&end, daemon::ADDRESS))?;
    let mut session = session.with_context(|| agent.log())?;
    let announcer = Announcer {
        asn: FEEDER_ASN,
        ibgp: false,
        address: FEEDER,
    };
    let table = announcer.announce(0..ROUTES, super::PER_SET);
    Usage::wait_idle(&pids)?;
    let before = Usage::of(&pids)?;
    let empty = routes(&stage.daemon)?;
    let start = Instant::now();
    session.writer.write_all(&table)?;
    let full = empty + ROUTES as usize;
    let took = loop {
        let held = routes(&stage.daemon)?;
        if held >= full {
            break start.elapsed().as_secs_f64();
        }
        if start.elapsed() > PATIENCE {
            bail!("the kernel has {held} of {full} routes\n{}", agent.log());
        }
        std::thread::sleep(LOOK);
    };
    let cpu = Usage::of(&pids)?.cpu - before.cpu;
    agent.expect_running()?;
    drop(agent);
    stage
        .daemon
        .run(&["ip", "route", "flush", "via", "10.99.0.2"])?;
    wait::until(PATIENCE, "an empty table", || match routes(&stage.daemon) {
        Ok(held) if held <= empty => Ok(()),
        Ok(held) => Err(format!("{held} routes")),
        Err(error) => Err(error.to_string()),
    })?;
    Ok((took, cpu))
}

/// IPv4 prefixes in the kernel's main table, as it counts them.
fn routes(netns: &Netns) -> Result<usize> {
    let text = netns.within(|| std::fs::read_to_string("/proc/thread-self/net/fib_triestat"))??;
    let counts = text.lines().filter_map(|line| {
        let count = line.trim().strip_prefix("Prefixes:")?;
        count.trim().parse::<usize>().ok()
    });
    // Where a namespace has rules of its own there is one count for each table.
    counts.max().context("fib_triestat")
}
