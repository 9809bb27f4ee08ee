//! What the way from pod to pod costs, on one node and over two, beside the same made by hand:
//! routed veths, a bridge, a VXLAN.
//!
//! All stages stand at once and are measured in turn. Ours have 1,000 policies on the pods, of which
//! one admits the client; those made by hand track connections and have none.

mod hand;
pub(super) mod load;
mod ours;
mod pair;
mod scale;
mod told;

use super::report::{Better, Row, Series, Target, quantile};
use super::steal::Steal;
use crate::lab::Lab;
use crate::vm::kernel_has_ipip;
use anyhow::Result;
use pair::Pair;

const ROUNDS: usize = 12;

/// How packets get from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Native,
    Ipip,
    Vxlan,
}

/// What is measured, beside what.
struct Contest<'a> {
    name: &'a str,
    beside: &'a str,
    ours: &'a Pair,
    theirs: &'a Pair,
    /// Least ratio of throughput, and of connections.
    targets: [f64; 2],
}

pub(super) fn run() -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let routed = hand::one_node(&lab, hand::Between::Routes)?;
    let bridge = hand::one_node(&lab, hand::Between::Bridge)?;
    let mut ways = vec![Way::Native, Way::Vxlan];
    match kernel_has_ipip()? {
        true => ways.push(Way::Ipip),
        false => println!("tcp_two_nodes_ipip and its like: left out, this kernel has no ipip"),
    }
    let ours: Vec<ours::Cluster> = ways
        .iter()
        .map(|way| ours::Cluster::start(&lab, *way))
        .collect::<Result<_>>()?;
    let by_hand: Vec<Pair> = ways
        .iter()
        .map(|way| hand::two_nodes(&lab, *way, hand::Between::Routes))
        .collect::<Result<_>>()?;
    let one = &ours[0].one_node;
    let mut contests = vec![
        contest(
            "one_node_native",
            "routed veths",
            one,
            &routed,
            [0.98, 0.95],
        ),
        contest(
            "one_node_beside_bridge",
            "a bridge",
            one,
            &bridge,
            [1.0, 1.0],
        ),
    ];
    for ((way, ours), theirs) in ways.iter().zip(&ours).zip(&by_hand) {
        let (name, beside) = match way {
            Way::Native => ("two_nodes_native", "routes by hand"),
            Way::Ipip => ("two_nodes_ipip", "IPIP by hand"),
            Way::Vxlan => ("two_nodes_vxlan", "VXLAN by hand"),
        };
        contests.push(contest(name, beside, &ours.two_nodes, theirs, [0.98, 0.95]));
    }
    let mut rows = Vec::new();
    for contest in contests {
        rows.extend(contest.rows()?);
    }
    rows.extend(scale::rows(&lab)?);
    Ok(rows)
}

fn contest<'a>(
    name: &'a str,
    beside: &'a str,
    ours: &'a Pair,
    theirs: &'a Pair,
    targets: [f64; 2],
) -> Contest<'a> {
    Contest {
        name,
        beside,
        ours,
        theirs,
        targets,
    }
}

impl Contest<'_> {
    fn rows(&self) -> Result<Vec<Row>> {
        let steal = Steal::now();
        let [mut stream, mut connects, mut middle, mut tail]: [Series; 4] = Default::default();
        for _ in 0..ROUNDS {
            stream.push(self.ours.stream()?, self.theirs.stream()?);
            connects.push(self.ours.connects()?, self.theirs.connects()?);
            let (ours, theirs) = (self.ours.turns()?, self.theirs.turns()?);
            middle.push(quantile(&ours, 0.5), quantile(&theirs, 0.5));
            tail.push(quantile(&ours, 0.99), quantile(&theirs, 0.99));
        }
        let share = steal.share_since();
        let row = |series: &Series, what: &str, unit: &str, target: Option<f64>| {
            let what = format!("{what}_{}", self.name);
            series.row(&what, unit, self.beside, share, target.map(Target::Ratio))
        };
        let higher = |row: Row| Row {
            better: Better::Higher,
            ..row
        };
        let [throughput, connections] = self.targets;
        Ok(vec![
            higher(row(&stream, "tcp", "MB/s", Some(throughput))),
            higher(row(&connects, "cps", "/s", Some(connections))),
            row(&middle, "rtt_p50", "us", None),
            row(&tail, "rtt_p99", "us", None),
        ])
    }
}
