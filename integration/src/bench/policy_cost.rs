//! What policies cost: a packet that asks them all, connections per second, and packets of an
//! established connection.
//!
//! Three nodes route between a client and servers with 0 to 1,000 policies, of which the client
//! is admitted by the last only; 100,000 pods are in their peers. One has our table, one a chain
//! for each policy, asked one after the other, and one has none. All of them stand at once, so
//! that they are measured in turn and nothing is loaded in between.

mod linear;
mod stage;

use super::report::{Better, Row, Series, Target};
use super::steal::Steal;
use crate::lab::Lab;
use anyhow::Result;
use model::{Labels, Protocol, Selector};
use policy::{Compiler, Options};
use stage::{CLIENT, Stage, server};
use std::net::Ipv4Addr;

use super::policy_world::{NAMESPACE, admits, pod};

/// Policies on the servers.
const COUNTS: [u32; 5] = [0, 1, 10, 100, 1000];
const PODS: u32 = 100_000;
/// Members of the peer of one policy.
const MEMBERS: u32 = 100;
const ROUNDS: usize = 15;
const FIRST: u32 = u32::from_be_bytes([10, 246, 0, 0]);
/// The n-th policy allows the n-th selector this port and n more.
const FIRST_PORT: u16 = 20_000;

pub(super) fn run() -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let mut ours = Stage::new(&lab, "ours")?;
    let linear = Stage::new(&lab, "linear")?;
    let plain = Stage::new(&lab, "plain")?;
    let compiler = compiled(&ours.links);
    ours.kernel.nft_replace(compiler.ruleset())?;
    linear::load(&lab, &linear.node)?;
    for stage in [&ours, &linear, &plain] {
        stage.prove(stage.name == "plain")?;
    }
    let mut rows = packets(&ours, &linear)?;
    rows.extend(connections(&ours, &linear, &plain)?);
    Ok(rows)
}

/// The probed port of a server, which its last policy admits.
fn port(count: u32) -> u16 {
    FIRST_PORT + count.saturating_sub(1) as u16
}

/// Packets that no connection is tracked for, so that each of them asks all policies.
fn packets(ours: &Stage, linear: &Stage) -> Result<Vec<Row>> {
    let steal = Steal::now();
    let mut costs = vec![Series::default(); COUNTS.len()];
    for _ in 0..ROUNDS {
        for (series, count) in costs.iter_mut().zip(COUNTS) {
            // The cost of the policies alone; what can't be told from nothing is 1 ns.
            let cost = |stage: &Stage| -> Result<f64> {
                let floor = stage.packet(0)?;
                Ok((stage.packet(count)? - floor).max(1.0))
            };
            series.push(cost(ours)?, cost(linear)?);
        }
    }
    let share = steal.share_since();
    let rows = COUNTS.iter().zip(&costs).skip(1);
    let rows = rows.map(|(count, series)| {
        let what = format!("new_conn_{count}_policies_ns");
        series.row(&what, "ns", "chain per policy", share, Target::Ours(500.0))
    });
    Ok(rows.collect())
}

/// Connections per second, and packets of established ones.
fn connections(ours: &Stage, linear: &Stage, plain: &Stage) -> Result<Vec<Row>> {
    let steal = Steal::now();
    let [
        mut over_none,
        mut beside_linear,
        mut beside_plain,
        mut established,
        mut bulk,
    ]: [Series; 5] = Default::default();
    for _ in 0..ROUNDS {
        let many = ours.connects(1000)?;
        over_none.push(many, ours.connects(0)?);
        beside_linear.push(many, linear.connects(1000)?);
        beside_plain.push(many, plain.connects(1000)?);
        let turns = ours.turns(1000)?;
        established.push(turns, plain.turns(1000)?);
        let stream = ours.stream(1000)?;
        bulk.push(stream, plain.stream(1000)?);
    }
    let share = steal.share_since();
    let row = |series: &Series, what: &str, unit: &str, beside: &str, target: Option<f64>| Row {
        better: Better::Higher,
        ..series.row(what, unit, beside, share, target.map(Target::Ratio))
    };
    Ok(vec![
        row(
            &over_none,
            "connects_1000_policies",
            "/s",
            "no policy",
            Some(0.95),
        ),
        row(
            &beside_linear,
            "connects_linear",
            "/s",
            "chain per policy",
            None,
        ),
        row(&beside_plain, "connects_plain", "/s", "plain veth", None),
        row(&established, "established_turns", "/s", "plain veth", None),
        row(&bulk, "established_mb", "MB/s", "plain veth", Some(0.98)),
    ])
}

/// The members of the peer of one policy.
fn members(number: u32) -> impl Iterator<Item = Ipv4Addr> {
    (0..MEMBERS).map(move |pod| Ipv4Addr::from(FIRST + number * MEMBERS + pod))
}

/// The label of the members of the peer of one policy.
fn group(number: u32) -> (String, String) {
    (format!("g{number}"), String::new())
}

/// Servers behind their policies; the last of each admits the client too.
fn compiled(links: &stage::Links) -> Compiler {
    let mut compiler = Compiler::new(Options {
        drop_log: None,
        ..Options::default()
    });
    compiler.set_namespace(NAMESPACE, Some(Labels::default()));
    for number in 0..PODS / MEMBERS {
        for address in members(number) {
            let (id, pod) = pod(&format!("pod{address}"), [group(number)], address, None);
            compiler.set_endpoint(&id, Some(pod));
        }
    }
    for (at, count) in COUNTS.into_iter().enumerate() {
        let role = ("role".to_owned(), format!("server{count}"));
        let (address, link) = (server(at), links.servers[at]);
        let (id, pod) = pod(&role.1, [role.clone()], address, Some(link));
        compiler.set_endpoint(&id, Some(pod));
        for number in 0..count {
            let peers = Selector::Has(group(number).0);
            let port = FIRST_PORT + number as u16;
            let ports = [(Protocol::Udp, port), (Protocol::Tcp, port)];
            let subject = Selector::Eq(role.0.clone(), role.1.clone());
            let policy = admits(&format!("{}-{number}", role.1), subject, peers, &ports);
            compiler.set_policy(&policy.key(), Some(policy));
        }
    }
    let last = COUNTS.into_iter().filter_map(|count| count.checked_sub(1));
    let (id, pod) = pod("client", last.map(group), CLIENT, Some(links.client));
    compiler.set_endpoint(&id, Some(pod));
    compiler.resolve();
    compiler
}
