//! What a scene is, and how it tells what it sees.

use super::cluster::Cluster;
use crate::lab::probe::Cell;
use anyhow::Result;
use std::fmt::Write;

/// A promise and its evidence.
pub(super) struct Scene {
    /// As in `--scene`.
    pub(super) name: &'static str,
    /// The promise.
    pub(super) title: &'static str,
    /// Whether it needs a kernel with IPIP.
    pub(super) needs_ipip: bool,
    /// Plays it; a short result, or what was missed.
    pub(super) play: fn(&mut Cluster) -> Result<String>,
}

/// Prints a command and what it said.
pub(super) fn saw(command: &str, output: &str) {
    println!("  $ {command}");
    for line in output.lines().filter(|line| !line.trim().is_empty()) {
        println!("    {line}");
    }
}

/// Prints a sentence.
pub(super) fn say(sentence: &str) {
    println!("  {sentence}");
}

/// The cells as a table of who (rows) reached whom (columns): how many attempts of how many.
pub(super) fn grid(cells: &[Cell]) -> String {
    let mut names: Vec<&str> = cells.iter().map(|cell| cell.from.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut text = format!("{:>6}", "");
    for name in &names {
        let _ = write!(text, "{name:>6}");
    }
    for from in &names {
        let _ = write!(text, "\n{from:>6}");
        for to in &names {
            let tried = cells
                .iter()
                .filter(|cell| cell.from == *from && cell.to == *to);
            let (mut good, mut all) = (0, 0);
            for cell in tried {
                all += 1;
                good += usize::from(cell.outcome.is_ok());
            }
            let _ = write!(text, "{:>6}", format!("{good}/{all}"));
        }
    }
    text
}
