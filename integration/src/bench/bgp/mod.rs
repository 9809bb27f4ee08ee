//! The speaker on its own beside BIRD 2 and FRR, all in the same run: a feeder, the daemon, and
//! sinks that count.

mod cell;
mod daemon;
mod discard;
mod forwarding;
mod mesh;
mod session;
mod usage;
mod wire;

use super::report::{Row, Series, Target, quantile};
use super::steal::Steal;
use anyhow::Result;
use cell::{Outcome, Shape, Stage};
use daemon::Kind;

/// Rounds: fewer than elsewhere, since each is a minute.
const ROUNDS: usize = 5;
/// Prefixes with each attribute set, as in the tables of the Internet.
const PER_SET: u32 = 8;

/// A million prefixes to one sink, then single routes, then the end of all of them.
const FULL_TABLE: Shape = Shape {
    prefixes: 1_000_000,
    per_set: PER_SET,
    sinks: 1,
    singles: 100,
};

const FANOUT_LARGE: Shape = Shape {
    prefixes: 100_000,
    per_set: PER_SET,
    sinks: 30,
    singles: 0,
};

const FANOUT_SMALL: Shape = Shape {
    prefixes: 10_000,
    ..FANOUT_LARGE
};

pub(super) fn run() -> Result<Vec<Row>> {
    let mut rows = converge()?;
    rows.extend(fanout()?);
    rows.extend(mesh()?);
    Ok(rows)
}

/// A node of a mesh of a thousand, and of one with 5,000 prefixes.
pub(super) fn mesh() -> Result<Vec<Row>> {
    const LARGE: u16 = 1000;
    const SMALL: u16 = 79;
    let stage = Stage::new()?;
    stage.add_addresses((0..LARGE).map(mesh::address))?;
    let steal = Steal::now();
    let large = mesh::measure(&stage, LARGE)?;
    let small = mesh::measure(&stage, SMALL)?;
    let steal = steal.share_since();
    let row = |what: &str, unit: &str, value: f64, target: Option<f64>| Row {
        target: target.map(Target::Ours),
        ..Row::alone(what, unit, &[value], steal)
    };
    Ok(vec![
        row("mesh_1000_s", "s", large.converge, None),
        row("mesh_1000_mib", "MiB", large.resident, Some(64.0)),
        row("mesh_1000_silence_s", "s", large.silence, None),
        row("mesh_1000_late", "keepalives", large.late as f64, Some(0.0)),
        row("mesh_5k_mib", "MiB", small.resident - small.base, Some(5.0)),
    ])
}

/// Routes into the kernel by way of the agent.
pub(super) fn fib() -> Result<Vec<Row>> {
    let stage = Stage::new()?;
    let steal = Steal::now();
    let (mut took, mut cpu) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (seconds, processor) = forwarding::measure(&stage, round)?;
        took.push(seconds);
        cpu.push(processor);
    }
    let steal = steal.share_since();
    Ok(vec![
        Row {
            target: Some(Target::Ours(0.5)),
            ..Row::alone("fib_100k_s", "s", &took, steal)
        },
        Row::alone("fib_100k_cpu_s", "s", &cpu, steal),
    ])
}

/// A full table through one daemon.
pub(super) fn converge() -> Result<Vec<Row>> {
    let stage = Stage::new()?;
    let mut rows = vec![discard::row(&stage, &FULL_TABLE)?];
    let singles = |q: f64| move |outcome: &Outcome| quantile(&outcome.singles, q);
    let columns: [Column<'_>; 6] = [
        ("converge_1m_s", "s", &|o| o.converge, Target::Ratio(1.0)),
        ("converge_1m_cpu_s", "s", &|o| o.cpu, Target::Ratio(1.0)),
        ("converge_1m_mib", "MiB", &|o| o.peak, Target::Ratio(1.0)),
        ("route_p50_ms", "ms", &singles(0.5), Target::Ours(0.2)),
        ("route_p99_ms", "ms", &singles(0.99), Target::Ours(0.4)),
        ("withdraw_1m_s", "s", &|o| o.withdraw, Target::Ours(0.26)),
    ];
    rows.extend(compare(&stage, &FULL_TABLE, &columns)?);
    Ok(rows)
}

/// The same to thirty.
pub(super) fn fanout() -> Result<Vec<Row>> {
    let stage = Stage::new()?;
    let large: [Column<'_>; 3] = [
        ("fanout_100k_30_s", "s", &|o| o.converge, Target::Ours(1.2)),
        ("fanout_100k_30_cpu_s", "s", &|o| o.cpu, Target::Ours(0.9)),
        ("fanout_100k_30_mib", "MiB", &|o| o.peak, Target::Ours(40.0)),
    ];
    let small: [Column<'_>; 3] = [
        ("fanout_10k_30_s", "s", &|o| o.converge, Target::Ours(0.2)),
        ("fanout_10k_30_cpu_s", "s", &|o| o.cpu, Target::Ours(0.1)),
        ("fanout_10k_30_mib", "MiB", &|o| o.peak, Target::Ours(12.0)),
    ];
    let mut rows = compare(&stage, &FANOUT_LARGE, &large)?;
    rows.extend(compare(&stage, &FANOUT_SMALL, &small)?);
    Ok(rows)
}

/// A row: name, unit, what of an outcome, target.
type Column<'a> = (&'a str, &'a str, &'a dyn Fn(&Outcome) -> f64, Target);

/// Measures all daemons in turn; every row comes once beside each of the others.
fn compare(stage: &Stage, shape: &Shape, columns: &[Column<'_>]) -> Result<Vec<Row>> {
    const OTHERS: [Kind; 2] = [Kind::Bird, Kind::Frr];
    let steal = Steal::now();
    let mut outcomes = Vec::new();
    for round in 0..ROUNDS {
        // Who goes first changes.
        let mut order = [Kind::Ours, Kind::Bird, Kind::Frr];
        let turn = round % order.len();
        order.rotate_left(turn);
        let mut measured = Vec::new();
        for kind in order {
            measured.push((kind, stage.measure(kind, shape)?));
        }
        outcomes.push(measured);
    }
    let steal = steal.share_since();
    let of = |round: &[(Kind, Outcome)], kind: Kind, value: &dyn Fn(&Outcome) -> f64| {
        let outcome = round.iter().find(|(measured, _)| *measured == kind);
        outcome.map_or(f64::NAN, |(_, outcome)| value(outcome))
    };
    let mut rows = Vec::new();
    for (what, unit, value, target) in columns {
        for other in OTHERS {
            let mut series = Series::default();
            for round in &outcomes {
                series.push(of(round, Kind::Ours, value), of(round, other, value));
            }
            let target = (other == Kind::Bird).then_some(*target);
            rows.push(series.row(what, unit, other.name(), steal, target));
        }
    }
    Ok(rows)
}
