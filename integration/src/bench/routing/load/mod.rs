//! How long requests take, there and back, that come at a constant rate: wide load, from a few to
//! as many as the nodes themselves nearly don't keep up with.
//!
//! The rates are shares of what the first path, from node to node, answers at most. All paths are
//! asked at the same rates, so that those that take more of the processors for a request have a
//! longer queue, as they would in a cluster. Where that queue only grows, the table says what share
//! of the requests was answered in the time that they took to ask.

mod client;
mod paths;
mod server;

use crate::bench::report::{Better, Row, Series, quantile};
use crate::bench::steal::Steal;
use crate::lab::Lab;
use anyhow::{Context, Result};
use paths::Path;
use std::time::Duration;

const ROUNDS: usize = 10;
/// Time of one measurement.
const TIME: Duration = Duration::from_millis(400);
/// How often, and for how long, it is measured how many requests are answered at most.
const TRIES: usize = 5;
const TRY: Duration = Duration::from_millis(200);
/// Octets of an answer.
const REPLIES: [usize; 2] = [100, 4096];
/// Percents of the most that the nodes themselves answer.
const PERCENTS: [u32; 3] = [30, 50, 80];
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)];
/// The least share of the requests that a path has answered in their time if it keeps up: the
/// answer to the last one is always late.
const KEEPS_UP: f64 = 0.9;

/// One measurement of one path.
#[derive(Debug, Clone, Copy)]
struct Taken {
    /// The latency at each of [`QUANTILES`].
    quantiles: [f64; QUANTILES.len()],
    /// Answers in a second, as a share of the requests.
    answered: f64,
}

pub(in crate::bench) fn run() -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let mut paths = paths::build(&lab)?;
    let steal = Steal::now();
    let mut rows = Vec::new();
    for reply in REPLIES {
        let most = most(&mut paths, reply)?;
        let host = quantile(&most[0], 0.5);
        let shares = PERCENTS.map(|percent| (percent, host * f64::from(percent) / 100.0));
        let words = shares.map(|(percent, rate)| format!("{percent} % are {rate:.0}/s"));
        println!(
            "answers of {reply} octets: {host:.0}/s at most from node to node; {}",
            words.join(", ")
        );
        rows.extend(most_rows(&paths, reply, &most, steal.share_since()));
        // By share, path and round.
        let mut taken: Vec<Vec<Vec<Taken>>> = vec![vec![Vec::new(); paths.len()]; shares.len()];
        for _ in 0..ROUNDS {
            for ((_, rate), taken) in shares.iter().zip(&mut taken) {
                for (path, taken) in paths.iter_mut().zip(taken) {
                    let load = path.line.load(reply, *rate, TIME);
                    let load = load.with_context(|| path.name.to_owned())?;
                    taken.push(Taken {
                        quantiles: QUANTILES.map(|(_, q)| quantile(&load.latencies, q)),
                        answered: load.per_second / rate,
                    });
                }
            }
        }
        for ((percent, _), taken) in shares.iter().zip(&taken) {
            let name = |path: &Path| format!("load_{}_{reply}_{percent}", path.name);
            rows.extend(share_rows(&paths, name, taken, steal.share_since()));
        }
        print!("{}", table(&paths, &taken));
    }
    Ok(rows)
}

/// What each path answers in a second at most, taken in turn.
fn most(paths: &mut [Path], reply: usize) -> Result<Vec<Vec<f64>>> {
    let mut most = vec![Vec::new(); paths.len()];
    for _ in 0..TRIES {
        for (path, most) in paths.iter_mut().zip(&mut most) {
            let answers = path.line.greatest(reply, TRY);
            most.push(answers.with_context(|| path.name.to_owned())?);
        }
    }
    Ok(most)
}

fn most_rows(paths: &[Path], reply: usize, most: &[Vec<f64>], steal: f64) -> Vec<Row> {
    let others = paths.iter().zip(most).skip(1);
    let row = |(path, ours): (&Path, &Vec<f64>)| {
        let mut series = Series::default();
        for (ours, host) in ours.iter().zip(&most[0]) {
            series.push(*ours, *host);
        }
        let name = format!("load_{}_{reply}_most", path.name);
        Row {
            better: Better::Higher,
            ..series.row(&name, "/s", "node to node", steal, None)
        }
    };
    others.map(row).collect()
}

/// The rows of one rate: each path beside the first.
fn share_rows(
    paths: &[Path],
    name: impl Fn(&Path) -> String,
    taken: &[Vec<Taken>],
    steal: f64,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for (path, ours) in paths.iter().zip(taken).skip(1) {
        for (at, (suffix, _)) in QUANTILES.iter().enumerate() {
            let mut series = Series::default();
            for (ours, host) in ours.iter().zip(&taken[0]) {
                series.push(ours.quantiles[at], host.quantiles[at]);
            }
            let name = format!("{}_{suffix}_us", name(path));
            rows.push(series.row(&name, "us", "node to node", steal, None));
        }
    }
    rows
}

/// The medians of the rounds as a table: a line for each path, a column for each rate.
fn table(paths: &[Path], taken: &[Vec<Vec<Taken>>]) -> String {
    let mut text = "| path | p50 / p99 / p99.9 in us at".to_owned();
    text += &PERCENTS.map(|percent| format!(" {percent} % |")).concat();
    text += &format!("\n|---|{}\n", "---|".repeat(PERCENTS.len()));
    for (number, path) in paths.iter().enumerate() {
        text += &format!("| {} |", path.name);
        for at_rate in taken {
            let rounds = &at_rate[number];
            let median = |of: &dyn Fn(&Taken) -> f64| {
                let values: Vec<f64> = rounds.iter().map(of).collect();
                quantile(&values, 0.5)
            };
            let cells = (0..QUANTILES.len()).map(|at| median(&|taken| taken.quantiles[at]));
            let cells: Vec<String> = cells.map(|cell| format!("{cell:.0}")).collect();
            text += &format!(" {}", cells.join(" / "));
            let answered = median(&|taken| taken.answered);
            if answered < KEEPS_UP {
                text += &format!(" ({:.0} % answered in time)", answered * 100.0);
            }
            text += " |";
        }
        text.push('\n');
    }
    text
}
