//! What it costs to know that the kernel's table is right, and that live connections are: with
//! 5,000 chains and 1,000 sets of 100 members. Times are those of the processor.

use super::policy_world::{FIRST_LINK, cpu_of, local_address, world};
use super::report::{Row, Target};
use super::steal::Steal;
use crate::lab::{Lab, Netns};
use anyhow::{Context, Result, bail, ensure};
use kernel::{Audit, Audited, Kernel};
use policy::program::{Connection, Interface, Packet, Program};
use policy::ruleset::{Op, Ruleset, Statement};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const SETS: u32 = 1000;
const CHAINS: u32 = 5000;
const ROUNDS: usize = 5;
/// The agent's step.
const STEP: Duration = Duration::from_millis(4);
const FLOWS: u32 = 100_000;
/// Flows that the agent judges before it looks at anything else.
const PORTION: u32 = 500;

pub(super) fn rows(lab: &Lab) -> Result<Vec<Row>> {
    let node = lab.netns("audited")?;
    let mut kernel = node.within(Kernel::open)?.context("netlink")?;
    let compiler = world(SETS, CHAINS);
    let table = compiler.ruleset();
    let (sets, chains) = (table.sets.len(), table.chains.len());
    ensure!(
        sets >= SETS as usize && chains >= CHAINS as usize,
        "{sets} sets, {chains} chains"
    );
    kernel.nft_replace(table).context("the table")?;
    let mut rows = audits(&node, &mut kernel, table)?;
    rows.extend(judged(table)?);
    finds_an_edited_rule(&node, &mut kernel, table)?;
    Ok(rows)
}

fn audits(node: &Netns, kernel: &mut Kernel, table: &Ruleset) -> Result<Vec<Row>> {
    let steal = Steal::now();
    let [mut resync, mut headers, mut full, mut step] = [const { vec![] }; 4];
    for _ in 0..ROUNDS {
        let known = kernel.nft_generation()?;
        let (taken, now) = cpu_of(|| kernel.nft_generation());
        ensure!(now? == known, "somebody else writes tables");
        resync.push(taken);
        let (mut all, mut longest, mut of_headers) = (0.0, 0.0_f64, None);
        let mut audit = node.within(Audit::begin)?.context("netlink")?;
        let audited = loop {
            let (taken, progress) = cpu_of(|| audit.step(table, STEP));
            all += taken;
            longest = longest.max(taken);
            if audit.is_past_headers() {
                of_headers.get_or_insert(all);
            }
            if let Some(audited) = progress? {
                break audited;
            }
        };
        ensure!(audited == Audited::Same, "{audited:?}");
        headers.push(of_headers.context("the audit ended before the headers")?);
        full.push(all);
        step.push(longest);
    }
    let share = steal.share_since();
    let row = |what, values: &[f64], target| Row {
        target: Some(Target::Ours(target)),
        ..Row::alone(what, "ms", values, share)
    };
    Ok(vec![
        row("resync_ms", &resync, 0.1),
        row("audit_header_ms", &headers, 50.0),
        row("audit_full_ms", &full, 500.0),
        row("audit_step_ms", &step, 5.0),
    ])
}

/// The verdict of one rule in the middle is another one.
fn finds_an_edited_rule(node: &Netns, kernel: &mut Kernel, table: &Ruleset) -> Result<()> {
    let with_rules = |(_, chain): &(&String, &policy::ruleset::Chain)| {
        chain.hook.is_none() && chain.rules.len() > 1
    };
    let mut chains = table.chains.iter().filter(with_rules);
    let (name, chain) = chains.nth(CHAINS as usize / 2).context("a chain")?;
    let mut rules = chain.rules.clone();
    rules[0].statements.insert(0, Statement::Counter);
    kernel.nft_commit(&[
        Op::FlushChain(name.clone()),
        Op::AddRules(name.clone(), rules),
    ])?;
    let mut audit = node.within(Audit::begin)?.context("netlink")?;
    loop {
        match audit.step(table, STEP)? {
            None => {}
            Some(Audited::Differs(what)) if what.ends_with(name.as_str()) => return Ok(()),
            Some(other) => bail!("the edited rule of {name} was not found: {other:?}"),
        }
    }
}

/// Live connections to this node's pods, as the agent judges them.
fn judged(table: &Ruleset) -> Result<Vec<Row>> {
    let steal = Steal::now();
    let (mut all, mut longest) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        let (mut sum, mut slowest) = (0.0, 0.0_f64);
        for first in (0..FLOWS).step_by(PORTION as usize) {
            let (taken, judged) = cpu_of(|| -> Result<(), _> {
                let program = Program::new(table);
                (first..first + PORTION).try_for_each(|flow| program.run(&packet(flow)).map(drop))
            });
            judged?;
            sum += taken;
            slowest = slowest.max(taken);
        }
        all.push(sum / 1e3);
        longest.push(slowest);
    }
    let share = steal.share_since();
    let row = |what, unit, values: &[f64], target| Row {
        target: Some(Target::Ours(target)),
        ..Row::alone(what, unit, values, share)
    };
    Ok(vec![
        row("judge_100k_s", "s", &all, 1.0),
        row("judge_step_ms", "ms", &longest, 5.0),
    ])
}

/// From somewhere else to one of the pods.
fn packet(flow: u32) -> Packet {
    let pod = flow % CHAINS;
    let interface = |index, name: String| Some(Interface { index, name });
    Packet {
        iif: interface(2, "eth0".to_owned()),
        oif: interface(FIRST_LINK + pod, format!("oci{pod}")),
        source: IpAddr::V4(Ipv4Addr::from(
            u32::from_be_bytes([10, 128, 0, 0]) + flow % 20_000,
        )),
        destination: IpAddr::V4(local_address(pod)),
        original_destination: None,
        protocol: 6,
        ports: Some((40_000, 80)),
        icmp: None,
        connection: Connection::New,
        mark: 0,
    }
}
